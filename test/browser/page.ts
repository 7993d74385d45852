/** The page that Chromium runs: the operations' table, then the shipped model. Reports to the server that it came from. */
import { readStableDiffusion } from '../../diffusion/model.ts';
import { urlFiles } from '../../nn/model_files.ts';
import { openBrowserDevice } from '../../engine/browser.ts';
import { runTable } from '../adapters/table.ts';
import type { Message } from '../adapters/tally.ts';
import { drawPicture, trainOneStep } from './program.ts';

/** What the page reports besides the table's checks. */
export type PageMessage =
  | Message
  | { readonly kind: 'picture'; readonly width: number; readonly height: number; readonly data: number[] }
  | { readonly kind: 'training'; readonly loss: number; readonly norm: number; readonly after: number }
  | { readonly kind: 'failed'; readonly error: string }
  | { readonly kind: 'end' };

let sent: Promise<unknown> = Promise.resolve();
const say = (message: PageMessage): void => {
  sent = sent.then(() => fetch('/report', { method: 'POST', body: JSON.stringify(message) }));
};

async function main(): Promise<void> {
  const guarded = await openBrowserDevice({ guard: true });
  await runTable(guarded, say);
  guarded.destroy();
  const device = await openBrowserDevice();
  const model = await readStableDiffusion(device, urlFiles(new URL('/assets/base/', location.href)));
  const { width, height, data } = await drawPicture(model);
  say({ kind: 'picture', width, height, data: [...data] });
  say({ kind: 'training', ...(await trainOneStep(model)) });
}

main()
  .catch((error: unknown) => say({ kind: 'failed', error: String((error as Error).stack ?? error) }))
  .finally(() => say({ kind: 'end' }));
