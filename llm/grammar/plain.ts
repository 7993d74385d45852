/** No suffix of plain string content; counts of code points stay below it. */
export const PLAIN_LIMIT = 255;

/**
 * For each byte of a token: where what the token has from there on is plain string content (UTF-8 with no quote, backslash or
 * control character, whose last character may be cut short), its number of code points; otherwise PLAIN_LIMIT. A character
 * that is cut short counts: where any text of so many code points may follow, so may the beginning of one.
 */
export function plainSuffixes(token: Uint8Array): Uint8Array {
  const suffixes = new Uint8Array(token.length);
  for (let i = token.length - 1; i >= 0; i -= 1) {
    const length = plainCharacter(token, i);
    const rest = length === 0 ? PLAIN_LIMIT : i + length >= token.length ? 0 : suffixes[i + length]!;
    suffixes[i] = Math.min(PLAIN_LIMIT, rest + 1);
  }
  return suffixes;
}

/** Whether a token may be part of a string without being plain in the above sense: for a quote, a backslash or its length. */
export function isMarked(token: Uint8Array): boolean {
  let at = 0;
  let codePoints = 0;
  for (let length = plainCharacter(token, 0); length > 0; length = plainCharacter(token, at)) {
    at += length;
    codePoints += 1;
  }
  return token[at] === 0x22 || token[at] === 0x5c || codePoints >= PLAIN_LIMIT;
}

/** How many bytes of the token from `at` on are a plain character, or the beginning of one that the token's end cuts; 0: none. */
export function plainCharacter(token: Uint8Array, at: number): number {
  const lead = token[at];
  if (lead === undefined) return 0;
  if (lead < 0x80) return lead < 0x20 || lead === 0x22 || lead === 0x5c ? 0 : 1;
  const length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  const end = Math.min(at + length, token.length);
  for (let i = at + 1; i < end; i += 1) if ((token[i]! & 0xc0) !== 0x80) return 0;
  if (length > 2 && at + 1 < end) {
    // Not the shortest form, a surrogate, or beyond U+10FFFF.
    const second = token[at + 1]!;
    if (lead === 0xe0 && second < 0xa0) return 0;
    if (lead === 0xed && second > 0x9f) return 0;
    if (lead === 0xf0 && second < 0x90) return 0;
    if (lead === 0xf4 && second > 0x8f) return 0;
  }
  return end - at;
}
