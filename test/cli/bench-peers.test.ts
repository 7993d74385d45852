import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { describeCase, readCases } from '../../cli/bench/cases.ts';
import type { Case } from '../../cli/bench/cases.ts';
import { dispatchCosts } from '../../cli/bench/dispatch.ts';
import { formatRows, PASSES, PEER_CASES } from '../../cli/bench/peers.ts';
import type { Row } from '../../cli/bench/peers.ts';
import { caseData, permute, sumOfSquares } from '../../cli/bench/peers/engine.ts';
import { onnxModel } from '../../cli/bench/peers/onnx.ts';
import { open } from '../../cli/bench/peers/ours.ts';
import { sizeOf } from '../../engine/index.ts';
import { plainDevice } from '../device.ts';

describe('the comparison with other engines', () => {
  it('runs us on the same numbers as them, in every pass', async () => {
    const engine = await open(() => null);
    const c: Case = { name: 'product', op: 'matmul', m: 6, k: 5, n: 4 };
    const { inputs, upstream } = caseData(c);
    const [a, b] = inputs.map(({ data }) => data) as [Float32Array, Float32Array];
    /** Sum of squares of x (rows, inner) · y (inner, columns), each read by its own rule. */
    const squares = (
      rows: number,
      inner: number,
      columns: number,
      x: (i: number, j: number) => number,
      y: (i: number, j: number) => number,
    ) => {
      // prettier-ignore
      let total = 0;
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < columns; j++) {
          let value = 0;
          for (let e = 0; e < inner; e++) value += x(i, e) * y(e, j);
          total += value ** 2;
        }
      return total;
    };
    const A = (i: number, j: number) => a[5 * i + j]!;
    const B = (i: number, j: number) => b[4 * i + j]!;
    const G = (i: number, j: number) => upstream[4 * i + j]!;
    const forward = squares(6, 5, 4, A, B);
    const gradient = squares(6, 4, 5, G, (i, j) => B(j, i)) + squares(5, 6, 4, (i, j) => A(j, i), G);
    for (const [pass, expected] of Object.entries({ forward, copies: forward, gradient })) {
      const prepared = (await engine(c, pass as Row['pass']))!;
      await prepared.run();
      expect((await prepared.check()) / expected).toBeCloseTo(1, 5);
      prepared.release();
    }
  });

  it('gives data in other layouts', () => {
    const data = Float32Array.from({ length: 24 }, (_, i) => i);
    const moved = permute(data, [2, 3, 4], [2, 0, 1]); // (4, 2, 3)
    for (let i = 0; i < 2; i++)
      for (let j = 0; j < 3; j++)
        for (let k = 0; k < 4; k++) expect(moved[(k * 2 + i) * 3 + j]).toBe(data[(i * 3 + j) * 4 + k]);
    expect(sumOfSquares(moved)).toBe(sumOfSquares(data));
    expect(sumOfSquares([1, 2], [3])).toBe(14);
  });

  it('writes models as ONNX has them', () => {
    const model = onnxModel([{ type: 'Softmax', inputs: ['x'], outputs: ['y'] }], { x: [300] }, { y: [300] });
    // version 9; operator sets '' 17 and 'com.microsoft' 1; then the graph's length, and its node: x → y, Softmax
    const head = [8, 9, 66, 4, 10, 0, 16, 17, 66, 17, 10, 13, ...Buffer.from('com.microsoft'), 16, 1, 58];
    expect([...model.slice(0, head.length)]).toEqual(head);
    const rest = model.slice(head.length);
    expect(rest[0]).toBe(rest.length - 1);
    expect([...rest.slice(1, 18)]).toEqual([10, 15, 10, 1, 120, 18, 1, 121, 34, 7, ...Buffer.from('Softmax')]);
    // the input: a name, and a tensor type of f32 with one extent: 300 = 44 + 2 · 128
    const value = [90, 16, 10, 1, 120, 18, 11, 10, 9, 8, 1, 18, 5, 10, 3, 8, 172, 2];
    expect(Buffer.from(rest).includes(Buffer.from(value))).toBe(true);
  });

  it('shows a table a pass, with a cross where a target is missed', () => {
    const row: Row = {
      name: 'product', pass: 'forward', target: 2, differs: { ort: 0.05 },
      ms: { ours: 2, ort: 3, tfjs: 8, jax: { error: 'out of luck' } }, least: { ours: 1, ort: 2.5, tfjs: 7 },
      ratio: 1.5, leastRatio: 2.5,
    }; // prettier-ignore
    const text = formatRows([
      row,
      { ...row, pass: 'gradient', ms: { ours: 2 }, ratio: null, leastRatio: null, differs: {} },
    ]);
    expect(text).toContain('| product | 2.00 | 3.00 | 8.00 | fails | 1.50 ✗ | 2.50 | 2 |');
    expect(text).toContain('| product | 2.00 | – | – | – | – | 2 |');
    expect(text).toContain('jax fails on product, forward: out of luck');
    expect(text).toContain('ort computes something else on product, forward: Σ y² differs by 5.0 %');
    expect(text.match(/^\| case /gm)).toHaveLength(2);
  });

  it('has cases that a file may hold as well', async () => {
    for (const c of PEER_CASES) {
      const { inputs, output, flops } = describeCase(c);
      for (const shape of [...inputs, output]) expect(sizeOf(shape)).toBeGreaterThan(0);
      expect(flops).toBeGreaterThan(0);
    }
    expect(new Set(PEER_CASES.map(({ name }) => name)).size).toBe(PEER_CASES.length);
    expect(PASSES).toHaveLength(3);
    await expect(readCases('nowhere.json')).rejects.toThrow(/cannot be read/);
  });

  it('is installed apart: none of the peers is a dependency of the project', async () => {
    const read = async (file: string) =>
      JSON.parse(await readFile(path.join(import.meta.dirname, '../..', file), 'utf8')) as Record<string, Record<string, string>>; // prettier-ignore
    const [own, peers] = [await read('package.json'), await read('cli/bench/peers/package.json')];
    for (const [name, version] of Object.entries(peers['dependencies']!)) {
      expect({ ...own['dependencies'], ...own['devDependencies'] }).not.toHaveProperty([name]);
      expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    }
  });
});

describe("a dispatch's cost", () => {
  it('is measured with warm caches, eager and replayed', async () => {
    const device = await plainDevice();
    const costs = await dispatchCosts(device, 200);
    expect(costs.map(({ how, dispatches, made }) => ({ how, dispatches, made }))).toEqual([
      { how: 'eager', dispatches: 200, made: 0 },
      { how: 'replayed', dispatches: 200, made: 0 },
    ]);
    for (const { recorded, done } of costs) {
      expect(recorded).toBeGreaterThan(0);
      expect(done).toBeGreaterThanOrEqual(recorded);
    }
  });
});
