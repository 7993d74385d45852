import { CODE_POINTS, DEAD, NONE, type Language, type Range, type Span } from './language.ts';
import { ANY_SIZE, sizesOf } from './sizes.ts';

const MINUTES = 24 * 60;
/** The minute of the day in UTC whose second 60 can be. */
const LAST = MINUTES - 1;

/** What is read of a text, by the kind of its state; `value` is what has been read so far, or has to come. */
type Kind = 'before' | 'hour' | 'minute' | 'second' | 'leap' | 'offset' | 'any' | 'end';

interface State {
  readonly kind: Kind;
  /** How many characters of it have been read. */
  readonly read: number;
  readonly value: number;
}

/**
 * Of texts that are times of RFC 3339, `skip` characters before them: those whose second 60, if they have one, comes at
 * 23:59 of UTC. The minute of the day decides which offset may follow.
 */
export function leapSeconds(skip: number): Language {
  const states: State[] = [];
  const known = new Map<string, number>();
  const rangesOf: (readonly Range[] | undefined)[] = [];
  const state = (kind: Kind, read: number, value: number): number => {
    const key = `${kind} ${read} ${value}`;
    let id = known.get(key);
    if (id === undefined) known.set(key, (id = states.push({ kind, read, value }) - 1));
    return id;
  };
  const digits = (to: (digit: number) => number): readonly Range[] =>
    Array.from({ length: 10 }, (_, digit) => ({ from: 0x30 + digit, to: 0x30 + digit, state: to(digit) })).filter(
      (range) => range.state !== DEAD,
    );
  const all = (to: number): readonly Range[] => CODE_POINTS.map(([from, last]) => ({ from, to: last, state: to }));
  const character = (text: string, to: number): Range => ({
    from: text.charCodeAt(0),
    to: text.charCodeAt(0),
    state: to,
  });

  const next = ({ kind, read, value }: State): readonly Range[] => {
    switch (kind) {
      case 'before':
        return all(read + 1 < skip ? state('before', read + 1, 0) : state('hour', 0, 0));
      case 'hour':
        if (read === 2) return [character(':', state('minute', 0, value))];
        return digits((digit) => (10 * value + digit < 24 ? state('hour', read + 1, 10 * value + digit) : DEAD));
      case 'minute':
        if (read === 2) return [character(':', state('second', 0, value))];
        if (read === 0) return digits((digit) => (digit < 6 ? state('minute', 1, 60 * value + 10 * digit) : DEAD));
        return digits((digit) => state('minute', 2, value + digit));
      case 'second':
        return read === 0
          ? digits((digit) => (digit < 6 ? state('any', 0, 0) : digit === 6 ? state('second', 1, value) : DEAD))
          : [character('0', state('leap', 0, value))];
      case 'leap': {
        // Fractions of the second lie before the offset.
        const here = state('leap', 0, value);
        const [plus, minus] = [(value - LAST + MINUTES) % MINUTES, (LAST - value) % MINUTES];
        const zulu = value === LAST ? [character('Z', state('end', 0, 0)), character('z', state('end', 0, 0))] : [];
        return [
          character('+', state('offset', 0, plus)),
          character('-', state('offset', 0, minus)),
          character('.', here),
          ...digits(() => here),
          ...zulu,
        ];
      }
      case 'offset': {
        const two = (part: number): string => String(part).padStart(2, '0');
        const text = `${two(Math.floor(value / 60))}:${two(value % 60)}`;
        return [character(text[read]!, read === 4 ? state('end', 0, 0) : state('offset', read + 1, value))];
      }
      case 'any':
        return all(state('any', 0, 0));
      case 'end':
        return [];
    }
  };
  const ranges = (id: number): readonly Range[] => (rangesOf[id] ??= next(states[id]!));
  const spansOf = (id: number): readonly Span[] | null => {
    if (!ends(id)) return null;
    if (states[id]!.kind === 'any') return [{ below: Infinity, label: 0 }];
    return [
      { below: 1, label: 0 },
      { below: Infinity, label: NONE },
    ];
  };
  const ends = (id: number): boolean => states[id]!.kind === 'any' || states[id]!.kind === 'end';
  return {
    key: `leap seconds behind ${skip}`,
    start: skip > 0 ? state('before', 0, 0) : state('hour', 0, 0),
    step: (id, codePoint) => ranges(id).find(({ from, to }) => from <= codePoint && codePoint <= to)?.state ?? DEAD,
    ranges,
    label: (id) => (ends(id) ? 0 : NONE),
    spans: spansOf,
    letters: [],
    sizes: (id) => {
      const spans = spansOf(id);
      return spans ? sizesOf(spans) : ANY_SIZE;
    },
  };
}
