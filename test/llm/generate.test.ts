/** Generation beside recomputing by hand; batches, limits, stops, penalties, grammars, drafts. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Device } from '../../engine/index.ts';
import { cacheOwner } from '../../llm/cache_file.ts';
import { generate, Prefix } from '../../llm/generate.ts';
import type { GenerateOptions, GenerationEvent } from '../../llm/generate.ts';
import { Matcher, regular, Vocabulary } from '../../llm/grammar/index.ts';
import type { Transformer } from '../../llm/model.ts';
import { Tokenizer } from '../../llm/tokenizer.ts';
import { bytesSource, readSafetensors } from '../../nn/safetensors.ts';
import { plainDevice } from '../device.ts';
import { MIXED, randomIds, randomModel, wholeLogits } from './tiny.ts';

const V = MIXED.vocab_size;
/** Ids 0 to 25 are letters, then pairs of them, digits, parts of an é; the last ends texts. */
const SPELLING = [...'abcdefghijklmnopqrstuvwxyz', 'ab', 'bc', 'cd', '0', '1', '2', '3', '4', ' ', '.'];
const encoder = new TextEncoder();
const vocabulary = Vocabulary.of(
  [...SPELLING.map((text) => encoder.encode(text)), Uint8Array.of(0xc3), Uint8Array.of(0xa9), encoder.encode('é'), encoder.encode('<end>')], // prettier-ignore
  { end: [V - 1] },
);
const tokenizer = new Tokenizer(vocabulary, {
  encode: (text) => Array.from(text, (letter) => SPELLING.indexOf(letter)),
  added: new Map(),
  begin: () => [],
});

let device: Device;
let model: Transformer;
/** All its layers see all: drafts can be taken back. */
let full: Transformer;
beforeAll(async () => {
  device = await plainDevice();
  model = randomModel(device, MIXED).model;
  full = randomModel(device, { ...MIXED, layer_types: Array(3).fill('full_attention') }).model;
});
afterAll(() => [model, full].forEach((one) => one.release()));

const PROMPT = randomIds(9, V - 1);

async function run(prompts: readonly (string | number[])[], options: GenerateOptions = {}, own = model) {
  const events: GenerationEvent[] = [];
  for await (const event of generate(own, prompts, { maxTokens: 12, tokenizer, ...options })) events.push(event);
  const sequences = new Map<string, { tokens: number[]; text: string; finish: string | null; logs: number[] }>();
  for (const { prompt, sample, token, text, finish, logProbability } of events) {
    const key = `${prompt}/${sample}`;
    const one = sequences.get(key) ?? { tokens: [], text: '', finish: null, logs: [] };
    expect(one.finish).toBeNull(); // nothing comes behind the end
    if (token !== null) one.tokens.push(token);
    if (token !== null) one.logs.push(logProbability);
    sequences.set(key, { ...one, text: one.text + text, finish });
  }
  return { events, sequences, all: [...sequences.values()], one: sequences.get('0/0')! };
}

/** What greedy decoding gives by recomputing all, and each token's log-probability. */
async function recomputed(own: Transformer, prompt: readonly number[], count: number) {
  const ids = [...prompt];
  const logs: number[] = [];
  while (ids.length < prompt.length + count) {
    const row = (await wholeLogits(own, [ids]))[0]!.slice(-V);
    const best = row.indexOf(Math.max(...row));
    logs.push(row[best]! - Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)));
    ids.push(best);
    if (best === V - 1) break;
  }
  return { tokens: ids.slice(prompt.length), logs };
}

describe('greedy', () => {
  it('is what recomputing gives, with its log-probabilities, whatever the chunks', async () => {
    const { tokens, logs } = await recomputed(model, PROMPT, 20);
    for (const chunk of [512, 4, 1]) {
      const { one } = await run([PROMPT], { temperature: 0, maxTokens: 20, chunk, ends: [V - 1] });
      expect(one.tokens).toEqual(tokens);
      one.logs.forEach((log, i) => expect(log).toBeCloseTo(logs[i]!, 4));
    }
  });
});

it('computes in f16 and keeps keys in f16 or q8, within their rounding', async () => {
  const own = randomModel(device, { ...MIXED, head_dim: 32 }).model;
  const options = { temperature: 0, maxTokens: 2, ends: [] };
  const { one } = await run([PROMPT], options, own);
  for (const [format, digits] of [
    [{ dtype: 'f16', cacheFormat: 'f16' }, 1],
    [{ cacheFormat: 'q8' }, 1],
  ] as const) {
    // prettier-ignore
    const rounded = await run([PROMPT], { ...options, ...format }, own);
    expect(rounded.one.logs[0]).toBeCloseTo(one.logs[0]!, digits);
    expect(rounded.one.logs[0]).not.toBe(one.logs[0]);
  }
  own.release();
});

describe('a sequence', () => {
  const sampled = { temperature: 1.5, maxTokens: 14 } as const;

  it('has the text that it has alone, whatever is beside it: other prompts, seeds, continuations, more than one batch', async () => {
    const prompts = [5, 9, 2, 23].map((length, i) => randomIds(length, V - 1, i));
    const seeds = [3, 4, 5, 6];
    const { sequences } = await run(prompts, { ...sampled, seed: seeds, samples: 3 });
    expect(sequences.size).toBe(12); // two batches
    for (const [p, prompt] of prompts.entries()) {
      const alone = await run([prompt], { ...sampled, seed: seeds[p]! });
      expect(sequences.get(`${p}/0`)).toEqual(alone.one);
    }
    const again = await run([prompts[3]!], { ...sampled, seed: 6, samples: 3 });
    for (const n of [0, 1, 2]) expect(again.sequences.get(`0/${n}`)).toEqual(sequences.get(`3/${n}`));
    expect(new Set(again.all.map(({ tokens }) => tokens.join())).size).toBe(3);
  });

  it('is the same step by step as where layers need other kernels: trees', async () => {
    const tree = { block: 4, fanout: 2, beam: 2 };
    const json = { ...MIXED, layer_types: ['tree_attention', 'full_attention', 'tree_attention'], tree };
    const own = randomModel(device, json).model;
    const { tokens } = await recomputed(own, PROMPT, 20);
    const { all } = await run([PROMPT], { temperature: 0, maxTokens: 20, samples: 2, chunk: 5 }, own);
    for (const one of all) expect(one.tokens.join()).toBe(tokens.join());
    own.release();
  });
});

describe('limits', () => {
  it('stop strings end a text, across tokens too, and nothing of them is given', async () => {
    const { one } = await run([PROMPT], { temperature: 0, ends: [] });
    // From the middle of one token to the middle of another.
    const [start, stop] = [3, one.text.slice(3, 6)];
    const found = await run([PROMPT], { temperature: 0, ends: [], stop: [stop, 'never there'] });
    expect(found.one.text).toBe(one.text.slice(0, one.text.indexOf(stop)));
    expect(one.text.indexOf(stop)).toBeLessThanOrEqual(start);
    expect(found.one.finish).toBe('stop');
    const held = await run([PROMPT], { temperature: 0, ends: [], stop: [`${one.text}!`] });
    expect(held.one).toEqual(one); // what was held back comes in the end
    expect(held.events.filter(({ text }) => text !== '')).toHaveLength(1);
  });

  it('ends of text, the number of tokens, the context, the time, the signal', async () => {
    const { one } = await run([PROMPT], { temperature: 0, ends: [] });
    const end = one.tokens[3]!;
    const ended = await run([PROMPT], { temperature: 0, ends: [end] });
    expect(ended.one).toMatchObject({ tokens: one.tokens.slice(0, one.tokens.indexOf(end) + 1), finish: 'end' });
    expect(one).toMatchObject({ finish: 'length' });
    expect(one.tokens).toHaveLength(12);
    const long = randomIds(60, V - 1);
    expect((await run([long], { ends: [] })).one).toMatchObject({ finish: 'length', tokens: { length: 4 } });
    expect((await run([PROMPT], { timeLimit: 0 })).one).toEqual({ tokens: [], text: '', finish: 'time', logs: [] });
    const stopping = new AbortController();
    const reasons: (string | null)[] = [];
    for await (const { finish } of generate(model, [PROMPT], { samples: 2, ends: [], signal: stopping.signal })) {
      reasons.push(finish);
      if (reasons.length === 4) stopping.abort();
    }
    expect(reasons).toEqual([null, null, null, null, 'aborted', 'aborted']);
  });

  it('says how far prompts have been read; gives its memory back when it is left', async () => {
    const live = () => device.memory.usage.get('key-value cache')!.live;
    const before = live();
    const seen: number[][] = [];
    const options = { chunk: 4, onPrefill: (...at: [number, number]) => seen.push(at) };
    for await (const _ of generate(model, [PROMPT, [1, 2]], options)) break;
    expect(seen).toEqual([[0, 11], [4, 11], [8, 11], [9, 11], [9, 11], [11, 11]]); // prettier-ignore
    expect(live()).toBe(before);
  });

  it.each([
    [[[]], {}, /\[generate\] the prompt has no token/],
    [[[1], randomIds(64, V)], {}, /prompt 2 has 64 tokens; the model's context is 64, of which one at least is for the answer: shorten it by 1/], // prettier-ignore
    [[[1, 40]], {}, /the prompt has the token 40; the model's are 0 to 39/],
    [['a'], { tokenizer: undefined }, /prompts that are texts need the option tokenizer/],
    [[[1]], { maxTokens: 0 }, /maxTokens is 0/],
    [[[1]], { stop: [''] }, /a stop string is empty/],
    [[[1]], { seed: [1, 2] }, /there are 2 seeds for 1 prompts/],
    [[[1]], { logitBias: new Map([[40, 1]]) }, /a logit bias is for token 40/],
    [[[1]], { topP: 2 }, /topP is 2: it must be from 0 to 1/],
    [[[1]], { logitBias: new Map(Array.from({ length: V }, (_, id) => [id, -Infinity])) }, /no token is left to draw/], // prettier-ignore
  ] as [(string | number[])[], GenerateOptions, RegExp][])('%j, %j: %s', async (prompts, options, message) => {
    await expect(run(prompts, options)).rejects.toThrow(message);
  });

  it('a tokenizer with more tokens than the model: both are named', async () => {
    const own = randomModel(device, { ...MIXED, vocab_size: 32 }).model;
    await expect(run([[1]], {}, own)).rejects.toThrow(/the tokenizer has 40 tokens, the model 32/);
    own.release();
  });
});

describe('what is drawn', () => {
  it('follows penalties and biases, in a pass of one token and of several', async () => {
    const penalties = { temperature: 0, frequencyPenalty: 0.4, presencePenalty: 0.5, repetitionPenalty: 1.2 };
    const options = { ...penalties, ends: [], maxTokens: 20, logitBias: new Map([[7, -Infinity]]) };
    const expected = [...PROMPT];
    for (let n = 0; n < 20; n++) {
      const row = (await wholeLogits(full, [expected]))[0]!.slice(-V);
      const drawn = expected.slice(PROMPT.length);
      const changed = row.map((value, id) => {
        const times = drawn.filter((other) => other === id).length;
        const repeated = expected.includes(id) ? (value > 0 ? value / 1.2 : value * 1.2) : value;
        return id === 7 ? -Infinity : repeated - (times > 0 ? 0.5 + 0.4 * times : 0);
      });
      expected.push(changed.indexOf(Math.max(...changed)));
    }
    for (const lookup of [0, 4]) {
      const { all } = await run([PROMPT, PROMPT], { ...options, lookup }, full);
      for (const { tokens } of all) expect(tokens).toEqual(expected.slice(PROMPT.length));
    }
  });

  it('comes with the most probable tokens', async () => {
    const { events } = await run([PROMPT], { temperature: 0, top: 3, maxTokens: 3 });
    for (const { token, logProbability, top } of events) {
      expect(top).toHaveLength(3);
      expect(top[0]).toEqual({ token, logProbability });
      expect(top[1]!.logProbability).toBeLessThanOrEqual(logProbability);
    }
  });
});

describe('tokens fed ahead', () => {
  // Sharp and repetitive: what is looked up is often right, and often wrong.
  const repetitive = [...PROMPT, ...PROMPT, ...PROMPT.slice(0, 4)];
  /** Counts forward passes. */
  async function passes(own: Transformer, body: () => Promise<void>): Promise<number> {
    let count = 0;
    const forward = own.forward.bind(own);
    const replayed = device.stream.replay.bind(device.stream);
    own.forward = (...given) => (count++, forward(...given));
    device.stream.replay = (commands) => (count++, replayed(commands));
    await body();
    own.forward = forward;
    device.stream.replay = replayed;
    return count;
  }

  it.each([
    ['greedy', { temperature: 0 }],
    ['sampled', { temperature: 0.5, seed: 3 }],
  ])('looked up in the text: the same text in fewer passes, %s', async (_, sampling) => {
    const bias = new Map(PROMPT.slice(0, 2).map((id) => [id, 12])); // so that it repeats itself
    const options = { ...sampling, logitBias: bias, ends: [], maxTokens: 30, samples: 2 };
    const plain = await run([repetitive], options, full);
    const drafted = await run([repetitive], { ...options, lookup: 6 }, full);
    expect(drafted.all.map(({ tokens }) => tokens)).toEqual(plain.all.map(({ tokens }) => tokens));
    const alone = () => run([repetitive], { ...options, samples: 1, lookup: 6 }, full);
    expect(await passes(full, async () => void (await alone()))).toBeLessThan(25);
  });

  it('where windows have turned, as few as can be taken back', async () => {
    const options = { temperature: 0, ends: [], maxTokens: 30 };
    const plain = await run([repetitive], options);
    const drafted = await run([repetitive], { ...options, lookup: 6 });
    expect(drafted.one.tokens).toEqual(plain.one.tokens);
  });

  it('by a grammar: what has to come costs a pass, with the model’s log-probabilities', async () => {
    const grammar = new Matcher(vocabulary, regular('fox (runs|sits)\\.'), { tokens: 20 });
    let found!: Awaited<ReturnType<typeof run>>;
    const count = await passes(
      full,
      async () => void (found = await run([PROMPT], { grammar, maxTokens: 20, samples: 3 }, full)),
    );
    for (const { text, finish, tokens, logs } of found.all) {
      expect(text).toMatch(/^fox (runs|sits)\.$/);
      expect(finish).toBe('grammar');
      expect(logs.every((log) => log < 0 && log > -20)).toBe(true);
      const row = (await wholeLogits(full, [[...PROMPT, ...tokens.slice(0, -1)]]))[0]!;
      tokens.forEach((id, i) => {
        const own = row.slice((PROMPT.length + i - 1) * V, (PROMPT.length + i) * V);
        expect(logs[i]).toBeCloseTo(own[id]! - Math.log(own.reduce((sum, value) => sum + Math.exp(value), 0)), 4);
      });
    }
    expect(count).toBeLessThan(9);
  });
});

it('a grammar with a budget is complete within it', async () => {
  const grammar = new Matcher(vocabulary, regular('[a-z0-4 ]{3,}\\.'), { tokens: 8 });
  const { all } = await run([PROMPT], { grammar, maxTokens: 8, samples: 4, temperature: 2 });
  for (const { text, finish } of all) {
    expect(text).toMatch(/^[a-z0-4 ]{3,}\.$/);
    expect(finish).toBe('grammar');
  }
});

it('a prefix is not read again', async () => {
  const prefix = new Prefix(device, model.config, { capacity: 64 });
  const read: number[] = [];
  const options = { temperature: 0, ends: [], maxTokens: 5, prefix, onPrefill: (done: number) => read.push(done) };
  const first = await run([PROMPT], options);
  const second = [...PROMPT, ...first.one.tokens, 4, 5];
  read.length = 0;
  const found = await run([second], options);
  expect(read).toEqual([PROMPT.length + 4, second.length]); // the last token was drawn, not fed
  expect(found.one.tokens).toEqual((await recomputed(model, second, 5)).tokens);
  read.length = 0;
  // Windows have turned: what they have lost has to be read again.
  const other = await run([[...PROMPT, 1]], options);
  expect(read[0]).toBe(0);
  expect(other.one.tokens).toEqual((await recomputed(model, [...PROMPT, 1], 5)).tokens);
  prefix.release();
});

it('a prefix comes back from a file, and serves as far as the next prompt begins alike', async () => {
  const owner = await cacheOwner(full, 'full');
  const [kept, prefix] = [1, 2].map(() => new Prefix(device, full.config, { capacity: 64 })) as [Prefix, Prefix];
  const read: number[] = [];
  const options = { temperature: 0, ends: [], maxTokens: 5, onPrefill: (done: number) => read.push(done) };
  await run([PROMPT], { ...options, prefix: kept }, full);
  const chunks: Uint8Array[] = [];
  for await (const chunk of kept.save(owner)) chunks.push(chunk);
  const file = await readSafetensors(bytesSource(Buffer.concat(chunks), 'a.cache'));
  const twin = randomModel(device, { ...MIXED, layer_types: Array(3).fill('full_attention') }, 2).model;
  await expect(prefix.restore(file, await cacheOwner(twin, 'twin'))).rejects.toThrow(/"full" with other weights than "twin" has/); // prettier-ignore
  twin.release();
  expect(prefix.tokens).toEqual([]);
  await prefix.restore(file, owner);
  expect(prefix.tokens).toEqual(kept.tokens);
  for (const [prompt, common] of [
    [[...PROMPT, 3, 1], PROMPT.length],
    [[...PROMPT.slice(0, 6), (PROMPT[6]! + 1) % V, 7], 6],
    [[(PROMPT[0]! + 1) % V, ...PROMPT.slice(1)], 0],
  ] as const) {
    await prefix.restore(file, owner);
    // What was written behind the first prompt may happen to go on alike.
    const alike = prompt.findIndex((id, i) => id !== prefix.tokens[i]);
    expect(alike).toBeGreaterThanOrEqual(common);
    read.length = 0;
    const found = await run([[...prompt]], { ...options, prefix }, full);
    expect(read[0]).toBe(alike);
    expect(found.one.tokens).toEqual((await recomputed(full, prompt, 5)).tokens);
  }
  for (const used of [kept, prefix]) used.release();
});
