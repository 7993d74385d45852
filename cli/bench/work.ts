/** What a dispatch does: arithmetic operations, told from its parameters, and bytes, told from what it binds. */
import type { Params, Window } from '../../engine/index.ts';

/**
 * A multiply-add counts as two. Of the products, which are nearly all of a model's arithmetic; null for other kernels. What a kernel computes counts, not
 * what its operation would take otherwise: Winograd's convolution has fewer. Masked pairs of attention count as well.
 */
export function operationsOf(kernel: string, params: Params): number | null {
  const values = (...names: string[]): number[] | null => {
    const found = names.map((name) => params[name]);
    return found.every((value) => typeof value === 'number') ? found : null;
  };
  const product = (factors: readonly number[]) => factors.reduce((a, b) => a * b, 2);
  const matrices = values('m', 'n', 'k', 'batch', 'sum');
  if (matrices) return product(matrices);
  const convolution = values('batch', 'groups', 'channels', 'rows', 'oh', 'ow', 'kh', 'kw');
  if (convolution) return product(convolution);
  const attention = values('batch', 'heads', 'queries', 'keys', 'dim');
  if (attention) return attentionProducts(kernel) * product(attention);
  return null;
}

/** Products of (queries, keys, dim) that each of attention's kernels makes; scores are made anew in the backward pass. */
function attentionProducts(kernel: string): number {
  if (kernel.startsWith('attention_query_gradient')) return 3; // scores, their gradient, dq
  if (kernel.startsWith('attention_key_gradient')) return 4; // scores, their gradient, dk, dv
  return 2; // scores, out
}

/** Kernels that look things up: of a table they touch some rows alone. */
const PARTIAL = /^(embedding|gather|scatter|add_runs|attention_(lists|selection))/;

/** Bytes of all bindings, which most kernels read or write once; null for those that don't. */
export const bytesOf = (kernel: string, windows: readonly Window[]): number | null =>
  PARTIAL.test(kernel) ? null : windows.reduce((sum, { bytes }) => sum + bytes, 0);
