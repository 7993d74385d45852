import type { Algebra } from '../json/algebra.ts';
import type { Formula, ItemSource, MemberSource } from '../json/formula.ts';
import type { Language } from '../text/language.ts';
import { IN_PLACE, tooDeep } from './cycles.ts';
import type { Node, SchemaGraph } from './graph.ts';

/** What is needed to see which members and elements the schemas beside an `unevaluated…` evaluate. */
export interface Evaluation {
  readonly algebra: Algebra;
  readonly graph: SchemaGraph;
  readonly formula: (node: Node) => Formula;
  readonly pattern: (node: Node, pattern: string) => Language;
}

/** The members that `unevaluatedProperties` of a node leaves alone. */
export function evaluatedMembers(evaluation: Evaluation, node: Node): readonly MemberSource[] {
  const { graph, pattern } = evaluation;
  return gather(evaluation, node, (at, when) => {
    const names = graph.map(at, 'properties').map(([name]) => name);
    const patterns = graph.map(at, 'patternProperties').map(([text]) => pattern(at, text));
    const all = graph.has(at, 'additionalProperties') || (at !== node && graph.has(at, 'unevaluatedProperties'));
    return all || names.length + patterns.length > 0 ? { when, all, names: new Set(names), patterns } : null;
  });
}

/** The elements that `unevaluatedItems` of a node leaves alone. */
export function evaluatedItems(evaluation: Evaluation, node: Node): readonly ItemSource[] {
  const { graph, formula } = evaluation;
  return gather(evaluation, node, (at, when) => {
    const { prefix, rest } = graph.elements(at);
    const all = rest !== null || (at !== node && graph.has(at, 'unevaluatedItems'));
    const contained = graph.one(at, 'contains');
    const contains = contained && formula(contained);
    return all || prefix.length > 0 || contains ? { when, prefix: all ? Infinity : prefix.length, contains } : null;
  });
}

/** What `visit` finds in the node and in all that apply to the same value, with the condition under which they hold. */
function gather<T>(evaluation: Evaluation, node: Node, visit: (at: Node, when: Formula) => T | null): T[] {
  const { algebra } = evaluation;
  const found: T[] = [];
  const seen = new Set<string>();
  const walk = (at: Node, when: Formula, depth: number): void => {
    const step = `${at.key} ${when.id}`;
    if (when === algebra.no || seen.has(step)) return;
    seen.add(step);
    if (depth > IN_PLACE) throw tooDeep(node);
    const source = visit(at, when);
    if (source) found.push(source);
    for (const [condition, other] of conditional(evaluation, at)) walk(other, algebra.and(when, condition), depth + 1);
  };
  walk(node, algebra.yes, 0);
  return found;
}

/**
 * The schemas that a node applies to the same value, each with the condition under which it holds, apart from what the node
 * fails without anyway. None of `not`: where it holds, its schema does not.
 */
function conditional({ algebra, graph, formula }: Evaluation, node: Node): (readonly [Formula, Node])[] {
  const given = (condition: Formula, others: readonly (Node | null)[]): (readonly [Formula, Node])[] =>
    others.flatMap((other) => (other ? [[condition, other] as const] : []));
  const branches = [...graph.list(node, 'anyOf'), ...graph.list(node, 'oneOf')];
  const condition = graph.one(node, 'if');
  const holds = condition ? formula(condition) : algebra.no;
  return [
    ...given(algebra.yes, [...graph.references(node), ...graph.list(node, 'allOf')]),
    ...branches.map((branch) => [formula(branch), branch] as const),
    ...graph
      .dependents(node)
      .map(([name, other]) => [algebra.and(algebra.type('object'), algebra.required(name)), other] as const),
    ...given(holds, [condition, graph.one(node, 'then')]),
    ...(condition ? given(algebra.not(holds), [graph.one(node, 'else')]) : []),
  ];
}
