/** `node cli/eval.js`: the recall evaluation in a small form. What is refused stands in generate.test.ts. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { evalRecall, RECALL_LENGTHS } from '../../cli/eval/recall.ts';

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(path.join(tmpdir(), 'dawngrad-eval-'))));
afterAll(() => rm(folder, { recursive: true }));

it('recall trains all models and prints both tables', { timeout: 300_000 }, async () => {
  const said: string[] = [];
  const log = vi.spyOn(console, 'log').mockImplementation((text: string) => void said.push(text));
  try {
    await evalRecall({ steps: 1, folder, seed: 0, length: RECALL_LENGTHS[0]!, samples: 1 });
  } finally {
    log.mockRestore();
  }
  const rows = said.join('\n').split('\n').filter((line) => line.startsWith('| ')); // prettier-ignore
  // A head each; five models by four sights, and by two lengths.
  expect(rows.length).toBe(1 + 5 * 4 + 1 + 5 * 2);
  expect(rows[0]).toBe('| trained with | sees | 128 | 256 | 512 | 1024 |');
  for (const cell of rows.slice(1, 21).flatMap((row) => row.split('|').slice(3, 7)))
    expect(Number(/^ (\d+\.\d) % $/.exec(cell)![1])).toBeLessThanOrEqual(100);
  for (const cell of rows.slice(22).flatMap((row) => row.split('|').slice(3, 8)))
    expect(cell).toMatch(/^ (–|\d+\.\d % \/ \d+\.\d % \/ \d+\.\d %) $/);
});
