import { Unsupported } from '../refusal.ts';

/** What is given as a schema is none: an ill-typed keyword, a reference to nowhere, an anchor that stands twice. */
export class SchemaError extends Error {
  override readonly name = 'SchemaError';

  /** `place` is the document's URI, where it has one, and the JSON pointer as a fragment. */
  constructor(place: string, problem: string) {
    super(`[grammar] schema ${place}: ${problem}`);
  }
}

/** A schema that cannot be followed exactly, and is therefore not followed at all. */
export function unsupported(place: string, keyword: string, reason: string): Unsupported {
  return new Unsupported(`[grammar] schema ${place}: ${keyword}: ${reason}`);
}
