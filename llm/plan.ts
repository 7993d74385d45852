/** What a model will take of memory, before any is asked for: by a run on a device that computes nothing. */
import { byteLength, empty, formatMultiple, formatShape, isStorageFormat, mebibytes, noGrad, release, scope, sizeOf, zeros } from '../engine/index.ts'; // prettier-ignore
import type { Device } from '../engine/index.ts';
import { declare } from '../nn/module.ts';
import type { WeightFormat } from '../nn/module.ts';
import { cacheBytes, cacheFormula, KeyValueCache } from './cache.ts';
import type { CacheSize } from './cache.ts';
import type { LayerConfig, TransformerConfig } from './config.ts';
import { Transformer } from './model.ts';

export interface PlanOptions {
  /** What weights of products and the table of embeddings are kept in; norms and biases are f32. */
  readonly weights?: WeightFormat;
  readonly cache: CacheSize;
  /** Tokens of each sequence that a prefill takes at a time. */
  readonly chunk: number;
  readonly dtype?: 'f32' | 'f16';
}

export interface PlanPart {
  readonly name: string;
  /** How many tensors or layers there are of it. */
  readonly count: number;
  readonly bytes: number;
  /** Where the bytes come from. */
  readonly formula: string;
}

export interface TransformerPlan {
  /** By the format that they are kept in. */
  readonly weights: readonly PlanPart[];
  /** By what layers see. */
  readonly cache: readonly PlanPart[];
  /** At the fullest, of a prefill's last chunk. */
  readonly activations: number;
  readonly total: number;
  /** Dispatches of that chunk, and of decoding one more token of each sequence, logits included. */
  readonly dispatches: { readonly chunk: number; readonly token: number };
}

const kindOf = ({ window, sinks, tree }: LayerConfig): string =>
  window === null
    ? 'full'
    : `window ${window}${sinks > 0 ? ` + ${sinks} sinks` : ''}${tree ? ` + tree of ${tree.beam} × ${tree.block}` : ''}`;

const BYTES: Readonly<Record<WeightFormat, string>> = { f32: '4', f16: '2', bf16: '2', q8: '17/16', q4: '9/16' };

function grouped(parts: Iterable<readonly [name: string, bytes: number]>): Omit<PlanPart, 'formula'>[] {
  const found = new Map<string, Omit<PlanPart, 'formula'>>();
  for (const [name, bytes] of parts) {
    const { count = 0, bytes: before = 0 } = found.get(name) ?? {};
    found.set(name, { name, count: count + 1, bytes: before + bytes });
  }
  return [...found.values()];
}

/**
 * The plan for a model of this configuration, by `dry`, a device without memory (`rehearsal`, `openDryDevice`). Weights and
 * cache are what their shapes say; activations are measured, as the pool of memory rounds them up. Throws where the model
 * or the cache itself would.
 */
export function planTransformer(
  dry: Device,
  config: TransformerConfig,
  { weights: format = 'f32', cache: size, chunk, dtype = 'f32' }: PlanOptions,
): TransformerPlan {
  const { memory, stream } = dry;
  if (!(Number.isInteger(chunk) && chunk >= 1 && chunk < size.capacity))
    throw new Error(
      `[plan] a chunk of ${chunk} tokens: it must be 1 to ${size.capacity - 1}, to fit the cache and a token more`,
    );
  const model = declare(() => new Transformer(dry, config)); // never whole in f32
  model.setTrainable(false);
  const kept = [...model.namedParameters()].map(([path, { shape, size }]) => {
    const dtype = shape.length === 2 ? format : 'f32';
    if (isStorageFormat(dtype) && shape.at(-1)! % formatMultiple(dtype) !== 0)
      throw new Error(
        `[plan] ${path} is ${formatShape(shape)}: rows in ${dtype} are multiples of ${formatMultiple(dtype)}`,
      );
    return { path, shape, dtype, bytes: byteLength(size, dtype) };
  });
  for (const { path, shape, dtype } of kept)
    if (dtype !== 'f32') model.replaceParameters(new Map([[path, empty(dry, shape, dtype, 'parameters')]]));
  for (const parameter of model.namedParameters().values()) parameter.window();
  const cache = new KeyValueCache(dry, config, size);
  // The last chunk: it sees most.
  const forward = (length: number, before: number) => {
    cache.lengths.fill(before);
    const ids = zeros(dry, [size.batch, length], 'i32');
    const dispatches = stream.dispatches;
    memory.resetPeak();
    const base = memory.live;
    noGrad(dry, () => scope(dry, () => {
      const states = model.forward(ids, { step: cache.step(length), dtype });
      model.logits(length === 1 ? states : empty(dry, [size.batch, 1, config.width], dtype)).window();
    })); // prettier-ignore
    release(ids);
    return { bytes: memory.peak - base, dispatches: stream.dispatches - dispatches };
  };
  const prefill = forward(chunk, size.capacity - 1 - chunk);
  const token = forward(1, size.capacity - 1);
  const values = (dtype: WeightFormat) => kept.reduce((sum, each) => sum + (each.dtype === dtype ? sizeOf(each.shape) : 0), 0); // prettier-ignore
  const weights = grouped(kept.map(({ dtype, bytes }) => [dtype, bytes])).map((part) => {
    const dtype = part.name as WeightFormat;
    return { ...part, formula: `${values(dtype)} · ${BYTES[dtype]}` };
  });
  const layers = config.layers.map((layer): [string, number] => [kindOf(layer), cacheBytes({ ...config, layers: [layer] }, size)]); // prettier-ignore
  const parts = grouped(layers).map((part) => {
    const layer = config.layers.find((layer) => kindOf(layer) === part.name)!;
    return { ...part, formula: `${part.count} · ${cacheFormula(config, layer, size)}` };
  });
  cache.release();
  model.release();
  const activations = Math.max(prefill.bytes, token.bytes);
  return {
    weights,
    cache: parts,
    activations,
    total: [...weights, ...parts].reduce((sum, { bytes }) => sum + bytes, activations),
    dispatches: { chunk: prefill.dispatches, token: token.dispatches },
  };
}

/** The plan in lines: figures and their formulas. */
export function describePlan({ weights, cache, activations, total, dispatches }: TransformerPlan): string {
  return [
    ...weights.map(({ name, count, bytes, formula }) => `weights in ${name}, ${count} tensors: ${mebibytes(bytes)} = ${formula} bytes`), // prettier-ignore
    ...cache.map(({ name, count, bytes, formula }) => `cache of ${count} layers (${name}): ${mebibytes(bytes)} = ${formula} bytes`), // prettier-ignore
    '  layers · (keys and values · sequences · slots · key heads · columns · bytes + a tree’s summaries)',
    `activations of a chunk: ${mebibytes(activations)}`,
    `together: ${mebibytes(total)}`,
    `dispatches: ${dispatches.chunk} a chunk, ${dispatches.token} a token`,
  ].join('\n');
}
