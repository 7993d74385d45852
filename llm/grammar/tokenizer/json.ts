/** The tokens of a Hugging Face `tokenizer.json` as bytes. */
export interface TokenizerTokens {
  /** By id; null where an id has no token. */
  readonly tokens: (Uint8Array | null)[];
  readonly special: ReadonlySet<number>;
  /** The ids of all tokens by their text in the file. */
  readonly named: ReadonlyMap<string, number>;
}

/** What is read of the file; everything in it may be missing or of another type. */
interface Part {
  readonly type?: unknown;
  readonly [key: string]: unknown;
}

/**
 * Reads them. How a token's text spells its bytes is told by the decoder (and, where the file has none, by the
 * pre-tokenizer): byte-level (a character a byte) or SentencePiece's (▁ for a space, <0xNN> for a byte). Others are refused: a
 * WordPiece decoder puts spaces between words that no token holds.
 */
export function readTokenizer(file: unknown): TokenizerTokens {
  const root = part(file, 'the file');
  const model = part(root['model'], '"model"');
  const spelling = spellingOf(root, model);
  const named = pieces(model);
  const special = new Set<number>();
  const literal = new Set<number>();
  for (const added of list(root['added_tokens'] ?? [], '"added_tokens"')) {
    const { id, content, special: isSpecial } = part(added, 'an added token');
    if (typeof id !== 'number' || typeof content !== 'string')
      throw wrong('an added token', 'an object with id and content');
    named.set(content, id);
    literal.add(id);
    if (isSpecial === true) special.add(id);
  }
  // The token for what is not known has no text of its own.
  const unknown = typeof model['unk_token'] === 'string' ? named.get(model['unk_token']) : model['unk_id'];
  if (typeof unknown === 'number') special.add(unknown);

  const tokens: (Uint8Array | null)[] = [];
  for (const [text, id] of named) {
    if (!Number.isInteger(id) || id < 0 || id > 2 * named.size + 65_536) {
      throw new Error(`[grammar] tokenizer.json numbers "${text}", one of ${named.size} tokens, ${id}`);
    }
    while (tokens.length <= id) tokens.push(null);
    tokens[id] = special.has(id) || literal.has(id) ? new TextEncoder().encode(text) : spelling(text, id);
  }
  return { tokens, special, named };
}

type Spelling = (text: string, id: number) => Uint8Array;

function spellingOf(root: Part, model: Part): Spelling {
  if (model.type === 'WordPiece' || model.type === 'WordLevel') {
    throw new Error(
      `[grammar] tokenizer.json: the tokens of a ${model.type} model are words without the spaces between them, not bytes; ` +
        'byte-level BPE and SentencePiece vocabularies are supported',
    );
  }
  for (const key of ['continuing_subword_prefix', 'end_of_word_suffix']) {
    if (model[key]) {
      throw new Error(
        `[grammar] tokenizer.json: model.${key} "${String(model[key])}" is not supported: its tokens are not bytes`,
      );
    }
  }
  const decoders = steps(root['decoder'], 'decoders', '"decoder"');
  const before = steps(root['pre_tokenizer'], 'pretokenizers', '"pre_tokenizer"');
  const normalizers = steps(root['normalizer'], 'normalizers', '"normalizer"');
  for (const decoder of decoders) {
    if (!['ByteLevel', 'Metaspace', 'Replace', 'ByteFallback', 'Fuse', 'Strip'].includes(String(decoder.type))) {
      throw new Error(
        `[grammar] tokenizer.json: tokens of the decoder ${String(decoder.type)} are not bytes; ByteLevel, Metaspace, and ` +
          'Replace with ByteFallback are supported',
      );
    }
  }
  const all = [...decoders, ...before];
  if (all.some(({ type }) => type === 'ByteLevel')) {
    const other = decoders.find(({ type }) => type !== 'ByteLevel');
    if (other) {
      throw new Error(
        `[grammar] tokenizer.json: the decoder ${String(other.type)} beside the tokens' byte level is not supported`,
      );
    }
    return byteLevel;
  }
  const space =
    all.find(({ type }) => type === 'Metaspace')?.['replacement'] ??
    decoders.filter(({ type }) => type === 'Replace').map((step) => replaced(step, ' '))[0] ??
    normalizers.filter(({ type }) => type === 'Replace').map((step) => step['content'])[0];
  if (typeof space !== 'string') {
    throw new Error(
      '[grammar] tokenizer.json: neither its decoder nor its pre-tokenizer says how its tokens spell bytes; ByteLevel, ' +
        'Metaspace, and Replace with ByteFallback are supported',
    );
  }
  const bytes = model['byte_fallback'] === true || decoders.some(({ type }) => type === 'ByteFallback');
  return (text) => sentencePiece(text, space, bytes);
}

/** A step, or the steps of a sequence of them; null is none. */
function steps(value: unknown, key: string, where: string): readonly Part[] {
  if (value === null || value === undefined) return [];
  const step = part(value, where);
  return step.type === 'Sequence'
    ? list(step[key], `${where}.${key}`).flatMap((inner) => steps(inner, key, where))
    : [step];
}

/** The text that a Replace step turns into `by`. */
function replaced(step: Part, by: string): string {
  const pattern = part(step['pattern'], 'the pattern of Replace')['String'];
  if (step['content'] !== by || typeof pattern !== 'string') {
    throw new Error(
      `[grammar] tokenizer.json: the decoder ${JSON.stringify(step)} is not supported; only ▁ is replaced by a space`,
    );
  }
  return pattern;
}

function sentencePiece(text: string, space: string, bytes: boolean): Uint8Array {
  const byte = bytes ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text) : null;
  return byte ? Uint8Array.of(parseInt(byte[1]!, 16)) : new TextEncoder().encode(text.replaceAll(space, ' '));
}

/**
 * GPT-2's alphabet: printable bytes are the characters of Latin-1 of the same number, the others in their order the
 * characters from U+0100 on.
 */
const BYTE_OF = new Map<string, number>();
for (let byte = 0, others = 0x100; byte < 256; byte += 1) {
  const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  BYTE_OF.set(String.fromCharCode(printable ? byte : others++), byte);
}

function byteLevel(text: string, id: number): Uint8Array {
  return Uint8Array.from(text, (character) => {
    const byte = BYTE_OF.get(character);
    if (byte === undefined) {
      throw new Error(
        `[grammar] tokenizer.json: token ${id}, "${text}", has "${character}", which spells no byte at byte level`,
      );
    }
    return byte;
  });
}

/** The ids of the model's tokens by their text: BPE maps, Unigram lists. */
function pieces(model: Part): Map<string, number> {
  const vocabulary = model['vocab'];
  if (Array.isArray(vocabulary)) {
    return new Map(
      vocabulary.map((piece: unknown, id): [string, number] => {
        const text: unknown = Array.isArray(piece) ? piece[0] : undefined;
        if (typeof text !== 'string') throw wrong(`"model.vocab", entry ${id},`, 'a piece and its score');
        return [text, id];
      }),
    );
  }
  const entries = Object.entries(part(vocabulary, '"model.vocab"'));
  const odd = entries.find(([, id]) => typeof id !== 'number');
  if (odd) throw wrong(`"model.vocab", "${odd[0]}",`, 'a number');
  return new Map(entries as [string, number][]);
}

function part(value: unknown, where: string): Part {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(where, 'an object');
  return value as Part;
}

function list(value: unknown, where: string): readonly unknown[] {
  if (!Array.isArray(value)) throw wrong(where, 'a list');
  return value;
}

function wrong(where: string, right: string): Error {
  return new Error(`[grammar] tokenizer.json: ${where} is not ${right}`);
}
