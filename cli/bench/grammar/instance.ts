/** Plausible values of a schema, by nobody's masks: what ajv accepts of them is valid. */
import type { HostRandom } from '../../../engine/random.ts';

type JsonObject = Readonly<Record<string, unknown>>;

const WORDS =
  'active order customer 2021-03-04 The quick delivery of item #42 was "confirmed" by support@example.com in München café'.split(
    ' ',
  );

const FORMATS: Readonly<Record<string, string>> = {
  'date-time': '2021-03-04T05:06:07Z',
  date: '2021-03-04',
  time: '05:06:07Z',
  email: 'jane.doe@example.com',
  uri: 'https://api.example.com/v1/items/42?expand=all',
  url: 'https://www.example.com/',
  uuid: '123e4567-e89b-12d3-a456-426614174000',
  ipv4: '192.0.2.1',
  hostname: 'api.example.com',
  byte: 'aGVsbG8gd29ybGQ=',
};

/** Objects and arrays nest so far; below, what is not required is left out. */
const DEEP = 5;

/** A value that `root.$defs` and the keywords plainly ask for; it need not satisfy all of them. */
export function plausible(root: JsonObject, random: HostRandom): unknown {
  const $defs = (root.$defs ?? {}) as Readonly<Record<string, unknown>>;
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)]!;

  const value = (schema: unknown, depth: number): unknown => {
    if (typeof schema !== 'object' || schema === null) return pick(WORDS);
    const from = whole(schema as JsonObject, 0);
    if (Array.isArray(from.enum)) return pick(from.enum);
    if ('const' in from) return from.const;
    const types = [from.type ?? (from.properties ? 'object' : from.items ? 'array' : 'string')].flat() as string[];
    switch (pick(types)) {
      case 'object':
        return object(from, depth);
      case 'array': {
        const least = Number(from.minItems ?? 0);
        const count = Math.min(Number(from.maxItems ?? Infinity), least + (depth > DEEP ? 0 : 1 + random.below(3)));
        return Array.from({ length: count }, () => value(from.items ?? {}, depth + 1));
      }
      case 'integer':
      case 'number': {
        const least = Number(
          from.minimum ?? (Number.isFinite(from.exclusiveMinimum) ? Number(from.exclusiveMinimum) + 1 : 0),
        );
        const most = Number(from.maximum ?? least + 1000);
        const number = least + random.uniform() * Math.max(0, Math.min(most - least, 1e6));
        if (from.multipleOf !== undefined)
          return Math.round(number / Number(from.multipleOf)) * Number(from.multipleOf);
        return [from.type].flat().includes('integer') ? Math.floor(number) : Number(number.toFixed(2));
      }
      case 'boolean':
        return random.below(2) === 0;
      case 'null':
        return null;
      default:
        return string(from);
    }
  };

  const object = (from: JsonObject, depth: number): unknown => {
    const required = new Set((from.required ?? []) as string[]);
    const members = Object.entries((from.properties ?? {}) as JsonObject).filter(
      ([name]) => required.has(name) || (depth <= DEEP && random.below(3) > 0),
    );
    const other = from.additionalProperties;
    const extra =
      typeof other === 'object' && depth <= DEEP ? [['key', other] as const, ['other key', other] as const] : [];
    return Object.fromEntries([...members, ...extra].map(([name, member]) => [name, value(member, depth + 1)]));
  };

  const string = (from: JsonObject): string => {
    const known = FORMATS[String(from.format)];
    if (known !== undefined) return known;
    const words = Array.from({ length: 1 + random.below(6) }, () => pick(WORDS)).join(' ');
    const least = Number(from.minLength ?? 0);
    return words.padEnd(least, 'x').slice(0, Number(from.maxLength ?? Infinity));
  };

  /** References followed, `allOf` joined, a branch of the others chosen. */
  const whole = (schema: JsonObject, steps: number): JsonObject => {
    const { $ref, allOf, anyOf, oneOf, ...own } = schema;
    const branches = (anyOf ?? oneOf) as readonly JsonObject[] | undefined;
    const others = [
      ...(typeof $ref === 'string' ? [$defs[$ref.replace('#/$defs/', '')] as JsonObject] : []),
      ...((allOf ?? []) as JsonObject[]),
      ...(branches ? [pick(branches)] : []),
    ];
    if (steps > 20) return own;
    return others.reduce<JsonObject>((all, other) => {
      const next = typeof other === 'object' ? whole(other, steps + 1) : {};
      return {
        ...all,
        ...next,
        ...(all.properties && next.properties ? { properties: { ...all.properties, ...next.properties } } : {}),
        ...(all.required && next.required ? { required: [...(all.required as []), ...(next.required as [])] } : {}),
      };
    }, own);
  };

  return value(root, 0);
}
