import type { SchemaOptions } from '../../llm/grammar/schema/compile.ts';
import { SchemaGraph, type Node } from '../../llm/grammar/schema/graph.ts';
import { escapeToken } from '../../llm/grammar/schema/keywords.ts';
import { Documents, where } from '../../llm/grammar/schema/load.ts';
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
   * Of `oneOf`, which without this clause is `anyOf`: the places of the clauses that its schemas lead to. Were these asked less,
   * more of its schemas could hold at once, and it would forbid more.
   */
  readonly over: (() => ReadonlySet<string>) | null;
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
 * The clauses of a schema. What stands in `not`, `if`, `contains` and `propertyNames`, and in other documents, belongs to one
 * clause with them: to ask less there may be to ask more of the value.
 */
export function clausesOf(schema: Readonly<Record<string, unknown>>, options: SchemaOptions): readonly Clause[] {
  const graph = new SchemaGraph(new Documents(schema, options));
  const clauses = new Map<string, Clause>();
  const placesOf = new Map<Node, string[]>();
  const own = graph.root.place.resource.uri;
  const reachable = (from: readonly Node[]): ReadonlySet<Node> => {
    const all = new Set(from);
    for (const node of all)
      for (const other of inside(graph, node)) if (other.place.resource.uri === own) all.add(other);
    return all;
  };
  for (const node of reachable([graph.root])) {
    const add = (place: string, says: string, remove: Clause['remove'], over: Clause['over'] = null): void => {
      clauses.set(place, { place, says, remove, over });
      placesOf.set(node, [...(placesOf.get(node) ?? []), place]);
    };
    const { value, parent, pointer } = node.place;
    if (typeof value === 'boolean') {
      // It is an entry of the schema around it.
      const path = pointer.slice(1).split('/').map(unescapeToken);
      const last = path.pop()!;
      if (value || parent === null) continue;
      const holder = path.reduce((at, step) => (at as Entries)[step] as Entries, parent.value as Entries);
      add(where(node.place), 'false', () => replace(holder, last, true));
      continue;
    }
    const entries = value as Entries;
    for (const [keyword, entry] of Object.entries(value)) {
      const shape = node.place.resource.dialect.keywords.get(keyword);
      if (shape === undefined || graph.value(node, keyword) === undefined || SILENT.has(keyword)) continue;
      if (keyword === 'format' && options.formats !== 'assert' && !node.place.resource.dialect.assertsFormats) continue;
      const all = keyword === 'if' ? ['if', 'then', 'else'] : [keyword];
      const says = jsonText(entry);
      add(where(node.place, `/${keyword}`), says.length > 80 ? `${says.slice(0, 79)}…` : says, () =>
        undo(all.map((name) => replace(entries, name, undefined))),
      );
    }
    (graph.value<readonly string[]>(node, 'required') ?? []).forEach((name, index) =>
      add(where(node.place, `/required/${index}`), `${JSON.stringify(name)} is required`, () =>
        replace(
          entries,
          'required',
          (entries.required as readonly string[]).filter((other) => other !== name),
        ),
      ),
    );
    for (const [name, names] of [...graph.names(node, 'dependencies')]) {
      const at = `/dependencies/${escapeToken(name)}`;
      add(where(node.place, at), JSON.stringify(names), () => replace(entries.dependencies as Entries, name, []));
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
      const over = (): ReadonlySet<string> =>
        new Set([...reachable(graph.list(node, 'oneOf'))].flatMap((other) => placesOf.get(other) ?? []));
      add(where(node.place, '/oneOf'), 'exactly one of its schemas', remove, over);
    }
    for (const keyword of ['$ref', '$dynamicRef']) {
      const away = graph.has(node, keyword) && graph.references(node).some((to) => to.place.resource.uri !== own);
      const says = JSON.stringify(entries[keyword]);
      if (away) add(where(node.place, `/${keyword}`), says, () => replace(entries, keyword, undefined));
    }
  }
  return [...clauses.values()];
}

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
