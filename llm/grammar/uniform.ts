import type { Uniform } from './automaton.ts';
import { PLAIN_LIMIT, plainCharacter } from './plain.ts';
import type { Trie } from './trie.ts';
import type { Mask } from './vocabulary.ts';

const [SPACE, QUOTE, BACKSLASH] = [0x20, 0x22, 0x5c];

/** What text whose characters are told apart by their first bytes alone makes of a vocabulary's tokens. */
export class UniformTokens {
  /**
   * By node of the trie: so many code points, where they do what is known of them, decide all tokens of the subtree.
   * PLAIN_LIMIT: none do, as a quote, a backslash or something that is not known comes in one of them.
   */
  readonly deciding: Uint8Array;
  /** The tokens that are kept, by their number of code points. */
  private readonly kept: number[][] = [];
  private readonly slices = new Map<number, Mask>();
  private readonly words: number;

  constructor({ byte, depth, end, first: tokens, ids, size }: Trie, words: number, first: Uniform['first']) {
    this.words = words;
    this.deciding = new Uint8Array(size);
    const path = new Uint8Array(depth.reduce((most, length) => Math.max(most, length), 0));
    // By depth, of the path: how many characters have begun, behind which byte the one does to which the next belongs, and
    // which node it is.
    const characters = [0];
    const begun = [0];
    const nodes: number[] = [];
    const decide = (from: number, to: number, above: number, codePoints: number): void => {
      this.deciding.fill(codePoints, from, to);
      for (let i = above; i > 0 && this.deciding[nodes[i]!]! < codePoints; i -= 1)
        this.deciding[nodes[i]!] = codePoints;
    };
    for (let node = 0; node < size;) {
      const length = depth[node]!;
      path[length - 1] = byte[node]!;
      const at = begun[length - 1]!;
      const lead = path[at]!;
      const count = characters[length - 1]! + (at === length - 1 ? 1 : 0);
      const valid = lead >= SPACE && (lead < 0x80 || plainCharacter(path.subarray(0, length), at) === length - at);
      const unknown = lead === QUOTE || lead === BACKSLASH || count >= PLAIN_LIMIT || (valid && first[lead] === 2);
      if (unknown || !valid || first[lead] === 0) {
        decide(node, end[node]!, length - 1, unknown ? PLAIN_LIMIT : count);
        node = end[node]!;
        continue;
      }
      nodes[length] = node;
      characters[length] = count;
      begun[length] = length - at < bytesOf(lead) ? at : length;
      if (tokens[node + 1]! > tokens[node]!) {
        decide(node, node + 1, length - 1, count);
        const kept = (this.kept[count] ??= []);
        for (let i = tokens[node]!; i < tokens[node + 1]!; i += 1) kept.push(ids[i]!);
      }
      node += 1;
    }
  }

  /** Those of at most so many code points. Not to be written to. */
  slice(codePoints: number): Mask {
    const most = Math.min(codePoints, this.kept.length - 1);
    let slice = this.slices.get(most);
    if (slice === undefined) {
      slice = new Uint32Array(this.words);
      for (let count = 1; count <= most; count += 1) {
        for (const id of this.kept[count] ?? []) slice[id >>> 5]! |= 1 << (id & 31);
      }
      this.slices.set(most, slice);
    }
    return slice;
  }
}

/** How many bytes a character has that begins so. */
function bytesOf(lead: number): number {
  return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}
