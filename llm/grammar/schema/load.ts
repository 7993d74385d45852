import { SchemaError, unsupported } from './errors.ts';
import {
  DIALECTS,
  escapeToken,
  FOREIGN,
  METASCHEMAS,
  misshapen,
  subschemas,
  vocabularyDialect,
  type Dialect,
  type Draft,
} from './keywords.ts';

type JsonObject = Readonly<Record<string, unknown>>;

/** A schema where it stands. */
export interface Place {
  readonly id: number;
  readonly value: boolean | JsonObject;
  readonly resource: Resource;
  /** The schema around it, and the JSON pointer from there. */
  readonly parent: Place | null;
  readonly pointer: string;
}

/** A document, or a schema with an `$id` in one: references within it are relative to its URI. */
export interface Resource {
  readonly id: number;
  readonly uri: string;
  readonly dialect: Dialect;
  /** Of `$anchor` and `$dynamicAnchor` (in draft 7, of `$id: "#…"`). */
  readonly anchors: Map<string, Place>;
  readonly dynamicAnchors: Map<string, Place>;
  /** The schemas that stand in it, by their objects; the roots of the resources within it among them. */
  readonly places: Map<object, Place>;
}

export interface DocumentsOptions {
  /** The draft of documents that declare none by `$schema`; '2020-12' where left out. */
  readonly draft?: Draft;
  /** The documents that references may lead to, by URI. There is no network. */
  readonly remotes?: Iterable<readonly [string, unknown]>;
}

/** Where a schema without an `$id` stands: relative references lead to what else has none. */
const NOWHERE = 'schema:///';

/**
 * The schemas that a schema is made of: its document and, as references lead there, those of `remotes`. All keywords are
 * checked as a schema is met; nothing is fetched from anywhere.
 */
export class Documents {
  readonly root: Place;
  private readonly dialect: Dialect;
  private readonly remotes = new Map<string, unknown>();
  private readonly roots = new Map<string, Place>();
  /** Schemas that are `true` or `false`, by the schema around and the pointer from there. */
  private readonly constants = new Map<Place, Map<string, Place>>();
  private count = 0;

  constructor(schema: unknown, { draft = '2020-12', remotes = [] }: DocumentsOptions) {
    this.dialect = DIALECTS[draft];
    for (const [uri, document] of remotes) {
      if (!URL.canParse(uri)) throw new SchemaError(uri, 'the URI of a remote document has to be absolute');
      this.remotes.set(withoutFragment(new URL(uri)), document);
    }
    this.root = this.document(schema, NOWHERE);
  }

  /** The value of a keyword where it means something: neither an annotation, nor overridden by a `$ref` of draft 7. */
  keyword(place: Place, name: string): unknown {
    const { value, resource } = place;
    if (typeof value === 'boolean' || !Object.hasOwn(value, name) || !resource.dialect.keywords.has(name))
      return undefined;
    return name !== '$ref' && overridden(value, resource.dialect) ? undefined : value[name];
  }

  /** The schema that is `value`, at `pointer` from `place`. */
  child(place: Place, pointer: string, value: unknown): Place {
    if (typeof value === 'boolean') return this.constant(value, place, pointer);
    return place.resource.places.get(value as object)!;
  }

  /** Where `$ref` or `$dynamicRef` lead at first, and the anchor's name where that is a `$dynamicAnchor`. */
  resolve(place: Place, keyword: '$ref' | '$dynamicRef'): { readonly place: Place; readonly dynamic: string | null } {
    const reference = this.keyword(place, keyword) as string;
    const wrong = (problem: string): SchemaError =>
      new SchemaError(where(place), `${keyword} ${JSON.stringify(reference)} ${problem}`);
    let url: URL;
    let fragment: string;
    try {
      url = new URL(reference, place.resource.uri);
      fragment = decodeURIComponent(url.hash.slice(1));
    } catch {
      throw wrong(`is no URI reference within ${place.resource.uri}`);
    }
    const uri = withoutFragment(url);
    const root = this.roots.get(uri) ?? this.remote(uri);
    if (!root) {
      // The metaschemas, which commands always give, are not what was forgotten.
      const given = [...this.remotes.keys()].filter((uri) => new URL(uri).host !== 'json-schema.org');
      const listed = given.slice(0, 5).join(', ') + (given.length > 5 ? ` and ${given.length - 5} more` : '');
      const reason = `the document ${uri} is not given; remotes: ${listed || 'none'}`;
      throw unsupported(where(place), keyword, reason);
    }
    if (fragment === '') return { place: root, dynamic: null };
    if (fragment.startsWith('/')) {
      const target = this.follow(root, fragment);
      if (typeof target === 'string') throw wrong(target);
      return { place: target, dynamic: null };
    }
    const target = root.resource.anchors.get(fragment);
    if (!target) throw wrong(`leads to no anchor of ${uri === NOWHERE ? 'the schema' : uri}`);
    return { place: target, dynamic: root.resource.dynamicAnchors.get(fragment) === target ? fragment : null };
  }

  private constant(value: boolean, parent: Place, pointer: string): Place {
    let places = this.constants.get(parent);
    if (!places) this.constants.set(parent, (places = new Map()));
    let place = places.get(pointer);
    if (!place) {
      place = { id: this.count++, value, resource: parent.resource, parent, pointer };
      places.set(pointer, place);
    }
    return place;
  }

  private remote(uri: string): Place | undefined {
    if (!this.remotes.has(uri)) return undefined;
    const root = this.document(this.remotes.get(uri), uri);
    // Known by where it was found, whatever its `$id`.
    this.roots.set(uri, root);
    return root;
  }

  private document(schema: unknown, uri: string): Place {
    return this.identify(schema, null, '', uri);
  }

  /** The schema that a JSON pointer leads to from a resource's root, or what is wrong with it. */
  private follow(root: Place, pointer: string): Place | string {
    let place = root;
    let value: unknown = root.value;
    let since = '';
    for (const escaped of pointer.slice(1).split('/')) {
      if (/~(?![01])/.test(escaped)) return 'has a "~" that is neither "~0" nor "~1"';
      const token = escaped.replaceAll('~1', '/').replaceAll('~0', '~');
      const known = Array.isArray(value) ? /^(0|[1-9]\d*)$/.test(token) : typeof value === 'object' && value !== null;
      if (!known || !Object.hasOwn(value as object, token)) return `leads to nothing at "${token}"`;
      value = (value as JsonObject)[token];
      since += `/${escaped}`;
      const next = typeof value === 'object' && value !== null ? place.resource.places.get(value) : undefined;
      if (next) {
        place = next;
        since = '';
      }
    }
    if (since === '') return place;
    if (typeof value === 'boolean') return this.constant(value, place, since);
    // Under a keyword that is no applicator: it is a schema because it is referred to as one.
    if (misshapen('schema', value)) return `leads to ${JSON.stringify(value)?.slice(0, 40)}, which is no schema`;
    return this.identify(value, place, since, place.resource.uri);
  }

  /** Finds the resources, anchors and schemas in `schema` and checks their keywords; without recursion, however deep. */
  private identify(schema: unknown, around: Place | null, from: string, uri: string): Place {
    let first: Place | undefined;
    const open: { value: unknown; parent: Place | null; pointer: string }[] = [
      { value: schema, parent: around, pointer: from },
    ];
    while (open.length > 0) {
      const { value, parent, pointer } = open.pop()!;
      if (parent && first && typeof value === 'boolean') continue;
      const wanted = misshapen('schema', value);
      if (wanted) throw new SchemaError(where(parent, pointer), `must be ${wanted}, not ${shown(value)}`);
      if (parent && parent.resource.places.has(value as object)) continue;
      const place = this.place(value as boolean | JsonObject, parent, pointer, uri);
      first ??= place;
      if (typeof value === 'boolean') continue;
      for (const [keyword, shape, entry] of this.checked(place)) {
        for (const [rest, subschema] of subschemas(shape, entry)) {
          open.push({ value: subschema, parent: place, pointer: `/${escapeToken(keyword)}${rest}` });
        }
      }
    }
    return first!;
  }

  /** A schema's own identity: the resource that it begins or stands in, and its anchors. */
  private place(value: boolean | JsonObject, parent: Place | null, pointer: string, uri: string): Place {
    // Not before it is asked for: a place's pointer is as long as the place is deep.
    const at = (): string => where(parent, pointer);
    const string = (name: string): string | undefined => {
      const entry = typeof value === 'object' && Object.hasOwn(value, name) ? value[name] : undefined;
      return typeof entry === 'string' ? entry : undefined;
    };
    const around = parent?.resource;
    const named = string('$id');
    const [id, fragment] = splitFragment(named ?? '');
    let dialect = around?.dialect ?? this.dialect;
    const declared = string('$schema');
    if (declared !== undefined) {
      dialect = this.dialectOf(at, declared);
      if (around && id === '' && dialect !== around.dialect) {
        throw unsupported(at(), '$schema', `another dialect than its document's, ${declared}, needs an $id beside it`);
      }
    }
    const identified = named !== undefined && dialect.keywords.has('$id') && !overridden(value, dialect);
    if (identified && fragment !== '' && dialect.draft !== 'draft-07') {
      throw new SchemaError(at(), `$id ${JSON.stringify(named)} has a fragment; $anchor names a place in a resource`);
    }
    let own = around?.uri ?? uri;
    if (identified && id !== '') {
      if (!URL.canParse(id, own))
        throw new SchemaError(at(), `$id ${JSON.stringify(named)} is no URI reference in ${own}`);
      own = withoutFragment(new URL(id, own));
    }
    const begins = !around || own !== around.uri;
    const resource: Resource = begins
      ? { id: this.count++, uri: own, dialect, anchors: new Map(), dynamicAnchors: new Map(), places: new Map() }
      : around;
    const place: Place = { id: this.count++, value, resource, parent, pointer };
    if (typeof value === 'object') {
      around?.places.set(value, place);
      resource.places.set(value, place);
    }
    if (begins) {
      const other = this.roots.get(own);
      if (other && other.value !== value) throw new SchemaError(at(), `$id ${own} is also that of ${where(other)}`);
      this.roots.set(own, place);
    }
    const anchors: (readonly [Map<string, Place>, string | undefined])[] =
      dialect.draft === 'draft-07'
        ? [[resource.anchors, identified && fragment !== '' ? fragment : undefined]]
        : [
            [resource.anchors, string('$anchor')],
            [resource.dynamicAnchors, string('$dynamicAnchor')],
          ];
    for (const [known, anchor] of anchors) {
      if (anchor === undefined) continue;
      const other = resource.anchors.get(anchor);
      if (other && other !== place)
        throw new SchemaError(at(), `the anchor "${anchor}" is also that of ${where(other)}`);
      resource.anchors.set(anchor, place);
      known.set(anchor, place);
    }
    return place;
  }

  /** The keywords of a schema that its dialect knows, once their values are found right. */
  private checked(place: Place): (readonly [string, Parameters<typeof subschemas>[0], unknown])[] {
    const { dialect } = place.resource;
    const value = place.value as JsonObject;
    // Beside a `$ref`, draft 7 heeds nothing; but its definitions are there to be referred to.
    const heeded = overridden(value, dialect) ? ['$ref', 'definitions'] : Object.keys(value);
    return heeded.flatMap((keyword) => {
      if (!Object.hasOwn(value, keyword)) return [];
      const foreign = FOREIGN.get(keyword);
      if (foreign && dialect.draft === '2020-12') throw unsupported(where(place), keyword, foreign);
      const shape = dialect.keywords.get(keyword);
      if (!shape) return [];
      const wanted = misshapen(shape, value[keyword]);
      if (wanted) {
        const hint = HINTS[keyword]?.(value[keyword]) ?? '';
        throw new SchemaError(where(place), `${keyword} must be ${wanted}, not ${shown(value[keyword])}${hint}`);
      }
      return [[keyword, shape, value[keyword]] as const];
    });
  }

  private dialectOf(at: () => string, declared: string): Dialect {
    for (const seen = new Set<string>(); ;) {
      const uri = URL.canParse(declared) ? withoutFragment(new URL(declared)) : declared;
      const draft = METASCHEMAS.get(uri);
      if (draft) return DIALECTS[draft];
      const metaschema = this.remotes.get(uri) as JsonObject | undefined;
      if (typeof metaschema !== 'object' || metaschema === null || seen.has(uri)) {
        const known = [...METASCHEMAS.keys()].join(' and ');
        throw unsupported(at(), '$schema', `${declared} is neither known nor given among remotes; known: ${known}`);
      }
      seen.add(uri);
      if (metaschema.$vocabulary !== undefined) {
        const wanted = misshapen('map of booleans', metaschema.$vocabulary);
        if (wanted) throw new SchemaError(uri, `$vocabulary must be ${wanted}`);
        const dialect = vocabularyDialect(metaschema.$vocabulary as Record<string, boolean>);
        if (typeof dialect === 'string') throw unsupported(at(), '$schema', `requires the vocabulary ${dialect}`);
        return dialect;
      }
      if (typeof metaschema.$schema !== 'string') return this.dialect;
      declared = metaschema.$schema;
    }
  }
}

/** What older drafts meant by a value that is wrong now. */
const HINTS: Readonly<Record<string, (value: unknown) => string>> = {
  items: (value) => (Array.isArray(value) ? '; 2020-12 says prefixItems, draft 7 has to be declared by $schema' : ''),
  exclusiveMinimum: (value) => (typeof value === 'boolean' ? '; that was draft 4' : ''),
  exclusiveMaximum: (value) => (typeof value === 'boolean' ? '; that was draft 4' : ''),
  required: (value) => (typeof value === 'boolean' ? '; that was draft 3' : ''),
  $anchor: (value) => (typeof value === 'string' && value.startsWith('#') ? '; it has no "#"' : ''),
};

/** Where a schema stands, for messages: its document's URI where that has one, and its JSON pointer. */
export function where(place: Place | null, pointer = ''): string {
  const parts = [pointer];
  let uri = '';
  for (let at = place; at; at = at.parent) {
    parts.push(at.pointer);
    uri = at.resource.uri;
  }
  const whole = parts.reverse().join('');
  return (
    (uri === NOWHERE ? '' : uri) + '#' + (whole.length > 200 ? `${whole.slice(0, 100)}…${whole.slice(-99)}` : whole)
  );
}

function shown(value: unknown): string {
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'an object';
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}

/** In draft 7 a `$ref` is all there is to a schema. */
function overridden(value: boolean | JsonObject, dialect: Dialect): boolean {
  return typeof value === 'object' && dialect.draft === 'draft-07' && Object.hasOwn(value, '$ref');
}

function withoutFragment(url: URL): string {
  return splitFragment(url.href)[0];
}

function splitFragment(uri: string): [string, string] {
  const hash = uri.indexOf('#');
  return hash < 0 ? [uri, ''] : [uri.slice(0, hash), uri.slice(hash + 1)];
}
