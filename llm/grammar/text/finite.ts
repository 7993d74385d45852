import { NONE, type Language } from './language.ts';

/** The texts that lead from `state` into the language, shorter ones first, where there are at most `limit`; else null. */
export function finite(language: Language, state: number, limit: number): readonly string[] | null {
  const texts: string[] = [];
  // Every beginning leads to a text at least, so that there are never more beginnings than texts.
  for (let open = [{ state, text: '' }]; open.length > 0;) {
    const next: typeof open = [];
    for (const { state, text } of open) {
      if (language.label(state) !== NONE) texts.push(text);
      for (const { from, to, state: behind } of language.ranges(state)) {
        if (texts.length + next.length + (to - from + 1) > limit) return null;
        for (let codePoint = from; codePoint <= to; codePoint += 1) {
          next.push({ state: behind, text: text + String.fromCodePoint(codePoint) });
        }
      }
    }
    open = next;
  }
  return texts.length > limit ? null : texts;
}
