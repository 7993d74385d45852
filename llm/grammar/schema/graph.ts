import { escapeToken } from './keywords.ts';
import type { Documents, Place } from './load.ts';
import { Scopes, type Scope } from './scope.ts';

/** A schema and the dynamic scope that it is met in. */
export interface Node {
  readonly key: string;
  readonly place: Place;
  readonly scope: Scope;
}

/** Schemas as nodes: from each, by its keywords, to those that it applies to the same value and to parts of it. */
export class SchemaGraph {
  readonly root: Node;
  private readonly documents: Documents;
  private readonly scopes = new Scopes();
  private readonly nodes = new Map<string, Node>();

  constructor(documents: Documents) {
    this.documents = documents;
    this.root = this.node(documents.root, this.scopes.empty);
  }

  /** The node that has this key. */
  named(key: string): Node {
    return this.nodes.get(key)!;
  }

  private node(place: Place, scope: Scope): Node {
    const inside = this.scopes.enter(scope, place.resource);
    const key = `${place.id} ${inside.id}`;
    let node = this.nodes.get(key);
    if (!node) this.nodes.set(key, (node = { key, place, scope: inside }));
    return node;
  }

  /** The value of a keyword, where it means something there. */
  value<T>(node: Node, keyword: string): T | undefined {
    return this.documents.keyword(node.place, keyword) as T | undefined;
  }

  /** The names that stand in a schema, whether they mean something or not. */
  keywords({ place }: Node): readonly string[] {
    return typeof place.value === 'boolean' ? [] : Object.keys(place.value);
  }

  has(node: Node, keyword: string): boolean {
    return this.value(node, keyword) !== undefined;
  }

  private child(node: Node, pointer: string, value: unknown): Node {
    return this.node(this.documents.child(node.place, pointer, value), node.scope);
  }

  /** The schema that is the keyword's value, or null. */
  one(node: Node, keyword: string): Node | null {
    const value = this.value(node, keyword);
    return value === undefined ? null : this.child(node, `/${escapeToken(keyword)}`, value);
  }

  list(node: Node, keyword: string): readonly Node[] {
    const list = this.value<readonly unknown[]>(node, keyword) ?? [];
    return list.map((value, index) => this.child(node, `/${escapeToken(keyword)}/${index}`, value));
  }

  /** Schemas by name: all of the keyword's entries but lists of names. */
  map(node: Node, keyword: string): readonly (readonly [string, Node])[] {
    return Object.entries(this.value<object>(node, keyword) ?? {})
      .filter(([, value]) => !Array.isArray(value))
      .map(([name, value]) => [name, this.child(node, `/${escapeToken(keyword)}/${escapeToken(name)}`, value)]);
  }

  /** Lists of names by name: `dependentRequired`, and in `dependencies` those that are no schemas. */
  names(node: Node, keyword: string): readonly (readonly [string, readonly string[]])[] {
    return Object.entries(this.value<object>(node, keyword) ?? {}).filter(([, value]) => Array.isArray(value));
  }

  /** Where `$ref` and `$dynamicRef` lead: the latter to the outermost resource's anchor, if to a dynamic one at all. */
  references(node: Node): readonly Node[] {
    return (['$ref', '$dynamicRef'] as const).flatMap((keyword) => {
      if (!this.has(node, keyword)) return [];
      const { place, dynamic } = this.documents.resolve(node.place, keyword);
      const outermost = keyword === '$dynamicRef' && dynamic !== null ? node.scope.anchors.get(dynamic) : undefined;
      return [this.node(outermost ?? place, node.scope)];
    });
  }

  /** Schemas for objects that have a member, by its name. */
  dependents(node: Node): readonly (readonly [string, Node])[] {
    return [...this.map(node, 'dependentSchemas'), ...this.map(node, 'dependencies')];
  }

  /** All schemas that a node applies to the same value. */
  inPlace(node: Node): readonly Node[] {
    return [
      ...this.references(node),
      ...['allOf', 'anyOf', 'oneOf'].flatMap((keyword) => this.list(node, keyword)),
      ...['not', 'if', 'then', 'else'].flatMap((keyword) => this.one(node, keyword) ?? []),
      ...this.dependents(node).map(([, other]) => other),
    ];
  }

  /** The schemas of the first elements and that of all others, whatever the draft calls them. */
  elements(node: Node): { readonly prefix: readonly Node[]; readonly rest: Node | null } {
    const listed = Array.isArray(this.value(node, 'items'));
    return {
      prefix: this.list(node, listed ? 'items' : 'prefixItems'),
      rest: this.one(node, listed ? 'additionalItems' : 'items'),
    };
  }
}
