/**
 * Reading a prompt and decoding a token, timed: fused kernels, composed operations, and a captured step, in turn; beside what
 * reading the weights and the cache takes at the rate of a copy. `node cli/bench.js decode`.
 */
import {
  byteLength,
  capture,
  HostRandom,
  isStorageFormat,
  noGrad,
  randomKey,
  release,
  scope,
  tensor,
  write,
  zeros,
} from '../../engine/index.ts';
import type { Device } from '../../engine/index.ts';
import { cacheBytes, KeyValueCache } from '../../llm/cache.ts';
import type { CacheFormat } from '../../llm/cache.ts';
import { Transformer } from '../../llm/model.ts';
import { quantize } from '../../kernels/index.ts';
import type { WeightFormat } from '../../nn/module.ts';

export interface DecodeBenchOptions {
  readonly width: number;
  readonly layers: number;
  readonly batch: number;
  /** Tokens that are in the cache already. */
  readonly context: number;
  readonly weights: readonly WeightFormat[];
  readonly cache: CacheFormat;
  /** Steps of each way. */
  readonly steps: number;
}

const VOCABULARY = 4096;

/** A Llama's proportions: heads of 64, a quarter as many key heads, hidden 8/3 of the width. */
export const llamaShape = ({ width, layers, context }: { width: number; layers: number; context: number }) => ({
  model_type: 'llama',
  vocab_size: VOCABULARY,
  hidden_size: width,
  intermediate_size: Math.ceil((8 * width) / 3 / 64) * 64,
  num_hidden_layers: layers,
  num_attention_heads: width / 64,
  num_key_value_heads: Math.max(1, width / 256),
  max_position_embeddings: context,
  rms_norm_eps: 1e-5,
});

export interface DecodeBench {
  /** `prompt`: as many tokens as the cache has then. */
  readonly way: 'prompt' | 'composed' | 'fused' | 'replayed';
  /** Milliseconds of a step: the median, and the fastest. */
  readonly ms: number;
  readonly min: number;
  /** Of the processor's time, of all threads (on a software adapter, what else the machine does is not in it): the median. */
  readonly processor: number;
  readonly dispatches: number;
}

/** Weights and cached keys and values that a token reads, in bytes: the least that any way must. */
function bytesRead(model: Transformer, { batch, context, cache: dtype }: DecodeBenchOptions): number {
  const { config } = model;
  let weights = 0;
  for (const [name, { size, dtype }] of model.namedParameters())
    if (name !== 'model.embed_tokens.weight' || config.tied) weights += byteLength(size, dtype);
  return weights + cacheBytes(config, { batch, capacity: context, dtype });
}

export interface DecodeResult {
  readonly weights: WeightFormat;
  readonly ways: readonly DecodeBench[];
  /** What a token reads: see `bytesRead`. */
  readonly bytes: number;
}

/** Times the ways in turn, a step of each, on random weights. */
export async function benchDecode(
  device: Device,
  options: DecodeBenchOptions,
  weights: WeightFormat,
): Promise<DecodeResult> {
  const { batch, context, cache: dtype, steps } = options;
  const model = Transformer.fromConfig(device, llamaShape({ ...options, context: context + steps + 8 }));
  model.initialize(1);
  model.setTrainable(false);
  for (const [path, { shape, size }] of weights === 'f32' ? [] : [...model.namedParameters()]) {
    if (shape.length !== 2) continue;
    const values = new HostRandom(randomKey(1, path)).normal(size).map((value) => value / Math.sqrt(shape[1]!));
    const stored = isStorageFormat(weights) ? quantize(device, values, shape, weights) : tensor(device, values, shape, { dtype: weights }); // prettier-ignore
    model.replaceParameters(new Map([[path, stored]]));
  }
  const cache = new KeyValueCache(device, model.config, { batch, capacity: context + steps + 8, dtype });
  for (const { keys, values } of cache.layers) for (const each of [keys, values]) device.stream.clear(each.window());
  const ids = zeros(device, [batch, 1], 'i32');
  const at = (length: number) => {
    cache.lengths.fill(length);
    return cache.step(1);
  };
  const step = (length: number, composed: boolean) => {
    const step = at(length);
    return noGrad(device, () => scope(device, () => model.logits(model.forward(ids, { step, composed }))));
  };
  const eager = (composed: boolean) => async (length: number) => {
    const logits = step(length, composed);
    await logits.read();
    release(logits);
  };
  await eager(false)(context);
  const captured = at(context);
  const replay = capture(device, () => noGrad(device, () => model.logits(model.forward(ids, { step: captured }))));
  const prompt = tensor(
    device,
    new Int32Array(batch * context).map((_, i) => i % VOCABULARY),
    [batch, context],
  );
  const ways = {
    prompt: async () => {
      cache.lengths.fill(0);
      const step = cache.step(context);
      noGrad(device, () => scope(device, () => void model.forward(prompt, { step })));
      await device.drain();
    },
    composed: eager(true),
    fused: eager(false),
    replayed: async (length: number) => {
      at(length);
      replay.run();
      await replay.result.read();
    },
  };
  const found = new Map(
    Object.keys(ways).map((way) => [way, { times: [] as number[], processor: [] as number[], dispatches: 0 }]),
  );
  for (let i = -2; i < steps; i++)
    for (const [way, run] of Object.entries(ways)) {
      write(ids, new Int32Array(batch).fill(Math.abs(i)));
      const before = device.stream.dispatches;
      const [start, used] = [performance.now(), process.cpuUsage()];
      await run(context + Math.max(i, 0));
      const result = found.get(way)!;
      const { user, system } = process.cpuUsage(used);
      if (i >= 0) {
        result.times.push(performance.now() - start);
        result.processor.push((user + system) / 1000);
      }
      result.dispatches = device.stream.dispatches - before;
    }
  const bytes = bytesRead(model, options);
  replay.release();
  cache.release();
  model.release();
  release(ids, prompt);
  const sorted = (times: number[]) => times.sort((a, b) => a - b);
  return {
    weights,
    bytes,
    ways: [...found].map(([way, { times, processor, dispatches }]) => ({
      way: way as DecodeBench['way'],
      ms: sorted(times)[Math.floor(times.length / 2)]!,
      min: times[0]!,
      processor: sorted(processor)[Math.floor(processor.length / 2)]!,
      dispatches,
    })),
  };
}

/** A result in rows of a table; `copied` is the rate of a copy, in GB/s. */
export function formatDecode(
  { batch, context }: DecodeBenchOptions,
  { weights, ways, bytes }: DecodeResult,
  copied: number,
): string {
  const rows = ways.map(({ way, ms, min, processor, dispatches }) => {
    const tokens = batch * (way === 'prompt' ? context : 1);
    const rate = (ms: number) => ((1000 * tokens) / ms).toFixed(1);
    const read = [(bytes / 2 ** 20).toFixed(1), (bytes / min / 1e6).toFixed(2), `${((100 * bytes) / min / 1e6 / copied).toFixed(0)} %`]; // prettier-ignore
    return [weights, way, ms.toFixed(2), min.toFixed(2), processor.toFixed(2), rate(ms), rate(min), rate(processor), dispatches, ...(way === 'prompt' ? ['', '', ''] : read)]; // prettier-ignore
  });
  return rows.map(tableRow).join('\n');
}

const tableRow = (cells: readonly unknown[]): string => `| ${cells.join(' | ')} |`;
const HEADS = [
  'weights',
  '',
  'ms',
  'fastest',
  'of the processor',
  'tokens/s',
  'fastest',
  'of the processor',
  'dispatches',
  'MiB read',
  'GB/s',
  'of the copy',
];
/** What stands above the rows. */
export const DECODE_HEAD = [HEADS, HEADS.map(() => '---')].map(tableRow).join('\n');
