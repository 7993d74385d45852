import type { Stack } from './automaton.ts';
import { advance, advanceAll, complete } from './stack.ts';
import { find } from './trie.ts';
import type { Vocabulary } from './vocabulary.ts';

/** The tokens of a text as the model's tokenizer makes them, without any that it puts before or behind. */
export type Encode = (text: string) => readonly number[];

/** So many forced tokens may be left to the model (as in llguidance), and so many before them are tokenised again. */
const SEAM = 4;
const BACKSLASH = 0x5c;

/**
 * The bytes that have to come next, `most` at most: as long as there is one way to go on, and the document may not end. Of
 * JSON's characters that is the plain one: escapes that say the same are no other way.
 */
export function forcedBytes(stack: Stack, most: number): Uint8Array {
  const bytes: number[] = [];
  for (let top = stack; bytes.length < most && !complete(top);) {
    const only = onlyByte(top);
    if (only === null) break;
    bytes.push(only.byte);
    top = only.stack;
  }
  return Uint8Array.from(bytes);
}

/** The one byte that can come next, and what it leads to; null where there are several. */
function onlyByte(stack: Stack): { readonly byte: number; readonly stack: Stack } | null {
  let only: { readonly byte: number; readonly stack: Stack } | null = null;
  const { alive, detours } = stack.frame;
  for (let byte = 0; byte < 256; byte += 1) {
    const skipped = alive?.[byte] === 0 || (byte === BACKSLASH && detours?.[byte] === 1);
    const next = skipped ? null : advance(stack, byte);
    if (next === null) continue;
    if (only !== null) return null;
    only = { byte, stack: next };
  }
  return only;
}

/**
 * The tokens that the tokenizer makes of `forced`, bytes that have to come next behind the tokens `before`. Of the last ones
 * those are left to the model which a longer token could take the place of, and which the tokenizer would thus not make
 * once it sees what follows. None where it would not make them behind the tokens before.
 */
export function forcedTokens(
  vocabulary: Vocabulary,
  stack: Stack,
  forced: Uint8Array,
  before: readonly number[],
  encode: Encode,
): readonly number[] {
  const seam = seamOf(vocabulary, before);
  const text = wholeText(forced);
  if (seam === null || text === null) return [];
  const tokens = [...(encodeBehind(seam, text, encode) ?? [])];
  const ended = tokens.some((id) => vocabulary.isSpecial(id)) ? null : advanceAll(stack, bytesOf(vocabulary, tokens));
  if (ended === null) return [];
  for (let kept = Math.max(0, tokens.length - SEAM); kept < tokens.length; kept += 1) {
    if (canGoOn(vocabulary, bytesOf(vocabulary, tokens.slice(kept)), ended)) tokens.length = kept;
  }
  const again = encodeBehind(seam, decode(bytesOf(vocabulary, tokens)) ?? '', encode);
  return again !== null && again.length === tokens.length && again.every((id, i) => id === tokens[i]) ? tokens : [];
}

/** Tokens and their text. */
interface Seam {
  readonly tokens: readonly number[];
  readonly text: string;
}

/** The last tokens, as many as make whole characters; null where the text ends within one. */
function seamOf(vocabulary: Vocabulary, before: readonly number[]): Seam | null {
  if (before.length === 0) return { tokens: [], text: '' };
  for (let count = Math.min(SEAM, before.length); count > 0; count -= 1) {
    const tokens = before.slice(-count);
    const text = decode(bytesOf(vocabulary, tokens));
    if (text !== null) return { tokens, text };
  }
  return null;
}

/** The tokens of `text` behind the seam; null where the two are not tokenised apart. */
function encodeBehind(seam: Seam, text: string, encode: Encode): readonly number[] | null {
  const tokens = encode(seam.text + text);
  return seam.tokens.every((id, i) => id === tokens[i]) ? tokens.slice(seam.tokens.length) : null;
}

/** Whether some token begins with these bytes and has more, which can follow `stack`, to which these bytes have led. */
function canGoOn(vocabulary: Vocabulary, bytes: readonly number[], stack: Stack): boolean {
  const { trie } = vocabulary;
  const { byte, depth, end, first } = trie;
  const node = find(trie, bytes);
  if (node === null) return false;
  const stacks = [stack];
  for (let below = node + 1; below < end[node]!;) {
    const level = depth[below]! - depth[node]!;
    const next = advance(stacks[level - 1]!, byte[below]!);
    if (next !== null && first[below + 1]! > first[below]!) return true;
    if (next !== null) stacks[level] = next;
    below = next === null ? end[below]! : below + 1;
  }
  return false;
}

function bytesOf(vocabulary: Vocabulary, tokens: readonly number[]): readonly number[] {
  return tokens.flatMap((id) => [...vocabulary.bytes(id)]);
}

/** The text of bytes up to the last whole character; null where they are no UTF-8. */
function wholeText(bytes: Uint8Array): string | null {
  for (let cut = 0; cut < 4 && cut < bytes.length; cut += 1) {
    const text = decode(bytes.subarray(0, bytes.length - cut));
    if (text !== null) return text;
  }
  return null;
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decode(bytes: Iterable<number>): string | null {
  try {
    return UTF8.decode(Uint8Array.from(bytes));
  } catch {
    return null;
  }
}
