/**
 * The files of a model in the layout of Hugging Face's libraries, `config.json` and safetensors beside it, from wherever
 * they are: on a disk (folder.ts) or behind URLs (below). Nothing here imports from Node.
 */
import { declare } from './module.ts';
import type { LoadOptions, Module, Weights } from './module.ts';
import { bytesSource, readSafetensors } from './safetensors.ts';
import type { Safetensors } from './safetensors.ts';
import { decodeUtf8 } from './utf8.ts';

/** Weights in open files. */
export interface OpenWeights extends Weights {
  close(): Promise<void>;
}

/** The files of a model's folder, or of one part's, by their paths in it. */
export interface ModelFiles {
  /** What the folder is called in messages; a file's name is this, a slash and its path. */
  readonly name: string;
  /** Text of a file; null where it is missing. */
  text(path: string): Promise<string | null>;
  /**
   * The open weight file `stem`.safetensors, or all the shards that `stem`.safetensors.index.json names; `part` is the
   * part's folder with a slash behind it, or ''.
   */
  weights(part: string, stem: string): Promise<OpenWeights>;
}

/** The files of a model that a server has under `base`, read whole by `fetch`: for browsers. */
export function urlFiles(base: URL): ModelFiles {
  const get = async (path: string): Promise<Response | null> => {
    const response = await fetch(new URL(path, base));
    if (response.ok) return response;
    if (response.status === 404) return null;
    throw new Error(`[folder] ${new URL(path, base).href}: ${response.status} ${response.statusText}`);
  };
  const name = base.href.replace(/\/$/, '');
  return {
    name,
    text: async (path) => {
      const response = await get(path);
      return response && bodyOf(response, `${name}/${path}`);
    },
    async weights(part, stem) {
      const open = async (file: string) => {
        const response = await get(part + file);
        if (!response) throw new Error(`[folder] ${name}/${part}${file} is missing`);
        return readSafetensors(bytesSource(new Uint8Array(await response.arrayBuffer()), `${name}/${part}${file}`));
      };
      const index = await get(`${part}${stem}${INDEX}`);
      return index
        ? openShards(`${name}/${part}${stem}${INDEX}`, await bodyOf(index, `${name}/${part}${stem}${INDEX}`), open)
        : open(`${stem}.safetensors`);
    },
  };
}

const bodyOf = async (response: Response, name: string): Promise<string> =>
  textOf(new Uint8Array(await response.arrayBuffer()), name);

/** The text of a model's file. Throws where it is not UTF-8: it would be another text in silence. */
export const textOf = (bytes: Uint8Array, name: string): string =>
  decodeUtf8(bytes, (what) => {
    throw new Error(`[folder] ${name} ${what}`);
  });

/** Behind the stem: the file that says which shard holds which tensor. */
export const INDEX = '.safetensors.index.json';

/** The shards that an index names, as one: `text` is the index file `name`, `open` opens a file beside it. */
export async function openShards(
  name: string,
  text: string,
  open: (file: string) => Promise<Safetensors>,
): Promise<OpenWeights> {
  const fail = (what: string): never => {
    throw new Error(`[folder] ${name}: ${what}`);
  };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return fail(`it is not JSON: ${(error as Error).message}`);
  }
  const map = (json as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== 'object' || map === null) return fail('it must have weight_map, the file of each tensor');
  const shards = new Map<string, Safetensors>();
  const close = async () => {
    for (const shard of shards.values()) await shard.close();
  };
  try {
    const tensors = new Map<string, Safetensors>();
    for (const [tensor, file] of Object.entries(map) as [string, unknown][]) {
      // A path could lead anywhere on the disk.
      if (typeof file !== 'string' || !/^[\w.-]+\.safetensors$/.test(file))
        return fail(`${tensor} is in ${JSON.stringify(file)}, which is not the name of a safetensors file beside it`);
      let shard = shards.get(file);
      if (!shard) shards.set(file, (shard = await open(file)));
      if (!shard.tensors.has(tensor)) fail(`${tensor} is not in ${file}`);
      tensors.set(tensor, shard);
    }
    return {
      name,
      tensors: new Map([...tensors].map(([tensor, shard]) => [tensor, shard.info(tensor)])),
      floats: (tensor) => tensors.get(tensor)!.floats(tensor),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A module from its `config.json` and its weights, `stem`.safetensors; both in the folder `part`. */
export async function readPart<M extends Module>(
  files: ModelFiles,
  part: string,
  stem: string,
  make: (json: unknown, name: string) => M,
  options: LoadOptions = {},
): Promise<M> {
  const config = `${part}config.json`;
  const json = await readJson(files, config);
  const weights = await files.weights(part, stem);
  try {
    return await loaded(() => make(json, `${files.name}/${config}`), weights, options);
  } finally {
    await weights.close();
  }
}

/** The module that `make` makes, with these weights. */
export async function loaded<M extends Module>(make: () => M, weights: Weights, options: LoadOptions = {}): Promise<M> {
  const model = declare(make);
  await model.load(weights, options).catch((error: unknown) => {
    model.release();
    throw error;
  });
  return model;
}

/** Text of a file that must be there. */
export async function readText(files: ModelFiles, path: string): Promise<string> {
  const text = await files.text(path);
  if (text === null) throw new Error(`[folder] ${files.name}/${path} is missing`);
  return text;
}

/** A file of JSON that must be there. */
export async function readJson(files: ModelFiles, path: string): Promise<unknown> {
  const text = await readText(files, path);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`[folder] ${files.name}/${path} is not JSON: ${(error as Error).message}`, { cause: error });
  }
}

/** A file of settings; none where it is missing. */
export async function readSettings(files: ModelFiles, path: string): Promise<Record<string, unknown>> {
  if ((await files.text(path)) === null) return {};
  const json = await readJson(files, path);
  if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json as Record<string, unknown>;
  throw new Error(`[folder] ${files.name}/${path} must be keys and values, not ${JSON.stringify(json).slice(0, 40)}`);
}
