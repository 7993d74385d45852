import type { Stack } from '../automaton.ts';
import { END, type Network, type State } from './network.ts';
import { complement, joined, LAST, type CodePoints } from './parse.ts';
import { Sentence, Waiting } from './pushdown.ts';
import { BASE, type Node, type Return } from './returns.ts';
import { begun, continued, type Begun } from './utf8.ts';

/** A rule of a context-free grammar that has begun, at one of the places where it may be. */
export interface OpenRule {
  readonly name: string;
  /** Where it stands in the grammar's text, from 1 on. */
  readonly line: number;
  /** What it goes on with: rules by their names, texts in quotes, characters in brackets. */
  readonly wants: readonly string[];
  /** Whether it may end instead. */
  readonly ends: boolean;
}

/**
 * The rules that are open behind the beginning of a text, innermost first; those with nothing more to come are left out, as
 * the automaton does. Null where the frame on top is of no context-free grammar.
 */
export function rulesAt(stack: Stack): readonly OpenRule[] | null {
  const { frame } = stack;
  if (!(frame instanceof Sentence)) return null;
  const { network } = frame;
  const states = new Set<number>();
  const frames = new Set<object>();
  const nodes = new Set<Node>();
  const add = (items: readonly Return[]): void => {
    for (const { state, node } of items) {
      if (state !== END) states.add(state);
      nodes.add(node);
    }
  };
  for (let at: Stack | null = stack; at !== null; at = at.below) {
    if (frames.has(at.frame)) continue;
    frames.add(at.frame);
    nodes.clear();
    if (at.frame instanceof Sentence) add(at.frame.items);
    else if (at.frame instanceof Waiting) nodes.add(at.frame.node);
    for (const node of nodes) if (node !== BASE) add(node.returns);
  }
  return [...states].map((state) => {
    const { name, line } = network.rules[network.owners[state]!]!;
    const all = reachable(network, state);
    const wants = all.flatMap(({ reads, calls }) => [
      ...calls.map(({ rule }) => network.rules[rule]!.name),
      ...(reads.length > 0 ? texts(network, reads) : []),
    ]);
    return { name, line, wants: [...new Set(wants)], ends: all.some(({ final }) => final) };
  });
}

/** A state, and those behind calls of rules that may derive the empty text. */
function reachable({ states, nullable }: Network, state: number): State[] {
  const all = new Set([state]);
  for (const one of all) for (const { rule, to } of states[one]!.calls) if (nullable[rule]) all.add(to);
  return [...all].map((one) => states[one]!);
}

/** Texts are shown up to so many characters. */
const LONGEST = 40;
/** Ranges of a class are shown, at most. */
const RANGES = 12;

/** What is read, in words. */
function texts(network: Network, reads: State['reads']): string[] {
  const classes = classesOf(network, reads);
  // Within a character, what it may be is not told.
  if (classes === null) return ['the rest of a character'];
  return [...classes].map(([to, ranges]) => {
    let text = only(ranges);
    if (text === null) return inBrackets(ranges);
    for (let state = to; text.length < LONGEST;) {
      const { reads, calls, final } = network.states[state]!;
      const [next, ...others] = calls.length > 0 || final ? [] : (classesOf(network, reads) ?? []);
      const character = next === undefined || others.length > 0 ? null : only(next[1]);
      if (character === null) break;
      text += character;
      state = next![0];
    }
    return JSON.stringify(text);
  });
}

/** The characters that are read, by the state behind them; null within a character. */
function classesOf({ states }: Network, reads: State['reads']): ReadonlyMap<number, CodePoints[]> | null {
  const classes = new Map<number, CodePoints[]>();
  const open = reads.map((read) => ({ ...read, first: null as Begun | null, last: null as Begun | null }));
  for (const { bytes, to, first, last } of open) {
    const from = first === null ? begun(bytes.from) : continued(first, bytes.from);
    const until = last === null ? begun(bytes.to) : continued(last, bytes.to);
    if (from === null || until === null) return null;
    if (from.left > 0) open.push(...states[to]!.reads.map((read) => ({ ...read, first: from, last: until })));
    else classes.set(to, [...(classes.get(to) ?? []), { from: from.from, to: until.to }]);
  }
  return classes;
}

/** The character, where it is one alone. */
function only(ranges: readonly CodePoints[]): string | null {
  const [range, ...others] = ranges;
  return range && others.length === 0 && range.from === range.to ? String.fromCodePoint(range.from) : null;
}

function inBrackets(ranges: readonly CodePoints[]): string {
  const sorted = joined(ranges);
  const negated = sorted.at(-1)!.to === LAST;
  const shown = negated ? complement(sorted) : sorted;
  if (shown.length === 0) return 'any character';
  const words = shown.slice(0, RANGES).map(({ from, to }) => {
    const dash = to - from > 1 ? '-' : '';
    return from === to ? escaped(from) : `${escaped(from)}${dash}${escaped(to)}`;
  });
  return `[${negated ? '^' : ''}${words.join('')}${shown.length > RANGES ? '…' : ''}]`;
}

/** A character as grammars have it in brackets. */
function escaped(codePoint: number): string {
  const character = String.fromCodePoint(codePoint);
  if ('[]\\-^"'.includes(character)) return `\\${character}`;
  const named = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }[character];
  if (named !== undefined) return named;
  return codePoint > 0x1f && codePoint < 0x7f ? character : hex(codePoint);
}

function hex(codePoint: number): string {
  const digits = codePoint > 0xffff ? 8 : codePoint > 0xff ? 4 : 2;
  return `\\${{ 8: 'U', 4: 'u', 2: 'x' }[digits]}${codePoint.toString(16).padStart(digits, '0')}`;
}
