import { decode } from './json/string.ts';

const BACKSLASH = 0x5c;
const NONE: readonly number[] = [];

/** What is written of a JSON string's content, never changed: with one more byte it is another, which has this one. */
export class Spelling {
  static readonly nothing = new Spelling(null, '', NONE);

  /** What it says, half a pair of surrogates included, but for what is `pending`. */
  readonly text: string;
  /** The first bytes of an escape or of a character of which more are to come. */
  readonly pending: readonly number[];
  private readonly before: Spelling | null;

  private constructor(before: Spelling | null, text: string, pending: readonly number[]) {
    this.before = before;
    this.text = text;
    this.pending = pending;
  }

  with(byte: number): Spelling {
    if (this.pending.length === 0 && byte !== BACKSLASH && byte < 0x80) {
      return new Spelling(this, this.text + String.fromCharCode(byte), NONE);
    }
    const pending = [...this.pending, byte];
    return whole(pending)
      ? new Spelling(this, this.text + decode(pending), NONE)
      : new Spelling(this, this.text, pending);
  }

  withAll(bytes: Iterable<number>): Spelling {
    return [...bytes].reduce<Spelling>((all, byte) => all.with(byte), this);
  }

  /** Without its last bytes. */
  without(bytes: number): Spelling {
    return bytes === 0 ? this : this.before!.without(bytes - 1);
  }

  /** What tells it from others. */
  get key(): string {
    return `${this.pending.join()} ${this.text}`;
  }
}

/** Whether a character's bytes, or those of an escape, are all there. */
function whole(bytes: readonly number[]): boolean {
  const [lead, second] = bytes;
  const escape = second === undefined || second === 0x75 ? 6 : 2;
  return bytes.length === (lead === BACKSLASH ? escape : lead! < 0xe0 ? 2 : lead! < 0xf0 ? 3 : 4);
}
