import { describe, expect, it } from 'vitest';
import { rulerTable } from '../../cli/eval/ruler.ts';
import { Transformer } from '../../llm/model.ts';
import { evaluateRuler } from '../../llm/ruler/evaluate.ts';
import { rulerLeast, RULER_TASKS, rulerSample, rulerScore } from '../../llm/ruler/tasks.ts';
import type { RulerOptions, RulerTask } from '../../llm/ruler/tasks.ts';
import { readTokenizer } from '../../llm/tokenizer.ts';
import { folderFiles } from '../../nn/folder.ts';
import { plainDevice } from '../device.ts';

/** Two ways to cut texts: into words and marks, and into bytes. */
const TOKENIZERS = {
  words: (text: string) => text.match(/\w{1,4}|[^\w\s]/g)?.length ?? 0,
  bytes: (text: string) => Buffer.byteLength(text),
};
const PROSE = Array.from({ length: 700 }, (_, i) => `Sentence ${i} of a report, on trade and the weather.${i % 5 === 4 ? '\n' : ''}`).join(' '); // prettier-ignore

const OPTIONS: RulerOptions = { length: 4096, seed: 1, sample: 0, count: TOKENIZERS.words, prose: PROSE };
const sampleOf = (task: RulerTask, options: Partial<RulerOptions> = {}) =>
  rulerSample(task, { ...OPTIONS, ...options });

/** Those that occur most often, in that order. */
function mostFrequent(words: readonly string[], count: number): string[] {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  const order = [...counts].sort((a, b) => b[1] - a[1]);
  expect(order[count - 1]![1]).toBeGreaterThan(order[count]![1]);
  return order.slice(0, count).map(([word]) => word);
}

/** Finds the answers in a prompt by its words alone. */
function solve(task: RulerTask, prompt: string): string[] {
  const lines = prompt.split('\n');
  const question = lines.findLast((line) => line.includes('?'))!;
  const body = lines.slice(1, -1).join('\n');
  if (task.startsWith('niah')) {
    const asked = /for (.+) in the text above\?/.exec(question)![1]!.split(/, | and /);
    return asked.flatMap((key) =>
      [...body.matchAll(/One of the special (?:number|uuid)s for ([\w-]+) is: ([\w-]+)\./g)]
        .filter((match) => match[1] === key)
        .map((match) => match[2]!),
    );
  }
  if (task === 'vt') {
    const value = /have the value (\d+)/.exec(question)![1]!;
    const assignments = [...body.matchAll(/VAR (\w+) = (?:VAR )?(\w+)\./g)].map(([, to, from]) => [to!, from!]);
    const holders = [value];
    for (const [to, from] of assignments) if (holders.includes(from!)) holders.push(to!);
    return holders.slice(1);
  }
  if (task === 'cwe')
    return mostFrequent(
      [...body.matchAll(/\d+\. (\S+)/g)].map(([, word]) => word!),
      10,
    );
  if (task === 'fwe') return mostFrequent(body.match(/[a-z]+/g)!, 3);
  const person = /(?:was|which) (\w+) (?:was )?born/.exec(question)![1]!;
  const town = new RegExp(`${person} was born in (\\w+)\\.`).exec(body)![1]!;
  return [task === 'qa_1' ? town : new RegExp(`${town} is a town on the river (\\w+)\\.`).exec(body)![1]!];
}

describe.each(RULER_TASKS)('RULER’s %s', (task) => {
  it('has its answers in its text, which a solver finds, and nothing else', () => {
    for (const sample of [0, 1, 2, 3]) {
      const { prompt, answers } = sampleOf(task, { sample });
      expect(new Set(answers).size).toBe(answers.length);
      expect(solve(task, prompt).sort()).toEqual([...answers].sort());
    }
  });

  it('is as long as it shall be, within 2 %, for both tokenizers', () => {
    for (const [length, name] of [
      [4096, 'words'],
      [16_384, 'words'],
      [131_072, 'words'],
      [16_384, 'bytes'],
    ] as const) {
      const count = TOKENIZERS[name];
      const { prompt, tokens, room } = sampleOf(task, { length, count });
      expect(tokens).toBe(count(prompt));
      expect(tokens + room).toBeLessThanOrEqual(length);
      expect(tokens + room, `${length} ${name}`).toBeGreaterThanOrEqual(0.98 * length);
    }
  });

  it('is the same by seed and sample', () => {
    expect(sampleOf(task)).toEqual(sampleOf(task));
    expect(sampleOf(task).prompt).not.toBe(sampleOf(task, { sample: 1 }).prompt);
    expect(sampleOf(task).answers).not.toEqual(sampleOf(task, { seed: 2 }).answers);
  });

  it('is refused where it finds no room', () => {
    expect(() => sampleOf(task, { length: 60 })).toThrow(`[ruler] ${task} takes`);
    const least = rulerLeast(task, OPTIONS);
    expect(() => sampleOf(task, { length: least - 1 })).toThrow(`[ruler] ${task} takes ${least} tokens at least`);
    expect(sampleOf(task, { length: least }).answers.length).toBeGreaterThan(0);
  });
});

describe('RULER’s metric', () => {
  it('is the share of answers that were said, in any case, or whether one was', () => {
    expect(rulerScore('niah_multivalue', ['a1', 'b2', 'c3', 'd4'], 'They are A1, c3 and x.')).toBe(0.5);
    expect(rulerScore('qa_1', ['Kemola'], 'It was KEMOLA.')).toBe(1);
    expect(rulerScore('qa_2', ['Kemola'], 'I don’t know')).toBe(0);
  });
});

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const one of source) all.push(one);
  return all;
}

describe('RULER with a model', () => {
  it('asks for each text once, short ones first, and refuses what is over the context', async () => {
    const device = await plainDevice();
    const model = Transformer.fromConfig(device, {
      model_type: 'llama',
      vocab_size: 2048,
      hidden_size: 32,
      intermediate_size: 48,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      max_position_embeddings: 384,
    });
    model.initialize(1);
    const tokenizer = await readTokenizer(folderFiles('assets/lm'));
    const run = { tasks: ['vt', 'qa_2'] as const, samples: 2, seed: 1, prose: PROSE };
    const read: number[] = [];
    const onRead = (done: number, total: number) => read.push(done / total);
    const results = await collect(evaluateRuler(model, tokenizer, { ...run, lengths: [384, 320], onRead }));
    expect(results.map(({ task, length, sample }) => `${task} ${length} ${sample}`)).toEqual(
      [320, 384].flatMap((length) =>
        run.tasks.flatMap((task) => [0, 1].map((sample) => `${task} ${length} ${sample}`)),
      ),
    );
    for (const { task, answers, said, score } of results) expect(score).toBe(rulerScore(task, answers, said));
    expect(read.at(-1)).toBe(1);
    expect(read).toEqual(read.toSorted((a, b) => a - b));
    await expect(evaluateRuler(model, tokenizer, { ...run, lengths: [385] }).next()).rejects.toThrow(
      '385 tokens are over',
    );
    const tasks = ['vt', 'cwe', 'niah_multikey_3'] as const;
    await expect(evaluateRuler(model, tokenizer, { ...run, tasks, lengths: [320] }).next()).rejects.toThrow(
      /^\[ruler\] 320 tokens of this model's tokenizer are too few for cwe \(\d+ at least\), niah_multikey_3 \(\d+ at least\): leave out this length, or take the tasks vt$/,
    );
    model.release();
  });

  it('is shown as a table in percent', () => {
    const result = { sample: 0, tokens: 1, answers: [], said: '' };
    const table = rulerTable([
      { ...result, task: 'vt', length: 64, score: 0.5 },
      { ...result, task: 'vt', length: 64, score: 1 },
      { ...result, task: 'cwe', length: 64, score: 0.25 },
    ]);
    expect(table.split('\n').slice(2)).toEqual(['| vt | 75.0 |', '| cwe | 25.0 |', '| mean | 50.0 |']);
  });
});
