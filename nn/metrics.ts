import { appendFile, readFile } from 'node:fs/promises';
import { reason, writeFileAtomic } from './files.ts';

/** A CSV file with a row a step. It holds nothing that depends on the clock: the same run gives the same file. */
export class MetricsFile {
  readonly file: string;
  readonly #columns: readonly string[];

  private constructor(file: string, columns: readonly string[]) {
    this.file = file;
    this.#columns = columns;
  }

  /**
   * Opens the file for rows after `step`. Rows beyond it, which a run wrote after its last checkpoint, are cut, and so is
   * a last row that was never finished. With `step` 0 the file begins afresh.
   */
  static async open(file: string, columns: readonly string[], step: number): Promise<MetricsFile> {
    const header = ['step', ...columns].join(',');
    let rows: string[] = [];
    if (step > 0) {
      const text = await readFile(file, 'utf8').catch((error: unknown) => {
        throw new Error(`[metrics] cannot read ${file} to go on from step ${step}: ${reason(error)}`, { cause: error });
      });
      const lines = text.split('\n').slice(0, -1); // what follows the last line break is no whole row
      if (lines[0] !== header)
        throw new Error(
          `[metrics] ${file} has the columns ${lines[0]}, this run writes ${header}: it is another run's`,
        );
      rows = lines.slice(1).filter((line) => Number.parseInt(line) <= step);
    }
    await writeFileAtomic(file, [new TextEncoder().encode([header, ...rows, ''].join('\n'))]);
    return new MetricsFile(file, columns);
  }

  async append(step: number, values: Readonly<Record<string, number>>): Promise<void> {
    // Seven digits: what a loss in f32 carries.
    const row = [step, ...this.#columns.map((column) => Number(values[column]!.toPrecision(7)))];
    await appendFile(this.file, `${row.join(',')}\n`).catch((error: unknown) => {
      throw new Error(`[metrics] cannot write ${this.file}: ${reason(error)}`, { cause: error });
    });
  }
}
