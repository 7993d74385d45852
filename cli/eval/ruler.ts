import { CORPORA } from '../../llm/corpus.ts';
import { evaluateRuler } from '../../llm/ruler/evaluate.ts';
import type { RulerResult } from '../../llm/ruler/evaluate.ts';
import type { RulerTask } from '../../llm/ruler/tasks.ts';
import type { WeightFormat } from '../../nn/module.ts';
import { Progress } from '../../nn/progress.ts';
import { loadLanguage } from '../generate/load.ts';

export interface RulerOptions {
  readonly model: string;
  readonly tokenizer?: string;
  readonly lengths: readonly number[];
  readonly tasks: readonly RulerTask[];
  readonly samples: number;
  readonly seed: number;
  readonly weights: WeightFormat;
  readonly json?: boolean;
}

/** Prints a model's scores by task and length, in percent; around needles stands the World Factbook. */
export async function evalRuler({
  model: name,
  weights,
  tokenizer: place,
  json = false,
  ...options
}: RulerOptions): Promise<void> {
  const { model, tokenizer } = await loadLanguage(name, { weights, tokenizer: place });
  const prose = (await CORPORA.factbook()).map(({ text }) => text).join('\n');
  const results: RulerResult[] = [];
  let progress: Progress | null = null;
  const onRead = (done: number, total: number) => {
    progress ??= new Progress(total, 0, { unit: 'token', stream: process.stderr });
    if (done > 0) progress.update(done, {});
  };
  try {
    for await (const result of evaluateRuler(model, tokenizer, { ...options, prose, onRead })) {
      results.push(result);
      if (json) console.log(JSON.stringify(result));
    }
  } finally {
    (progress as Progress | null)?.stop();
    model.release();
  }
  if (!json) console.log(rulerTable(results));
}

/** A row a task, a column a length, and the mean over tasks. */
export function rulerTable(results: readonly RulerResult[]): string {
  const [tasks, lengths] = [[...new Set(results.map(({ task }) => task))], [...new Set(results.map(({ length }) => length))]]; // prettier-ignore
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const score = (task: RulerTask, length: number) =>
    mean(results.filter((result) => result.task === task && result.length === length).map(({ score }) => 100 * score));
  const row = (name: string, values: readonly number[]) => `| ${name} | ${values.map((value) => value.toFixed(1)).join(' | ')} |`; // prettier-ignore
  return [
    `| task | ${lengths.join(' | ')} |`,
    `|---|${lengths.map(() => '---|').join('')}`,
    ...tasks.map((task) => row(task, lengths.map((length) => score(task, length)))), // prettier-ignore
    row('mean', lengths.map((length) => mean(tasks.map((task) => score(task, length))))), // prettier-ignore
  ].join('\n');
}
