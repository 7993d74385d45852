import { MultiBar, Presets } from 'cli-progress';
import type { SingleBar } from 'cli-progress';

/** Seconds between lines where there is no terminal to draw a bar on. */
const LINE_INTERVAL = 15;

/** How far a run is: a bar on a terminal, elsewhere a line now and then. */
export class Progress {
  readonly #total: number;
  readonly #start: number;
  readonly #stream: NodeJS.WriteStream;
  readonly #unit: string;
  readonly #began = performance.now();
  #lastLine = -Infinity;
  #bars: MultiBar | null = null;
  #bar: SingleBar | null = null;

  /** `start` of `total` steps are done already; `unit` is what one is called. */
  constructor(
    total: number,
    start: number,
    { stream = process.stdout, unit = 'step' }: { stream?: NodeJS.WriteStream; unit?: string } = {},
  ) {
    this.#unit = unit;
    this.#total = total;
    this.#start = start;
    this.#stream = stream;
    if (!stream.isTTY) return;
    const format = `${unit} {value}/{total} {bar}  {text}`;
    const options = { format, stream, barsize: 24, gracefulExit: false, hideCursor: false, fps: 5 };
    this.#bars = new MultiBar(options, Presets.shades_classic);
    this.#bar = this.#bars.create(total, start, { text: 'first step: compiling kernels …' });
  }

  /** `step` steps are done; `values` are shown as they are named, and memory where it is given. */
  update(step: number, values: Readonly<Record<string, number>>, memoryBytes?: number): void {
    const now = performance.now();
    const rate = ((step - this.#start) * 1000) / (now - this.#began);
    const text = [
      ...Object.entries(values).map(([name, value]) => `${name} ${value.toPrecision(4)}`),
      rate >= 1 ? `${rate.toFixed(1)} ${this.#unit}s/s` : `${(1 / rate).toFixed(1)} s/${this.#unit}`,
      `ETA ${duration((this.#total - step) / rate)}`,
      ...(memoryBytes === undefined ? [] : [`${(memoryBytes / 2 ** 20).toFixed(0)} MiB`]),
    ].join('  ');
    if (this.#bar) this.#bar.update(step, { text });
    else if (now - this.#lastLine >= LINE_INTERVAL * 1000 || step === this.#total) {
      this.#lastLine = now;
      this.line(`${this.#unit} ${step}/${this.#total}  ${text}`);
    }
  }

  /** A line of its own, above the bar. */
  line(text: string): void {
    if (this.#bars) {
      this.#bars.log(`${text}\n`);
      this.#bars.update();
    } else this.#stream.write(`${text}\n`);
  }

  stop(): void {
    this.#bars?.stop();
    this.#bars = this.#bar = null;
  }
}

/** `2 h 05 min`, `3 min 20 s`, `12 s`. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (n: number) => String(n).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** Says how far something is that takes a while before training: every ten seconds, and at its end. */
export function reporter(what: string): (done: number, total: number) => void {
  let [time, said] = [performance.now(), 0];
  return (done, total) => {
    if (done === said || (done < total && performance.now() - time < 10_000)) return;
    [time, said] = [performance.now(), done];
    console.log(`${what}: ${done} of ${total}`);
  };
}
