/** Generation beside recomputing by hand; batches, limits, stops, penalties, grammars, drafts. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Device } from '../../engine/index.ts';
import { generate, Prefix } from '../../llm/generate.ts';
import type { GenerateOptions, GenerationEvent } from '../../llm/generate.ts';
import { Matcher, regular, Vocabulary } from '../../llm/grammar/index.ts';
import type { Transformer } from '../../llm/model.ts';
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
const text = { vocabulary, encode: (text: string) => Array.from(text, (letter) => SPELLING.indexOf(letter)) };

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
  for await (const event of generate(own, prompts, { maxTokens: 12, text, ...options })) events.push(event);
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
