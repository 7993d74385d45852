/**
 * UTF-8 as text, without a byte order mark. Where it isn't UTF-8, `fail` is told so and at which byte, as what follows a
 * file's name; it throws.
 */
export function decodeUtf8(bytes: Uint8Array, fail: (what: string) => never): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    // As a stream, what ends within a character is still good: so prefixes are good up to the fault.
    const good = (length: number): boolean => {
      try {
        new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, length), { stream: true });
        return true;
      } catch {
        return false;
      }
    };
    let [low, high] = [0, bytes.length + 1]; // low is good, high is not
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (good(middle)) low = middle;
      else high = middle;
    }
    const where = low < bytes.length ? `byte ${low} (0x${bytes[low]!.toString(16).padStart(2, '0')}) is wrong` : 'it ends within a character'; // prettier-ignore
    return fail(`is not UTF-8: ${where}`);
  }
}
