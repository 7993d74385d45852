/** A small JSON grammar of frames made by hand, for the tests of stacks, masks and matchers. */
import { Frame, Interned, type Move, type Outcome } from '../../../llm/grammar/automaton.ts';

const frames = new Interned<Frame>();

/** A frame of a state: all that it does is in `byte`, `resumed` and `ends`. */
class Toy extends Frame {
  private readonly byte: (byte: number) => Move;
  private readonly resumes: (outcome: Outcome) => Frame | null;
  private readonly ends: Outcome | null;
  private readonly options: {
    readonly plain?: number;
    readonly counted?: boolean;
    readonly unique?: boolean;
    readonly signature?: string;
  };

  constructor(
    byte: (byte: number) => Move,
    resumed: (outcome: Outcome) => Frame | null = () => null,
    ends: Outcome | null = null,
    options: {
      readonly plain?: number;
      readonly counted?: boolean;
      readonly unique?: boolean;
      readonly signature?: string;
    } = {},
  ) {
    super();
    this.byte = byte;
    this.resumes = resumed;
    this.ends = ends;
    this.options = options;
  }

  override end(): Outcome | null {
    return this.ends;
  }

  override get plain(): number {
    return this.options.plain ?? 0;
  }

  override get counted(): boolean {
    return this.options.counted ?? false;
  }

  override get signature(): string | null {
    return this.options.signature ?? null;
  }

  override get unique(): boolean {
    return this.options.unique ?? false;
  }

  protected override step(byte: number): Move {
    return this.byte(byte);
  }

  protected override after(outcome: Outcome): Frame | null {
    return this.resumes(outcome);
  }
}

const is = (byte: number, characters: string): boolean => characters.includes(String.fromCharCode(byte));

/** Inside a string, where `left` more characters fit: `state` says how much of one is there. */
function text(unique: boolean, left: number, state = ''): Frame {
  const key = `text ${unique} ${left} ${state}`;
  const to = (next: string): Frame => text(unique, left, next);
  const done = (): Frame => text(unique, left - 1);
  const between = (byte: number, low: number, high: number, next: () => Frame): Move =>
    byte >= low && byte <= high ? next() : null;
  const step = (byte: number): Move => {
    if (state === '') {
      if (byte === 0x22) return { kind: 'pop', outcome: 0, consumed: true };
      if (left === 0 || byte < 0x20) return null;
      if (byte === 0x5c) return to('\\');
      if (byte < 0x80) return done();
      if (byte >= 0xc2 && byte < 0xe0) return to('80-bf');
      if (byte === 0xe0) return to('a0-bf 80-bf');
      if (byte === 0xed) return to('80-9f 80-bf');
      if (byte > 0xe0 && byte < 0xf0) return to('80-bf 80-bf');
      if (byte === 0xf0) return to('90-bf 80-bf 80-bf');
      if (byte > 0xf0 && byte < 0xf4) return to('80-bf 80-bf 80-bf');
      return byte === 0xf4 ? to('80-8f 80-bf 80-bf') : null;
    }
    if (state === '\\') return byte === 0x75 ? to('u') : is(byte, '"\\/bfnrt') ? done() : null;
    if (state === 'pair\\') return byte === 0x5c ? to('pairu') : null;
    if (state === 'pairu') return byte === 0x75 ? to('low') : null;
    if (state.startsWith('u') || state.startsWith('low')) {
      if (!is(byte, '0123456789abcdefABCDEF')) return null;
      const digits = state.replace(/u|low/, '') + String.fromCharCode(byte).toLowerCase();
      const low = state.startsWith('low');
      const kind = /^d[c-f]/.test(digits) ? 'low' : /^d[89ab]/.test(digits) ? 'high' : 'other';
      if (low && !/^d$|^d[c-f]/.test(digits)) return null;
      if (!low && kind === 'low') return null;
      if (digits.length < 4) return to((low ? 'low' : 'u') + digits);
      return kind === 'high' ? to('pair\\') : done();
    }
    const [range = '', ...rest] = state.split(' ');
    const [from = 0, until = 0] = range.split('-').map((bound) => parseInt(bound, 16));
    return between(byte, from, until, () => (rest.length === 0 ? done() : to(rest.join(' '))));
  };
  const options = state === '' ? { plain: left, counted: true, unique, signature: key } : { unique, signature: key };
  return frames.get(key, () => new Toy(step, undefined, null, options));
}

/** Digits of a number, of which `left` more fit; what is not a digit ends it. */
function digits(left: number): Frame {
  const ended: Move = { kind: 'pop', outcome: 1, consumed: false };
  const step = (byte: number): Move => (is(byte, '0123456789') ? (left > 0 ? digits(left - 1) : null) : ended);
  return frames.get(`digits ${left}`, () => new Toy(step, undefined, 1));
}

/** The rest of a literal. */
function literal(rest: string): Frame {
  return frames.get(`literal ${rest}`, () => {
    const last = rest.length === 1;
    return new Toy((byte) =>
      byte !== rest.charCodeAt(0) ? null : last ? { kind: 'pop', outcome: 2, consumed: true } : literal(rest.slice(1)),
    );
  });
}

/** The move that opens a value on `frame`; null where the byte begins none. */
function value(byte: number, frame: Frame): Move {
  if (byte === 0x22) return { kind: 'push', frame, child: text(false, Infinity) };
  // A string of five characters at most.
  if (byte === 0x7e) return { kind: 'push', frame, child: literalThenText() };
  if (byte === 0x5b) return { kind: 'push', frame, child: array(true) };
  if (byte === 0x7b) return { kind: 'push', frame, child: object('first') };
  if (is(byte, '0123456789')) return { kind: 'push', frame, child: digits(6) };
  const word = ['true', 'false', 'null'].find((candidate) => candidate.charCodeAt(0) === byte);
  return word === undefined ? null : { kind: 'push', frame, child: literal(word.slice(1)) };
}

function literalThenText(): Frame {
  return frames.get('short', () => new Toy((byte) => (byte === 0x22 ? text(false, 5) : null)));
}

/** `open`: an element may come, or the end where there is none so far. */
function array(open: boolean, empty = open): Frame {
  return frames.get(`array ${open} ${empty}`, () => {
    const step = (byte: number): Move => {
      if (byte === 0x5d && (empty || !open)) return { kind: 'pop', outcome: 3, consumed: true };
      if (open) return value(byte, array(false, false));
      return byte === 0x2c ? array(true, false) : null;
    };
    return new Toy(step, () => array(false, false));
  });
}

type ObjectState = 'first' | 'key' | 'colon' | 'value' | 'after';

/** No key twice; a number's outcome (1) and a text's (0) lead on alike. */
function object(state: ObjectState): Frame {
  return frames.get(`object ${state}`, () => {
    const step = (byte: number): Move => {
      if (byte === 0x7d && (state === 'first' || state === 'after')) return { kind: 'pop', outcome: 4, consumed: true };
      if (state === 'first' || state === 'key') {
        return byte === 0x22 ? { kind: 'push', frame: object('colon'), child: text(true, Infinity) } : null;
      }
      if (state === 'colon') return byte === 0x3a ? object('value') : null;
      if (state === 'value') return value(byte, object('after'));
      return byte === 0x2c ? object('key') : null;
    };
    return new Toy(step, () => (state === 'after' ? object('after') : object('colon')));
  });
}

/**
 * A JSON value and nothing else: any strings (after ~ those of at most five characters), whole numbers of at most seven
 * digits, objects that have no key twice, no white space.
 */
export function toyJson(): Frame {
  const done: Frame = frames.get(
    'done',
    () =>
      new Toy(
        () => null,
        () => done,
        0,
      ),
  );
  return frames.get('root', () => new Toy((byte) => value(byte, done)));
}

/** One of these texts and nothing else. */
export function literals(texts: readonly string[]): Frame {
  const bytes = texts.map((text) => [...new TextEncoder().encode(text)]);
  return bytesOf(bytes);
}

function bytesOf(texts: readonly (readonly number[])[]): Frame {
  return frames.get(`bytes ${texts.join(' | ')}`, () => {
    const ends = texts.some((text) => text.length === 0) ? 0 : null;
    const step = (byte: number): Move => {
      const rest = texts.filter((text) => text[0] === byte).map((text) => text.slice(1));
      return rest.length === 0 ? null : bytesOf(rest);
    };
    return new Toy(step, undefined, ends);
  });
}
