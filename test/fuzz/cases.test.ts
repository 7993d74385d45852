import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Device } from '../../engine/index.ts';
import { guardedDevice } from '../device.ts';
import { makeInputs, rows } from '../kernels/rows.ts';
import type { AnyRow, AnySample } from '../kernels/rows.ts';
import { cases, checkCase, written } from './cases.ts';
import type { Case } from './cases.ts';

let device: Device;
beforeAll(async () => {
  device = await guardedDevice();
});

const one: Case = { sample: { inputs: [[3], [2, 3]], attributes: {} }, kind: 'special', half: false, seed: 4 };

describe('a fuzzed case', () => {
  it('is written as a sample that makes the same inputs', () => {
    const sample = new Function(`return ${written(one).replace(/,$/, '').replaceAll('[i]!', '[i]')}`)() as AnySample;
    expect(makeInputs(sample, 0).map((input) => input!.shape)).toEqual([[3], [2, 3]]);
    expect(written({ ...one, sample, kind: 'normal' })).toBe(written(one));
  });

  it.each(['special', 'zeros', 'equal', 'tiny', 'huge', 'far from zero', 'normal'] as const)(
    'holds for add with values that are %s',
    async (kind) => {
      await checkCase(device, 'add', { ...one, kind });
    },
  );

  it('fails where a result is off by more than rounding', async () => {
    const add = rows.get('add')! as { -readonly [K in keyof AnyRow]: AnyRow[K] };
    const { reference } = add;
    add.reference = (inputs, attributes) => {
      const result = reference(inputs, attributes);
      return { ...result, data: result.data.map((value) => value * (1 + 2 ** -14)) };
    };
    try {
      for (const kind of ['special', 'tiny', 'huge'] as const)
        await expect(checkCase(device, 'add', { ...one, kind })).rejects.toThrow(/add, values .*: element \d is/);
    } finally {
      add.reference = reference;
    }
  });

  it('comes of any kind, for every row', () => {
    for (const [name, row] of rows) {
      const sampled = fc.sample(cases(row), { numRuns: 60, seed: 1 });
      expect(new Set(sampled.map(({ kind }) => kind)).size, name).toBe(7);
      if (row.f16 === 'none') expect(sampled.some(({ half }) => half)).toBe(false);
    }
  });
});
