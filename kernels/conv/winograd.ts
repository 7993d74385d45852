/**
 * 3×3 convolutions with 2.25 times fewer multiplications: F(2×2, 3×3) of Winograd's minimal filtering, as A. Lavin and S. Gray
 * nest it for convolutions ("Fast Algorithms for Convolutional Neural Networks", 2016):
 *
 *   Y = Aᵀ [ Σ over channels of (G g Gᵀ) ⊙ (Bᵀ d B) ] A
 *
 * for each tile of 2×2 results, from a 4×4 tile d of the picture and the 3×3 filter g. For each of the 16 places of a tile
 * the sum over channels is a matrix product of its own: U (rows, channels) · V (channels, tiles). So it takes three
 * transforms around sixteen products, which are the product's own kernels. The gradient by inputs is a convolution with
 * the filters turned; the gradient by weights is the adjoint of the same three steps.
 *
 * V and M are four times as large as the picture and the results; they are f32 whatever the tensors are. The transforms add
 * and halve only, and a product's sums have nine times fewer terms, so that nothing is lost: normal values, relative to the
 * largest of float64, 96 channels 16×16 and 192 channels 8×8: forward 2.3e-7 and 3.2e-7 (directly 5.2e-7 and 9.8e-7), by
 * inputs 2.0e-7 and 2.5e-7 (7.0e-7, 6.5e-7), by weights 2.4e-7 and 2.5e-7 (2.8e-7, 2.4e-7). Errors are
 * relative to the largest pixels of a tile, which a result's own window may not see; a pixel that is not finite makes its
 * whole tile so.
 *
 * Software adapter, GFLOP/s counted as a direct convolution's, forward, by inputs, by weights (directly in brackets):
 * 8×96×16² → 96: 70, 82, 90 (41, 42, 36); 8×192×8² → 192: 82, 92, 88 (41, 43, 30); 8×48×16² → 48: 44, 46, 44 (29, 31, 31);
 * 8×32×16² → 32: 42, 40, 49 (38, 40, 38); with 16 channels it is no faster. On a GPU it has not been measured.
 */
import { empty, scope, typed, wgsl } from '../../engine/index.ts';
import type { Tensor } from '../../engine/index.ts';
import { multiply } from '../matmul/product.ts';
import type { Geometry } from './geometry.ts';
import { addParts } from './parts.ts';

const inputSource = wgsl(import.meta.url, './winograd_input.wgsl');
const filterSource = wgsl(import.meta.url, './winograd_filter.wgsl');
const outputSource = wgsl(import.meta.url, './winograd_output.wgsl');

/** Elements of U, V or M at once: 64 MiB. */
const LIMIT = 2 ** 24;

/** Tiles of one sample. */
const tilesOf = (g: Geometry): number => Math.ceil(g.oh / 2) * Math.ceil(g.ow / 2);

/**
 * Whether the transforms apply and pay, by the shape of one sample: they take as long as the products do where there are
 * few channels; the products' tiles lie empty where there are few pixels (2×2 loses whatever the batch); and much memory is
 * needed where there are many pixels or channels.
 */
export function suitsWinograd(g: Geometry): boolean {
  return (
    g.kh === 3 &&
    g.kw === 3 &&
    g.groups * g.stride_y * g.stride_x * g.dilation_y * g.dilation_x === 1 &&
    Math.min(g.channels, g.rows) >= 32 &&
    g.channels % 4 === 0 &&
    g.rows % 4 === 0 &&
    tilesOf(g) >= 4 &&
    16 * Math.max(g.channels * g.rows, Math.max(g.channels, g.rows) * (tilesOf(g) + 3)) <= LIMIT
  );
}

/** Samples whose V and M are there at once, and how their tiles lie: what the transforms are told. */
type Chunk = {
  first: number;
  samples: number;
  down: number; // tiles in a column of a picture
  across: number; // tiles in a row
  tiles: number; // samples · down · across, rounded up to fours
};

function chunksOf(g: Geometry): Chunk[] {
  const down = Math.ceil(g.oh / 2);
  const across = Math.ceil(g.ow / 2);
  const most = Math.floor((LIMIT / 16 / Math.max(g.channels, g.rows) - 3) / (down * across));
  const chunks: Chunk[] = [];
  for (let first = 0; first < g.batch; first += most) {
    const samples = Math.min(most, g.batch - first);
    chunks.push({ first, samples, down, across, tiles: Math.ceil((samples * down * across) / 4) * 4 });
  }
  return chunks;
}

const groupsFor = (quads: number): number => Math.ceil(quads / 64);

function transformInput(g: Geometry, x: Tensor, chunk: Chunk): Tensor {
  const { device } = x;
  const v = empty(device, [16, g.channels, chunk.tiles]);
  const quad = g.left === 1 && g.w === 2 * chunk.across && chunk.across % 4 === 0;
  const { channels, h, w, top, left } = g;
  const kernel = device.kernel(inputSource, { ...typed(x), QUAD: quad });
  device.run(kernel, [x, v], { ...chunk, channels, h, w, top, left }, groupsFor((channels * chunk.tiles) / 4));
  return v;
}

/** Results from M, or M's gradient from theirs. */
function transformOutput(
  g: Geometry,
  m: Tensor,
  out: Tensor,
  chunk: Chunk,
  bias: Tensor | null,
  gradient: boolean,
): void {
  const { device } = out;
  const quad = g.ow === 2 * chunk.across && chunk.across % 4 === 0;
  const type = typed(out);
  const defines = { ...type, PIXELS: quad ? `vec4<${String(type['T'])}>` : type['T']!, QUAD: quad };
  const kernel = device.kernel(outputSource, { ...defines, BIAS: bias !== null, GRADIENT: gradient });
  const tensors = gradient ? [out, m] : bias ? [m, out, bias] : [m, out];
  const { rows, oh, ow } = g;
  device.run(kernel, tensors, { ...chunk, rows, oh, ow }, groupsFor((rows * chunk.tiles) / 4));
}

/** out = x ⋆ weight + bias. `turned`: the weight lies as (channels, rows, 3, 3), and its filters are turned by 180°. */
export function winogradProduct(
  g: Geometry,
  x: Tensor,
  weight: Tensor,
  out: Tensor,
  bias: Tensor | null,
  turned: boolean,
): void {
  const { device } = x;
  const quads = (g.rows * g.channels) / 4;
  const u = empty(device, [16, g.rows, g.channels]);
  device.run(device.kernel(filterSource, { ...typed(weight), FLIP: turned, GRADIENT: false }), [weight, u], { quads }, groupsFor(quads)); // prettier-ignore
  for (const chunk of chunksOf(g))
    scope(device, () => {
      const v = transformInput(g, x, chunk);
      const m = empty(device, [16, g.rows, chunk.tiles]);
      multiply(u, v, m, { m: g.rows, n: chunk.tiles, k: g.channels, batch: 16, transposeA: turned });
      transformOutput(g, m, out, chunk, bias, false);
    });
}

/** The gradient of out = x ⋆ weight by its weight, from that of its result. */
export function winogradWeight(g: Geometry, x: Tensor, grad: Tensor, out: Tensor): void {
  const { device } = x;
  const quads = (g.rows * g.channels) / 4;
  const chunks = chunksOf(g);
  const parts = chunks.length === 1 ? out : empty(device, [chunks.length, ...out.shape]);
  const kernel = device.kernel(filterSource, { ...typed(parts), GRADIENT: true });
  chunks.forEach((chunk, part) =>
    scope(device, () => {
      const v = transformInput(g, x, chunk);
      const m = empty(device, [16, g.rows, chunk.tiles]);
      transformOutput(g, m, grad, chunk, null, true);
      const u = empty(device, [16, g.rows, g.channels]);
      multiply(m, v, u, { m: g.rows, n: g.channels, k: chunk.tiles, batch: 16, transposeB: true });
      device.run(kernel, [u, parts], { quads, part }, groupsFor(quads));
    }),
  );
  if (parts !== out) addParts(parts, out);
}
