import { Algebra, type Json } from '../json/algebra.ts';
import { decimal } from '../json/decimal.ts';
import type { Formula, Type } from '../json/formula.ts';
import { Unsupported } from '../refusal.ts';
import { format, GAPS } from '../text/formats.ts';
import { none, type Language } from '../text/language.ts';
import { all, atLeast, atMost } from '../text/lengths.ts';
import { regex } from '../text/regex.ts';
import { refuseCycles } from './cycles.ts';
import { SchemaError, unsupported } from './errors.ts';
import { evaluatedItems, evaluatedMembers, type Evaluation } from './evaluated.ts';
import { fewValues } from './few.ts';
import { SchemaGraph, type Node } from './graph.ts';
import { Documents, where, type DocumentsOptions } from './load.ts';
import { stringsOf } from './names.ts';
import { refuseUncertain } from './unique.ts';

export interface SchemaOptions extends DocumentsOptions {
  /** Whether formats are asserted, or mean nothing, as the drafts have it where no metaschema says otherwise. */
  readonly formats?: 'annotate' | 'assert';
}

/** What a schema admits, and the algebra that the formula is of. */
export interface Admitted {
  readonly algebra: Algebra;
  readonly formula: Formula;
}

/** Nested values in `enum` and `const`, at most. */
const NESTED = 500;
/** Values of an `enum`, at most: with more, masks take seconds. Texts are a trie, and may be any number. */
const MANY = { numbers: 30_000, 'arrays and objects': 100 } as const;
/** Values that elements of an array with `uniqueItems` may have, texts aside, at most. */
const FEW = 32;
/** The formats that the drafts define. */
const FORMATS: ReadonlySet<string> = new Set(
  (
    'date-time date time duration email idn-email hostname idn-hostname ipv4 ipv6 uri uri-reference iri iri-reference ' +
    'uuid uri-template json-pointer relative-json-pointer regex'
  ).split(' '),
);
/** Schemas that are compiled, at most: with so many it takes about a second. */
const SCHEMAS = 50_000;
const keywords = (names: string): ReadonlySet<string> => new Set(names.split(' '));
const OF_NUMBERS = keywords('minimum exclusiveMinimum maximum exclusiveMaximum multipleOf');
const OF_STRINGS = keywords('minLength maxLength pattern format');
const OF_ARRAYS = keywords(
  'prefixItems items additionalItems minItems maxItems contains minContains maxContains uniqueItems unevaluatedItems',
);
const OF_OBJECTS = keywords(
  'properties patternProperties additionalProperties propertyNames required minProperties maxProperties ' +
    'dependentRequired dependencies unevaluatedProperties',
);
/** Schemas compiled within one another before the rest waits its turn: the depth of a document is not the call stack's. */
const DEEP = 64;

/**
 * The formula of a JSON schema (drafts 2020-12 and 7): every keyword exactly, or refused by its name and place.
 * Throws SchemaError for what is no schema, Unsupported for what cannot be followed.
 */
export function compile(schema: unknown, options: SchemaOptions = {}): Admitted {
  return new Compiler(schema, options).compile();
}

class Compiler {
  private readonly algebra = new Algebra();
  private readonly graph: SchemaGraph;
  private readonly evaluation: Evaluation;
  private readonly assertFormats: boolean;
  private readonly formulas = new Map<Node, Formula>();
  private readonly open = new Set<Node>();
  private readonly waiting: Node[] = [];
  private readonly patterns = new Map<string, Language>();
  private comparesTexts = false;

  constructor(schema: unknown, options: SchemaOptions) {
    const { formats = 'annotate' } = options;
    if (formats !== 'annotate' && formats !== 'assert') {
      throw new Error(`[grammar] formats is ${JSON.stringify(formats)}; it must be "annotate" or "assert"`);
    }
    this.graph = new SchemaGraph(new Documents(schema, options));
    this.assertFormats = options.formats === 'assert';
    this.evaluation = {
      algebra: this.algebra,
      graph: this.graph,
      formula: (node) => this.formula(node),
      pattern: (node, pattern) => this.pattern(node, 'patternProperties', pattern),
    };
  }

  compile(): Admitted {
    const formula = this.formula(this.graph.root);
    for (let node = this.waiting.pop(); node; node = this.waiting.pop()) this.formula(node);
    refuseCycles(this.graph, this.formulas.keys());
    if (this.comparesTexts) refuseUncertain(this.algebra, formula);
    return { algebra: this.algebra, formula };
  }

  /** Made once. One that is being made, or would be too deep in the making of others, is made on demand. */
  private formula(node: Node): Formula {
    const known = this.formulas.get(node);
    if (known) return known;
    if (this.open.has(node) || this.open.size === DEEP) {
      if (!this.open.has(node)) this.waiting.push(node);
      return this.algebra.later(node.key, () => this.formulas.get(node)!);
    }
    if (this.formulas.size + this.open.size >= SCHEMAS) {
      throw new Unsupported(`[grammar] schema #: it is made of more than ${SCHEMAS} schemas`);
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

  /** What a keyword says about values of a type is nothing about others. */
  private of(type: Type, formula: Formula): Formula {
    return this.algebra.or(this.algebra.not(this.algebra.type(type)), formula);
  }

  private conjuncts(node: Node): Formula[] {
    const said = (keywords: ReadonlySet<string>): boolean =>
      this.graph.keywords(node).some((name) => keywords.has(name));
    return [
      ...this.applied(node),
      ...this.values(node),
      ...(said(OF_NUMBERS) ? this.numbers(node) : []),
      ...(said(OF_STRINGS) ? this.strings(node) : []),
      ...(said(OF_ARRAYS) ? this.arrays(node) : []),
      ...(said(OF_OBJECTS) ? this.objects(node) : []),
    ];
  }

  private applied(node: Node): Formula[] {
    const { algebra, graph } = this;
    const each = (keyword: string): Formula[] => graph.list(node, keyword).map((other) => this.formula(other));
    const one = (keyword: string): Formula | null => this.keyword(node, keyword);
    const formulas = [...graph.references(node).map((other) => this.formula(other)), ...each('allOf')];
    if (graph.has(node, 'anyOf')) formulas.push(algebra.or(...each('anyOf')));
    if (graph.has(node, 'oneOf')) formulas.push(algebra.one(...each('oneOf')));
    const refused = one('not');
    if (refused) formulas.push(algebra.not(refused));
    const condition = one('if');
    if (condition) {
      formulas.push(algebra.or(algebra.not(condition), one('then') ?? algebra.yes));
      formulas.push(algebra.or(condition, one('else') ?? algebra.yes));
    }
    for (const [name, other] of graph.dependents(node)) formulas.push(this.withMember(name, this.formula(other)));
    return formulas;
  }

  /** The formula of the schema that is the keyword's value. */
  private keyword(node: Node, keyword: string): Formula | null {
    const other = this.graph.one(node, keyword);
    return other && this.formula(other);
  }

  /** The formula where the value is an object with such a member. */
  private withMember(name: string, formula: Formula): Formula {
    return this.of('object', this.algebra.or(this.algebra.not(this.algebra.required(name)), formula));
  }

  private values(node: Node): Formula[] {
    const { algebra } = this;
    const formulas: Formula[] = [];
    const type = this.graph.value<string | string[]>(node, 'type');
    if (type !== undefined) {
      const types = [type].flat().map((name) => {
        if (name !== 'integer') return algebra.type(name as Type);
        return algebra.and(algebra.type('number'), algebra.number({ kind: 'multiple', of: decimal(1) }));
      });
      formulas.push(algebra.or(...types));
    }
    const values = this.graph.value<Json[]>(node, 'enum');
    if (values) {
      this.refuseMany(node, 'numbers', values.filter((value) => typeof value === 'number').length);
      this.refuseMany(node, 'arrays and objects', values.filter((value) => typeof value === 'object' && value).length);
      formulas.push(algebra.among(this.checked(node, 'enum', values) as Json[]));
    }
    const constant = this.graph.value<Json>(node, 'const');
    if (constant !== undefined) formulas.push(algebra.equal(this.checked(node, 'const', constant)));
    return formulas;
  }

  private refuseMany(node: Node, kind: keyof typeof MANY, count: number): void {
    const most = MANY[kind];
    if (count > most)
      throw unsupported(where(node.place), 'enum', `has ${count} ${kind}; at most ${most} are followed`);
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
        const half = `has half a character in ${JSON.stringify(value)}: a lone surrogate, which no UTF-8 can hold`;
        throw unsupported(where(node.place), keyword, half);
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
      const bound = this.graph.value<number>(node, keyword);
      return bound === undefined ? [] : [algebra.number({ kind: 'below', bound: decimal(bound), inclusive })];
    };
    const least = [...below('minimum', false), ...below('exclusiveMinimum', true)];
    const multiple = this.graph.value<number>(node, 'multipleOf');
    return [
      ...below('maximum', true),
      ...below('exclusiveMaximum', false),
      ...least.map((formula) => this.of('number', algebra.not(formula))),
      ...(multiple === undefined ? [] : [algebra.number({ kind: 'multiple', of: decimal(multiple) })]),
    ];
  }

  private strings(node: Node): Formula[] {
    const languages: Language[] = [];
    const least = this.graph.value<number>(node, 'minLength') ?? 0;
    if (least > 0) languages.push(atLeast(least));
    const most = this.graph.value<number>(node, 'maxLength');
    if (most !== undefined) languages.push(atMost(most));
    const pattern = this.graph.value<string>(node, 'pattern');
    if (pattern !== undefined) languages.push(this.pattern(node, 'pattern', pattern));
    const name = this.graph.value<string>(node, 'format');
    if (name !== undefined && (this.assertFormats || node.place.resource.dialect.assertsFormats)) {
      const language = this.format(node, name);
      if (language) languages.push(language);
    }
    return languages.map((language) =>
      language === none ? this.algebra.not(this.algebra.type('string')) : this.algebra.text(language),
    );
  }

  /** Null for names that the drafts do not have, which are annotations. */
  private format(node: Node, name: string): Language | null {
    if (Object.hasOwn(GAPS, name)) throw unsupported(where(node.place), 'format', `${name} leaves out ${GAPS[name]}`);
    const language = this.named(node, 'format', () => format(name));
    if (!language && FORMATS.has(name)) throw unsupported(where(node.place), 'format', `${name} cannot be asserted`);
    return language;
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
    const { algebra, graph } = this;
    const count = (keyword: string): number | undefined => graph.value<number>(node, keyword);
    const { prefix, rest } = graph.elements(node);
    const formulas = [
      algebra.items(
        prefix.map((item) => this.formula(item)),
        rest ? this.formula(rest) : algebra.yes,
      ),
      algebra.length(count('minItems') ?? 0),
    ];
    const most = count('maxItems') ?? Infinity;
    if (most < Infinity) formulas.push(this.of('array', algebra.not(algebra.length(most + 1))));
    const contained = this.keyword(node, 'contains');
    if (contained) {
      formulas.push(algebra.contains(contained, count('minContains') ?? 1));
      const mostContained = count('maxContains') ?? Infinity;
      if (mostContained < Infinity) {
        formulas.push(this.of('array', algebra.not(algebra.contains(contained, mostContained + 1))));
      }
    }
    if (graph.value(node, 'uniqueItems') === true && most > 1) formulas.push(this.distinct(node));
    const unevaluated = this.keyword(node, 'unevaluatedItems');
    if (unevaluated) formulas.push(algebra.unevaluatedItems(unevaluated, evaluatedItems(this.evaluation, node)));
    return formulas;
  }

  private distinct(node: Node): Formula {
    const { algebra, graph } = this;
    const { prefix, rest } = graph.elements(node);
    const most = graph.value<number>(node, 'maxItems') ?? Infinity;
    const ends = rest?.place.value === false || prefix.length >= most;
    const elements = [...prefix.slice(0, most), ...(ends ? [] : [rest])];
    const valuesOf = (besides: 'nothing' | 'texts'): ReadonlySet<Formula> | null => {
      const values = new Set<Formula>();
      for (const element of elements) {
        const few = element && fewValues(graph, element, besides);
        if (!few) return null;
        for (const value of few) values.add(algebra.equal(value));
      }
      return values;
    };
    const few = valuesOf('nothing');
    if (few && few.size <= FEW) return algebra.distinct([...few]);
    const others = valuesOf('texts');
    if (!others) {
      const reason =
        'is followed where elements are texts or among few values (enum, const, boolean, bounded integers)';
      throw unsupported(where(node.place), 'uniqueItems', reason);
    }
    if (others.size > FEW) {
      const reason = `over ${others.size} values that are no texts; at most ${FEW} are followed`;
      throw unsupported(where(node.place), 'uniqueItems', reason);
    }
    this.comparesTexts = true;
    return algebra.and(
      algebra.differentTexts(where(node.place)),
      others.size > 0 ? algebra.distinct([...others]) : algebra.yes,
    );
  }

  private objects(node: Node): Formula[] {
    const { algebra, graph } = this;
    const members = graph.map(node, 'properties').map(([name, member]) => [name, this.formula(member)] as const);
    const patterns = graph.map(node, 'patternProperties').map(([text, member]) => ({
      language: this.pattern(node, 'patternProperties', text),
      value: this.formula(member),
    }));
    const formulas = [
      algebra.members(new Map(members), patterns, this.keyword(node, 'additionalProperties') ?? algebra.yes),
      algebra.size(graph.value<number>(node, 'minProperties') ?? 0),
      ...(graph.value<readonly string[]>(node, 'required') ?? []).map((name) => algebra.required(name)),
    ];
    const most = graph.value<number>(node, 'maxProperties');
    if (most !== undefined) formulas.push(this.of('object', algebra.not(algebra.size(most + 1))));
    for (const [name, others] of [...graph.names(node, 'dependentRequired'), ...graph.names(node, 'dependencies')]) {
      formulas.push(this.withMember(name, algebra.and(...others.map((other) => algebra.required(other)))));
    }
    const names = this.keyword(node, 'propertyNames');
    if (names) formulas.push(this.keys(node, names));
    const unevaluated = this.keyword(node, 'unevaluatedProperties');
    if (unevaluated) formulas.push(algebra.unevaluatedMembers(unevaluated, evaluatedMembers(this.evaluation, node)));
    return formulas;
  }

  private keys(node: Node, names: Formula): Formula {
    const { algebra } = this;
    const strings = stringsOf(names, (name) => {
      const target = this.graph.named(name);
      if (this.open.has(target)) {
        throw unsupported(where(node.place), 'propertyNames', 'leads back to the schema that it stands in');
      }
      return this.formula(target);
    });
    if (strings === all) return algebra.yes;
    return strings === none ? this.of('object', algebra.not(algebra.size(1))) : algebra.keys(strings);
  }
}
