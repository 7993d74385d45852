import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { Vocabulary } from '../../llm/grammar/vocabulary.ts';

/** A vocabulary with the tokenizer that makes its tokens of texts. */
export interface Tokens {
  readonly vocabulary: Vocabulary;
  /** Of ordinary text: what reads like a special token is text as well. */
  readonly encode: (text: string) => readonly number[];
}

/** `cl100k`, or that of a `tokenizer.json`, whose `tokenizer_config.json` beside it names the token that ends a text. */
export function loadTokens(name: string): Promise<Tokens> {
  return name === 'cl100k' ? cl100k() : huggingFace(name);
}

async function cl100k(): Promise<Tokens> {
  const ranks = createRequire(import.meta.url).resolve('gpt-tokenizer/data/cl100k_base.tiktoken');
  const { encode } = await import('gpt-tokenizer/encoding/cl100k_base');
  return {
    vocabulary: Vocabulary.fromRanks(await readFile(ranks, 'utf8')),
    encode: (text) => encode(text, { disallowedSpecial: new Set() }),
  };
}

async function huggingFace(file: string): Promise<Tokens> {
  const { Tokenizer } = await import('@huggingface/tokenizers');
  const json = await readJson(file);
  const config = await readJson(path.join(path.dirname(file), 'tokenizer_config.json'));
  const end =
    typeof config.eos_token === 'object'
      ? (config.eos_token as { content?: unknown } | null)?.content
      : config.eos_token;
  if (typeof end !== 'string') {
    throw new Error(`[grammar] ${file}: tokenizer_config.json beside it names no eos_token, with which texts end`);
  }
  const tokenizer = new Tokenizer(json, config);
  return {
    vocabulary: Vocabulary.fromTokenizer(json, { end: [end] }),
    encode: (text) => tokenizer.encode(text, { add_special_tokens: false }).ids,
  };
}

export async function readJson(file: string): Promise<Record<string, unknown>> {
  const text = await readText(file);
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    throw new Error(`[grammar] ${file} is not JSON: ${(error as Error).message}`);
  }
}

export async function readText(file: string): Promise<string> {
  try {
    // Without the byte order mark that some editors write.
    return (await readFile(file, 'utf8')).replace(/^\uFEFF/, '');
  } catch (error) {
    throw new Error(`[grammar] ${file} cannot be read: ${(error as Error).message}`);
  }
}
