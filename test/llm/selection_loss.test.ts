import { beforeAll, describe, expect, it } from 'vitest';
import { backward, HostRandom, randomKey, scope, tensor } from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { parseTransformerConfig } from '../../llm/config.ts';
import type { LayerConfig } from '../../llm/config.ts';
import { drawQueries, selectionLoss } from '../../llm/selection_loss.ts';
import { plainDevice } from '../device.ts';

const [B, T, H, KV, D] = [2, 45, 4, 2, 4];
const [BLOCK, FANOUT, WINDOW] = [3, 2, 5];
const SCALE = 0.7;
const layer = (sinks: number): LayerConfig => ({ window: WINDOW, sinks, rope: null, tree: { block: BLOCK, fanout: FANOUT, beam: 2, summary: 'pooled' } }); // prettier-ignore

/** From the definition, in float64: a query, a key head, a level, a node after the other. `mass` is held as it is. */
function reference(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  positions: Int32Array,
  sinks: number,
  held: ArrayLike<number>[] = [q, k],
): number {
  const r = positions.length / B;
  const dot = (q: ArrayLike<number>, k: (d: number) => number, b: number, i: number, h: number) => {
    let product = 0;
    for (let d = 0; d < D; d++) product += q[((b * T + i) * H + h) * D + d]! * k(d);
    return product * SCALE;
  };
  const key = (k: ArrayLike<number>, b: number, j: number, g: number) => (d: number) =>
    k[((b * T + j) * KV + g) * D + d]!;
  let loss = 0;
  let queries = 0;
  positions.forEach((i, at) => {
    if (i < 0) return;
    queries++;
    const b = Math.floor(at / r);
    const begin = BLOCK * Math.floor(Math.max(0, i - WINDOW + 1) / BLOCK);
    for (let g = 0; g < KV; g++) {
      const heads = [g * (H / KV), g * (H / KV) + 1];
      const masses = new Float64Array(T);
      for (const h of heads) {
        const scores = Array.from({ length: i + 1 }, (_, j) =>
          Math.exp(dot(held[0]!, key(held[1]!, b, j, g), b, i, h)),
        );
        const whole = scores.reduce((a, c) => a + c);
        scores.forEach((score, j) => (masses[j]! += score / whole / heads.length));
      }
      for (let j = 0; j < BLOCK * Math.ceil(sinks / BLOCK); j++) masses[j] = 0;
      for (let span = BLOCK; span <= begin; span *= FANOUT) {
        const nodes = Array.from({ length: Math.floor(begin / span) }, (_, n) => {
          const keys = Array.from({ length: span }, (_, j) => n * span + j);
          const summary = (d: number) => keys.reduce((sum, j) => sum + key(k, b, j, g)(d), 0) / span;
          return {
            mass: keys.reduce((sum, j) => sum + masses[j]!, 0),
            score: Math.sqrt(span) * Math.max(...heads.map((h) => dot(q, summary, b, i, h))),
          };
        }).slice(span === BLOCK ? Math.ceil(sinks / BLOCK) : 0);
        const all = nodes.reduce((sum, { mass }) => sum + mass, 0);
        const total = Math.log(nodes.reduce((sum, { score }) => sum + Math.exp(score), 0));
        for (const { mass, score } of nodes) if (mass > 0) loss += mass * (Math.log(mass / all) - score + total);
      }
    }
  });
  return loss / (queries * KV);
}

describe('the loss of selection', () => {
  let device: Device;
  beforeAll(async () => {
    device = await plainDevice();
  });
  const random = new HostRandom(randomKey(1, 'selection'));
  const [q, k] = [random.normal(B * T * H * D), random.normal(B * T * KV * D)];
  const config = parseTransformerConfig({
    model_type: 'dawngrad',
    vocab_size: 4,
    hidden_size: 16,
    intermediate_size: 4,
    num_hidden_layers: 1,
    num_attention_heads: H,
    num_key_value_heads: KV,
    max_position_embeddings: 64,
    layer_types: ['tree_attention'],
    sliding_window: WINDOW,
    tree: { block: BLOCK, fanout: FANOUT, beam: 2 },
  });
  const draw = (lengths: readonly number[]) => drawQueries(device, config, lengths, T, random);

  it.each([0, 4])('and its gradient are those of the definition in float64, with %i sinks', async (sinks) => {
    const [x, y] = [tensor(device, q, [B, T, H, D]), tensor(device, k, [B, T, KV, D])];
    x.requiresGrad = y.requiresGrad = true;
    const { loss, positions } = scope(device, () => {
      const drawn = draw([45, 19])!;
      const loss = selectionLoss(x, y, layer(sinks), SCALE, drawn);
      backward(loss, tensor(device, [1.7], []));
      return { loss, positions: drawn.positions };
    });
    expect([...positions].filter((i) => i < 0)).toHaveLength(45 - 19);
    const expected = reference(q, k, positions, sinks);
    expect(expected).toBeGreaterThan(0.3);
    expect(Math.abs((await loss.read())[0]! / expected - 1)).toBeLessThan(1e-5); // sums of some 10⁴ terms in f32
    for (const [values, other, of, gradient] of [
      [q, k, 0, await x.grad!.read()],
      [k, q, 1, await y.grad!.read()],
    ] as const) {
      const largest = Math.max(...Array.from(gradient, Math.abs));
      for (let n = 0; n < 60; n++) {
        const i = random.below(values.length);
        const at = (step: number) => {
          const moved = Float64Array.from(values);
          moved[i]! += step;
          return of === 0 ? reference(moved, other, positions, sinks, [q, k]) : reference(other, moved, positions, sinks, [q, k]); // prettier-ignore
        };
        const slope = (1.7 * (at(1e-5) - at(-1e-5))) / 2e-5;
        // The differences' own error is about 1e-9; the gradient is a sum in f32 of terms up to the largest.
        expect(Math.abs(gradient[i]! - slope)).toBeLessThan(1e-5 * largest);
      }
    }
  });

  it('is 0 where the scores say what the mass is: keys that are all the same', async () => {
    const same = new Float32Array(k.length).fill(0.3);
    const loss = scope(device, () => {
      const inputs = [tensor(device, q, [B, T, H, D]), tensor(device, same, [B, T, KV, D])] as const;
      return selectionLoss(...inputs, layer(0), SCALE, draw([T, T])!);
    });
    expect(Math.abs((await loss.read())[0]!)).toBeLessThan(1e-6);
  });

  it('draws queries that have a choice, each once, and none where no text has any', () => {
    const { positions, rows } = scope(device, () => draw([45, 12, 5])!);
    const first = WINDOW + 2 * BLOCK - 1;
    expect(rows.shape).toEqual([3 * (45 - first)]);
    expect([...positions.subarray(0, 45 - first)].sort((a, b) => a - b)).toEqual(Array.from({ length: 45 - first }, (_, i) => first + i)); // prettier-ignore
    expect([...positions.subarray(45 - first)].filter((i) => i >= 0).sort((a, b) => a - b)).toEqual([10, 11]);
    expect(draw([first, 3])).toBeNull();
  });
});
