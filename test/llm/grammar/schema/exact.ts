/** What ajv says of documents whose numbers are read digit by digit, not as doubles. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import { compare, decimal, isMultiple, scientific, type Decimal } from '../../../../llm/grammar/json/decimal.ts';

/** A document, and its numbers by their JSON pointers. */
interface Document {
  readonly value: unknown;
  readonly numbers: ReadonlyMap<string, Decimal>;
}

/**
 * Whether a text is valid: ajv with keywords for numbers that compare decimals. Of schemas in whose data no key is "type".
 * Throws where ajv cannot take the schema.
 */
export function exactAjv(schema: unknown): (text: string) => boolean {
  let document: Document;
  const ajv = new Ajv2020({ strict: false, logger: false, validateSchema: false });
  const define = (
    keyword: string,
    type: 'number' | undefined,
    holds: (schema: unknown, at: string, data: unknown) => boolean,
  ): void => {
    ajv.removeKeyword(keyword);
    const validate = (
      schema: unknown,
      data: unknown,
      _parent: unknown,
      cxt?: { readonly instancePath: string },
    ): boolean => holds(schema, cxt!.instancePath, data);
    ajv.addKeyword({ keyword, ...(type && { type }), validate });
  };
  const ofNumber = (keyword: string, holds: (a: Decimal, b: Decimal) => boolean): void =>
    define(keyword, 'number', (schema, at) => holds(document.numbers.get(at)!, decimal(schema as number)));
  ofNumber('integral', (number) => isMultiple(number, decimal(1)));
  ofNumber('multipleOf', isMultiple);
  ofNumber('minimum', (a, b) => order(a, b) >= 0);
  ofNumber('exclusiveMinimum', (a, b) => order(a, b) > 0);
  ofNumber('maximum', (a, b) => order(a, b) <= 0);
  ofNumber('exclusiveMaximum', (a, b) => order(a, b) < 0);
  // A text may be a key, which has no place of its own.
  const equal = (constant: unknown, at: string, data: unknown): boolean =>
    typeof data === 'string' ? data === constant : plain(constant) === plain(document.value, document, at);
  define('const', undefined, equal);
  define('enum', undefined, (values, at, data) => (values as unknown[]).some((constant) => equal(constant, at, data)));
  const valid = ajv.compile(
    JSON.parse(JSON.stringify(schema), (_, part: unknown) => withoutIntegers(part)) as object | boolean,
  );
  return (text) => {
    document = { value: JSON.parse(text), numbers: numbersOf(text) };
    return valid(document.value);
  };
}

/** ajv's own type looks at doubles. */
function withoutIntegers(part: unknown): unknown {
  const types = [(part as { type?: string | string[] } | null)?.type ?? []].flat();
  if (!types.includes('integer') || types.includes('number')) return part;
  return { ...(part as object), type: types.map((type) => type.replace('integer', 'number')), integral: 1 };
}

function order(a: Decimal, b: Decimal): number {
  const sign = ({ digits }: Decimal): number => Number(digits > 0n) - Number(digits < 0n);
  return sign(a) - sign(b) || sign(a) * compare(scientific(a), scientific(b));
}

/** A text that equal values share: that of `value`, or of what stands in a document at a place. */
function plain(value: unknown, document?: Document, at = ''): string {
  if (document) for (const key of at.split('/').slice(1)) value = (value as Record<string, unknown>)[unescaped(key)];
  const text = (value: unknown, at: string): string => {
    if (typeof value === 'number') {
      const { digits, exponent } = document ? document.numbers.get(at)! : decimal(value);
      return `${digits}e${exponent}`;
    }
    if (typeof value !== 'object' || value === null) return JSON.stringify(value);
    const entries = Object.entries(value).sort(([a], [b]) => Number(a > b) - Number(a < b));
    const members = entries.map(([key, member]) => `${JSON.stringify(key)}:${text(member, `${at}/${escaped(key)}`)}`);
    return `${Array.isArray(value)} ${members.join()};`;
  };
  return text(value, at);
}

const escaped = (key: string): string => key.replaceAll('~', '~0').replaceAll('/', '~1');
const unescaped = (key: string): string => key.replaceAll('~1', '/').replaceAll('~0', '~');

/** The numbers of a JSON text. */
function numbersOf(text: string): Map<string, Decimal> {
  const numbers = new Map<string, Decimal>();
  const path: (string | number)[] = [];
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s"[\]{},:]+/g)!;
  tokens.forEach((token, i) => {
    if (token === '{') path.push('');
    else if (token === '[') path.push(0);
    else if (token === '}' || token === ']') path.pop();
    else if (token === ',') path.push(typeof path.at(-1) === 'number' ? (path.pop() as number) + 1 : path.pop()!);
    else if (token === ':') path.splice(-1, 1, JSON.parse(tokens[i - 1]!) as string);
    else if (/^[-\d]/.test(token)) {
      numbers.set(path.map((step) => `/${escaped(String(step))}`).join(''), decimal(token));
    }
  });
  return numbers;
}
