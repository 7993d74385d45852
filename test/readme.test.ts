/** The documents' programs print what stands beside them. */
import * as fs from 'node:fs';
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import * as engine from '../engine/index.ts';
import type { Device } from '../engine/index.ts';
import { openNodeDevice } from '../engine/node.ts';
import * as tokenizer from 'gpt-tokenizer/encoding/cl100k_base';
import * as kernels from '../kernels/index.ts';
import * as grammar from '../llm/grammar/index.ts';

/** Runs the first program of a section of a document, and gives what it printed and what stands beside that. */
async function run(
  document: string,
  title: string,
  modules: Readonly<Record<string, object>>,
): Promise<{ printed: string[]; said: string[] }> {
  const text = await readFile(new URL(`../${document}`, import.meta.url), 'utf8');
  const section = text.split('\n## ').find((text) => text.startsWith(title))!;
  const lines = section.split('\n');
  const first = lines.findIndex((line) => line.startsWith('    '));
  const last = lines.findIndex((line, i) => i > first && line !== '' && !line.startsWith('    '));
  const program = lines.slice(first, last < 0 ? undefined : last).map((line) => line.slice(4));
  expect(program.length).toBeLessThanOrEqual(25);
  const source = program.join('\n').replace(/^import (.*) from (.*);$/gm, 'const $1 = modules[$2];');
  const printed: string[] = [];
  const body = new Function('modules', 'console', `return (async () => {\n${source}\n})();`) as (
    ...names: [typeof modules, { log: (text: string) => void }]
  ) => Promise<void>;
  await body(modules, { log: (text) => printed.push(text) });
  return { printed, said: program.flatMap((line) => /^(?:await )?show.*\/\/ (.*)$/.exec(line)?.[1] ?? []) };
}

it('README’s program on the engine runs', async () => {
  // The sources in place of what was built from them.
  let device: Device | null = null;
  const { printed, said } = await run('README.md', 'The engine in a program', {
    './dist/engine/index.js': engine,
    './dist/engine/node.js': { openNodeDevice: async () => (device = await openNodeDevice()) },
    './dist/kernels/index.js': kernels,
  });
  device!.destroy();
  expect(printed).toEqual(said);
  expect(printed.length).toBe(6);
});

const grammarModules = {
  'node:fs': fs,
  'gpt-tokenizer/encoding/cl100k_base': tokenizer,
  './dist/llm/grammar/index.js': grammar,
};

it('README’s program on grammars runs', async () => {
  const { printed, said } = await run('README.md', 'Output that cannot be malformed', grammarModules);
  expect(printed).toEqual(said);
  expect(printed.length).toBe(5);
});

it('the loop in docs/grammar.md runs', async () => {
  const { printed, said } = await run('docs/grammar.md', 'A loop of your own', grammarModules);
  expect(printed).toEqual(said);
  expect(printed.length).toBe(1);
});
