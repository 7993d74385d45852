/** A text, sorted between those of two subtrees; of the three the `rank` here is highest. */
interface Node {
  readonly text: string;
  readonly rank: number;
  readonly left: Node | null;
  readonly right: Node | null;
}

/**
 * Texts that have come, never changed: with one more they are another `Taken`, which has all but a few nodes from this one,
 * so that a hundred thousand keys of an object are kept behind each of its tokens. A treap (Seidel and Aragon 1996,
 * "Randomized Search Trees") whose ranks are hashes: in the order of their UTF-16 units, as JavaScript compares texts.
 */
export class Taken implements Iterable<string> {
  /** The one that came last. */
  readonly last: string;
  private readonly root: Node;

  private constructor(root: Node, last: string) {
    this.root = root;
    this.last = last;
  }

  /** Those of `taken`, none where it is null, and one more. */
  static with(taken: Taken | null, text: string): Taken {
    return new Taken(inserted(taken?.root ?? null, text, hash(text)), text);
  }

  has(text: string): boolean {
    return this.from(text) === text;
  }

  /** The first that is not before `text`; null where there is none. */
  from(text: string): string | null {
    let found: string | null = null;
    for (let at: Node | null = this.root; at !== null;) {
      if (at.text < text) at = at.right;
      else {
        found = at.text;
        at = at.left;
      }
    }
    return found;
  }

  /** Those that begin so, sorted. */
  *beginning(begun: string): Generator<string> {
    let text = this.from(begun);
    for (; text?.startsWith(begun); text = this.from(`${text}\0`)) yield text;
  }

  [Symbol.iterator](): Iterator<string> {
    return this.beginning('');
  }
}

function inserted(node: Node | null, text: string, rank: number): Node {
  if (node === null) return { text, rank, left: null, right: null };
  if (text === node.text) return node;
  if (text < node.text) {
    const left = inserted(node.left, text, rank);
    if (left.rank <= node.rank) return { ...node, left };
    return { ...left, right: { ...node, left: left.right } };
  }
  const right = inserted(node.right, text, rank);
  if (right.rank <= node.rank) return { ...node, right };
  return { ...right, left: { ...node, right: right.left } };
}

/** FNV-1a, its bits mixed once more as MurmurHash3 does: texts in a row are to have ranks that are in none. */
function hash(text: string): number {
  let bits = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) bits = Math.imul(bits ^ text.charCodeAt(i), 0x01000193);
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
