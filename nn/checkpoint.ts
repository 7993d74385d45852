/**
 * Checkpoints: folders `step-000200` of safetensors files, `state.json` and `manifest.json`, which holds the SHA-256 of the
 * others. A checkpoint is written beside its place and renamed when all of it is on the disk, so one that was cut short is
 * never taken for whole; one that was damaged later is recognised by its hashes, and the one before is used.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { formatShape, sameShape, write } from '../engine/index.ts';
import type { Tensor } from '../engine/index.ts';
import { hashFile, makeFolder, openSafetensors, reason, syncFolder, writeFileAtomic } from './files.ts';
import { encodeSafetensors } from './safetensors.ts';

const FORMAT = 'dawngrad checkpoint 1';
const NAME = /^step-(\d{6,})$/;

/** Values that JSON carries. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** Tensors by file (`weights` → `weights.safetensors`), then by name. */
export type TensorFiles = Readonly<Record<string, ReadonlyMap<string, Tensor>>>;

interface Manifest {
  readonly format: string;
  /** SHA-256 by file name. */
  readonly files: Readonly<Record<string, string>>;
}

export interface Checkpoint {
  readonly folder: string;
  readonly step: number;
  readonly state: Json;
}

/**
 * Writes the checkpoint of `step` into `folder` and removes the oldest ones beyond `keep`. Where anything fails (a full
 * disk, a read-only folder), the error says so and earlier checkpoints are untouched.
 */
export async function saveCheckpoint(
  folder: string,
  step: number,
  tensors: TensorFiles,
  state: Json,
  { keep = Infinity }: { keep?: number } = {},
): Promise<string> {
  const target = path.join(folder, `step-${String(step).padStart(6, '0')}`);
  const temporary = `${target}.tmp`;
  try {
    await makeFolder(folder);
    for (const name of await readdir(folder))
      // of a run that was killed while saving
      if (/^step-\d+\.(tmp|old)$/.test(name)) await rm(path.join(folder, name), { recursive: true, force: true });
    await mkdir(temporary);
    const hashes: Record<string, string> = {};
    for (const [file, chunks] of contents(tensors, state)) {
      const hash = createHash('sha256');
      await writeFileAtomic(
        path.join(temporary, file),
        tee(chunks, (chunk) => hash.update(chunk)),
      );
      hashes[file] = hash.digest('hex');
    }
    const manifest: Manifest = { format: FORMAT, files: hashes };
    await writeFileAtomic(path.join(temporary, 'manifest.json'), [encodeJson(manifest)]);
    await replaceFolder(temporary, target);
    await syncFolder(folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw failure(folder, step, error, await list(folder).catch(() => []));
  }
  for (const old of (await list(folder)).slice(keep)) await rm(old.folder, { recursive: true, force: true });
  return target;
}

/** The error of a save that failed: why, what is left, and what to do. */
function failure(folder: string, step: number, error: unknown, left: readonly { folder: string }[]): Error {
  const cause = error instanceof Error && error.cause ? error.cause : error;
  if ((cause as NodeJS.ErrnoException).code === undefined) return error as Error; // not the file system's fault
  const last = left[0] ? `${left[0].folder} is unharmed: resume from it` : 'There is no earlier one';
  return new Error(`[checkpoint] step ${step} could not be saved in ${folder}: ${reason(cause)}. ${last}`, { cause });
}

/** Every file but the manifest, as chunks of bytes. Tensors are read from the device when their turn comes. */
function* contents(
  tensors: TensorFiles,
  state: Json,
): Generator<[string, Iterable<Uint8Array> | AsyncIterable<Uint8Array>]> {
  for (const [file, map] of Object.entries(tensors)) {
    const writable = [...map].map(
      ([name, tensor]) =>
        [name, { dtype: 'F32', shape: tensor.shape, data: () => tensor.read() as Promise<Float32Array> }] as const,
    );
    yield [`${file}.safetensors`, encodeSafetensors(new Map(writable), { format: 'pt' })];
  }
  yield ['state.json', [encodeJson(state)]];
}

const encodeJson = (value: unknown): Uint8Array => new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);

/** Hands every chunk to `see` on its way. */
async function* tee(
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  see: (chunk: Uint8Array) => void,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    see(chunk);
    yield chunk;
  }
}

/** Renames a folder into place; one that stands there (damaged, else nobody would write it again) goes after that. */
async function replaceFolder(from: string, to: string): Promise<void> {
  const old = `${to}.old`;
  await rm(old, { recursive: true, force: true });
  await rename(to, old).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
  await rename(from, to);
  await rm(old, { recursive: true, force: true });
}

/** Checkpoints of a folder, the latest first, whole or not. */
async function list(folder: string): Promise<{ step: number; folder: string }[]> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  return names
    .filter((name) => NAME.test(name))
    .map((name) => ({ step: Number(NAME.exec(name)![1]), folder: path.join(folder, name) }))
    .sort((a, b) => b.step - a.step);
}

/** The latest checkpoint that is whole, or null where there is none; `say` hears of each damaged one on the way. */
export async function latestCheckpoint(folder: string, say: (line: string) => void): Promise<Checkpoint | null> {
  const candidates = await list(folder);
  for (const candidate of candidates) {
    const damage = await findDamage(candidate.folder);
    if (damage === null) {
      const state = JSON.parse(await readFile(path.join(candidate.folder, 'state.json'), 'utf8')) as Json;
      return { ...candidate, state };
    }
    // Set aside, or it would count among those that are kept.
    const aside = `${candidate.folder}.damaged`;
    await rm(aside, { recursive: true, force: true });
    const moved = await rename(candidate.folder, aside).then(
      () => `; it is ${path.basename(aside)} now`,
      () => '',
    );
    say(`[checkpoint] ${candidate.folder} is damaged and passed over: ${damage}${moved}`);
  }
  if (candidates.length > 0)
    throw new Error(`[checkpoint] every checkpoint in ${folder} is damaged. Begin a new run in another folder`);
  return null;
}

/** What is wrong with a checkpoint, or null. */
async function findDamage(folder: string): Promise<string | null> {
  let manifest: Manifest;
  try {
    manifest = JSON.parse(await readFile(path.join(folder, 'manifest.json'), 'utf8')) as Manifest;
    if (manifest.format !== FORMAT) return `manifest.json is not of the form "${FORMAT}"`;
    if (!('state.json' in manifest.files)) return 'manifest.json does not list state.json';
  } catch (error) {
    return `manifest.json cannot be read: ${reason(error)}`;
  }
  for (const [file, expected] of Object.entries(manifest.files)) {
    try {
      if ((await hashFile(path.join(folder, file))) !== expected) return `${file} is not what was written`;
    } catch (error) {
      const { cause } = error as Error;
      return (cause as NodeJS.ErrnoException).code === 'ENOENT' ? `${file} is missing` : `${file}: ${reason(cause)}`;
    }
  }
  return null;
}

/**
 * Loads a checkpoint's values into tensors of the same names and shapes. Throws, before any is changed, where the
 * checkpoint is another model's.
 */
export async function loadCheckpoint(checkpoint: Checkpoint, tensors: TensorFiles): Promise<void> {
  const opened = [];
  try {
    for (const [file, map] of Object.entries(tensors)) {
      const name = path.join(checkpoint.folder, `${file}.safetensors`);
      const source = await openSafetensors(name);
      opened.push({ source, map });
      const differences = compare(map, source.tensors);
      if (differences.length > 0)
        throw new Error(
          `[checkpoint] ${name} is another model's: ${differences.slice(0, 3).join('; ')}` +
            `${differences.length > 3 ? `; and ${differences.length - 3} more` : ''}. ` +
            'Resume with the configuration it was made with, or begin a new run',
        );
    }
    for (const { source, map } of opened) for (const [name, tensor] of map) write(tensor, await source.floats(name));
  } finally {
    for (const { source } of opened) await source.close();
  }
}

/** How a file's tensors differ from the run's. */
function compare(
  run: ReadonlyMap<string, Tensor>,
  file: ReadonlyMap<string, { readonly shape: readonly number[] }>,
): string[] {
  const differences: string[] = [];
  for (const [name, { shape }] of run) {
    const stored = file.get(name);
    if (!stored) differences.push(`it has no ${name}`);
    else if (!sameShape(stored.shape, shape))
      differences.push(`${name} is ${formatShape(stored.shape)} there and ${formatShape(shape)} here`);
  }
  for (const name of file.keys()) if (!run.has(name)) differences.push(`it has ${name}, which this run does not train`);
  return differences;
}
