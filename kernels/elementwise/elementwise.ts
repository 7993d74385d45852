import { apply, operation, registerAddition, wgsl } from '../../engine/index.ts';
import type { Operation, Tensor } from '../../engine/index.ts';
import { sumTo } from '../reduce/reduce.ts';
import { broadcastShape, evaluate } from './evaluate.ts';

/** An operation of one operand by its expression, and that of its gradient: x the operand, y the upstream gradient. */
function unary(
  name: string,
  f: string,
  gradient: string,
  helpers?: string,
): Operation<readonly [Tensor], object, Tensor> {
  return operation({
    name,
    shape: ([x]) => x.shape,
    forward(ctx, [x]) {
      ctx.save(x);
      return evaluate(name, { f, helpers }, x, null);
    },
    backward(ctx, [grad]) {
      return [evaluate(name, { f: gradient, helpers }, ctx.saved[0]!, grad!, ctx.gradient(0))];
    },
  });
}

const addOp = operation<readonly [Tensor, Tensor], object>({
  name: 'add',
  shape: ([a, b]) => broadcastShape('add', a.shape, b.shape),
  forward: (_ctx, [a, b]) => evaluate('add', { f: 'x + y' }, a, b),
  backward: (ctx, [grad]) => [0, 1].map((i) => (ctx.needs[i] ? sumTo(grad!, ctx.inputShape(i)) : null)),
});

const subOp = operation<readonly [Tensor, Tensor], object>({
  name: 'sub',
  shape: ([a, b]) => broadcastShape('sub', a.shape, b.shape),
  forward: (_ctx, [a, b]) => evaluate('sub', { f: 'x - y' }, a, b),
  backward: (ctx, [grad]) => [
    ctx.needs[0] ? sumTo(grad!, ctx.inputShape(0)) : null,
    ctx.needs[1] ? sumTo(evaluate('neg', { f: '-x' }, grad!, null), ctx.inputShape(1)) : null,
  ],
});

const mulOp = operation<readonly [Tensor, Tensor], object>({
  name: 'mul',
  shape: ([a, b]) => broadcastShape('mul', a.shape, b.shape),
  forward(ctx, [a, b]) {
    ctx.save(a, b);
    return evaluate('mul', { f: 'x * y' }, a, b);
  },
  backward(ctx, [grad]) {
    const [a, b] = ctx.saved as [Tensor, Tensor];
    return [
      ctx.needs[0] ? sumTo(evaluate('mul', { f: 'x * y' }, grad!, b), a.shape) : null,
      ctx.needs[1] ? sumTo(evaluate('mul', { f: 'x * y' }, grad!, a), b.shape) : null,
    ];
  },
});

const divOp = operation<readonly [Tensor, Tensor], object>({
  name: 'div',
  shape: ([a, b]) => broadcastShape('div', a.shape, b.shape),
  forward(ctx, [a, b]) {
    ctx.save(a, b);
    return evaluate('div', { f: 'x / y' }, a, b);
  },
  backward(ctx, [grad]) {
    const [a, b] = ctx.saved as [Tensor, Tensor];
    const share = evaluate('div', { f: 'x / y' }, grad!, b); // g / b
    return [
      ctx.needs[0] ? sumTo(share, a.shape) : null,
      ctx.needs[1]
        ? sumTo(evaluate('div', { f: '-x * y' }, share, evaluate('div', { f: 'x / y' }, a, b)), b.shape)
        : null,
    ];
  },
});

/** a + b with broadcasting. */
export const add = (a: Tensor, b: Tensor): Tensor => apply(addOp, [a, b], {});
/** a − b with broadcasting. */
export const sub = (a: Tensor, b: Tensor): Tensor => apply(subOp, [a, b], {});
/** a · b, element by element, with broadcasting. */
export const mul = (a: Tensor, b: Tensor): Tensor => apply(mulOp, [a, b], {});
/** a / b with broadcasting. */
export const div = (a: Tensor, b: Tensor): Tensor => apply(divOp, [a, b], {});

const affineOp = operation<readonly [Tensor], { scale: number; shift: number }>({
  name: 'affine',
  shape: ([x]) => x.shape,
  forward: (_ctx, [x], { scale, shift }) =>
    evaluate('affine', { f: 'x * params.alpha + params.beta', alpha: scale, beta: shift }, x, null),
  backward: (ctx, [grad], { scale }) => [
    evaluate('affine', { f: 'x * params.alpha + params.beta', alpha: scale }, grad!, null, ctx.gradient(0)),
  ],
});

/** scale · x + shift, both numbers of the host. */
export const affine = (x: Tensor, scale: number, shift = 0): Tensor => apply(affineOp, [x], { scale, shift });

const expOp = unary('exp', 'exp(x)', 'exp(x) * y');
const squareOp = unary('square', 'x * x', '2.0 * x * y');
const sqrtOp = unary('sqrt', 'sqrt(x)', '0.5 * y / sqrt(x)');
const logOp = unary('log', 'log(x)', 'y / x');

export const exp = (x: Tensor): Tensor => apply(expOp, [x], {});
export const square = (x: Tensor): Tensor => apply(squareOp, [x], {});
export const sqrt = (x: Tensor): Tensor => apply(sqrtOp, [x], {});
/** The natural logarithm. */
export const log = (x: Tensor): Tensor => apply(logOp, [x], {});

const clampOp = operation<readonly [Tensor], { low: number; high: number }>({
  name: 'clamp',
  shape([x], { low, high }) {
    if (!(low <= high)) throw new Error(`[clamp] low must not exceed high, got ${low} and ${high}`);
    return x.shape;
  },
  forward(ctx, [x], { low, high }) {
    ctx.save(x);
    return evaluate('clamp', { f: 'clamp(x, params.alpha, params.beta)', alpha: low, beta: high }, x, null);
  },
  backward: (ctx, [grad], { low, high }) => [
    evaluate(
      'clamp',
      { f: 'select(0.0, y, x >= params.alpha && x <= params.beta)', alpha: low, beta: high },
      ctx.saved[0]!,
      grad!,
      ctx.gradient(0),
    ),
  ],
});

/** Limits x to [low, high]; the gradient passes where x lies within. */
export const clamp = (x: Tensor, low: number, high: number): Tensor => apply(clampOp, [x], { low, high });

// 1 / (1 + e^−x) is safe at both ends: e^−x overflows to infinity and gives 0.
const sigmoid = 'fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }';
// WGSL has no erf. Below 1 the Maclaurin series, which keeps the relative precision of small results; above, 1 − erfc with
// the fit of Numerical Recipes in C (2nd ed., section 6.2; relative error of erfc below 1.2e-7).
export const erf = `
fn erf(x: f32) -> f32 {
  let a = abs(x);
  if (a < 1.0) {
    // 2/√π · Σ (−1)ⁿ x²ⁿ⁺¹ / (n! (2n + 1))
    let s = a * a;
    let p = 1.0 - s * (0.33333333 - s * (0.1 - s * (0.023809524 - s * (4.6296296e-3 - s * (7.5757576e-4 - s * (1.0683761e-4 - s * (1.3227513e-5 - s * (1.4589169e-6 - s * 1.4503852e-7))))))));
    return sign(x) * 1.1283792 * a * p;
  }
  let t = 1.0 / (1.0 + 0.5 * a);
  let q = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
  return sign(x) * (1.0 - t * exp(q - a * a));
}`;

const siluOp = unary('silu', 'x * sigmoid(x)', 'y * sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)))', sigmoid);
const quickGeluOp = unary(
  'quickGelu',
  'x * sigmoid(1.702 * x)',
  'y * sigmoid(1.702 * x) * (1.0 + 1.702 * x * (1.0 - sigmoid(1.702 * x)))',
  sigmoid,
);
const geluOp = unary(
  'gelu',
  '0.5 * x * (1.0 + erf(0.70710678 * x))',
  'y * (0.5 * (1.0 + erf(0.70710678 * x)) + 0.39894228 * x * exp(-0.5 * x * x))',
  erf,
);
const geluTanhOp = unary(
  'geluTanh',
  '0.5 * x * (1.0 + tanh(inner(x)))',
  'y * (0.5 * (1.0 + tanh(inner(x))) + 0.5 * x * (1.0 - tanh(inner(x)) * tanh(inner(x))) * 0.79788456 * (1.0 + 0.134145 * near(x) * near(x)))',
  // Clamped: tanh is 1 to f32's precision from 10 on, which |x| = 10 is well past. Far out, powers of x overflow, and so does
  // some drivers' tanh.
  `
fn near(x: f32) -> f32 { return clamp(x, -10.0, 10.0); }
fn inner(x: f32) -> f32 {
  let c = near(x);
  return clamp(0.79788456 * (c + 0.044715 * c * c * c), -15.0, 15.0);
}`,
);

/** x · σ(x) (Elfwing et al., 2017). */
export const silu = (x: Tensor): Tensor => apply(siluOp, [x], {});
/** x · σ(1.702 x): CLIP's approximation of GELU. */
export const quickGelu = (x: Tensor): Tensor => apply(quickGeluOp, [x], {});
/** x · Φ(x), exact form by the error function (Hendrycks & Gimpel, 2016). */
export const gelu = (x: Tensor): Tensor => apply(geluOp, [x], {});
/** GELU's tanh approximation (the same paper). */
export const geluTanh = (x: Tensor): Tensor => apply(geluTanhOp, [x], {});

const accumulateSource = wgsl(import.meta.url, './accumulate.wgsl');

registerAddition({
  add: (a, b) => evaluate('add', { f: 'x + y' }, a, b),
  accumulate(target, addend) {
    const kernel = target.device.kernel(accumulateSource);
    target.device.run(kernel, [target, addend], { size: target.size }, Math.ceil(target.size / 256));
  },
});
