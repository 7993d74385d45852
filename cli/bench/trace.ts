/**
 * A profile as a file that Perfetto (https://ui.perfetto.dev) and chrome://tracing open: Chrome's trace events in JSON, of
 * which two kinds are used, complete events (ph X, with ts and dur in microseconds) and names of the tracks (ph M).
 */
import { existsSync } from 'node:fs';
import { open, rm, writeFile } from 'node:fs/promises';
import { reason } from '../../nn/files.ts';
import type { Dispatch } from './profile.ts';

const PROCESS = 1;
const HOST = 1;
const DEVICE = 2;

export interface TraceEvent {
  readonly ph: 'X' | 'M';
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly cat?: string;
  readonly args?: Readonly<Record<string, unknown>>;
}

/** Two tracks: the host recording dispatches, and the device running them. In order of time, which begins at 0. */
export function traceEvents(dispatches: readonly Dispatch[], adapter: string): TraceEvent[] {
  const track = (name: string, tid: number, text: string): TraceEvent => ({ ph: 'M', name, pid: PROCESS, tid, args: { name: text } }); // prettier-ignore
  let zero = Infinity;
  for (const { recorded, began } of dispatches) zero = Math.min(zero, recorded, began);
  const events = dispatches.flatMap(({ kernel, recorded, recording, began, ms, bytes, operations }): TraceEvent[] => {
    const event = (tid: number, start: number, length: number, args: object): TraceEvent => ({
      ph: 'X',
      name: kernel,
      cat: tid === HOST ? 'record' : 'kernel',
      pid: PROCESS,
      tid,
      ts: microseconds(start - zero),
      dur: microseconds(length),
      args: { ...args },
    });
    return [event(HOST, recorded, recording, {}), event(DEVICE, began, ms, { bytes, operations })];
  });
  return [
    track('process_name', HOST, 'dawngrad'),
    track('thread_name', HOST, 'host: recording'),
    track('thread_name', DEVICE, adapter),
    ...events.sort((a, b) => a.ts! - b.ts!),
  ];
}

const microseconds = (ms: number): number => Math.max(0, Math.round(ms * 1e6) / 1e3);

/** Throws where no trace could be written to `file`: said before the measurements that it is made of. Leaves nothing. */
export async function checkTrace(file: string): Promise<void> {
  const isNew = !existsSync(file);
  const handle = await open(file, 'a').catch((error: unknown) => {
    throw new Error(`[trace] cannot write ${file}: ${reason(error)}`, { cause: error });
  });
  await handle.close();
  if (isNew) await rm(file);
}

export async function writeTrace(file: string, dispatches: readonly Dispatch[], adapter: string): Promise<void> {
  await writeFile(file, jsonParts(traceEvents(dispatches, adapter)));
}

/** The file part by part: the events of a long run are more than one string can hold. */
function* jsonParts(events: readonly TraceEvent[]): Generator<string> {
  yield '{"displayTimeUnit":"ms","traceEvents":[';
  for (let at = 0; at < events.length; at += 1000)
    yield (at > 0 ? ',' : '') + JSON.stringify(events.slice(at, at + 1000)).slice(1, -1);
  yield ']}';
}
