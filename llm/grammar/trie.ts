import { isMarked, plainSuffixes } from './plain.ts';

/**
 * The tokens of a vocabulary as a trie over bytes, depth first in flat arrays: the children of a node follow it, one subtree
 * after the other, so that a walk is one pass over the arrays and a dead subtree is one jump.
 */
export interface Trie {
  /** The number of nodes; the root, which has no byte, is none of them. */
  readonly size: number;
  readonly byte: Uint8Array;
  /** Bytes from the root to the node, its own among them: 1 or more. */
  readonly depth: Uint16Array;
  /** The node behind the node's subtree. */
  readonly end: Int32Array;
  /** The tokens of node i are ids[first[i]] to ids[first[i + 1]] (some, where several have the same bytes), those of its subtree ids[first[i]] to ids[first[end[i]]]. */
  readonly first: Int32Array;
  readonly ids: Int32Array;
  /**
   * Where what the tokens of the subtree have from the node's byte on is plain string content, its code points at most;
   * otherwise PLAIN_LIMIT. A frame that takes so much plain text takes the subtree in whole.
   */
  readonly longest: Uint8Array;
  /** The same of the subtree's tokens from their beginning on. */
  readonly plain: Uint8Array;
  /** 1 where some token of the subtree has a quote or a backslash behind plain content, or more of it than is counted. */
  readonly marked: Uint8Array;
  /** 1 where some token of the subtree has a quote at the node or behind it. */
  readonly quoted: Uint8Array;
}

/** Of the tokens that are not empty. */
export function trieOf(tokens: readonly (Uint8Array | null)[]): Trie {
  // As text of one byte a character, which the platform sorts natively and by byte.
  const texts: string[] = [];
  const sorted: number[] = [];
  let bytes = 0;
  tokens.forEach((token, id) => {
    texts.push(token === null ? '' : latin1(token));
    if (token === null || token.length === 0) return;
    sorted.push(id);
    bytes += token.length;
  });
  sorted.sort((a, b) => (texts[a]! < texts[b]! ? -1 : texts[a]! > texts[b]! ? 1 : a - b));

  const byte = new Uint8Array(bytes);
  const depth = new Uint16Array(bytes);
  const end = new Int32Array(bytes);
  const first = new Int32Array(bytes + 1);
  const longest = new Uint8Array(bytes);
  const plain = new Uint8Array(bytes);
  const marked = new Uint8Array(bytes);
  const quoted = new Uint8Array(bytes);
  const ids = Int32Array.from(sorted);
  const path: number[] = [];
  let size = 0;
  let before: Uint8Array = new Uint8Array(0);
  sorted.forEach((id, place) => {
    const token = tokens[id]!;
    let shared = 0;
    while (shared < before.length && before[shared] === token[shared]) shared += 1;
    while (path.length > shared) end[path.pop()!] = size;
    const suffixes = plainSuffixes(token);
    const mark = isMarked(token) ? 1 : 0;
    const quote = token.lastIndexOf(0x22);
    for (let i = 0; i < token.length; i += 1) {
      if (i === path.length) {
        byte[size] = token[i]!;
        depth[size] = i + 1;
        first[size] = place;
        path.push(size);
        size += 1;
      }
      const node = path[i]!;
      if (suffixes[i]! > longest[node]!) longest[node] = suffixes[i]!;
      if (suffixes[0]! > plain[node]!) plain[node] = suffixes[0]!;
      marked[node]! |= mark;
      if (i <= quote) quoted[node] = 1;
    }
    before = token;
  });
  while (path.length > 0) end[path.pop()!] = size;
  first[size] = sorted.length;
  return {
    size,
    byte: byte.slice(0, size),
    depth: depth.slice(0, size),
    end: end.slice(0, size),
    first: first.slice(0, size + 1),
    longest: longest.slice(0, size),
    plain: plain.slice(0, size),
    marked: marked.slice(0, size),
    quoted: quoted.slice(0, size),
    ids,
  };
}

function latin1(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** The node of these bytes, one or more, from siblings `from` up to `to` on; null where no token goes on with them. */
export function find({ size, byte, end }: Trie, bytes: Iterable<number>, from = 0, to = size): number | null {
  let node: number | null = null;
  for (const wanted of bytes) {
    node = null;
    for (let child = from; child < to && node === null; child = end[child]!) if (byte[child] === wanted) node = child;
    if (node === null) return null;
    from = node + 1;
    to = end[node]!;
  }
  return node;
}
