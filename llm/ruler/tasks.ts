/**
 * The 13 tasks of RULER (Hsieh et al. 2024, "RULER: What's the real context size of your long-context language models?"),
 * made anew from the paper's descriptions, at any length for any tokenizer. What differs: the prose around needles is whatever
 * is given in place of essays; both question-answering tasks ask about made-up people and towns in place of SQuAD and HotpotQA;
 * no task is preceded by a solved example.
 */
import { HostRandom, randomKey } from '../../engine/index.ts';
import { hide, noise, prose, wordsOf } from './haystack.ts';
import { coded, distinct, keyWords, name, number, shuffled, uuid } from './words.ts';

/** A prompt whose length is not settled yet. */
interface Draft {
  readonly prompt: string;
  readonly answers: readonly string[];
}

interface Source {
  /** Numbers by purpose: a longer text tells the same of what is asked. */
  readonly random: (purpose: string) => HostRandom;
  /** Words of prose. */
  readonly words: readonly string[];
}

interface Task {
  /** Whether all answers have to be said, or any. */
  readonly score: 'all' | 'any';
  /** Tokens that an answer may take. */
  readonly room: number;
  /** A text with so many units of what makes it longer. `sparse`: fewer of what it needs in any case. */
  readonly draft: (source: Source, units: number, sparse: boolean) => Draft;
}

interface NeedleOptions {
  readonly haystack: 'noise' | 'prose' | 'needles';
  /** Of keys and of values. */
  readonly types?: readonly [key: 'word' | 'uuid', value: 'number' | 'uuid'];
  /** Keys, those with further needles included; values of each; keys that are asked for. */
  readonly keys?: number;
  readonly values?: number;
  readonly queries?: number;
}

const list = (texts: readonly string[]): string =>
  texts.length === 1 ? texts[0]! : `${texts.slice(0, -1).join(', ')} and ${texts.at(-1)!}`;

/** Needles in a haystack: sentences that give keys values, of which some are asked for. */
function needles({ haystack, types = ['word', 'number'], keys = 1, values = 1, queries = 1 }: NeedleOptions): Task {
  const [keyType, type] = types;
  return {
    score: 'all',
    room: 128,
    draft({ random, words }, units) {
      const others = haystack === 'needles' ? units : 0;
      const count = keys + others;
      const source = random('keys');
      const names = keyType === 'word' ? keyWords(source, count) : distinct(count, () => uuid(source));
      const numbers = random('values');
      const told = distinct(count * values, () => (type === 'number' ? number(numbers) : uuid(numbers)));
      const sentences = told.map((value, i) => `One of the special ${type}s for ${names[Math.floor(i / values)]!} is: ${value}.`); // prettier-ignore
      const parts =
        haystack === 'noise'
          ? noise(units)
          : haystack === 'prose'
            ? prose(words, units, random('prose'))
            : sentences.slice(keys).map((sentence) => `${sentence} `);
      const text = hide(parts, sentences.slice(0, keys * values), random('depths'));
      const asked = list(names.slice(0, queries));
      const [what, is] = queries * values === 1 ? [`special ${type}`, 'is'] : [`special ${type}s`, 'are'];
      return {
        prompt:
          `Somewhere in the following text special ${type}s are given for words. Remember them, they will be asked for.\n` +
          `${text}\nWhat ${is} the ${what} for ${asked} in the text above? ` +
          `The ${what} for ${asked} that the text gives ${is}`,
        answers: told.slice(0, queries * values),
      };
    },
  };
}

const HOPS = 4;

/** A value that is handed on from variable to variable: all that have it are asked for. */
const tracking: Task = {
  score: 'all',
  room: 30,
  draft({ random }, units) {
    const source = random('variables');
    const names = distinct(HOPS + 1, () => coded(source, 5).toUpperCase());
    const value = String(10_000 + source.below(90_000));
    const told = names.map((name, i) => `VAR ${name} = ${i === 0 ? value : `VAR ${names[i - 1]!}`}.`);
    const text = hide(noise(units), told, random('depths'), { ordered: true });
    return {
      prompt:
        'The following text hides assignments to variables. Follow them through the text.\n' +
        `${text}\nWhich variables have the value ${value}, by assignment or handed on? ` +
        `The ${names.length} variables with the value ${value} are:`,
      answers: names,
    };
  },
};

const COMMON = 10;

/** A numbered list of words, of which ten occur more often than the rest. */
const commonWords: Task = {
  score: 'all',
  room: 120,
  draft({ random }, units, sparse) {
    const [often, seldom] = sparse ? [10, 1] : [30, 3];
    const all = keyWords(random('words'), COMMON + units);
    const repeated = all.flatMap((word, i) => new Array<string>(i < COMMON ? often : seldom).fill(word));
    const order = shuffled(random('order'), repeated);
    return {
      prompt:
        'Below is a numbered list of words. Some of them occur more often than the others. Remember those.\n' +
        `${order.map((word, i) => `${i + 1}. ${word}`).join(' ')}\n` +
        `Which ${COMMON} words are the most common in the list above? The ${COMMON} most common words are:`,
      answers: all.slice(0, COMMON),
    };
  },
};

const FREQUENT = 3;
/** Frequencies fall with this power of the rank, as the zeta distribution's do. */
const ZETA = 2;

/** Coded words by Zipf's law: the three most frequent are asked for, but for the first, which is dots. */
const frequentWords: Task = {
  score: 'all',
  room: 50,
  draft({ random }, units) {
    const total = 40 + units;
    const whole = Math.PI ** 2 / 6; // ζ(2)
    const counts: number[] = [];
    for (let rank = 1, left = total; left > 0; rank++) {
      counts.push(Math.min(left, Math.max(1, Math.round(total / (whole * rank ** ZETA)))));
      left -= counts.at(-1)!;
    }
    const source = random('words');
    const words = ['....', ...distinct(counts.length - 1, () => coded(source, 6))];
    const order = shuffled(
      random('order'),
      counts.flatMap((count, rank) => new Array<string>(count).fill(words[rank]!)),
    );
    return {
      prompt:
        'Read the following coded text and count how often each coded word occurs. Dots are no word.\n' +
        `${order.join(' ')}\nWhich ${FREQUENT} coded words are the most frequent in the text above? ` +
        `The ${FREQUENT} most frequent coded words are:`,
      answers: words.slice(1, 1 + FREQUENT),
    };
  },
};

const TRADES = ['baker', 'carpenter', 'doctor', 'farmer', 'gardener', 'painter', 'sailor', 'tailor', 'teacher', 'weaver']; // prettier-ignore

/** Documents about people and towns; the answer to the question stands in one of them, or needs two. */
const questions = (documents: 1 | 2): Task => ({
  score: 'any',
  room: 32,
  draft({ random }, units) {
    const source = random('facts');
    const count = Math.ceil(units / 4) + 2; // documents of four sentences
    const named = random('names');
    const names = distinct(3 * count, () => name(named, 3));
    const [people, towns, rivers] = [0, 1, 2].map((k) => names.filter((_, i) => i % 3 === k)) as [string[], string[], string[]]; // prettier-ignore
    const facts = people.map((person, i) => {
      const [year, trade] = [1800 + source.below(200), TRADES[source.below(TRADES.length)]!];
      const [founded, souls] = [1000 + source.below(700), 1000 + source.below(90_000)];
      return i % 2 === 0
        ? [`${person} was born in ${towns[i]!}.`, `The year was ${year}.`, `${person} became a ${trade}.`, `Later ${person} moved away.`] // prettier-ignore
        : [`${towns[i - 1]!} is a town on the river ${rivers[i - 1]!}.`, `It was founded in ${founded}.`, `It has ${souls} people.`, `Its market is old.`]; // prettier-ignore
    });
    // The first two are asked about, and whole; of the others so many sentences as are wanted.
    const others = facts.slice(2).map((sentences, i) => sentences.slice(0, Math.max(0, units - 4 * i)));
    const [gold, rest] = [facts.slice(0, documents), others.filter(({ length }) => length > 0)];
    const order = shuffled(random('order'), [...gold, ...rest]);
    const [person, town, river] = [people[0]!, towns[0]!, rivers[0]!];
    const asked =
      documents === 1 ? `In which town was ${person} born?` : `On which river is the town in which ${person} was born?`;
    return {
      prompt:
        'Answer the question from the documents below, with the answer alone.\n' +
        `${order.map((sentences, i) => `Document ${i + 1}: ${sentences.join(' ')}`).join('\n')}\n` +
        `Question: ${asked}\nAnswer:`,
      answers: [documents === 1 ? town : river],
    };
  },
});

export const RULER = {
  niah_single_1: needles({ haystack: 'noise' }),
  niah_single_2: needles({ haystack: 'prose' }),
  niah_single_3: needles({ haystack: 'prose', types: ['word', 'uuid'] }),
  niah_multikey_1: needles({ haystack: 'prose', keys: 4 }),
  niah_multikey_2: needles({ haystack: 'needles' }),
  niah_multikey_3: needles({ haystack: 'needles', types: ['uuid', 'uuid'] }),
  niah_multivalue: needles({ haystack: 'prose', values: 4 }),
  niah_multiquery: needles({ haystack: 'prose', keys: 4, queries: 4 }),
  vt: tracking,
  cwe: commonWords,
  fwe: frequentWords,
  qa_1: questions(1),
  qa_2: questions(2),
} satisfies Record<string, Task>;
export type RulerTask = keyof typeof RULER;
export const RULER_TASKS = Object.keys(RULER) as RulerTask[];

export interface RulerOptions {
  /** Tokens of the prompt with what is kept free for the answer: at most these, and less by 2 % at most. */
  readonly length: number;
  readonly seed: number;
  /** Which of the seed's texts. */
  readonly sample: number;
  /** Tokens of a text. */
  readonly count: (text: string) => number;
  /** What haystacks of prose are made of. */
  readonly prose: string;
}

export interface RulerSample extends Draft {
  /** Tokens of the prompt, and how many the answer may take. */
  readonly tokens: number;
  readonly room: number;
}

/** How close to the length a search stops. */
const CLOSE = 0.004;

type SampleOptions = Omit<RulerOptions, 'length'>;

/** Makes texts with so many units. Of sparse ones there is less in the least. */
function maker(task: RulerTask, { seed, sample, count, prose }: SampleOptions) {
  const { draft, room }: Task = RULER[task];
  const random = (purpose: string) => new HostRandom(randomKey(seed, `ruler/${task}/${purpose}`), sample);
  const source = { random, words: wordsOf(prose) };
  return (units: number, sparse: boolean): RulerSample => {
    const made = draft(source, units, sparse);
    return { ...made, tokens: count(made.prompt), room };
  };
}

/** The least length that has room for a text of a task and its answer. */
export function rulerLeast(task: RulerTask, options: SampleOptions): number {
  const { tokens, room } = maker(task, options)(0, true);
  return tokens + room;
}

/** A text of a task: the same for the same options. Throws where the length is too short for it. */
export function rulerSample(task: RulerTask, { length, ...options }: RulerOptions): RulerSample {
  const make = maker(task, options);
  const dense = make(0, false);
  const most = length - dense.room;
  const sparse = dense.tokens > most / 2;
  const least = sparse ? make(0, true) : dense;
  if (least.tokens > most)
    throw new Error(`[ruler] ${task} takes ${least.tokens + least.room} tokens at least, ${least.room} of them for the answer; ${length} are too few`); // prettier-ignore
  let [low, found, high, perUnit] = [0, least, Infinity, 8];
  while (high - low > 1 && most - found.tokens > CLOSE * length) {
    const step = Math.max(1, Math.floor((most - CLOSE * length / 2 - found.tokens) / perUnit)); // prettier-ignore
    const units = Math.min(low + step, high === Infinity ? Math.max(16 * low, 64) : high - 1);
    const made = make(units, sparse);
    if (made.tokens > least.tokens) perUnit = (made.tokens - found.tokens) / (units - low);
    if (made.tokens <= most) [low, found] = [units, made];
    else high = units;
  }
  return found;
}

/** How much of what was to be said was said, from 0 to 1: the paper's metric, which takes case and all else for nothing. */
export function rulerScore(task: RulerTask, answers: readonly string[], said: string): number {
  const text = said.toLowerCase();
  const hits = answers.filter((answer) => text.includes(answer.toLowerCase())).length;
  return RULER[task].score === 'all' ? hits / answers.length : Math.min(1, hits);
}
