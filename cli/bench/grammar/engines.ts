/** Both engines as the comparison sees them: a schema becomes masks, tokens are taken one by one. */
import { copyFile, mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { document } from '../../../llm/grammar/json/value.ts';
import { Matcher } from '../../../llm/grammar/matcher.ts';
import { compile } from '../../../llm/grammar/schema/compile.ts';
import type { Vocabulary } from '../../../llm/grammar/vocabulary.ts';
import { ROOT } from '../../run.ts';

/** One schema, compiled. */
export interface Masked {
  /** Begins a document anew. */
  readonly begin: () => void | Promise<void>;
  /** The tokens that may come next, a bit each; good until the next call. */
  readonly mask: () => Uint32Array | Int32Array | Promise<Uint32Array | Int32Array>;
  readonly accept: (token: number) => boolean;
  readonly dispose: () => void;
}

export interface Engine {
  readonly name: string;
  /** Throws where the schema is refused; null where nothing satisfies it. */
  readonly compile: (schema: unknown) => Masked | null | Promise<Masked | null>;
}

export function ours(vocabulary: Vocabulary): Engine {
  return {
    name: 'dawngrad',
    compile: (schema) => {
      const { algebra, formula } = compile(schema);
      const grammar = document(algebra, formula);
      if (!grammar) return null;
      let matcher: Matcher;
      return {
        begin: () => void (matcher = new Matcher(vocabulary, grammar)),
        mask: () => matcher.mask(),
        accept: (token) => matcher.accept(token),
        dispose: () => {},
      };
    },
  };
}

interface XGrammar {
  readonly TokenizerInfo: {
    createTokenizerInfo(tokens: string[], type: string, prefix: boolean, size: number, end: number[]): Promise<object>;
  };
  readonly GrammarCompiler: {
    createGrammarCompiler(
      tokenizer: object,
      cache: boolean,
    ): Promise<{
      compileJSONSchema(
        schema: string,
        anyWhitespace: boolean,
        indent: undefined,
        separators: undefined,
        strict: boolean,
      ): Promise<{ dispose(): void }>;
    }>;
  };
  readonly GrammarMatcher: {
    createGrammarMatcher(grammar: object): Promise<{
      getNextTokenBitmask(): Promise<Int32Array>;
      acceptToken(token: number): boolean;
      reset(): void;
      dispose(): void;
    }>;
  };
}

/** XGrammar as WebAssembly. Grammars are not remembered from schema to schema, which all are different. */
export async function xgrammar(vocabulary: Vocabulary): Promise<Engine> {
  const { TokenizerInfo, GrammarCompiler, GrammarMatcher } = await loadXGrammar();
  const tokens = Array.from({ length: vocabulary.size }, (_, id) => byteLevel(vocabulary.bytes(id)));
  // It warns of what it leaves out of schemas, hundreds of lines, by the console.error that it finds when it is first used.
  const { error } = console;
  console.error = () => undefined;
  const info = await TokenizerInfo.createTokenizerInfo(tokens, 'byte_level', false, vocabulary.size, [
    ...vocabulary.end,
  ]).finally(() => (console.error = error));
  const compiler = await GrammarCompiler.createGrammarCompiler(info, false);
  return {
    name: 'XGrammar',
    compile: async (schema) => {
      const grammar = await compiler.compileJSONSchema(JSON.stringify(schema), true, undefined, undefined, false);
      const matcher = await GrammarMatcher.createGrammarMatcher(grammar);
      return {
        begin: () => matcher.reset(),
        mask: () => matcher.getNextTokenBitmask(),
        accept: (token) => matcher.acceptToken(token),
        dispose: () => {
          matcher.dispose();
          grammar.dispose();
        },
      };
    },
  };
}

/** Its file is a CommonJS module that its package declares as another kind: Node reads it by another name. */
async function loadXGrammar(): Promise<XGrammar> {
  const require = createRequire(import.meta.url);
  const folder = path.join(ROOT, 'node_modules/.cache/dawngrad-xgrammar');
  await mkdir(folder, { recursive: true });
  const file = path.join(folder, 'index.cjs');
  await copyFile(path.join(ROOT, 'node_modules/@mlc-ai/web-xgrammar/lib/index.js'), file);
  return require(file) as XGrammar;
}

/** Bytes as the characters of byte-level vocabularies: those that can be seen are themselves, others stand behind U+00FF. */
function byteLevel(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => CHARACTERS[byte]).join('');
}

const CHARACTERS = ((): string[] => {
  let others = 0x100;
  const seen = (byte: number): boolean => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(seen(byte) ? byte : others++));
})();
