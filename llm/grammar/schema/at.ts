import { regex } from '../text/regex.ts';
import { DEAD, NONE, type Language } from '../text/language.ts';
import { SchemaGraph, type Node } from './graph.ts';
import { subschemas } from './keywords.ts';
import { Documents, where, type DocumentsOptions } from './load.ts';

/** A schema that has a say in a value, with those of its keywords that hold no schemas. */
export interface SchemaAt {
  readonly place: string;
  readonly keywords: Readonly<Record<string, unknown>>;
}

/**
 * The schemas that may have a say in the value at `path` (keys and indices from the root) of a document: all that lead
 * there, those in branches of `anyOf`, `not` and the like among them.
 */
export function schemasAt(schema: unknown, path: readonly (string | number)[], options: DocumentsOptions): SchemaAt[] {
  const graph = new SchemaGraph(new Documents(schema, options));
  return [...nodesAt(graph, path)].flatMap(({ place }) => {
    if (typeof place.value === 'boolean')
      return place.value ? [] : [{ place: where(place), keywords: { false: true } }];
    const keywords = Object.entries(place.value).filter(([keyword, value]) => {
      const shape = place.resource.dialect.keywords.get(keyword);
      return shape !== undefined && !keyword.startsWith('$') && subschemas(shape, value).length === 0;
    });
    return keywords.length === 0 ? [] : [{ place: where(place), keywords: Object.fromEntries(keywords) }];
  });
}

/** What these schemas say of members of an object at `path`. */
export interface KeysAt {
  /** Those of `properties` and `required`, and the few that `propertyNames` may leave. */
  readonly names: readonly string[];
  /** Of `patternProperties`. */
  readonly patterns: ReadonlyMap<string, Language>;
}

export function keysAt(schema: unknown, path: readonly (string | number)[], options: DocumentsOptions): KeysAt {
  const graph = new SchemaGraph(new Documents(schema, options));
  const nodes = [...nodesAt(graph, path)];
  const names = nodes.flatMap((node) => {
    const few = graph.one(node, 'propertyNames');
    return [
      ...graph.map(node, 'properties').map(([name]) => name),
      ...(graph.value<readonly string[]>(node, 'required') ?? []),
      ...(few ? [...closure(graph, [few])] : []).flatMap((one) => [
        ...(graph.value<readonly unknown[]>(one, 'enum') ?? []),
        graph.value(one, 'const'),
      ]),
    ];
  });
  const patterns = nodes.flatMap((node) => graph.map(node, 'patternProperties').map(([pattern]) => pattern));
  return {
    names: [...new Set(names.filter((name) => typeof name === 'string'))],
    patterns: new Map(patterns.map((pattern) => [pattern, regex(pattern)])),
  };
}

/** The schemas that may have a say in the root of a document, and in the value behind each step of `path`. */
export function nodesAlong(graph: SchemaGraph, path: readonly (string | number)[]): readonly ReadonlySet<Node>[] {
  const levels = [closure(graph, [graph.root])];
  for (const step of path) {
    const nodes = [...levels.at(-1)!].flatMap((node) => below(graph, node, step));
    levels.push(closure(graph, nodes));
  }
  return levels;
}

function nodesAt(graph: SchemaGraph, path: readonly (string | number)[]): ReadonlySet<Node> {
  return nodesAlong(graph, path).at(-1)!;
}

/** The nodes and all that apply to the same value. */
function closure(graph: SchemaGraph, nodes: readonly Node[]): ReadonlySet<Node> {
  const all = new Set(nodes);
  for (const node of all) for (const other of graph.inPlace(node)) all.add(other);
  return all;
}

/** The schemas that a node has for a member or an element. */
function below(graph: SchemaGraph, node: Node, step: string | number): readonly Node[] {
  const one = (keyword: string): readonly Node[] => {
    const other = graph.one(node, keyword);
    return other ? [other] : [];
  };
  if (typeof step === 'number') {
    const { prefix, rest } = graph.elements(node);
    const own = prefix[step] ?? rest;
    return [...(own ? [own] : []), ...one('contains'), ...(own ? [] : one('unevaluatedItems'))];
  }
  const named = [
    ...graph.map(node, 'properties').filter(([name]) => name === step),
    ...graph.map(node, 'patternProperties').filter(([pattern]) => matches(pattern, step)),
  ].map(([, other]) => other);
  return named.length > 0 ? named : [...one('additionalProperties'), ...one('unevaluatedProperties')];
}

function matches(pattern: string, text: string): boolean {
  const language = regex(pattern);
  let state = language.start;
  for (const character of text) if (state !== DEAD) state = language.step(state, character.codePointAt(0)!);
  return state !== DEAD && language.label(state) !== NONE;
}
