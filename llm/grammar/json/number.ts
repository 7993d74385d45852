import type { Decimal } from './decimal.ts';

/** What a number may be asked: to be less than a bound (or equal to it), a multiple, one of some. */
export type NumberTest =
  | { readonly kind: 'below'; readonly bound: Decimal; readonly inclusive: boolean }
  | { readonly kind: 'multiple'; readonly of: Decimal }
  | { readonly kind: 'among'; readonly values: readonly Decimal[] };
