import type { FinishReason, GenerationEvent } from '../../llm/generate.ts';

const REASONS: Record<FinishReason, string> = {
  end: 'the model ended it',
  stop: 'a stop string came',
  length: 'as many tokens as were allowed',
  time: 'the time was over',
  aborted: 'stopped',
  grammar: 'nothing more can follow',
};

/** How fast prompts are read and texts written, in tokens a second. */
export class Speed {
  readonly #begun = performance.now();
  #read = this.#begun;
  #first: number | null = null;
  #last = this.#begun;
  #prompt = 0;
  #tokens = 0;
  #firsts = 0;
  readonly #finished: FinishReason[] = [];
  readonly #show: boolean;

  constructor({ show = process.stderr.isTTY }: { show?: boolean } = {}) {
    this.#show = show;
  }

  /** Says how far reading has come, where it takes a while. */
  prefill(done: number, total: number): void {
    this.#read = performance.now();
    this.#prompt = total;
    if (!this.#show || this.#read - this.#begun < 1000) return;
    process.stderr.write(done < total ? `\rreading ${done} of ${total} tokens` : '\r\u001b[K');
  }

  event({ token, finish }: GenerationEvent): void {
    this.#last = performance.now();
    if (finish) this.#finished.push(finish);
    if (token === null) return;
    this.#tokens++;
    if (this.#first === null || this.#last - this.#first < 1) {
      this.#first ??= this.#last;
      this.#firsts++;
    }
  }

  /** `12 tokens of prompt, 30 written (the model ended it): 41 tokens/s`; the first tokens, which compile kernels, left out. */
  summary(): string {
    const seconds = (this.#last - (this.#first ?? this.#last)) / 1000;
    const rate = seconds > 0 ? `: ${((this.#tokens - this.#firsts) / seconds).toFixed(1)} tokens/s` : '';
    const why = [...new Set(this.#finished)].map((reason) => REASONS[reason]).join('; ');
    return `${this.#prompt} tokens of prompt, ${this.#tokens} written (${why})${rate}`;
  }
}
