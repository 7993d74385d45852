import { formatShape, reshape } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { slice, transpose } from '../layout/layout.ts';
import { pad } from '../layout/remap.ts';
import { sum } from '../reduce/reduce.ts';
import { matmul } from './matmul.ts';

/** A tensor whose axes have names: letters of an equation. */
interface Named {
  readonly x: Tensor;
  readonly letters: readonly string[];
}

/** `ij,jk->ik`: the letters of each operand and of the result; without an arrow, those that stand once, in order. */
function parse(equation: string, operands: readonly Tensor[]): { terms: string[][]; result: string[] } {
  const fail = (what: string): never => {
    throw new Error(`[einsum] "${equation}": ${what}`);
  };
  const compact = equation.replace(/\s/g, '');
  const form = /^([a-zA-Z,]*)(?:->([a-zA-Z]*))?$/.exec(compact);
  if (!form) return fail('an equation is letters for the axes of each operand, as in "ij,jk->ik"');
  const terms = form[1]!.split(',').map((term) => [...term]);
  if (terms.length !== operands.length)
    fail(`${terms.length} operand${terms.length === 1 ? '' : 's'} named, ${operands.length} given`);
  const extents = new Map<string, { extent: number; operand: number }>();
  terms.forEach((letters, i) => {
    const { shape } = operands[i]!;
    if (letters.length !== shape.length)
      fail(`"${letters.join('')}" names ${letters.length} axes, operand ${i} is ${formatShape(shape)}`);
    letters.forEach((letter, axis) => {
      const known = extents.get(letter);
      if (known && known.extent !== shape[axis])
        fail(`${letter} is ${known.extent} in operand ${known.operand} and ${shape[axis]} in operand ${i}`);
      extents.set(letter, { extent: shape[axis]!, operand: i });
    });
  });
  const all = terms.flat();
  const once = [...extents.keys()].filter((letter) => all.filter((other) => other === letter).length === 1);
  const result = form[2] === undefined ? once.sort() : [...form[2]];
  for (const letter of result) {
    if (!extents.has(letter)) fail(`the result's ${letter} is no axis of an operand`);
    if (result.indexOf(letter) !== result.lastIndexOf(letter)) fail(`the result has ${letter} twice`);
  }
  return { terms, result };
}

/** The same elements with the axes in the order of `letters`. */
function ordered({ x, letters }: Named, wanted: readonly string[]): Tensor {
  const permutation = wanted.map((letter) => letters.indexOf(letter));
  return permutation.every((axis, i) => axis === i) ? x : transpose(x, permutation);
}

/** A letter that stands twice: its diagonal, as the first axis. Of (n, n, …), elements i · (n + 1) of the first two. */
function diagonal(named: Named): Named {
  const letter = named.letters.find((each, i) => named.letters.indexOf(each) < i);
  if (letter === undefined) return named;
  const axes = named.letters.flatMap((each, i) => (each === letter ? [i] : [])).slice(0, 2);
  const others = named.letters.map((_, i) => i).filter((i) => !axes.includes(i));
  const rest = others.map((i) => named.x.shape[i]!);
  const n = named.x.shape[axes[0]!]!;
  const rows = reshape(transpose(named.x, [...axes, ...others]), [n * n, ...rest]);
  const columns = slice(
    reshape(pad(rows, [[0, n], ...rest.map((): [number, number] => [0, 0])]), [n, n + 1, ...rest]),
    1,
    0,
    1,
  );
  return diagonal({ x: reshape(columns, [n, ...rest]), letters: [letter, ...others.map((i) => named.letters[i]!)] });
}

/** Without the letters that nothing else needs: added up. */
function reduced({ x, letters }: Named, needed: ReadonlySet<string>): Named {
  const axes = letters.flatMap((letter, i) => (needed.has(letter) ? [] : [i]));
  return axes.length === 0
    ? { x, letters }
    : { x: sum(x, axes), letters: letters.filter((letter) => needed.has(letter)) };
}

/** The product of two: letters that both have are the batch where they are needed further, else summed over. */
function contract(a: Named, b: Named, needed: ReadonlySet<string>): Named {
  const shared = a.letters.filter((letter) => b.letters.includes(letter));
  const batch = shared.filter((letter) => needed.has(letter));
  const inner = shared.filter((letter) => !needed.has(letter));
  const extent = (named: Named, letters: readonly string[]) =>
    letters.reduce((product, letter) => product * named.x.shape[named.letters.indexOf(letter)]!, 1);
  // As (batch, rows, inner), or (batch, inner, rows) where it lies so already.
  const operand = (named: Named) => {
    const rows = named.letters.filter((letter) => !shared.includes(letter));
    const swapped = [...batch, ...inner, ...rows];
    const transposed = swapped.every((letter, i) => letter === named.letters[i]);
    const x = transposed ? named.x : ordered(named, [...batch, ...rows, ...inner]);
    const [first, second] = transposed ? [inner, rows] : [rows, inner];
    return { x: reshape(x, [extent(named, batch), extent(named, first), extent(named, second)]), rows, transposed };
  };
  const [left, right] = [operand(a), operand(b)];
  const product = matmul(left.x, right.x, { transposeA: left.transposed, transposeB: !right.transposed });
  const letters = [...batch, ...left.rows, ...right.rows];
  const extents = letters.map((letter) => extent(a.letters.includes(letter) ? a : b, [letter]));
  return { x: reshape(product, extents), letters };
}

/**
 * Einstein's sum: `einsum('bij,bjk->bik', x, y)`. A letter is an axis; letters that the result lacks are summed over, and a
 * letter twice in one operand is its diagonal. Without `->` the result has the letters that stand once, in alphabetical
 * order. Operands are multiplied from the left to the right, as matrix products. Floats; differentiable. `...` is not
 * understood.
 */
export function einsum(equation: string, ...operands: readonly Tensor[]): Tensor {
  const { terms, result } = parse(equation, operands);
  let product: Named | null = null;
  operands.forEach((x, i) => {
    const needed = new Set([...result, ...terms.slice(i + 1).flat()]);
    const next = diagonal({ x, letters: terms[i]! });
    product = product
      ? contract(product, reduced(next, new Set([...needed, ...product.letters])), needed)
      : reduced(next, needed);
  });
  const { x, letters } = product!;
  return reshape(ordered({ x, letters }, result), result.map((letter) => x.shape[letters.indexOf(letter)]!)); // prettier-ignore
}
