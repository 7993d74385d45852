import type { Json } from '../json/algebra.ts';
import type { Node, SchemaGraph } from './graph.ts';

/** Integers from a least to a greatest, at most. */
const RANGE = 1000;

/**
 * Values among which are all that a schema admits, where it is plain to see that they are few; else null. `besides` texts:
 * of others than texts.
 */
export function fewValues(
  graph: SchemaGraph,
  node: Node,
  besides: 'nothing' | 'texts' = 'nothing',
  above: ReadonlySet<Node> = new Set(),
): readonly Json[] | null {
  const few = allValues(graph, node, besides, above);
  return besides === 'nothing' ? few : (few?.filter((value) => typeof value !== 'string') ?? null);
}

function allValues(
  graph: SchemaGraph,
  node: Node,
  besides: 'nothing' | 'texts',
  above: ReadonlySet<Node>,
): readonly Json[] | null {
  if (above.has(node)) return null;
  const inside = new Set(above).add(node);
  if (node.place.value === false) return [];
  const constant = graph.value<Json>(node, 'const');
  if (constant !== undefined) return [constant];
  const values = graph.value<readonly Json[]>(node, 'enum');
  if (values) return values;
  const types = [graph.value<string | string[]>(node, 'type') ?? 'any'].flat();
  const typed = types.map((type) => (besides === 'texts' && type === 'string' ? [] : ofType(graph, node, type)));
  if (typed.every((few) => few !== null)) return typed.flat();
  for (const other of [...graph.references(node), ...graph.list(node, 'allOf')]) {
    const few = fewValues(graph, other, besides, inside);
    if (few) return few;
  }
  for (const keyword of ['anyOf', 'oneOf']) {
    const branches = graph.list(node, keyword).map((other) => fewValues(graph, other, besides, inside));
    if (branches.length > 0 && branches.every((few) => few !== null)) return branches.flat();
  }
  return null;
}

function ofType(graph: SchemaGraph, node: Node, type: string): readonly Json[] | null {
  if (type === 'null') return [null];
  if (type === 'boolean') return [false, true];
  if (type !== 'integer') return null;
  const bound = (keyword: string): number => graph.value<number>(node, keyword) ?? NaN;
  const [least] = [bound('minimum'), bound('exclusiveMinimum')].filter((value) => !Number.isNaN(value)).map(Math.ceil);
  const [most] = [bound('maximum'), bound('exclusiveMaximum')].filter((value) => !Number.isNaN(value)).map(Math.floor);
  if (least === undefined || most === undefined || most - least > RANGE) return null;
  return Array.from({ length: Math.max(0, most - least + 1) }, (_, index) => least + index);
}
