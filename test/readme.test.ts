/** README's program on the engine prints what stands beside it. */
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import * as engine from '../engine/index.ts';
import type { Device } from '../engine/index.ts';
import { openNodeDevice } from '../engine/node.ts';
import * as kernels from '../kernels/index.ts';

it('README’s program runs', async () => {
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
  const section = readme.split('\n## ').find((text) => text.startsWith('The engine in a program'))!;
  const lines = section.split('\n').flatMap((line) => (line.startsWith('    ') ? [line.slice(4)] : []));
  expect(lines.length).toBeLessThanOrEqual(25);

  // The sources in place of what was built from them.
  let device: Device | null = null;
  const modules: Record<string, object> = {
    './dist/engine/index.js': engine,
    './dist/engine/node.js': { openNodeDevice: async () => (device = await openNodeDevice()) },
    './dist/kernels/index.js': kernels,
  };
  const program = lines.join('\n').replace(/^import (.*) from (.*);$/gm, 'const $1 = modules[$2];');
  const printed: unknown[] = [];
  const run = new Function('modules', 'console', `return (async () => {\n${program}\n})();`) as (
    ...names: [typeof modules, { log: (text: string) => void }]
  ) => Promise<void>;
  await run(modules, { log: (text) => printed.push(text) });
  device!.destroy();
  expect(printed).toEqual(lines.flatMap((line) => /^await show.*\/\/ (.*)$/.exec(line)?.[1] ?? []));
  expect(printed.length).toBe(6);
});
