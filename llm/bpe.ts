/**
 * Byte-pair encoding over bytes (Sennrich et al. 2016; over bytes: Radford et al. 2019), trained on texts, as a
 * `tokenizer.json` of Hugging Face's libraries. Encoding and decoding are a library's.
 */

/** How GPT-2 cuts texts into words, across which nothing is merged. */
const WORDS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** GPT-2's alphabet: printable bytes are the characters of Latin-1 of the same number, the others those from U+0100 on. */
const ALPHABET: readonly string[] = (() => {
  let others = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : others++);
  });
})();

/** The token that ends a text. */
export const END = '<|endoftext|>';

/**
 * A vocabulary of `size`: bytes, merges of the pairs that are most frequent (of equals the one whose ids are lower), and
 * `<|endoftext|>`. Throws where the texts have too few pairs.
 */
export function trainTokenizer(texts: Iterable<string>, size: number): object {
  if (!Number.isInteger(size) || size < 258) throw new Error(`[bpe] a vocabulary of ${size}: 258 is the least, for bytes, one merge and the end`); // prettier-ignore
  const words = countWords(texts);
  const tokens = [...ALPHABET];
  const merges: [string, string][] = [];
  const pairs = new Pairs();
  words.forEach((word, i) => pairs.add(word, i, 1));
  while (tokens.length < size - 1) {
    const pair = pairs.best();
    if (!pair) throw new Error(`[bpe] the texts have pairs for ${tokens.length + 1} tokens, not ${size}: give more text, or ask for fewer`); // prettier-ignore
    const [left, right] = pair;
    const merged = tokens.push(tokens[left]! + tokens[right]!) - 1;
    merges.push([tokens[left]!, tokens[right]!]);
    for (const i of pairs.wordsOf(left, right)) {
      const word = words[i]!;
      pairs.add(word, i, -1);
      word.ids = merge(word.ids, left, right, merged);
      pairs.add(word, i, 1);
    }
  }
  return tokenizerJson([...tokens, END], merges);
}

interface Word {
  ids: number[];
  readonly count: number;
}

function countWords(texts: Iterable<string>): Word[] {
  const counts = new Map<string, number>();
  for (const text of texts) for (const [word] of text.matchAll(WORDS)) counts.set(word, (counts.get(word) ?? 0) + 1);
  const encoder = new TextEncoder();
  return [...counts].map(([word, count]) => ({ ids: [...encoder.encode(word)], count }));
}

function merge(ids: readonly number[], left: number, right: number, merged: number): number[] {
  const result: number[] = [];
  for (let i = 0; i < ids.length; i++)
    if (ids[i] === left && ids[i + 1] === right) {
      result.push(merged);
      i++;
    } else result.push(ids[i]!);
  return result;
}

/** Ids are below it; a pair is one number. */
const LIMIT = 2 ** 20;

/** How often each pair of neighbouring tokens is there, and in which words it is or was. */
class Pairs {
  readonly #counts = new Map<number, number>();
  readonly #words = new Map<number, Set<number>>();

  add({ ids, count }: Word, word: number, sign: 1 | -1): void {
    for (let i = 0; i + 1 < ids.length; i++) {
      const pair = ids[i]! * LIMIT + ids[i + 1]!;
      this.#counts.set(pair, (this.#counts.get(pair) ?? 0) + sign * count);
      if (sign < 0) continue;
      let found = this.#words.get(pair);
      if (!found) this.#words.set(pair, (found = new Set()));
      found.add(word);
    }
  }

  best(): readonly [number, number] | null {
    let [best, most] = [-1, 1]; // once is no pattern
    for (const [pair, count] of this.#counts)
      if (count > most || (count === most && best >= 0 && pair < best)) [best, most] = [pair, count];
    return best < 0 ? null : [Math.floor(best / LIMIT), best % LIMIT];
  }

  /** Words that have the pair, or had it; it is then forgotten. */
  wordsOf(left: number, right: number): ReadonlySet<number> {
    const pair = left * LIMIT + right;
    const words = this.#words.get(pair) ?? new Set();
    this.#words.delete(pair);
    return words;
  }
}

function tokenizerJson(tokens: readonly string[], merges: readonly [string, string][]): object {
  const end = tokens.length - 1;
  const special = { SpecialToken: { id: END, type_id: 0 } };
  const sequence = (id: string) => ({ Sequence: { id, type_id: 0 } });
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [{ id: end, content: END, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }], // prettier-ignore
    normalizer: null,
    pre_tokenizer: byteLevel,
    // A text begins behind what ends the one before it.
    post_processor: {
      type: 'TemplateProcessing',
      single: [special, sequence('A')],
      pair: [special, sequence('A'), sequence('B')],
      special_tokens: { [END]: { id: END, ids: [end], tokens: [END] } },
    },
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map((pair) => pair.join(' ')),
    },
  };
}
