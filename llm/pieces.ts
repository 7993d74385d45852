/** Text out of the bytes of tokens as they come: whole characters alone, and nothing of a stop string. */

export class Pieces {
  readonly #stops: readonly string[];
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  /** Text that may be the beginning of a stop string. */
  #held = '';

  constructor(stops: readonly string[] = []) {
    if (stops.includes('')) throw new Error('[generate] a stop string is empty: it would stop before the first token');
    this.#stops = stops;
  }

  /**
   * Takes more bytes; the text that is sure by now. `stopped`: a stop string came, of which (and of what follows) nothing is
   * given; of several it is the one that ends first, and of those the longest.
   */
  push(bytes: Uint8Array): { readonly text: string; readonly stopped: boolean } {
    const before = this.#held.length;
    const text = this.#held + this.#decoder.decode(bytes, { stream: true });
    // What is held has no whole stop string, so that one ends in the new part.
    for (let end = before + 1; end <= text.length; end++) {
      const found = this.#stops.filter((stop) => end >= stop.length && text.startsWith(stop, end - stop.length));
      if (found.length === 0) continue;
      this.#held = '';
      return { text: text.slice(0, end - Math.max(...found.map((stop) => stop.length))), stopped: true };
    }
    const held = Math.max(0, ...this.#stops.map((stop) => overlap(text, stop)));
    this.#held = text.slice(text.length - held);
    return { text: text.slice(0, text.length - held), stopped: false };
  }

  /** What was held back, when nothing more comes. Bytes of a character that is not whole are left out. */
  end(): string {
    const text = this.#held;
    this.#held = '';
    return text;
  }
}

/** How long the longest end of `text` is with which `stop` begins; all of `stop` left out. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--)
    if (text.endsWith(stop.slice(0, length))) return length;
  return 0;
}
