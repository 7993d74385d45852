/** Arithmetic, comparison and choice, element by element, with broadcasting; f32 and f16, and integers where that has a meaning. */
import { apply, computedDType, isStorageFormat, operation, registerAddition, requireDType, reshape, typed, wgsl } from '../../engine/index.ts'; // prettier-ignore
import type { DType, Operation, Tensor } from '../../engine/index.ts';
import { sumTo } from '../reduce/reduce.ts';
import { broadcastShape, evaluate } from './chain.ts';
import type { Expression } from './chain.ts';

const ADD: Expression = { name: 'add', f: 'x + y' };
const SUB: Expression = { name: 'sub', f: 'x - y' };
const MUL: Expression = { name: 'mul', f: 'x * y' };
const DIV: Expression = { name: 'div', f: 'x / y' };
const NEG: Expression = { name: 'neg', f: '-x' };

/** An operation of two operands. `gradient`: those of a and b at the result's shape, before broadcasting is undone. */
function binary(
  expression: Expression,
  gradient: readonly [(grad: Tensor, a: Tensor, b: Tensor) => Tensor, (grad: Tensor, a: Tensor, b: Tensor) => Tensor],
  { saves = true, floats = false } = {},
): Operation<readonly [Tensor, Tensor], object, Tensor> {
  const { name } = expression;
  return operation({
    name,
    dtypes: floats ? [] : 'alike',
    shape: ([a, b]) => broadcastShape(name, a.shape, b.shape),
    forward(ctx, [a, b]) {
      if (saves) ctx.save(a, b);
      return evaluate(expression, [a, b]);
    },
    backward(ctx, [grad]) {
      const [a, b] = ctx.saved as [Tensor, Tensor];
      return gradient.map((f, i) => (ctx.needs[i] ? sumTo(f(grad!, a, b), ctx.inputShape(i)) : null));
    },
  });
}

const addOp = binary(ADD, [(grad) => grad, (grad) => grad], { saves: false });
const subOp = binary(SUB, [(grad) => grad, (grad) => evaluate(NEG, [grad])], { saves: false });
const mulOp = binary(MUL, [(grad, _, b) => evaluate(MUL, [grad, b]), (grad, a) => evaluate(MUL, [grad, a])]);
const divOp = binary(DIV, [
  (grad, _, b) => evaluate(DIV, [grad, b]),
  (grad, a, b) => evaluate({ name: 'divGradient', f: '-(x / z) * (y / z)' }, [grad, a, b]),
]);

/** a + b. */
export const add = (a: Tensor, b: Tensor): Tensor => apply(addOp, [a, b], {});
/** a − b. */
export const sub = (a: Tensor, b: Tensor): Tensor => apply(subOp, [a, b], {});
/** a · b. */
export const mul = (a: Tensor, b: Tensor): Tensor => apply(mulOp, [a, b], {});
/** a / b; of integers the quotient towards zero. */
export const div = (a: Tensor, b: Tensor): Tensor => apply(divOp, [a, b], {});

// A tie is halved, as if each operand won every other time: then the gradient of max(x, x) is that of x.
const extremum = (name: string, f: string, wins: string) => {
  const share = `x * select(select(0.0, 0.5, y == z), 1.0, ${wins})`;
  const gradient = { name: `${name}Gradient`, f: share };
  return binary({ name, f }, [
    (grad, a, b) => evaluate(gradient, [grad, a, b]),
    (grad, a, b) => evaluate(gradient, [grad, b, a]),
  ]);
};
const maximumOp = extremum('maximum', 'max(x, y)', 'y > z');
const minimumOp = extremum('minimum', 'min(x, y)', 'y < z');

/** The larger of a and b, either where one is NaN; where they are equal the gradient is halved. */
export const maximum = (a: Tensor, b: Tensor): Tensor => apply(maximumOp, [a, b], {});
/** The smaller of a and b, as `maximum`. */
export const minimum = (a: Tensor, b: Tensor): Tensor => apply(minimumOp, [a, b], {});

// WGSL's pow is undefined for x < 0. NaN is made by its bits: compilers may assume that arithmetic makes none.
const POWER = `
fn power(x: f32, y: f32) -> f32 {
  if (y == 0.0) { return 1.0; }
  if (x == 0.0) { return select(0.0, bitcast<f32>(0x7f800000u + u32(min(abs(y), 0.0))), y < 0.0); }
  let size = pow(abs(x), y);
  if (x > 0.0) { return size; }
  if (y != floor(y)) { return bitcast<f32>(0x7fc00000u + u32(min(abs(y), 0.0))); }
  return select(size, -size, y * 0.5 != floor(y * 0.5));
}`;
const powOp = binary(
  { name: 'pow', f: 'power(x, y)', helpers: [POWER] },
  [
    (grad, a, b) =>
      evaluate({ name: 'powGradient', f: 'select(x * z * power(y, z - 1.0), 0.0, z == 0.0)', helpers: [POWER] }, [
        grad,
        a,
        b,
      ]),
    (grad, a, b) =>
      evaluate(
        {
          name: 'powExponentGradient',
          f: 'select(x * power(y, z) * log(max(y, 1e-38)), 0.0, y == 0.0)',
          helpers: [POWER],
        },
        [grad, a, b],
      ),
  ],
  { floats: true },
);

/** a to the power b. Negative a take whole b (others give NaN); the gradient by b is defined for a ≥ 0. */
export const pow = (a: Tensor, b: Tensor): Tensor => apply(powOp, [a, b], {});

/** 1 where it holds, else 0, as u32; no gradient. */
function comparison(name: string, sign: string): Operation<readonly [Tensor, Tensor], object, Tensor> {
  const expression: Expression = { name, f: `u32(x ${sign} y)`, dtype: 'u32' };
  return operation({
    name,
    dtypes: 'alike',
    shape: ([a, b]) => broadcastShape(name, a.shape, b.shape),
    forward: (_ctx, [a, b]) => evaluate(expression, [a, b]),
    backward: () => [null, null],
  });
}
const equalOp = comparison('equal', '==');
const notEqualOp = comparison('notEqual', '!=');
const lessOp = comparison('less', '<');
const lessEqualOp = comparison('lessEqual', '<=');
const greaterOp = comparison('greater', '>');
const greaterEqualOp = comparison('greaterEqual', '>=');

/** Comparisons give u32: 1 where they hold, else 0. */
export const equal = (a: Tensor, b: Tensor): Tensor => apply(equalOp, [a, b], {});
export const notEqual = (a: Tensor, b: Tensor): Tensor => apply(notEqualOp, [a, b], {});
export const less = (a: Tensor, b: Tensor): Tensor => apply(lessOp, [a, b], {});
export const lessEqual = (a: Tensor, b: Tensor): Tensor => apply(lessEqualOp, [a, b], {});
export const greater = (a: Tensor, b: Tensor): Tensor => apply(greaterOp, [a, b], {});
export const greaterEqual = (a: Tensor, b: Tensor): Tensor => apply(greaterEqualOp, [a, b], {});

// By bits: software adapters may hold that NaN equals itself and that inf − inf is 0.
const isFiniteOp = operation<readonly [Tensor], object>({
  name: 'isFinite',
  shape: ([x]) => x.shape,
  forward: (_ctx, [x]) =>
    evaluate({ name: 'isFinite', f: 'select(0u, 1u, (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u)', dtype: 'u32' }, [
      x,
    ]),
  backward: () => [null],
});

/** 1 (u32) for numbers, 0 for infinities and NaN. */
export const isFinite = (x: Tensor): Tensor => apply(isFiniteOp, [x], {});

const CHOSEN: Expression = { name: 'whereGradient', f: 'select(0.0, x, y != 0u)' };
const NOT_CHOSEN: Expression = { name: 'whereElseGradient', f: 'select(0.0, x, y == 0u)' };
const whereOp = operation<readonly [Tensor, Tensor, Tensor], object>({
  name: 'where',
  dtypes: ['u32', 'alike', 'alike'],
  shape: ([condition, a, b]) => broadcastShape('where', condition.shape, a.shape, b.shape),
  forward(ctx, [condition, a, b]) {
    ctx.save(condition);
    return evaluate({ name: 'where', f: 'select(y, x, z != 0u)' }, [a, b, condition]);
  },
  backward(ctx, [grad]) {
    const [condition] = ctx.saved as [Tensor];
    return [
      null,
      ctx.needs[1] ? sumTo(evaluate(CHOSEN, [grad!, condition]), ctx.inputShape(1)) : null,
      ctx.needs[2] ? sumTo(evaluate(NOT_CHOSEN, [grad!, condition]), ctx.inputShape(2)) : null,
    ];
  },
});

/** a where the condition (u32, as comparisons give it) isn't 0, else b. */
export const where = (condition: Tensor, a: Tensor, b: Tensor): Tensor => apply(whereOp, [condition, a, b], {});

const castOp = operation<readonly [Tensor], { dtype: DType }>({
  name: 'cast',
  dtypes: 'alike',
  shape([x], { dtype }) {
    requireDType('cast', dtype);
    if (isStorageFormat(dtype))
      throw new Error(`[cast] ${dtype} is a storage format: use quantize(device, values, shape, '${dtype}')`);
    return x.shape;
  },
  forward: (_ctx, [x], { dtype }) => evaluate(convert(dtype), [x]),
  backward: (ctx, [grad]) => [evaluate(convert(ctx.inputDType(0)), [grad!], ctx.target(0))],
});

// Below 2⁻¹⁴ quantizeToF16 may give 0, and on software adapters does, where f16 has multiples of 2⁻²⁴ still: small gradients.
const ROUND_TO_F16 = `
fn roundToF16(x: f32) -> f32 {
  return select(quantizeToF16(x), round(x * 0x1p24) * 0x1p-24, abs(x) < 0x1p-14);
}`;

/** In a chain, too, what has been f16 is rounded to it. */
function convert(dtype: DType): Expression {
  if (dtype === 'f16') return { name: 'to_f16', f: 'roundToF16(f32(x))', helpers: [ROUND_TO_F16], dtype };
  const type = dtype === 'i32' || dtype === 'u32' ? dtype : 'f32';
  return { name: `to_${type}`, f: `${type}(x)`, dtype };
}

/**
 * The same values in another dtype: f16 rounds (overflow gives infinity), integers are cut towards zero. f16 is f32 on
 * adapters without it. Between floats it has a gradient, in the input's dtype.
 */
export const cast = (x: Tensor, dtype: DType): Tensor =>
  computedDType(x.device, dtype) === x.dtype ? reshape(x, x.shape) : apply(castOp, [x], { dtype });

const AFFINE = { name: 'affine', f: 'x * alpha + beta' };
const affineOp = operation<readonly [Tensor], { scale: number; shift: number }>({
  name: 'affine',
  shape: ([x]) => x.shape,
  forward: (_ctx, [x], { scale, shift }) => evaluate({ ...AFFINE, alpha: scale, beta: shift }, [x]),
  backward: (ctx, [grad], { scale }) => [scaled(grad!, scale, ctx.target(0))],
});

/** scale · x without a record on the tape, into `target` where it is given: a gradient's last step. */
export const scaled = (x: Tensor, scale: number, target?: Tensor | null): Tensor =>
  evaluate({ name: 'scale', f: 'x * alpha', alpha: scale }, [x], target);

/** scale · x + shift, both numbers of the host. */
export const affine = (x: Tensor, scale: number, shift = 0): Tensor => apply(affineOp, [x], { scale, shift });

const clampOp = operation<readonly [Tensor], { low: number; high: number }>({
  name: 'clamp',
  shape([x], { low, high }) {
    if (!(low <= high)) throw new Error(`[clamp] low must not exceed high, got ${low} and ${high}`);
    return x.shape;
  },
  forward(ctx, [x], { low, high }) {
    ctx.save(x);
    return evaluate({ name: 'clamp', f: 'clamp(x, alpha, beta)', alpha: low, beta: high }, [x]);
  },
  backward: (ctx, [grad], { low, high }) => [
    evaluate(
      { name: 'clampGradient', f: 'select(0.0, x, y >= alpha && y <= beta)', alpha: low, beta: high },
      [grad!, ctx.saved[0]!],
      ctx.target(0),
    ),
  ],
});

/** Limits x to [low, high]; the gradient passes where x lies within. */
export const clamp = (x: Tensor, low: number, high: number): Tensor => apply(clampOp, [x], { low, high });

const accumulateSource = wgsl(import.meta.url, './accumulate.wgsl');

registerAddition({
  add: (a, b) => evaluate(ADD, [a, b]),
  accumulate(target, addend) {
    const kernel = target.device.kernel(accumulateSource, typed(target));
    target.device.run(kernel, [target, addend], { size: target.size }, Math.ceil(target.size / 256));
  },
});
