/** The parent's side of an engine's process. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { Case } from '../cases.ts';
import type { Reply, Request } from './child.ts';
import type { Pass } from './engine.ts';

/** Longest wait for an answer, in seconds: some engines compile for long on a software adapter. */
const PATIENCE = 180;

/** An engine that runs in a process of its own; started anew after it crashed. */
export class PeerProcess {
  readonly name: string;
  readonly #folder: string;
  #child: ChildProcess | null = null;
  /** The end of what the process wrote to stderr: why it crashed, perhaps. */
  #words = '';

  constructor(name: string, folder: string) {
    this.name = name;
    this.#folder = folder;
  }

  /** Compiles and warms up. Returns Σ of squares of the results, null where the engine has no such pass. */
  async prepare(c: Case, pass: Pass): Promise<number | null> {
    if (!this.#child) await this.#start();
    return ((await this.#ask({ ask: 'prepare', case: c, pass })) as { check: number | null }).check;
  }

  /** Milliseconds of each run, for so many seconds. */
  async time(seconds: number): Promise<number[]> {
    return ((await this.#ask({ ask: 'time', seconds })) as { times: number[] }).times;
  }

  async release(): Promise<void> {
    if (this.#child) await this.#ask({ ask: 'release' });
  }

  stop(): void {
    this.#child?.kill('SIGKILL');
    this.#child = null;
  }

  async #start(): Promise<void> {
    const script = new URL(import.meta.url.endsWith('.ts') ? './child.ts' : './child.js', import.meta.url);
    this.#words = '';
    const child = fork(script, [this.name, this.#folder], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    child.stderr!.on('data', (data: Buffer) => void (this.#words = (this.#words + data.toString()).slice(-2000)));
    this.#child = child;
    await this.#reply();
  }

  async #ask(request: Request): Promise<Reply> {
    this.#child!.send(request);
    const reply = await this.#reply();
    if ('error' in reply) throw new Error(reply.error);
    return reply;
  }

  /** The next message. Throws, and forgets the process, where it ends or stays silent instead. */
  #reply(): Promise<Reply> {
    const child = this.#child!;
    return new Promise((resolve, reject) => {
      const settle = (settled: () => void) => {
        clearTimeout(timer);
        child.off('message', onMessage);
        child.off('exit', onExit);
        settled();
      };
      const fail = (why: string) =>
        settle(() => {
          this.stop();
          reject(new Error(`${why}${this.#words ? `: ${this.#words.trim().split('\n').at(-1)}` : ''}`));
        });
      const onMessage = (message: unknown) => settle(() => resolve(message as Reply));
      const onExit = (code: number | null, signal: string | null) => fail(`its process ended (${signal ?? code})`);
      const timer = setTimeout(() => fail(`no answer in ${PATIENCE} s`), PATIENCE * 1000);
      child.on('message', onMessage);
      child.on('exit', onExit);
    });
  }
}
