/**
 * Sequences that are decoded together: their cache, and what chooses their tokens on the device. A sequence has the bits that
 * it has alone: none of its sums depends on who is beside it.
 */
import { byteLength, capture, empty, noGrad, release, reshape, scope, tensor, write, zeros } from '../engine/index.ts';
import type { Device, Replay, Tensor, Window } from '../engine/index.ts';
import {
  countTokens,
  DECODE_SEQUENCES,
  decodeSamples,
  encodeSampling,
  indexSelect,
  samplingParameters,
  sampleTokens,
} from '../kernels/index.ts';
import type { Sampled, SamplingSettings } from '../kernels/index.ts';
import { KeyValueCache } from './cache.ts';
import type { CacheFormat } from './cache.ts';
import type { Transformer } from './model.ts';
import type { Draft, GenerationEvent, Sequence } from './sequence.ts';

/** Sequences that one batch takes: with more, other kernels would serve them. */
export const BATCH = DECODE_SEQUENCES;

export interface BatchOptions {
  /** Tokens that each sequence can have. */
  readonly capacity: number;
  readonly cacheFormat: CacheFormat;
  /** Of all that is computed. */
  readonly dtype: 'f32' | 'f16';
  readonly sampling: SamplingSettings;
  /** Added to the logits, (1, V). */
  readonly bias: Tensor | null;
  /** Whether a grammar says what may come. */
  readonly masked: boolean;
  /** How many of the most probable tokens are listed. */
  readonly top: number;
  /** Most tokens that are looked up and fed ahead. */
  readonly lookup: number;
}

/** Forced tokens that are fed in one pass at most: of each there are a vocabulary's logits. */
const FORCED = 32;

/** A sequence's part in a pass. */
interface Row {
  readonly row: number;
  readonly sequence: Sequence;
  readonly draft: Draft;
}

/** How the tokens of rows are chosen; a row is a place of a sequence. */
interface Choice {
  readonly parameters: Tensor;
  readonly counts: Tensor | null;
  readonly mask: Tensor | null;
}

export class Batch {
  readonly cache: KeyValueCache;
  readonly sequences: readonly Sequence[];
  readonly #model: Transformer;
  readonly #device: Device;
  readonly #options: BatchOptions;
  readonly #ownsCache: boolean;
  /** The prompts' last states, (B, 1, C). */
  readonly #last: Tensor;
  /** Of one token a sequence. */
  readonly #ids: Tensor; // (B, 1)
  readonly #drawn: Tensor; // (B, 1): the same, −1 of sequences that stand
  readonly #choice: Choice; // rows: B
  #replay: Replay<Tensor> | null = null;

  constructor(model: Transformer, sequences: readonly Sequence[], options: BatchOptions, cache?: KeyValueCache) {
    const { device, config } = model;
    const batch = sequences.length;
    const { capacity, cacheFormat, sampling, masked } = options;
    const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = sampling;
    this.#model = model;
    this.#device = device;
    this.#options = options;
    this.sequences = sequences;
    this.#ownsCache = !cache;
    this.cache = cache ?? new KeyValueCache(device, config, { batch, capacity, dtype: cacheFormat });
    this.#last = empty(device, [batch, 1, config.width], options.dtype);
    this.#ids = zeros(device, [batch, 1], 'i32');
    this.#drawn = zeros(device, [batch, 1], 'i32');
    const counted = repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
    this.#choice = {
      parameters: samplingParameters(device, sequences.map((sequence) => this.#settings(sequence, 0))), // prettier-ignore
      counts: counted ? zeros(device, [batch, config.vocabulary], 'u32') : null,
      mask: masked ? zeros(device, [batch, Math.ceil(config.vocabulary / 32)], 'u32') : null,
    };
    if (counted) this.#countPrompts();
  }

  get active(): boolean {
    return this.sequences.some(({ finish }) => finish === null);
  }

  /** Takes over a prompt that another cache has read (or this one), for sequence `row`; `state` is its last, (1, 1, C). */
  begin(row: number, state: Tensor): void {
    const bytes = byteLength(this.#model.config.width, this.#last.dtype);
    this.#device.stream.copy(state.window(), rowOf(this.#last, row, bytes), bytes);
  }

  /** The first token of each sequence. */
  async first(): Promise<GenerationEvent[]> {
    const rows = this.#rows(() => ({ tokens: [], masks: null }));
    this.#write(rows);
    const samples = this.#inside(() => this.#sample(this.#last, this.#choice));
    const drawn = await this.#read(samples);
    release(samples);
    return this.#take(rows, ({ row }) => [drawn[row]!]);
  }

  /** The next token of each sequence that goes on, or several where tokens that were fed ahead are right. */
  async next(): Promise<GenerationEvent[]> {
    const rows = this.#rows(({ sequence, row }) => sequence.draft(this.#options.lookup, this.#room(row)));
    const passes = new Map<number, Row[]>();
    for (const row of rows) {
      const { length } = row.draft.tokens;
      passes.set(length, [...(passes.get(length) ?? []), row]);
    }
    const events = [...passes].map(([length, rows]) => (length === 0 ? this.#one(rows) : this.#several(rows)));
    return (await Promise.all(events)).flat();
  }

  release(): void {
    this.#replay?.release();
    if (this.#ownsCache) this.cache.release();
    const { parameters, counts, mask } = this.#choice;
    release(this.#last, this.#ids, this.#drawn, parameters, ...(counts ? [counts] : []), ...(mask ? [mask] : []));
  }

  #rows(draft: (row: Omit<Row, 'draft'>) => Draft): Row[] {
    return this.sequences.flatMap((sequence, row) =>
      sequence.finish === null ? [{ row, sequence, draft: draft({ row, sequence }) }] : [],
    );
  }

  /** How many tokens may be fed ahead such that any of them can be taken back. */
  #room(row: number): number {
    const { cache } = this;
    const { masked, lookup } = this.#options;
    const most = masked ? Math.max(FORCED, lookup) : lookup;
    const start = cache.lengths[row]! + 1;
    const possible = (drafted: number) =>
      start + drafted <= cache.capacity &&
      Array.from({ length: drafted }, (_, i) => start + i).every((length) => cache.keeps(length, start + drafted));
    let room = 0;
    while (room < most && possible(room + 1)) room++;
    return room;
  }

  /** A token of each sequence of `rows`, by a captured step. */
  async #one(rows: readonly Row[]): Promise<GenerationEvent[]> {
    this.#write(rows);
    const step = this.cache.step(1, this.#counts(rows, 1));
    if (this.#replay) {
      this.#replay.run();
      step.end();
    } else {
      const { counts } = this.#choice;
      this.#replay = capture(this.#device, () =>
        noGrad(this.#device, () => {
          const states = this.#model.forward(this.#ids, { step, dtype: this.#options.dtype });
          if (counts) countTokens(counts, this.#drawn);
          return this.#sample(states, this.#choice);
        }),
      );
    }
    const drawn = await this.#read(this.#replay.result);
    return this.#take(rows, ({ row }) => [drawn[row]!]);
  }

  /** What is written before a token of each sequence is drawn. */
  #write(rows: readonly Row[]): void {
    const ids = new Int32Array(this.sequences.length).fill(-1);
    for (const { row, sequence } of rows) ids[row] = sequence.tokens.at(-1)!;
    const { parameters, counts, mask } = this.#choice;
    if (counts) write(this.#drawn, ids);
    write(this.#ids, ids.map((id) => Math.max(id, 0))); // prettier-ignore
    write(parameters, encodeSampling(this.sequences.map((sequence) => this.#settings(sequence, 0))));
    if (mask) write(mask, this.#masks(rows.map(({ row, sequence }) => [row, sequence.mask!]), this.sequences.length)); // prettier-ignore
  }

  /** Last tokens and drafts, of one length, of some sequences: what is right of the drafts, and a token more. */
  async #several(rows: readonly Row[]): Promise<GenerationEvent[]> {
    const { cache, sequences } = this;
    const { dtype } = this.#options;
    const batch = sequences.length;
    const length = rows[0]!.draft.tokens.length + 1;
    const fed = sequences.map((): readonly number[] => Array.from({ length }, () => 0));
    for (const { row, sequence, draft } of rows) fed[row] = [sequence.tokens.at(-1)!, ...draft.tokens];
    const step = cache.step(length, this.#counts(rows, length));
    const samples = this.#inside(() => {
      const states = this.#model.forward(fed, { step, dtype }); // (B, T, C)
      const places = rows.flatMap(({ row }) => Array.from({ length }, (_, t) => row * length + t));
      const width = states.shape[2]!;
      const own = rows.length === batch ? states : reshape(indexSelect(reshape(states, [batch * length, width]), tensor(this.#device, Int32Array.from(places), [places.length]), 0), [rows.length, length, width]); // prettier-ignore
      return this.#sample(own, this.#choiceOf(rows, fed, length));
    });
    const before = rows.map(({ sequence }) => sequence.tokens.length);
    const drawn = await this.#read(samples);
    release(samples);
    const events = this.#take(rows, (_, i) => drawn.slice(i * length, (i + 1) * length));
    // Of what was fed, drafts that were wrong go.
    const kept = rows.map(({ sequence }, i) => sequence.tokens.length - before[i]!);
    rows.forEach(({ row }, i) => cache.truncate(row, cache.lengths[row]! - length + kept[i]!));
    const { counts } = this.#choice;
    if (counts) {
      const tokens = new Int32Array(batch * length).fill(-1);
      rows.forEach(({ row }, i) => tokens.set(fed[row]!.slice(0, kept[i]), row * length));
      scope(this.#device, () => countTokens(counts, tensor(this.#device, tokens, [batch, length])));
    }
    return events;
  }

  /** For places of several tokens a sequence: each knows what is fed before it. */
  #choiceOf(rows: readonly Row[], fed: readonly (readonly number[])[], length: number): Choice {
    const device = this.#device;
    const { vocabulary } = this.#model.config;
    const size = rows.length * length;
    const settings = rows.flatMap(({ sequence }) => Array.from({ length }, (_, t) => this.#settings(sequence, t)));
    const counts = this.#choice.counts && empty(device, [size, vocabulary], 'u32');
    if (counts) {
      const bytes = 4 * vocabulary;
      const tokens = new Int32Array(size * length).fill(-1);
      rows.forEach(({ row }, i) => {
        for (let t = 0; t < length; t++) {
          const place = i * length + t;
          device.stream.copy(rowOf(this.#choice.counts!, row, bytes), rowOf(counts, place, bytes), bytes);
          tokens.set(fed[row]!.slice(0, t + 1), place * length);
        }
      });
      countTokens(counts, tensor(device, tokens, [size, length]));
    }
    const masks = rows.flatMap(({ draft }, i) => draft.masks?.map((mask, t): [number, Uint32Array] => [i * length + t, mask]) ?? []); // prettier-ignore
    return {
      parameters: samplingParameters(device, settings),
      counts,
      mask: this.#choice.mask && tensor(device, this.#masks(masks, size), [size, Math.ceil(vocabulary / 32)]),
    };
  }

  /** Samples of states (…, T, C): (3 + 2 · top, rows). */
  #sample(states: Tensor, choice: Choice): Tensor {
    const { bias, top } = this.#options;
    const logits = this.#model.logits(states);
    const { vocabulary } = this.#model.config;
    return sampleTokens(reshape(logits, [logits.size / vocabulary, vocabulary]), { ...choice, bias, top });
  }

  async #read(samples: Tensor): Promise<Sampled[]> {
    return decodeSamples((await samples.read()) as Int32Array<ArrayBuffer>, samples.shape[1]!);
  }

  /** Gives sequences what was drawn for their places, as long as what was fed ahead is right. */
  #take(rows: readonly Row[], drawnFor: (row: Row, i: number) => readonly Sampled[]): GenerationEvent[] {
    return rows.flatMap((row, i) => {
      const { sequence, draft } = row;
      const events: GenerationEvent[] = [];
      for (const [t, sampled] of drawnFor(row, i).entries()) {
        events.push(sequence.take(sampled));
        if (sequence.finish !== null || sampled.token !== draft.tokens[t]) break;
      }
      return events;
    });
  }

  #settings({ seed, sample, drawn }: Sequence, ahead: number): SamplingSettings {
    return { ...this.#options.sampling, seed, sample, step: drawn + ahead };
  }

  #counts(rows: readonly Row[], length: number): number[] {
    const counts = this.sequences.map(() => 0);
    for (const { row } of rows) counts[row] = length;
    return counts;
  }

  /** Masks of a vocabulary, which may have fewer ids than the model, in their rows. */
  #masks(masks: readonly (readonly [row: number, mask: Uint32Array])[], rows: number): Uint32Array {
    const words = Math.ceil(this.#model.config.vocabulary / 32);
    const all = new Uint32Array(rows * words);
    for (const [row, mask] of masks) all.set(mask, row * words);
    return all;
  }

  #countPrompts(): void {
    const ids = this.sequences.map(({ tokens }) => [...new Set(tokens)]);
    const length = Math.max(...ids.map((one) => one.length));
    const padded = Int32Array.from(ids.flatMap((one) => [...one, ...Array<number>(length - one.length).fill(-1)]));
    scope(this.#device, () =>
      countTokens(this.#choice.counts!, tensor(this.#device, padded, [ids.length, length]), { prompt: true }),
    );
  }

  #inside(body: () => Tensor): Tensor {
    return noGrad(this.#device, () => scope(this.#device, body));
  }
}

/** A row of so many bytes, to be copied. */
function rowOf(tensor: Tensor, row: number, bytes: number): Window {
  const window = tensor.window();
  return { ...window, offset: window.offset + row * bytes, bytes };
}
