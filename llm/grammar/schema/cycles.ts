import type { Unsupported } from '../refusal.ts';
import { unsupported } from './errors.ts';
import type { Node, SchemaGraph } from './graph.ts';
import { where } from './load.ts';

/** Schemas that apply to one value through one another (`allOf` in `allOf`, references), at most. */
export const IN_PLACE = 500;

/** The depth of a node that is being looked at. */
const OPEN = -1;

/** Refuses schemas that apply to a value through themselves, which says nothing, and chains of them that are too long. */
export function refuseCycles(graph: SchemaGraph, nodes: Iterable<Node>): void {
  const depth = new Map<Node, number>();
  for (const start of nodes) {
    const path: { readonly node: Node; readonly others: readonly Node[]; next: number }[] = [];
    const enter = (node: Node): void => {
      if (depth.get(node) === OPEN) {
        const cycle = path.map((step) => step.node).slice(path.findIndex((step) => step.node === node));
        const places = [...cycle, node].map(({ place }) => where(place)).join(' → ');
        throw unsupported(where(node.place), '$ref', `recursion without a base: ${places}`);
      }
      if (depth.has(node)) return;
      depth.set(node, OPEN);
      path.push({ node, others: graph.inPlace(node), next: 0 });
    };
    enter(start);
    for (let step = path.at(-1); step; step = path.at(-1)) {
      const other = step.others[step.next++];
      if (other) {
        enter(other);
        continue;
      }
      const deepest = step.others.reduce((most, inner) => Math.max(most, depth.get(inner)! + 1), 0);
      if (deepest > IN_PLACE) throw tooDeep(step.node);
      depth.set(step.node, deepest);
      path.pop();
    }
  }
}

export function tooDeep(node: Node): Unsupported {
  const reason = `more than ${IN_PLACE} schemas apply to one value through one another`;
  return unsupported(where(node.place), 'allOf, anyOf, oneOf, not, if, $ref', reason);
}
