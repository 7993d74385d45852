/** One engine in a process of its own, fed by its parent: `node child.js <engine> <folder of the peers>`. */
import { createRequire } from 'node:module';
import path from 'node:path';
import type { Case } from '../cases.ts';
import type { Open, Pass, Prepared } from './engine.ts';

/** What the parent asks. Each question is answered by one `Reply`. */
export type Request =
  | { readonly ask: 'prepare'; readonly case: Case; readonly pass: Pass }
  | { readonly ask: 'time'; readonly seconds: number }
  | { readonly ask: 'release' };

export type Reply =
  /** `prepare`: Σ of squares, to compare with the other engines'; null where the engine has no such pass. */
  | { readonly check: number | null }
  /** `time`: milliseconds of each run. */
  | { readonly times: number[] }
  | { readonly released: true }
  | { readonly error: string };

const [, , name, folder] = process.argv as [string, string, string, string];
const modules: Record<string, () => Promise<{ open: Open }>> = {
  ours: () => import('./ours.ts'),
  ort: () => import('./ort.ts'),
  tfjs: () => import('./tfjs.ts'),
  jax: () => import('./jax.ts'),
};
const { open } = await modules[name]!();
const engine = await open(createRequire(path.join(folder, 'package.json')));
let prepared: Prepared | null = null;

async function answer(request: Request): Promise<Reply> {
  switch (request.ask) {
    case 'prepare': {
      prepared = await engine(request.case, request.pass);
      if (!prepared) return { check: null };
      const check = await prepared.check();
      for (let warm = 0; warm < 3; warm++) await prepared.run();
      return { check };
    }
    case 'time': {
      const times: number[] = [];
      const end = performance.now() + request.seconds * 1000;
      while (times.length < 3 || performance.now() < end) {
        const began = performance.now();
        await prepared!.run();
        times.push(performance.now() - began);
      }
      return { times };
    }
    case 'release':
      prepared?.release();
      prepared = null;
      return { released: true };
  }
}

process.on('message', (request: Request) => {
  void answer(request)
    .catch((error: unknown): Reply => ({
      error: (error instanceof Error ? error.message : String(error)).split('\n')[0]!,
    }))
    .then((reply) => process.send!(reply));
});
process.send!({ ready: true });
