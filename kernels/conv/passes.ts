/** The three passes over a convolution: forward, backward to its picture, and by its weight; which kernels compute each. */
import { empty, typed, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { multiply, roundsFor } from '../matmul/product.ts';
import { variant } from '../variants.ts';
import { reversed } from './geometry.ts';
import type { Geometry } from './geometry.ts';
import { addParts } from './parts.ts';
import { suitsWinograd, winogradProduct, winogradWeight } from './winograd.ts';

wgsl(import.meta.url, './geometry.wgsl'); // which all of these include
const tiledProduct = wgsl(import.meta.url, './conv2d.wgsl');
const tiledWeight = wgsl(import.meta.url, './conv2d_weight.wgsl');
const subgroupProduct = wgsl(import.meta.url, './conv2d_subgroup.wgsl');
const subgroupWeight = wgsl(import.meta.url, './conv2d_weight_subgroup.wgsl');
const narrowProduct = wgsl(import.meta.url, './conv2d_narrow.wgsl');

/** A 1×1 window that sees every pixel once is a matrix product of the weight and the picture (channels, pixels). */
const pointwise = (g: Geometry): boolean =>
  g.groups * g.kh * g.kw * g.stride_y * g.stride_x === 1 && g.oh === g.h && g.ow === g.w;

const winograd = (g: Geometry, { device }: Tensor): boolean =>
  suitsWinograd(g) && variant(device, 'conv2d 3×3') === 'winograd';

/** Groups that would leave most of a tile empty. Depthwise convolutions have as many groups as channels. */
const narrow = (g: Geometry): boolean => g.groups > 1 && g.channels * g.rows <= 4;

/** Workgroups of tiles that cover `rows` × `columns` of each group. */
const cover = (g: Geometry, columns: number, down: number, across: number): number =>
  g.groups * Math.ceil(g.rows / down) * Math.ceil(columns / across);

/** The side of a tile for workgroup memory, by one sample's columns: the smaller one where 64 leave a GPU little to do. */
const tileFor = (g: Geometry, columns: number): 64 | 32 => (cover(g, columns, 64, 64) >= 16 ? 64 : 32);

function subgroupDefines(g: Geometry, subgroupSize: number) {
  const rounds = roundsFor(g.rows, subgroupSize);
  return { rounds, defines: { SUBGROUPS: true, SUBGROUP: `${subgroupSize}u`, ROUNDS: `${rounds}u` } };
}

/** With `transposed` every phase of the stride is a product of its own, all of as many positions. */
function product(g: Geometry, x: Tensor, weight: Tensor, out: Tensor, bias: Tensor | null, transposed: boolean): void {
  const { device } = x;
  const { subgroupSize } = device.profile;
  const tensors = bias ? [x, weight, out, bias] : [x, weight, out];
  const variants = { ...typed(x), TRANSPOSED: transposed, BIAS: bias !== null };
  const phases = transposed ? g.stride_y * g.stride_x : 1;
  const [high, wide] = transposed ? [Math.ceil(g.oh / g.stride_y), Math.ceil(g.ow / g.stride_x)] : [g.oh, g.ow];
  const area = high * wide;
  if (narrow(g)) {
    const threads = g.batch * g.groups * g.rows * phases * high * Math.ceil(wide / 4);
    device.run(device.kernel(narrowProduct, variants), tensors, g, Math.ceil(threads / 64));
    return;
  }
  if (variant(device, 'conv2d') === 'subgroup') {
    const { rounds, defines } = subgroupDefines(g, subgroupSize);
    const kernel = device.kernel(subgroupProduct, { ...variants, ...defines });
    device.run(kernel, tensors, g, phases * cover(g, g.batch * area, 4 * rounds, 4 * subgroupSize));
  } else {
    const tile = tileFor(g, phases * area);
    const kernel = device.kernel(tiledProduct, { ...variants, TILE: `${tile}u` });
    device.run(kernel, tensors, g, phases * cover(g, g.batch * area, tile, tile));
  }
}

/** A GPU with fewer workgroups than this is idle in part: the weight's gradient is split into parts of so many positions. */
const FEW = 64;
const POSITIONS = 1024;

function weightProduct(g: Geometry, x: Tensor, grad: Tensor, out: Tensor): void {
  const { device } = x;
  const { subgroupSize } = device.profile;
  const columns = g.channels * g.kh * g.kw;
  if (variant(device, 'conv2d weight') === 'subgroup') {
    const { rounds, defines } = subgroupDefines(g, subgroupSize);
    const kernel = device.kernel(subgroupWeight, { ...typed(x), ...defines });
    device.run(kernel, [x, grad, out], g, cover(g, columns, 4 * rounds, 4 * subgroupSize));
    return;
  }
  const tile = tileFor(g, columns);
  const tiles = cover(g, columns, tile, tile);
  if (tiles >= FEW) {
    const kernel = device.kernel(tiledWeight, {
      ...typed(x),
      OUT: typed(out)['T']!,
      TILE: `${tile}u`,
      PARTS: false,
    });
    device.run(kernel, [x, grad, out], g, tiles);
  } else {
    const each = Math.ceil((g.oh * g.ow) / POSITIONS); // parts of a sample
    const parts = empty(device, [g.batch * each, ...out.shape]);
    const kernel = device.kernel(tiledWeight, { ...typed(x), OUT: 'f32', TILE: `${tile}u`, PARTS: true });
    device.run(kernel, [x, grad, parts], g, [tiles, 1, g.batch * each]);
    addParts(parts, out);
  }
}

/** The convolution: x (batch, in, h, w) → out (batch, out, oh, ow). */
export function forward(g: Geometry, x: Tensor, weight: Tensor, out: Tensor, bias: Tensor | null): void {
  if (pointwise(g))
    multiply(weight, x, out, {
      m: g.rows,
      n: g.h * g.w,
      k: g.channels,
      batch: g.batch,
      sharedA: true,
      bias: bias ? { values: bias, along: 'column' } : undefined,
    });
  else if (winograd(g, x)) winogradProduct(g, x, weight, out, bias, false);
  else product(g, x, weight, out, bias, false);
}

/** Its adjoint, to the picture: y (batch, out, oh, ow) → out (batch, in, h, w). A transposed convolution's forward pass. */
export function backwardToInput(g: Geometry, y: Tensor, weight: Tensor, out: Tensor, bias: Tensor | null): void {
  const back = reversed(g);
  if (pointwise(g))
    multiply(weight, y, out, {
      m: g.channels,
      n: g.h * g.w,
      k: g.rows,
      batch: g.batch,
      transposeA: true,
      sharedA: true,
      bias: bias ? { values: bias, along: 'column' } : undefined,
    });
  // With a stride of 1 it is a convolution with the filters turned.
  else if (winograd(back, y))
    winogradProduct({ ...back, top: 2 - g.top, left: 2 - g.left }, y, weight, out, bias, true);
  else product(back, y, weight, out, bias, true);
}

/**
 * The gradient by the weight, from the picture x and the gradient of the results. Where it is a matrix product, `rowSum` (the
 * gradient of the bias) is taken along; returns whether it was.
 */
export function backwardToWeight(g: Geometry, x: Tensor, grad: Tensor, out: Tensor, rowSum: Tensor | null): boolean {
  if (pointwise(g)) {
    const terms = { m: g.rows, n: g.channels, k: g.h * g.w, sum: g.batch };
    multiply(grad, x, out, { ...terms, transposeB: true, rowSum: rowSum ?? undefined });
    return true;
  }
  if (winograd(g, x)) winogradWeight(g, x, grad, out);
  else weightProduct(g, x, grad, out);
  return false;
}
