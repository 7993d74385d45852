/**
 * Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * No hidden state: the same key and counter give the same numbers, on the host and on every adapter.
 */

/** The 64-bit key of a stream of random numbers. */
export interface Key {
  readonly low: number; // u32
  readonly high: number; // u32
}

/** A key from a seed and a purpose (`'noise'`, `'dropout/mid_block'`, …): FNV-1a over the purpose, mixed with the seed. */
export function randomKey(seed: number, purpose: string): Key {
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new Error(`[random] a seed is a whole number from 0 to 2^53 - 1, not ${seed}`);
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(purpose)) hash = Math.imul(hash ^ byte, 0x01000193);
  const out = new Uint32Array(4);
  philox(out, seed >>> 0, Math.floor(seed / 2 ** 32), hash >>> 0, purpose.length, 0x243f6a88, 0x85a308d3);
  return { low: out[0]!, high: out[1]! };
}

/** One Philox block: four words from a counter of four words and a key of two. */
export function philox(
  out: Uint32Array,
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  low: number,
  high: number,
): void {
  let k0 = low >>> 0;
  let k1 = high >>> 0;
  for (let round = 0; round < 10; round++) {
    const [h0, l0] = multiply(0xd2511f53, c0);
    const [h1, l1] = multiply(0xcd9e8d57, c2);
    c0 = (h1 ^ c1 ^ k0) >>> 0;
    c1 = l1;
    c2 = (h0 ^ c3 ^ k1) >>> 0;
    c3 = l0;
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** High and low word of a 32 × 32-bit product, in pieces that stay exact in doubles. */
function multiply(a: number, b: number): [number, number] {
  b >>>= 0;
  const low = a & 0xffff;
  const high = a >>> 16;
  const first = low * b; // < 2^48
  const second = high * b + Math.floor(first / 0x10000); // < 2^49
  return [Math.floor(second / 0x10000) >>> 0, Math.imul(a, b) >>> 0];
}

/** A stream of numbers on the host: word i of `(key, sample, step)` never depends on how many were drawn before. */
export class HostRandom {
  readonly #key: Key;
  readonly #sample: number;
  readonly #step: number;
  readonly #block = new Uint32Array(4);
  #position = 0;

  constructor(key: Key, sample = 0, step = 0) {
    this.#key = key;
    this.#sample = sample;
    this.#step = step;
  }

  /** The next word, 0 … 2^32 − 1. */
  word(): number {
    if (this.#position % 4 === 0)
      philox(this.#block, this.#position / 4, this.#sample, this.#step, 0, this.#key.low, this.#key.high);
    return this.#block[this.#position++ % 4]!;
  }

  /** Uniform in [0, 1), 53 bits. */
  uniform(): number {
    return ((this.word() >>> 5) * 0x4000000 + (this.word() >>> 6)) / 2 ** 53;
  }

  /** Uniform over 0 … n − 1, without bias. */
  below(n: number): number {
    const limit = 2 ** 32 - (2 ** 32 % n);
    for (;;) {
      const word = this.word();
      if (word < limit) return word % n;
    }
  }

  /** Standard normal values (Box–Muller in float64). */
  normal(count: number): Float32Array<ArrayBuffer> {
    const values = new Float32Array(count);
    for (let i = 0; i < count; i += 2) {
      const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
      const angle = 2 * Math.PI * this.uniform();
      values[i] = radius * Math.cos(angle);
      if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
    }
    return values;
  }

  /** A random order of 0 … n − 1 (Fisher–Yates). */
  permutation(n: number): number[] {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}
