import { Interned } from '../automaton.ts';
import { END } from './network.ts';

/**
 * Where rules return to: a graph-structured stack (Tomita 1986, "Efficient parsing for natural language"). A node stands for
 * a call that is open and holds all the places where it may return: a state, and the node of the rule that this state is
 * of. Left recursion makes a node that returns to itself, ambiguity one that returns to several places. Nodes hold no
 * position in the text, and equal ones are the same object, so that what recurs is recognised.
 *
 * A return with nothing behind it is left out: the rule's own returns take its place (as in Leo 1991, "A general
 * context-free parsing algorithm running in linear time on every LR(k) grammar without using lookahead"), which keeps right
 * recursion from growing. END is returned to at the base alone.
 */
export interface Node {
  readonly id: number;
  readonly rule: number;
  readonly returns: readonly Return[];
}

export interface Return {
  readonly state: number;
  readonly node: Node;
}

/** Below it is what the frame knows nothing of. */
export const BASE: Node = { id: 0, rule: -1, returns: [] };

/** A node that is being made: drafts may return to each other. */
export class Draft {
  readonly rule: number;
  readonly returns: { readonly state: number; readonly node: Node | Draft }[] = [];
  /** Nodes whose returns are this one's, too. */
  readonly shared = new Set<Node | Draft>();
  /** What it has become. */
  node: Node | null = null;

  constructor(rule: number) {
    this.rule = rule;
  }

  /** May return to `state` of a rule that was called from `node`. */
  add(state: number, node: Node | Draft): void {
    if (state === END) this.shared.add(node);
    else this.returns.push({ state, node });
  }

  /** All returns, those shared among them, each once. */
  all(): { readonly state: number; readonly node: Node | Draft }[] {
    const from = new Set<Node | Draft>([this]);
    const known = new Map<Node | Draft, Set<number>>();
    for (const node of from) {
      for (const to of node === BASE ? [{ state: END, node: BASE }] : node.returns) {
        const states = known.get(to.node);
        if (states) states.add(to.state);
        else known.set(to.node, new Set([to.state]));
      }
      if (node instanceof Draft) for (const other of node.shared) from.add(other);
    }
    return [...known].flatMap(([node, states]) => [...states].map((state) => ({ state, node })));
  }
}

type Returns = Map<Draft, ReturnType<Draft['all']>>;

/** All nodes of a grammar. */
export class Nodes {
  private readonly nodes = new Interned<Node>();
  private readonly moved = new Map<string, Node>();

  /** The nodes of these drafts; drafts of one rule must not return to each other. */
  intern(drafts: Iterable<Draft>): void {
    const returns: Returns = new Map();
    const index = new Map<Draft, number>();
    const path: Draft[] = [];
    // Strongly connected components, those that are returned to first (Tarjan 1972).
    const visit = (draft: Draft): number => {
      const own = index.size;
      let low = own;
      index.set(draft, own);
      path.push(draft);
      const all = draft.all();
      returns.set(draft, all);
      for (const { node } of all) {
        if (!(node instanceof Draft) || node.node !== null) continue;
        low = Math.min(low, index.get(node) ?? visit(node));
      }
      if (low === own) this.component(path.splice(path.indexOf(draft)), returns);
      return low;
    };
    for (const draft of drafts) if (draft.node === null) visit(draft);
  }

  /** Drafts that return to each other, and else to nodes only. */
  private component(drafts: readonly Draft[], returns: Returns): void {
    const cyclic = drafts.some((draft) => returns.get(draft)!.some(({ node }) => node instanceof Draft && !node.node));
    if (cyclic) recognise(drafts, returns);
    const fresh = drafts.filter(({ node }) => node === null).sort((a, b) => a.rule - b.rule);
    const texts = fresh.map((draft) => {
      const parts = returns.get(draft)!.map(({ state, node }) => {
        const to = node instanceof Draft ? node.node : node;
        return to === null ? `${state} rule ${node.rule}` : `${state} ${to.id}`;
      });
      return [...new Set(parts)].sort().join(', ');
    });
    const all = fresh.map(({ rule }, i) => `${rule}: ${texts[i]}`).join('; ');
    const made: { readonly draft: Draft; readonly returns: Return[] }[] = [];
    fresh.forEach((draft, i) => {
      if (texts[i] === `${END} ${BASE.id}`) {
        draft.node = BASE;
        return;
      }
      draft.node = this.nodes.get(cyclic ? `${draft.rule} of ${all}` : texts[i]!, () => {
        const node = { id: this.nodes.size + 1, rule: draft.rule, returns: [] };
        made.push({ draft, returns: node.returns });
        return node;
      });
    });
    for (const { draft, returns: list } of made) {
      const unique = new Map<string, Return>();
      for (const { state, node: to } of returns.get(draft)!) {
        const node = to instanceof Draft ? to.node! : to;
        unique.set(`${state} ${node.id}`, { state, node });
      }
      list.push(...unique.values());
    }
  }

  /** `node` with `base` in the place of BASE. */
  move(node: Node, base: Node): Node {
    if (base === BASE) return node;
    const drafts = new Map<Node, Draft>();
    const draft = (of: Node): Node | Draft => {
      if (of === BASE) return base;
      let made = drafts.get(of);
      if (!made) {
        drafts.set(of, (made = new Draft(of.rule)));
        for (const { state, node: to } of of.returns) made.add(state, draft(to));
      }
      return made;
    };
    const key = `${node.id} ${base.id}`;
    let moved = this.moved.get(key);
    if (moved === undefined) {
      const top = draft(node);
      if (top instanceof Draft) this.intern([top]);
      this.moved.set(key, (moved = top instanceof Draft ? top.node! : top));
    }
    return moved;
  }
}

/** Where there are more pairs to compare, equal nodes may stay apart, which costs memory and nothing else. */
const MOST_CANDIDATES = 100;

/**
 * Drafts that do the same as nodes near by become these: the greatest bisimulation (Park 1981). Without it an ambiguous rule
 * (`sum ::= sum "+" sum | "1"`) would make a node at each operand that returns to all those before.
 */
function recognise(drafts: readonly Draft[], returns: Returns): void {
  const near = new Set<Node>();
  for (const draft of drafts) for (const { node } of returns.get(draft)!) if (!(node instanceof Draft)) near.add(node);
  for (const { returns: further } of [...near]) for (const { node } of further) near.add(node);
  if (near.size * drafts.length > MOST_CANDIDATES) return;
  const candidates = new Map(drafts.map((draft) => [draft, new Set(near)]));
  const same = (a: ReturnType<Draft['all']>[number], b: Return): boolean =>
    a.state === b.state &&
    (a.node instanceof Draft
      ? a.node.node === b.node || candidates.get(a.node)?.has(b.node) === true
      : a.node === b.node);
  for (let changed = true; changed;) {
    changed = false;
    for (const [draft, nodes] of candidates) {
      const own = returns.get(draft)!;
      for (const node of nodes) {
        const alike =
          own.every((one) => node.returns.some((other) => same(one, other))) &&
          node.returns.every((other) => own.some((one) => same(one, other)));
        if (!alike) changed = nodes.delete(node);
      }
    }
  }
  for (const [draft, nodes] of candidates) for (const node of nodes) draft.node ??= node;
}
