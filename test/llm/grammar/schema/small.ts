import { Vocabulary } from '../../../../llm/grammar/vocabulary.ts';

const TOKENS = [
  ...['{"', '":', '","', '"}', '": ', ': ', ', ', '[]', '{}', '[[', ']]', '}}', '"]', '["', '""', '],'],
  ...['true', 'false', 'null', 'tr', 'ue', 'alse', '10', '-1', '0.', '.5', 'e+', '00', '123'],
  ...['\\"', '\\u', '\\n', '\\\\', '\\u00', 'aa', 'ab', 'ba', 'a"', 'é', '😀', '日本', '\n  ', '\r\n', '  '],
];

/** All single bytes, 43 tokens across the seams of JSON, and one that ends a text: 300. */
export const SMALL = Vocabulary.of(
  [
    ...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
    ...TOKENS.slice(0, 43).map((token) => new TextEncoder().encode(token)),
    new TextEncoder().encode('<end>'),
  ],
  { end: [299] },
);
