/** Counts and shows the outcomes of one run of the operations' table, wherever it runs. */
import { Progress } from '../../nn/progress.ts';

/** What a run says: the adapter that it opened, each check's outcome, and whether a kernel wrote out of bounds. */
export type Message =
  | { readonly kind: 'open'; readonly description: string; readonly subgroupSize: number; readonly checks: number }
  | { readonly kind: 'check'; readonly title: string; readonly error: string | null }
  | { readonly kind: 'guards'; readonly error: string | null };

export class Tally {
  adapter = '';
  passed = 0;
  failed = 0;
  /** Whether the run came to its end. */
  finished = false;
  readonly #began = performance.now();
  #progress: Progress | null = null;

  receive(message: Message): void {
    if (message.kind === 'open') {
      this.adapter = message.description;
      this.say(`${message.description}, subgroups of ${message.subgroupSize || 'no fixed width'}`);
      this.#progress = new Progress(message.checks, 0, { unit: 'check' });
    } else if (message.kind === 'check') {
      this.expect(message.title, message.error);
      this.#progress?.update(this.passed + this.failed, {});
    } else {
      this.finished = true;
      this.expect('nothing is written behind a buffer', message.error);
      this.stop();
    }
  }

  /** Counts a check that held, or did not and why. */
  expect(title: string, error: string | null): void {
    if (error === null) this.passed++;
    else {
      this.failed++;
      this.say(`FAILED ${title}: ${error}`);
    }
  }

  say(text: string): void {
    if (this.#progress) this.#progress.line(`  ${text}`);
    else console.log(`  ${text}`);
  }

  /** Ends the progress bar. */
  stop(): void {
    this.#progress?.stop();
    this.#progress = null;
  }

  get seconds(): number {
    return (performance.now() - this.#began) / 1000;
  }
}

/** Prints rows of cells under each other; numbers stand at the right. */
export function printTable(rows: readonly (readonly (string | number)[])[]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
  for (const row of rows)
    console.log(
      row
        .map((cell, i) => (typeof cell === 'number' ? String(cell).padStart(widths[i]!) : cell.padEnd(widths[i]!)))
        .join('  '),
    );
}
