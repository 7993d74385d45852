import { DEAD, NONE, type Language, type Range } from './language.ts';

/** These texts and no others, as a trie; `label` is a text's place in the list (of the first, where one stands twice). */
export function words(texts: readonly string[]): Language {
  const children: Map<number, number>[] = [new Map()];
  const labels: number[] = [NONE];
  texts.forEach((text, place) => {
    let state = 0;
    for (const character of text) {
      const codePoint = character.codePointAt(0)!;
      let next = children[state]!.get(codePoint);
      if (next === undefined) {
        next = children.length;
        children[state]!.set(codePoint, next);
        children.push(new Map());
        labels.push(NONE);
      }
      state = next;
    }
    if (labels[state] === NONE) labels[state] = place;
  });
  const ranges: (readonly Range[])[] = [];
  return {
    key: `words ${JSON.stringify(texts)}`,
    start: 0,
    step: (state, codePoint) => children[state]!.get(codePoint) ?? DEAD,
    ranges: (state) =>
      (ranges[state] ??= [...children[state]!]
        .map(([codePoint, next]) => ({ from: codePoint, to: codePoint, state: next }))
        .sort((a, b) => a.from - b.from)),
    label: (state) => labels[state]!,
  };
}
