/** One kernel for every element-wise expression, with broadcasting. */
import { empty, formatShape, sameShape, sizeOf, wgsl } from '../../engine/index.ts';
import type { Shape, Tensor } from '../../engine/index.ts';

const source = wgsl(import.meta.url, './elementwise.wgsl');

/** The shape that both broadcast to, by NumPy's rule: extents are aligned at the end and are equal or 1. */
export function broadcastShape(operation: string, a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1)
      throw new Error(
        `[${operation}] ${formatShape(a)} and ${formatShape(b)} do not broadcast: extents must be equal or 1, counted from the end`,
      );
    return x === 1 ? y : x;
  });
}

/** Element steps of an operand along the result's dimensions: 0 where it is repeated. */
function stepsAlong(shape: Shape, result: Shape): number[] {
  let step = 1;
  const steps = Array<number>(result.length).fill(0);
  for (let i = shape.length - 1; i >= 0; i--) {
    const at = i + result.length - shape.length;
    steps[at] = shape[i] === 1 ? 0 : step;
    step *= shape[i]!;
  }
  return steps;
}

/** Joins neighbouring dimensions that every operand walks alike, so that four suffice for any usual broadcast. */
function collapse(operation: string, result: Shape, operands: number[][]): { extents: number[]; steps: number[][] } {
  const extents: number[] = [];
  const steps: number[][] = operands.map(() => []);
  for (let i = result.length - 1; i >= 0; i--) {
    const extent = result[i]!;
    if (extent === 1) continue;
    const joins = extents.length > 0 && operands.every((operand, k) => operand[i] === steps[k]![0]! * extents[0]!);
    if (joins) extents[0]! *= extent;
    else {
      extents.unshift(extent);
      operands.forEach((operand, k) => steps[k]!.unshift(operand[i]!));
    }
  }
  if (extents.length > 4)
    throw new Error(
      `[${operation}] broadcasting over ${formatShape(result)} alternates more than four times; reshape or expand first`,
    );
  while (extents.length < 4) {
    extents.unshift(1);
    for (const operand of steps) operand.unshift(0);
  }
  return { extents, steps };
}

interface Expression {
  /** WGSL of `x`, `y`, `params.alpha`, `params.beta`. */
  readonly f: string;
  /** WGSL functions that `f` calls. */
  readonly helpers?: string;
  readonly alpha?: number;
  readonly beta?: number;
}

/** out = f(x[, y]) into a new tensor, or into `target`, whose shape a single operand is broadcast to. */
export function evaluate(
  name: string,
  { f, helpers = '', alpha = 0, beta = 0 }: Expression,
  x: Tensor,
  y: Tensor | null,
  target?: Tensor,
): Tensor {
  const shape = y ? broadcastShape(name, x.shape, y.shape) : (target?.shape ?? x.shape);
  const out = target ?? empty(x.device, shape);
  const { extents, steps } = collapse(name, shape, [stepsAlong(x.shape, shape), stepsAlong((y ?? x).shape, shape)]);
  const [a, b] = steps as [number[], number[]];
  const flat = sameShape(x.shape, shape) && (!y || sameShape(y.shape, shape));
  const splat = (operand: number[]) => operand[3] === 0 && extents[3]! > 1;
  const vec4 =
    flat ||
    (extents[3]! % 4 === 0 &&
      [a, b].every(
        (operand) => operand[3] === 0 || (operand[3] === 1 && operand.every((step, i) => i === 3 || step % 4 === 0)),
      ));
  const size = sizeOf(shape);
  const kernel = x.device.kernel(source, {
    F: f,
    HELPERS: helpers,
    BINARY: y !== null,
    FLAT: flat,
    VEC4: vec4,
    X_SPLAT: !flat && splat(a),
    Y_SPLAT: !flat && y !== null && splat(b),
  });
  const [, n1, n2, n3] = extents as [number, number, number, number];
  const params = {
    size, n1, n2, n3,
    a0: a[0]!, a1: a[1]!, a2: a[2]!, a3: a[3]!,
    b0: b[0]!, b1: b[1]!, b2: b[2]!, b3: b[3]!,
    alpha, beta,
  }; // prettier-ignore
  x.device.run(kernel, y ? [x, out, y] : [x, out], params, Math.ceil(size / (vec4 ? 256 : 64)));
  return out;
}
