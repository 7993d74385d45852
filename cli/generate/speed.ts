import type { FinishReason, GenerationEvent } from '../../llm/generate.ts';

const REASONS: Record<FinishReason, string> = {
  end: 'the model ended it',
  stop: 'a stop string came',
  length: 'as many as are allowed',
  time: 'the time is over',
  aborted: 'stopped',
  grammar: 'nothing more can follow',
};

/** How fast texts are written, in tokens a second, and how far a prompt has been read. */
export class Speed {
  readonly #begun = performance.now();
  /** When the second tokens were there: the first wait for the prompt, the second for kernels that are compiled. */
  #from: { readonly time: number; readonly tokens: number } | null = null;
  #last = this.#begun;
  #prompt = 0;
  #tokens = 0;
  readonly #sequences = new Set<number>();
  readonly #reasons = new Set<FinishReason>();

  /** Says in a terminal how far reading has come, where it takes a while. */
  prefill(done: number, total: number): void {
    this.#prompt = total;
    if (!process.stderr.isTTY || performance.now() - this.#begun < 1000) return;
    process.stderr.write(done < total ? `\rreading ${done} of ${total} tokens` : '\r\u001b[K');
  }

  event({ sample, token, finish }: GenerationEvent): void {
    this.#last = performance.now();
    if (token !== null) this.#tokens++;
    this.#sequences.add(sample);
    if (this.#tokens >= 2 * this.#sequences.size) this.#from ??= { time: this.#last, tokens: this.#tokens };
    if (finish) this.#reasons.add(finish);
  }

  summary(): string {
    const { time, tokens } = this.#from ?? { time: this.#last, tokens: this.#tokens };
    const seconds = (this.#last - time) / 1000;
    const later = this.#tokens - tokens;
    const rate = later > 0 && seconds > 0 ? `, ${(later / seconds).toFixed(1)} tokens/s` : '';
    const why = [...this.#reasons].map((reason) => REASONS[reason]).join('; ');
    return `[${this.#prompt} tokens read, ${this.#tokens} written (${why})${rate}]`;
  }
}
