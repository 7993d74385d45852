/** Model folders on a disk (Node): what is common to all models. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { openSafetensors, reason } from './files.ts';
import { INDEX, openShards, textOf } from './model_files.ts';
import type { ModelFiles } from './model_files.ts';
import type { Module } from './module.ts';
import type { Writable } from './safetensors.ts';

/** The files of a model's folder. */
export function folderFiles(folder: string): ModelFiles {
  const name = path.join(folder).replace(/(?<=.)\/$/, '');
  return {
    name,
    text: (file) => readText(path.join(name, file), ['ENOENT']),
    weights: async (part, stem) => {
      const folder = path.join(name, part || '.');
      const index = path.join(folder, stem + INDEX);
      const text = await readText(index, ['ENOENT', 'ENOTDIR']);
      if (text !== null) return openShards(index, text, (file) => openSafetensors(path.join(folder, file)));
      return openSafetensors(await findWeights(folder, stem));
    },
  };
}

/** A file's text; null where reading fails with one of these codes. */
async function readText(file: string, missing: readonly string[]): Promise<string | null> {
  const bytes = await readFile(file).catch((error: NodeJS.ErrnoException) =>
    missing.includes(error.code ?? '') ? null : failTo('read', file)(error),
  );
  return bytes && textOf(bytes, file);
}

/** The weight file of a folder with one, whichever of its names it has. */
export async function findWeights(folder: string, stem: string): Promise<string> {
  const files = await readdir(folder).catch(failTo('read', folder));
  const found = [`${stem}.safetensors`, `${stem}.fp16.safetensors`].find((file) => files.includes(file));
  if (found) return path.join(folder, found);
  const other = files.find((file) => /\.(bin|ckpt|pt|pth)$/.test(file));
  throw new Error(
    `[folder] ${folder} has no ${stem}.safetensors${other ? `; ${other} is in a form that is not read: save it as one safetensors file` : ''}`,
  );
}

/** Throws the error of a file system call, saying what could not be done. */
export const failTo =
  (what: string, file: string) =>
  (error: unknown): never => {
    throw new Error(`[folder] cannot ${what} ${file}: ${reason(error)}`, { cause: error });
  };

/** A module's parameters for a weight file, read from the device one at a time. */
export function moduleWeights(module: Module, dtype: 'F32' | 'F16'): Map<string, Writable> {
  return new Map(
    [...module.namedParameters()].map(([name, tensor]) => [
      name,
      { dtype, shape: tensor.shape, data: async () => (await tensor.read()) as Float32Array },
    ]),
  );
}
