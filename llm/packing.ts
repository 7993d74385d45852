/**
 * Documents packed into sequences of one length, for training. Each begins at a multiple of a block, so that "attention
 * stays within a document" is a pattern of blocks, and what lies outside it is not computed. What is left of a document's
 * last block is padding: it comes after the document's tokens, so causal attention hides it from them, and it has no target.
 */
import { tensor } from '../engine/index.ts';
import type { Device, Tensor } from '../engine/index.ts';
import { AttentionLists } from '../kernels/index.ts';
import type { Documents } from './attend.ts';

/** The target of what counts for nothing. */
const IGNORED = -100;

/** Neighbouring tokens of a document in a sequence; each one's target is the token behind it. */
interface Piece {
  readonly document: number;
  readonly from: number;
  readonly count: number;
  /** Where in the sequence the first of them lies. */
  readonly at: number;
}

/** B sequences of T tokens. */
export interface Batch {
  readonly size: number;
  readonly length: number;
  /** (B, T): tokens, the token behind each or IGNORED, places in the own document. */
  readonly ids: Int32Array;
  readonly targets: Int32Array;
  readonly positions: Int32Array;
  /** Tokens of a block. */
  readonly block: number;
  /** (B, T / block, T / block): blocks that each block sees, filled up with T / block; null where no sequence is shared. */
  readonly visible: Uint32Array | null;
}

export interface PackingOptions {
  /** T, a multiple of 32. Longer documents are cut, each piece without sight of what came before. */
  readonly length: number;
  /** No two share a sequence: for layers that look at the beginning of a sequence, or at a tree over it. */
  readonly alone?: boolean;
}

export class Packing {
  readonly length: number;
  /** Documents begin at multiples of it: 32, or more where there would be more than 256 blocks. */
  readonly block: number;
  readonly #documents: readonly Int32Array[];
  readonly #sequences: readonly (readonly Piece[])[];

  /** Of documents of two tokens at least: the first is no target. Throws where `length` is not possible. */
  constructor(documents: readonly Int32Array[], { length, alone = false }: PackingOptions) {
    if (!Number.isInteger(length) || length < 32 || length % 32 !== 0)
      throw new Error(`[packing] sequences of ${length} tokens: it must be a multiple of 32, at which documents begin`);
    let block = 32;
    while (length / block > 256 && length % (2 * block) === 0) block *= 2;
    this.length = length;
    this.block = block;
    this.#documents = documents;
    this.#sequences = arrange(documents, length, alone ? length : block);
  }

  /** Sequences. */
  get count(): number {
    return this.#sequences.length;
  }

  /** Targets of all sequences. */
  get tokens(): number {
    return this.#sequences.reduce((sum, _, i) => sum + this.targets(i), 0);
  }

  /** Targets of one sequence. */
  targets(sequence: number): number {
    return this.#sequences[sequence]!.reduce((sum, { count }) => sum + count, 0);
  }

  batch(sequences: readonly number[]): Batch {
    const { length, block } = this;
    const size = sequences.length;
    const blocks = length / block;
    const ids = new Int32Array(size * length);
    const targets = new Int32Array(size * length).fill(IGNORED);
    const positions = new Int32Array(size * length);
    const shared = sequences.some((sequence) => this.#sequences[sequence]!.length > 1);
    const visible = shared ? new Uint32Array(size * blocks * blocks).fill(blocks) : null;
    sequences.forEach((sequence, b) => {
      for (const { document, from, count, at } of this.#sequences[sequence]!) {
        const tokens = this.#documents[document]!;
        const start = b * length + at;
        ids.set(tokens.subarray(from, from + count), start);
        targets.set(tokens.subarray(from + 1, from + 1 + count), start);
        for (let t = 0; t < count; t++) positions[start + t] = t;
        const first = at / block;
        for (let row = first; visible && row < Math.ceil((at + count) / block); row++)
          for (let column = first; column <= row; column++)
            visible[(b * blocks + row) * blocks + column - first] = column;
      }
    });
    return { size, length, ids, targets, positions, block, visible };
  }
}

/** Cuts documents into pieces, and puts each where it leaves the least room, the longest first. */
function arrange(documents: readonly Int32Array[], length: number, block: number): Piece[][] {
  const room = length / block;
  const pieces = documents.flatMap((tokens, document) =>
    Array.from({ length: Math.ceil((tokens.length - 1) / length) }, (_, i) => {
      const count = Math.min(length, tokens.length - 1 - i * length);
      return { document, from: i * length, count, blocks: Math.ceil(count / block) };
    }),
  );
  pieces.sort((a, b) => b.blocks - a.blocks); // stable
  const sequences: Piece[][] = [];
  // Sequences by the number of blocks that are free in them.
  const open = Array.from({ length: room + 1 }, (): Piece[][] => []);
  for (const { blocks, ...piece } of pieces) {
    const found = open.findIndex((some, free) => free >= blocks && some.length > 0);
    const free = found < 0 ? room : found;
    const sequence: Piece[] = open[found]?.pop() ?? [];
    if (found < 0) sequences.push(sequence);
    sequence.push({ ...piece, at: (room - free) * block });
    open[free - blocks]!.push(sequence);
  }
  return sequences;
}

/** A batch on the device; of the scope that is open. */
export function upload(device: Device, batch: Batch): { ids: Tensor; targets: Tensor; documents: Documents } {
  const { size, length, block, visible } = batch;
  const blocks = length / block;
  return {
    ids: tensor(device, batch.ids, [size, length]),
    targets: tensor(device, batch.targets, [size * length]),
    documents: {
      positions: tensor(device, batch.positions, [size, length]),
      blocks: visible && { size: block, visible: tensor(device, visible, [size, 1, blocks, blocks]) },
      lists: new AttentionLists(device),
    },
  };
}
