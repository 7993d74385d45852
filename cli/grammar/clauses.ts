import type { SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { nodesAlong } from '../../llm/grammar/schema/at.ts';
import { SchemaGraph, type Node } from '../../llm/grammar/schema/graph.ts';
import { escapeToken } from '../../llm/grammar/schema/keywords.ts';
import { Documents, where, type Place } from '../../llm/grammar/schema/load.ts';
import { jsonText } from './json.ts';

/** A keyword in a schema that asks something of values, or a part of one: what can be taken out of the schema by itself. */
export interface Clause {
  /** JSON pointer to it, behind the document's URI where it has one. */
  readonly place: string;
  /** What it says. */
  readonly says: string;
  /** Takes it out of the schema, which is changed; returns what puts it back. */
  readonly remove: () => () => void;
  /**
   * Of `oneOf`, which without this clause is `anyOf`: the clauses that its schemas lead to. Were these asked less, more of
   * its schemas could hold at once, and it would forbid more.
   */
  readonly over: (() => ReadonlySet<Clause>) | null;
  /** How many steps up from the value in question its schema has a say; Infinity where it has none on the way there. */
  readonly distance: number;
}

/** Keywords that ask nothing by themselves: the schemas in them do, or they are heard through others. */
const SILENT = new Set(
  (
    '$id $schema $ref $comment $anchor $dynamicAnchor $dynamicRef $vocabulary $defs definitions title description ' +
    'default readOnly writeOnly examples deprecated contentEncoding contentMediaType contentSchema allOf anyOf oneOf ' +
    'then else properties patternProperties additionalProperties dependentSchemas dependencies items prefixItems ' +
    'additionalItems unevaluatedItems unevaluatedProperties required'
  ).split(' '),
);

/**
 * The clauses of a schema, where the value at `path` is in question. What stands in `not`, `if`, `contains` and
 * `propertyNames`, and in other documents, belongs to one clause with them: to ask less there may be to ask more of the value.
 */
export function clausesOf(
  schema: Readonly<Record<string, unknown>>,
  options: SchemaOptions,
  path: readonly (string | number)[] = [],
): readonly Clause[] {
  const graph = new SchemaGraph(new Documents(schema, options));
  const distances = distancesOf(graph, path);
  // A schema is met once a dynamic scope.
  const clauses = new Map<Place, Map<string, Clause>>();
  const own = graph.root.place.resource.uri;
  const reachable = (from: readonly Node[]): ReadonlySet<Node> => {
    const all = new Set(from);
    for (const node of all)
      for (const other of inside(graph, node)) if (other.place.resource.uri === own) all.add(other);
    return all;
  };
  for (const node of reachable([graph.root])) {
    const { place } = node;
    if (clauses.has(place)) continue;
    const here = new Map<string, Clause>();
    clauses.set(place, here);
    // In words not before they are asked for: a pointer is as long as its place is deep.
    const add = (pointer: string, says: () => string, remove: Clause['remove'], over: Clause['over'] = null): void => {
      here.set(pointer, {
        get place() {
          return where(place, pointer);
        },
        get says() {
          return says();
        },
        remove,
        over,
        distance: distances.get(place) ?? Infinity,
      });
    };
    const { value, parent, pointer } = place;
    if (typeof value === 'boolean') {
      // It is an entry of the schema around it.
      const path = pointer.slice(1).split('/').map(unescapeToken);
      const last = path.pop()!;
      if (value || parent === null) continue;
      const holder = path.reduce((at, step) => (at as Entries)[step] as Entries, parent.value as Entries);
      add(
        '',
        () => 'false',
        () => replace(holder, last, true),
      );
      continue;
    }
    const entries = value as Entries;
    for (const [keyword, entry] of Object.entries(value)) {
      const shape = node.place.resource.dialect.keywords.get(keyword);
      if (shape === undefined || graph.value(node, keyword) === undefined || SILENT.has(keyword)) continue;
      if (keyword === 'format' && options.formats !== 'assert' && !node.place.resource.dialect.assertsFormats) continue;
      const all = keyword === 'if' ? ['if', 'then', 'else'] : [keyword];
      add(
        `/${keyword}`,
        () => shortened(jsonText(entry)),
        () => undo(all.map((name) => replace(entries, name, undefined))),
      );
    }
    (graph.value<readonly string[]>(node, 'required') ?? []).forEach((name, index) =>
      add(
        `/required/${index}`,
        () => `${JSON.stringify(name)} is required`,
        () =>
          replace(
            entries,
            'required',
            (entries.required as readonly string[]).filter((other) => other !== name),
          ),
      ),
    );
    for (const [name, names] of [...graph.names(node, 'dependencies')]) {
      add(
        `/dependencies/${escapeToken(name)}`,
        () => JSON.stringify(names),
        () => replace(entries.dependencies as Entries, name, []),
      );
    }
    if (graph.has(node, 'oneOf')) {
      const remove = (): (() => void) => {
        const { oneOf, anyOf, allOf } = entries;
        const either = anyOf === undefined ? { anyOf: oneOf } : { allOf: [...((allOf as []) ?? []), { anyOf: oneOf }] };
        return undo([
          replace(entries, 'oneOf', undefined),
          ...Object.entries(either).map(([name, to]) => replace(entries, name, to)),
        ]);
      };
      const over = (): ReadonlySet<Clause> =>
        new Set(
          [...reachable(graph.list(node, 'oneOf'))].flatMap((other) => [
            ...(clauses.get(other.place) ?? new Map<string, Clause>()).values(),
          ]),
        );
      add('/oneOf', () => 'exactly one of its schemas', remove, over);
    }
    for (const keyword of ['$ref', '$dynamicRef']) {
      const away = graph.has(node, keyword) && graph.references(node).some((to) => to.place.resource.uri !== own);
      if (!away) continue;
      add(
        `/${keyword}`,
        () => JSON.stringify(entries[keyword]),
        () => replace(entries, keyword, undefined),
      );
    }
  }
  return [...clauses.values()].flatMap((here) => [...here.values()]);
}

/** How many steps up from the value at `path` schemas have a say; those of its own members and elements have it there. */
function distancesOf(graph: SchemaGraph, path: readonly (string | number)[]): ReadonlyMap<Place, number> {
  const levels = nodesAlong(graph, path);
  const distances = new Map<Place, number>();
  const [last] = levels.slice(-1);
  for (const { place } of [...last!].flatMap((node) => [node, ...inside(graph, node)])) distances.set(place, 0);
  for (const [up, level] of levels.toReversed().entries())
    for (const { place } of level) if (!distances.has(place)) distances.set(place, up);
  return distances;
}

/** As much of a text as can be read. */
export const shortened = (text: string, most = 80): string =>
  text.length > most ? `${text.slice(0, most - 1)}…` : text;

/** The schemas that a value is asked to satisfy for the sake of a node, or its members and elements are. */
function inside(graph: SchemaGraph, node: Node): Node[] {
  const { prefix, rest } = graph.elements(node);
  const one = (keyword: string): Node | null => graph.one(node, keyword);
  return [
    ...graph.references(node),
    ...['allOf', 'anyOf', 'oneOf'].flatMap((keyword) => graph.list(node, keyword)),
    ...['properties', 'patternProperties'].flatMap((keyword) => graph.map(node, keyword).map(([, other]) => other)),
    ...graph.dependents(node).map(([, other]) => other),
    ...prefix,
    ...[rest, ...['additionalProperties', 'unevaluatedProperties', 'unevaluatedItems'].map(one)],
    ...(graph.has(node, 'if') ? ['then', 'else'].map(one) : []),
  ].filter((other) => other !== null);
}

type Entries = Record<string, unknown>;

/** Sets an entry, or takes it out; returns what undoes that. */
function replace(holder: Entries, name: string, to: unknown): () => void {
  const had = Object.hasOwn(holder, name);
  const before = holder[name];
  if (to === undefined) delete holder[name];
  else holder[name] = to;
  return () => {
    if (had) holder[name] = before;
    else delete holder[name];
  };
}

function undo(undos: readonly (() => void)[]): () => void {
  return () => [...undos].reverse().forEach((undo) => undo());
}

const unescapeToken = (token: string): string => token.replaceAll('~1', '/').replaceAll('~0', '~');
