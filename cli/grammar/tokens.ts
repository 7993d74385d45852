import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { reason } from '../../nn/files.ts';
import { decodeUtf8 } from '../../nn/utf8.ts';
import { cl100k, tokenizerOf } from '../../llm/tokenizer.ts';
import type { Tokenizer } from '../../llm/tokenizer.ts';

/** A vocabulary with the tokenizer that makes its tokens of texts. */
export type Tokens = Pick<Tokenizer, 'vocabulary' | 'encode'>;

/**
 * `cl100k`, or that of a `tokenizer.json`. The token that ends a text is `end`, or the eos_token of the `tokenizer_config.json`
 * beside it, or the one added token that reads like it.
 */
export async function loadTokens(name: string, end?: string): Promise<Tokens> {
  if (name !== 'cl100k') return huggingFace(name, end);
  if (end !== undefined)
    throw new Error(`[grammar] --end ${end} is for a tokenizer.json; cl100k has its own end of text`);
  return cl100k();
}

/** Added tokens that end texts are named so. */
const ENDS = /^(<\|endoftext\|>|<\/s>|<\|end_of_text\|>|<eos>|<\|im_end\|>|\[EOS\])$/;

async function huggingFace(file: string, given: string | undefined): Promise<Tokens> {
  const json = await readJson(file);
  const beside = path.join(path.dirname(file), 'tokenizer_config.json');
  const config = existsSync(beside) ? await readJson(beside) : {};
  const end = given ?? textOf(config.eos_token) ?? onlyEnd(json);
  if (end === undefined) {
    throw new Error(
      `[grammar] ${file} does not say which token ends a text; say --end TOKEN, or put its tokenizer_config.json beside it, ` +
        'with an eos_token',
    );
  }
  return tokenizerOf(json, { config, ends: [end] });
}

/** The text of a token, which stands alone or in an object. */
function textOf(token: unknown): string | undefined {
  const text = typeof token === 'object' ? (token as { content?: unknown } | null)?.content : token;
  return typeof text === 'string' ? text : undefined;
}

/** The added token that reads like an end of text, where there is one alone. */
function onlyEnd({ added_tokens: added }: Record<string, unknown>): string | undefined {
  const texts = Array.isArray(added) ? added.map(textOf).filter((text) => text !== undefined && ENDS.test(text)) : [];
  return texts.length === 1 ? texts[0] : undefined;
}

export async function readJson(file: string): Promise<Record<string, unknown>> {
  const text = await readText(file);
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    throw new Error(`[file] ${file} is not JSON: ${(error as Error).message}`);
  }
}

export async function readText(file: string): Promise<string> {
  const bytes = await readFile(file).catch((error: unknown) => {
    throw new Error(`[file] ${file} cannot be read: ${reason(error)}`, { cause: error });
  });
  return decodeUtf8(bytes, (what) => {
    throw new Error(`[file] ${file} ${what}`);
  });
}
