import type { Place, Resource } from './load.ts';

/** What the dynamic scope has for `$dynamicRef`: for each name the `$dynamicAnchor` of the outermost resource that has it. */
export interface Scope {
  readonly id: number;
  readonly anchors: ReadonlyMap<string, Place>;
}

/** Scopes, of which equal ones are the same object, so that a schema is compiled once for each that matters to it. */
export class Scopes {
  readonly empty: Scope = { id: 0, anchors: new Map() };
  private readonly scopes = new Map<string, Scope>([['', this.empty]]);
  private readonly entered = new Map<string, Scope>();

  /** The scope inside of `resource`. */
  enter(scope: Scope, resource: Resource): Scope {
    const step = `${scope.id} ${resource.id}`;
    let inside = this.entered.get(step);
    if (!inside) this.entered.set(step, (inside = this.extended(scope, resource)));
    return inside;
  }

  private extended(scope: Scope, resource: Resource): Scope {
    const anchors = new Map([...resource.dynamicAnchors, ...scope.anchors]);
    const key = [...anchors]
      .map(([name, place]) => `${name} ${place.id}`)
      .sort()
      .join(' ');
    let equal = this.scopes.get(key);
    if (!equal) this.scopes.set(key, (equal = { id: this.scopes.size, anchors }));
    return equal;
  }
}
