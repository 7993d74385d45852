/** Functions of one number, element by element: powers, exponentials, trigonometry, activations. f32 and f16. */
import { apply, operation } from '../../engine/index.ts';
import type { Operation, Tensor } from '../../engine/index.ts';
import { evaluate } from './chain.ts';

/** An operation by its expression of x, and that of its gradient: x the operand, y the upstream gradient. */
function unary(
  name: string,
  f: string,
  gradient: string,
  helpers: readonly string[] = [],
): Operation<readonly [Tensor], object, Tensor> {
  return operation({
    name,
    shape: ([x]) => x.shape,
    forward(ctx, [x]) {
      ctx.save(x);
      return evaluate({ name, f, helpers }, [x]);
    },
    backward: (ctx, [grad]) => [
      evaluate({ name: `${name}Gradient`, f: gradient, helpers }, [ctx.saved[0]!, grad!], ctx.target(0)),
    ],
  });
}

/** One without a gradient: it is 0 wherever it is defined. */
const steps = (name: string, f: string): Operation<readonly [Tensor], object, Tensor> =>
  operation({
    name,
    shape: ([x]) => x.shape,
    forward: (_ctx, [x]) => evaluate({ name, f }, [x]),
    backward: () => [null],
  });

const negOp = unary('neg', '-x', '-y');
const absOp = unary('abs', 'abs(x)', 'y * sign(x)');
const reciprocalOp = unary('reciprocal', '1.0 / x', '-(y / x) / x');
const squareOp = unary('square', 'x * x', '2.0 * x * y');
const sqrtOp = unary('sqrt', 'sqrt(x)', '0.5 * y / sqrt(x)');
const rsqrtOp = unary('rsqrt', 'inverseSqrt(x)', '-0.5 * y * inverseSqrt(x) / x');
const expOp = unary('exp', 'exp(x)', 'exp(x) * y');
const logOp = unary('log', 'log(x)', 'y / x');
const signOp = steps('sign', 'sign(x)');
const floorOp = steps('floor', 'floor(x)');
const ceilOp = steps('ceil', 'ceil(x)');
const roundOp = steps('round', 'round(x)');

export const neg = (x: Tensor): Tensor => apply(negOp, [x], {});
/** |x|; its gradient at 0 is 0. */
export const abs = (x: Tensor): Tensor => apply(absOp, [x], {});
/** 1 / x. */
export const reciprocal = (x: Tensor): Tensor => apply(reciprocalOp, [x], {});
export const square = (x: Tensor): Tensor => apply(squareOp, [x], {});
export const sqrt = (x: Tensor): Tensor => apply(sqrtOp, [x], {});
/** 1 / √x. */
export const rsqrt = (x: Tensor): Tensor => apply(rsqrtOp, [x], {});
export const exp = (x: Tensor): Tensor => apply(expOp, [x], {});
/** The natural logarithm. */
export const log = (x: Tensor): Tensor => apply(logOp, [x], {});
/** −1, 0 or 1. `sign`, `floor`, `ceil` and `round` have no gradient. */
export const sign = (x: Tensor): Tensor => apply(signOp, [x], {});
export const floor = (x: Tensor): Tensor => apply(floorOp, [x], {});
export const ceil = (x: Tensor): Tensor => apply(ceilOp, [x], {});
/** To the nearest whole number, ties to even. */
export const round = (x: Tensor): Tensor => apply(roundOp, [x], {});

const sinOp = unary('sin', 'sin(x)', 'cos(x) * y');
const cosOp = unary('cos', 'cos(x)', '-sin(x) * y');
const tanOp = unary('tan', 'tan(x)', 'y / (cos(x) * cos(x))');
const asinOp = unary('asin', 'asin(x)', 'y * inverseSqrt((1.0 - x) * (1.0 + x))');
const acosOp = unary('acos', 'acos(x)', '-y * inverseSqrt((1.0 - x) * (1.0 + x))');
const atanOp = unary('atan', 'atan(x)', 'y / (1.0 + x * x)');
// WGSL's are (e^x ∓ e^−x) / 2: that loses small x, where the Taylor series below 1 doesn't, and is infinite from 89 on, where
// half of e^x isn't yet.
const HYPERBOLIC = `
fn sinhOf(x: f32) -> f32 {
  let s = x * x;
  let series = x * (1.0 + s * (0.16666667 + s * (8.3333333e-3 + s * (1.984127e-4 + s * 2.7557319e-6))));
  let root = exp(0.5 * abs(x));
  return select(select(sinh(x), 0.5 * root * root * sign(x), abs(x) > 80.0), series, abs(x) < 1.0);
}
fn coshOf(x: f32) -> f32 {
  let root = exp(0.5 * abs(x));
  return select(cosh(x), 0.5 * root * root, abs(x) > 80.0);
}`;
const sinhOp = unary('sinh', 'sinhOf(x)', 'coshOf(x) * y', [HYPERBOLIC]);
const coshOp = unary('cosh', 'coshOf(x)', 'sinhOf(x) * y', [HYPERBOLIC]);

/** Angles are in radians. WGSL bounds the error of `sin` and `cos` within [−π, π] alone. */
export const sin = (x: Tensor): Tensor => apply(sinOp, [x], {});
export const cos = (x: Tensor): Tensor => apply(cosOp, [x], {});
export const tan = (x: Tensor): Tensor => apply(tanOp, [x], {});
export const asin = (x: Tensor): Tensor => apply(asinOp, [x], {});
export const acos = (x: Tensor): Tensor => apply(acosOp, [x], {});
export const atan = (x: Tensor): Tensor => apply(atanOp, [x], {});
export const sinh = (x: Tensor): Tensor => apply(sinhOp, [x], {});
export const cosh = (x: Tensor): Tensor => apply(coshOp, [x], {});

// 1 / (1 + e^−x) is safe at both ends: e^−x overflows to infinity and gives 0.
const SIGMOID = 'fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }';
// Clamped: tanh is 1 to f32's precision from 10 on, and far out some drivers' tanh overflows.
const TANH = 'fn tanhOf(x: f32) -> f32 { return tanh(clamp(x, -15.0, 15.0)); }';
// WGSL has no erf. Below 1 the Maclaurin series, which keeps the relative precision of small results; above, 1 − erfc with
// the fit of Numerical Recipes in C (2nd ed., section 6.2; relative error of erfc below 1.2e-7).
export const ERF = `
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

const erfOp = unary('erf', 'erf(x)', 'y * 1.1283792 * exp(-x * x)', [ERF]);
const sigmoidOp = unary('sigmoid', 'sigmoid(x)', 'y * sigmoid(x) * sigmoid(-x)', [SIGMOID]);
const tanhOp = unary('tanh', 'tanhOf(x)', '4.0 * y * sigmoid(2.0 * x) * sigmoid(-2.0 * x)', [TANH, SIGMOID]);
// log(1 + e^x) = max(x, 0) + log(1 + e^−|x|): no overflow. Small e^−|x| would be lost in the sum with 1; its series isn't.
const SOFTPLUS = `
fn softplusOf(x: f32) -> f32 {
  let e = exp(-abs(x));
  let series = e * (1.0 - e * (0.5 - e * (0.33333333 - 0.25 * e)));
  return max(x, 0.0) + select(log(1.0 + e), series, e < 0.02);
}`;
const softplusOp = unary('softplus', 'softplusOf(x)', 'y / (1.0 + exp(-x))', [SOFTPLUS]);
const reluOp = unary('relu', 'max(x, 0.0)', 'select(0.0, y, x > 0.0)');
const relu2Op = unary('relu2', 'max(x, 0.0) * max(x, 0.0)', '2.0 * max(x, 0.0) * y');
const siluOp = unary('silu', 'x * sigmoid(x)', 'y * sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)))', [SIGMOID]);
const quickGeluOp = unary(
  'quickGelu',
  'x * sigmoid(1.702 * x)',
  'y * sigmoid(1.702 * x) * (1.0 + 1.702 * x * (1.0 - sigmoid(1.702 * x)))',
  [SIGMOID],
);
const geluOp = unary(
  'gelu',
  '0.5 * x * (1.0 + erf(0.70710678 * x))',
  'y * (0.5 * (1.0 + erf(0.70710678 * x)) + 0.39894228 * x * exp(-0.5 * x * x))',
  [ERF],
);
const geluTanhOp = unary(
  'geluTanh',
  '0.5 * x * (1.0 + tanh(inner(x)))',
  'y * (0.5 * (1.0 + tanh(inner(x))) + 0.5 * x * (1.0 - tanh(inner(x)) * tanh(inner(x))) * 0.79788456 * (1.0 + 0.134145 * near(x) * near(x)))',
  // Clamped: tanh is 1 to f32's precision from 10 on, which |x| = 10 is well past. Far out, powers of x overflow, and so does
  // some drivers' tanh.
  [
    `fn near(x: f32) -> f32 { return clamp(x, -10.0, 10.0); }
fn inner(x: f32) -> f32 {
  let c = near(x);
  return clamp(0.79788456 * (c + 0.044715 * c * c * c), -15.0, 15.0);
}`,
  ],
);

/** The error function, 2/√π ∫₀ˣ e^−t² dt. */
export const erf = (x: Tensor): Tensor => apply(erfOp, [x], {});
/** 1 / (1 + e^−x). */
export const sigmoid = (x: Tensor): Tensor => apply(sigmoidOp, [x], {});
export const tanh = (x: Tensor): Tensor => apply(tanhOp, [x], {});
/** log(1 + eˣ). */
export const softplus = (x: Tensor): Tensor => apply(softplusOp, [x], {});
/** max(x, 0); its gradient at 0 is 0. */
export const relu = (x: Tensor): Tensor => apply(reluOp, [x], {});
/** max(x, 0)² (So et al., 2021). */
export const relu2 = (x: Tensor): Tensor => apply(relu2Op, [x], {});
/** x · σ(x) (Elfwing et al., 2017). */
export const silu = (x: Tensor): Tensor => apply(siluOp, [x], {});
/** x · σ(1.702 x): CLIP's approximation of GELU. */
export const quickGelu = (x: Tensor): Tensor => apply(quickGeluOp, [x], {});
/** x · Φ(x), exact form by the error function (Hendrycks & Gimpel, 2016). */
export const gelu = (x: Tensor): Tensor => apply(geluOp, [x], {});
/** GELU's tanh approximation (the same paper). */
export const geluTanh = (x: Tensor): Tensor => apply(geluTanhOp, [x], {});
