import { DEAD, NONE, type Language } from '../../../../llm/grammar/text/language.ts';

/** The state behind a text. */
export function walk(language: Language, text: string): number {
  let state = language.start;
  for (const character of text) {
    if (state === DEAD) return DEAD;
    state = language.step(state, character.codePointAt(0)!);
  }
  return state;
}

export function labelOf(language: Language, text: string): number {
  const state = walk(language, text);
  return state === DEAD ? NONE : language.label(state);
}

export function accepts(language: Language, text: string): boolean {
  return labelOf(language, text) !== NONE;
}

/** The shortest text of the language that begins so. */
export function shortest(language: Language, prefix: string): string {
  const seen = new Map([[walk(language, prefix), prefix]]);
  for (const [state, text] of seen) {
    if (language.label(state) !== NONE) return text;
    for (const { from, state: next } of language.ranges(state)) {
      if (!seen.has(next)) seen.set(next, text + String.fromCodePoint(from));
    }
  }
  throw new Error('alive without a text');
}

/** All texts of up to so many letters. */
export function textsOver(letters: readonly string[], longest: number): string[] {
  const texts = [''];
  for (let from = 0, length = 1; length <= longest; length += 1) {
    const until = texts.length;
    for (; from < until; from += 1) for (const letter of letters) texts.push(texts[from] + letter);
  }
  return texts;
}
