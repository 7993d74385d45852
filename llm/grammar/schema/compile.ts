import { Algebra, type Json } from '../json/algebra.ts';
import { decimal } from '../json/decimal.ts';
import type { Formula, ItemSource, MemberSource, Type } from '../json/formula.ts';
import { Unsupported } from '../refusal.ts';
import { format } from '../text/format.ts';
import { none, type Language } from '../text/language.ts';
import { all, atLeast, atMost } from '../text/lengths.ts';
import { regex } from '../text/regex.ts';
import { SchemaError, unsupported } from './errors.ts';
import { escapeToken, type Draft } from './keywords.ts';
import { Documents, where, type Place } from './load.ts';
import { stringsOf } from './names.ts';
import { Scopes, type Scope } from './scope.ts';

export interface SchemaOptions {
  /** The draft of documents that declare none by `$schema`; '2020-12' where left out. */
  readonly draft?: Draft;
  /** The documents that references may lead to, by URI. There is no network. */
  readonly remotes?: Iterable<readonly [string, unknown]>;
  /** Whether formats are asserted, or mean nothing, as the drafts have it where no metaschema says otherwise. */
  readonly formats?: 'annotate' | 'assert';
}

/** What a schema admits, and the algebra that the formula is of. */
export interface Admitted {
  readonly algebra: Algebra;
  readonly formula: Formula;
}

/** Schemas that apply to one value through one another (`allOf` in `allOf`, references), at most. */
const IN_PLACE = 500;
/** Nested values in `enum` and `const`, at most. */
const NESTED = 500;
/** Values that elements of an array with `uniqueItems` may have, at most. */
const FEW = 32;
/** Schemas compiled within one another before the rest waits its turn: the depth of a document is not the call stack's. */
const DEEP = 64;

/**
 * The formula of a JSON schema (drafts 2020-12 and 7): every keyword exactly, or refused by its name and place.
 * Throws SchemaError for what is no schema, Unsupported for what cannot be followed.
 */
export function compile(schema: unknown, options: SchemaOptions = {}): Admitted {
  return new Compiler(schema, options).compile();
}

/** A schema and the dynamic scope that it is met in. */
interface Node {
  readonly key: string;
  readonly place: Place;
  readonly scope: Scope;
  /** The schemas that it applies to the same value. */
  readonly inPlace: Node[];
}

class Compiler {
  private readonly algebra = new Algebra();
  private readonly documents: Documents;
  private readonly assertFormats: boolean;
  private readonly scopes = new Scopes();
  private readonly nodes = new Map<string, Node>();
  private readonly formulas = new Map<Node, Formula>();
  private readonly open = new Set<Node>();
  private readonly waiting: Node[] = [];
  private readonly patterns = new Map<string, Language>();

  constructor(schema: unknown, { draft = '2020-12', remotes = [], formats = 'annotate' }: SchemaOptions) {
    this.documents = new Documents(schema, draft, remotes);
    this.assertFormats = formats === 'assert';
  }

  compile(): Admitted {
    const root = this.node(this.documents.root, this.scopes.empty);
    const formula = this.formula(root);
    for (let node = this.waiting.pop(); node; node = this.waiting.pop()) this.formula(node);
    this.refuseCycles();
    return { algebra: this.algebra, formula };
  }

  private node(place: Place, scope: Scope): Node {
    const inside = this.scopes.enter(scope, place.resource);
    const key = `${place.id} ${inside.id}`;
    let node = this.nodes.get(key);
    if (!node) this.nodes.set(key, (node = { key, place, scope: inside, inPlace: [] }));
    return node;
  }

  /** Made once. One that is being made, or would be too deep in the making of others, is made on demand. */
  private formula(node: Node): Formula {
    const known = this.formulas.get(node);
    if (known) return known;
    if (this.open.has(node) || this.open.size === DEEP) {
      if (!this.open.has(node)) this.waiting.push(node);
      return this.algebra.later(node.key, () => this.formulas.get(node)!);
    }
    this.open.add(node);
    const { value } = node.place;
    const formula = typeof value === 'boolean' ? this.constant(value) : this.algebra.and(...this.conjuncts(node));
    this.open.delete(node);
    this.formulas.set(node, formula);
    return formula;
  }

  private constant(value: boolean): Formula {
    return value ? this.algebra.yes : this.algebra.no;
  }

  private value<T>(node: Node, keyword: string): T | undefined {
    return this.documents.keyword(node.place, keyword) as T | undefined;
  }

  /** The schema that is the keyword's value, or at `rest` in it. */
  private below(node: Node, keyword: string, rest = '', value = this.value(node, keyword)): Node {
    return this.node(this.documents.child(node.place, `/${escapeToken(keyword)}${rest}`, value), node.scope);
  }

  private list(node: Node, keyword: string): Node[] {
    return (this.value<unknown[]>(node, keyword) ?? []).map((schema, index) =>
      this.below(node, keyword, `/${index}`, schema),
    );
  }

  private map(node: Node, keyword: string): [string, Node][] {
    return Object.entries(this.value<object>(node, keyword) ?? {})
      .filter(([, schema]) => !Array.isArray(schema))
      .map(([name, schema]) => [name, this.below(node, keyword, `/${escapeToken(name)}`, schema)]);
  }

  /** Lists of names by name: `dependentRequired`, and in `dependencies` those that are no schemas. */
  private names(node: Node, keyword: string): [string, string[]][] {
    return Object.entries(this.value<object>(node, keyword) ?? {}).filter(([, names]) => Array.isArray(names));
  }

  /** A schema on the value itself. */
  private here(node: Node, other: Node): Formula {
    node.inPlace.push(other);
    return this.formula(other);
  }

  /** What a keyword says about values of a type is nothing about others. */
  private of(type: Type, formula: Formula): Formula {
    return this.algebra.or(this.algebra.not(this.algebra.type(type)), formula);
  }

  private conjuncts(node: Node): Formula[] {
    return [
      ...this.applied(node),
      ...this.values(node),
      ...this.numbers(node),
      ...this.strings(node),
      ...this.arrays(node),
      ...this.objects(node),
    ];
  }

  private applied(node: Node): Formula[] {
    const { algebra } = this;
    const here = (other: Node): Formula => this.here(node, other);
    const formulas = this.references(node).map(here);
    const has = (keyword: string): boolean => this.value(node, keyword) !== undefined;
    formulas.push(...this.list(node, 'allOf').map(here));
    if (has('anyOf')) formulas.push(algebra.or(...this.list(node, 'anyOf').map(here)));
    if (has('oneOf')) formulas.push(algebra.one(...this.list(node, 'oneOf').map(here)));
    if (has('not')) formulas.push(algebra.not(here(this.below(node, 'not'))));
    if (has('if')) {
      const condition = here(this.below(node, 'if'));
      if (has('then')) formulas.push(algebra.or(algebra.not(condition), here(this.below(node, 'then'))));
      if (has('else')) formulas.push(algebra.or(condition, here(this.below(node, 'else'))));
    }
    for (const [name, other] of this.dependents(node)) formulas.push(this.withMember(name, here(other)));
    return formulas;
  }

  /** Where `$ref` and `$dynamicRef` lead: the latter to the outermost resource's anchor, if to a dynamic one at all. */
  private references(node: Node): Node[] {
    return (['$ref', '$dynamicRef'] as const).flatMap((keyword) => {
      if (this.value(node, keyword) === undefined) return [];
      const { place, dynamic } = this.documents.resolve(node.place, keyword);
      const outermost = keyword === '$dynamicRef' && dynamic !== null ? node.scope.anchors.get(dynamic) : undefined;
      return [this.node(outermost ?? place, node.scope)];
    });
  }

  private dependents(node: Node): [string, Node][] {
    return [...this.map(node, 'dependentSchemas'), ...this.map(node, 'dependencies')];
  }

  /** The formula where the value is an object with such a member. */
  private withMember(name: string, formula: Formula): Formula {
    return this.of('object', this.algebra.or(this.algebra.not(this.algebra.required(name)), formula));
  }

  private values(node: Node): Formula[] {
    const { algebra } = this;
    const formulas: Formula[] = [];
    const type = this.value<string | string[]>(node, 'type');
    if (type !== undefined) {
      const types = [type].flat().map((name) => {
        if (name !== 'integer') return algebra.type(name as Type);
        return algebra.and(algebra.type('number'), algebra.number({ kind: 'multiple', of: decimal(1) }));
      });
      formulas.push(algebra.or(...types));
    }
    const values = this.value<Json[]>(node, 'enum');
    if (values) formulas.push(algebra.among(this.checked(node, 'enum', values) as Json[]));
    const constant = this.value<Json>(node, 'const');
    if (constant !== undefined) formulas.push(algebra.equal(this.checked(node, 'const', constant)));
    return formulas;
  }

  /** Values as they can be compared: finite numbers, whole characters, not too deep. */
  private checked(node: Node, keyword: string, values: Json): Json {
    const open: [unknown, number][] = [[values, 0]];
    for (let entry = open.pop(); entry; entry = open.pop()) {
      const [value, depth] = entry;
      if (typeof value === 'number' && !Number.isFinite(value)) {
        throw new SchemaError(where(node.place), `${keyword} has a number beyond the range of doubles`);
      }
      if (typeof value === 'string' && /\p{Surrogate}/u.test(value)) {
        throw unsupported(where(node.place), keyword, `has half a character in ${JSON.stringify(value)}`);
      }
      if (depth > NESTED) {
        throw unsupported(where(node.place), keyword, `has values that nest more than ${NESTED} levels`);
      }
      if (typeof value === 'object' && value !== null) {
        for (const part of Object.values(value)) open.push([part, depth + 1]);
      }
    }
    return values;
  }

  private numbers(node: Node): Formula[] {
    const { algebra } = this;
    const below = (keyword: string, inclusive: boolean): Formula[] => {
      const bound = this.value<number>(node, keyword);
      return bound === undefined ? [] : [algebra.number({ kind: 'below', bound: decimal(bound), inclusive })];
    };
    const least = [...below('minimum', false), ...below('exclusiveMinimum', true)];
    const multiple = this.value<number>(node, 'multipleOf');
    return [
      ...below('maximum', true),
      ...below('exclusiveMaximum', false),
      ...least.map((formula) => this.of('number', algebra.not(formula))),
      ...(multiple === undefined ? [] : [algebra.number({ kind: 'multiple', of: decimal(multiple) })]),
    ];
  }

  private strings(node: Node): Formula[] {
    const languages: Language[] = [];
    const least = this.value<number>(node, 'minLength') ?? 0;
    if (least > 0) languages.push(atLeast(least));
    const most = this.value<number>(node, 'maxLength');
    if (most !== undefined) languages.push(atMost(most));
    const pattern = this.value<string>(node, 'pattern');
    if (pattern !== undefined) languages.push(this.pattern(node, 'pattern', pattern));
    const name = this.value<string>(node, 'format');
    if (name !== undefined && (this.assertFormats || node.place.resource.dialect.assertsFormats)) {
      languages.push(this.named(node, 'format', () => format(name)));
    }
    return languages.map((language) =>
      language === none ? this.algebra.not(this.algebra.type('string')) : this.algebra.text(language),
    );
  }

  private pattern(node: Node, keyword: string, pattern: string): Language {
    const known = this.patterns.get(pattern);
    if (known !== undefined) return known;
    const language = this.named(node, keyword, () => regex(pattern));
    this.patterns.set(pattern, language);
    return language;
  }

  /** What is refused or wrong in a pattern or format, with the place where it stands. */
  private named<T>(node: Node, keyword: string, make: () => T): T {
    try {
      return make();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const reason = error.message.replace('[grammar] ', '');
      if (error instanceof Unsupported) throw unsupported(where(node.place), keyword, reason);
      throw error.message.startsWith('[grammar] ') ? new SchemaError(where(node.place), reason) : error;
    }
  }

  private arrays(node: Node): Formula[] {
    const { algebra } = this;
    const { prefix, rest } = this.elements(node);
    const formulas = [
      algebra.items(
        prefix.map((item) => this.formula(item)),
        rest ? this.formula(rest) : algebra.yes,
      ),
      algebra.length(this.value<number>(node, 'minItems') ?? 0),
    ];
    const most = this.value<number>(node, 'maxItems');
    if (most !== undefined) formulas.push(this.of('array', algebra.not(algebra.length(most + 1))));
    if (this.value(node, 'contains') !== undefined) {
      const item = this.formula(this.below(node, 'contains'));
      formulas.push(algebra.contains(item, this.value<number>(node, 'minContains') ?? 1));
      const mostContained = this.value<number>(node, 'maxContains');
      if (mostContained !== undefined) {
        formulas.push(this.of('array', algebra.not(algebra.contains(item, mostContained + 1))));
      }
    }
    if (this.value(node, 'uniqueItems') === true && (most ?? Infinity) > 1) formulas.push(this.distinct(node));
    if (this.value(node, 'unevaluatedItems') !== undefined) {
      const item = this.formula(this.below(node, 'unevaluatedItems'));
      formulas.push(algebra.unevaluatedItems(item, this.evaluatedItems(node)));
    }
    return formulas;
  }

  /** The schemas of the first elements and that of all others, whatever the draft calls them. */
  private elements(node: Node): { readonly prefix: readonly Node[]; readonly rest: Node | null } {
    const items = this.value(node, 'items');
    const list = Array.isArray(items) ? 'items' : 'prefixItems';
    const rest = Array.isArray(items) ? 'additionalItems' : 'items';
    return {
      prefix: this.list(node, list),
      rest: this.value(node, rest) === undefined ? null : this.below(node, rest),
    };
  }

  private distinct(node: Node): Formula {
    const { prefix, rest } = this.elements(node);
    const most = this.value<number>(node, 'maxItems') ?? Infinity;
    const ends = rest?.place.value === false || prefix.length >= most;
    const elements = [...prefix.slice(0, most), ...(ends ? [] : [rest])];
    const values = new Map<Formula, Json>();
    for (const element of elements) {
      const few = element && this.fewValues(element, new Set());
      if (!few) {
        const reason = `is followed where elements are among few values (enum, const, boolean, bounded integers)`;
        throw unsupported(where(node.place), 'uniqueItems', reason);
      }
      for (const value of few) values.set(this.algebra.equal(value), value);
    }
    if (values.size > FEW) {
      throw unsupported(where(node.place), 'uniqueItems', `over ${values.size} values; at most ${FEW} are followed`);
    }
    return this.algebra.distinct([...values.keys()]);
  }

  /** Values among which are all that a schema admits, where it is plain to see that they are few; else null. */
  private fewValues(node: Node, seen: Set<Node>): Json[] | null {
    if (seen.has(node)) return null;
    seen.add(node);
    if (node.place.value === false) return [];
    const constant = this.value<Json>(node, 'const');
    if (constant !== undefined) return [constant];
    const values = this.value<Json[]>(node, 'enum');
    if (values) return values;
    const types = [this.value<string | string[]>(node, 'type') ?? 'any'].flat();
    const least = Math.ceil(this.value<number>(node, 'minimum') ?? this.value<number>(node, 'exclusiveMinimum') ?? NaN);
    const most = Math.floor(this.value<number>(node, 'maximum') ?? this.value<number>(node, 'exclusiveMaximum') ?? NaN);
    const byType = types.map((type): Json[] | null => {
      if (type === 'null') return [null];
      if (type === 'boolean') return [false, true];
      if (type !== 'integer' || !(most - least <= 10 * FEW)) return null;
      return Array.from({ length: Math.max(0, most - least + 1) }, (_, index) => least + index);
    });
    if (byType.every((some) => some !== null)) return byType.flat();
    for (const other of [...this.references(node), ...this.list(node, 'allOf')]) {
      const few = this.fewValues(other, seen);
      if (few) return few;
    }
    for (const keyword of ['anyOf', 'oneOf']) {
      const branches = this.list(node, keyword).map((other) => this.fewValues(other, new Set(seen)));
      if (branches.length > 0 && branches.every((few) => few !== null)) return branches.flat();
    }
    return null;
  }

  private objects(node: Node): Formula[] {
    const { algebra } = this;
    const rest = this.value(node, 'additionalProperties');
    const formulas = [
      algebra.members(
        new Map(this.map(node, 'properties').map(([name, member]) => [name, this.formula(member)])),
        this.map(node, 'patternProperties').map(([pattern, member]) => ({
          language: this.pattern(node, 'patternProperties', pattern),
          value: this.formula(member),
        })),
        rest === undefined ? algebra.yes : this.formula(this.below(node, 'additionalProperties')),
      ),
      algebra.size(this.value<number>(node, 'minProperties') ?? 0),
      ...(this.value<string[]>(node, 'required') ?? []).map((name) => algebra.required(name)),
    ];
    const most = this.value<number>(node, 'maxProperties');
    if (most !== undefined) formulas.push(this.of('object', algebra.not(algebra.size(most + 1))));
    for (const [name, others] of [...this.names(node, 'dependentRequired'), ...this.names(node, 'dependencies')]) {
      formulas.push(this.withMember(name, algebra.and(...others.map((other) => algebra.required(other)))));
    }
    if (this.value(node, 'propertyNames') !== undefined) formulas.push(this.keys(node));
    if (this.value(node, 'unevaluatedProperties') !== undefined) {
      const member = this.formula(this.below(node, 'unevaluatedProperties'));
      formulas.push(algebra.unevaluatedMembers(member, this.evaluatedMembers(node)));
    }
    return formulas;
  }

  private keys(node: Node): Formula {
    const { algebra } = this;
    const strings = stringsOf(this.formula(this.below(node, 'propertyNames')), (name) => {
      const target = this.nodes.get(name)!;
      if (this.open.has(target)) {
        throw unsupported(where(node.place), 'propertyNames', 'leads back to the schema that it stands in');
      }
      return this.formula(target);
    });
    if (strings === all) return algebra.yes;
    return strings === none ? this.of('object', algebra.not(algebra.size(1))) : algebra.keys(strings);
  }

  /**
   * The schemas that apply to the same value and whose annotations `unevaluated…` therefore heeds, each with the
   * condition under which it holds, apart from those under which the whole fails anyway.
   */
  private conditional(node: Node): [Formula, Node][] {
    const { algebra } = this;
    const given = (condition: Formula, others: Node[]): [Formula, Node][] => others.map((other) => [condition, other]);
    const holding = (keyword: string): [Formula, Node][] =>
      this.list(node, keyword).map((other) => [this.formula(other), other]);
    const result = [
      ...given(algebra.yes, [...this.references(node), ...this.list(node, 'allOf')]),
      ...holding('anyOf'),
      ...holding('oneOf'),
      ...this.dependents(node).flatMap(([name, other]) =>
        given(algebra.and(algebra.type('object'), algebra.required(name)), [other]),
      ),
    ];
    if (this.value(node, 'if') !== undefined) {
      const branch = this.below(node, 'if');
      const condition = this.formula(branch);
      const otherwise = (keyword: string): Node[] =>
        this.value(node, keyword) === undefined ? [] : [this.below(node, keyword)];
      result.push(...given(condition, [branch, ...otherwise('then')]));
      result.push(...given(algebra.not(condition), otherwise('else')));
    }
    return result;
  }

  /** What `visit` finds in the node and in all that apply to the same value, with the condition under which they do. */
  private gather<T>(node: Node, visit: (at: Node, when: Formula) => T | null): T[] {
    const found: T[] = [];
    const seen = new Set<string>();
    const walk = (at: Node, when: Formula, depth: number): void => {
      const step = `${at.key} ${when.id}`;
      if (when === this.algebra.no || seen.has(step)) return;
      seen.add(step);
      if (depth > IN_PLACE) throw tooDeep(node);
      const source = visit(at, when);
      if (source) found.push(source);
      for (const [condition, other] of this.conditional(at)) walk(other, this.algebra.and(when, condition), depth + 1);
    };
    walk(node, this.algebra.yes, 0);
    return found;
  }

  private evaluatedMembers(node: Node): MemberSource[] {
    return this.gather(node, (at, when) => {
      const has = (keyword: string): boolean => this.value(at, keyword) !== undefined;
      const names = this.map(at, 'properties').map(([name]) => name);
      const patterns = this.map(at, 'patternProperties').map(([pattern]) =>
        this.pattern(at, 'patternProperties', pattern),
      );
      const all = has('additionalProperties') || (at !== node && has('unevaluatedProperties'));
      if (!all && names.length === 0 && patterns.length === 0) return null;
      return { when, all, names: new Set(names), patterns };
    });
  }

  private evaluatedItems(node: Node): ItemSource[] {
    return this.gather(node, (at, when) => {
      const has = (keyword: string): boolean => this.value(at, keyword) !== undefined;
      const { prefix, rest } = this.elements(at);
      const all = rest !== null || (at !== node && has('unevaluatedItems'));
      const contains = has('contains') ? this.formula(this.below(at, 'contains')) : null;
      if (!all && prefix.length === 0 && !contains) return null;
      return { when, prefix: all ? Infinity : prefix.length, contains };
    });
  }

  /** Schemas that apply to a value through themselves say nothing, and chains of them are not followed without end. */
  private refuseCycles(): void {
    const depth = new Map<Node, number>();
    for (const start of this.nodes.values()) {
      const path: { readonly node: Node; next: number }[] = [];
      const enter = (node: Node): void => {
        if (depth.get(node) === OPEN) {
          const cycle = path.map((step) => step.node).slice(path.findIndex((step) => step.node === node));
          const places = [...cycle, node].map((step) => where(step.place)).join(' → ');
          throw unsupported(where(node.place), '$ref', `recursion without a base: ${places}`);
        }
        if (depth.has(node)) return;
        depth.set(node, OPEN);
        path.push({ node, next: 0 });
      };
      enter(start);
      for (let step = path.at(-1); step; step = path.at(-1)) {
        const other = step.node.inPlace[step.next++];
        if (other) {
          enter(other);
          continue;
        }
        const deepest = Math.max(0, ...step.node.inPlace.map((inner) => depth.get(inner)! + 1));
        if (deepest > IN_PLACE) throw tooDeep(step.node);
        depth.set(step.node, deepest);
        path.pop();
      }
    }
  }
}

/** The depth of a node that is being looked at. */
const OPEN = -1;

function tooDeep(node: Node): Unsupported {
  const reason = `more than ${IN_PLACE} schemas apply to one value through one another`;
  return unsupported(where(node.place), 'allOf, anyOf, oneOf, not, if, $ref', reason);
}
