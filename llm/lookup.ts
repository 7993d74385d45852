/**
 * Tokens that may come next, looked up in the text so far (prompt lookup decoding, Saxena 2023): what followed the last
 * place where the text's last tokens stood before. Free to make, and often right where an answer quotes its prompt.
 */
export function lookUp(tokens: readonly number[], most: number, longest = 3): number[] {
  const { length } = tokens;
  for (let size = Math.min(longest, length - 1); size > 0 && most > 0; size--)
    for (let start = length - size - 1; start >= 0; start--) {
      let same = 0;
      while (same < size && tokens[start + same] === tokens[length - size + same]) same++;
      if (same === size) return tokens.slice(start + size, start + size + most);
    }
  return [];
}
