import { apply, empty, formatShape, operation, tensor, typed, wgsl } from '../../engine/index.ts';
import type { Device, Tensor } from '../../engine/index.ts';

wgsl(import.meta.url, '../random/turns.wgsl');
const source = wgsl(import.meta.url, './rope.wgsl');

/** base^(−2i / width) for i < width / 2: the frequencies (radians a position) of Su et al.; `ropeTable` takes them. */
export const ropeFrequencies = (width: number, base = 10_000): Float64Array =>
  Float64Array.from({ length: width / 2 }, (_, i) => base ** ((-2 * i) / width));

/**
 * The table that `rope` reads: one frequency (radians a position) for each pair of columns, as u32 (pairs, 2). How positions
 * are scaled (linear, dynamic, YaRN, llama3) is a matter of these numbers.
 */
export function ropeTable(device: Device, frequencies: ArrayLike<number>): Tensor {
  const words = new Uint32Array(2 * frequencies.length);
  for (let i = 0; i < frequencies.length; i++) {
    const frequency = frequencies[i]!;
    if (!Number.isFinite(frequency)) throw new Error(`[rope] frequency ${i} is ${frequency}; it must be finite`);
    // Turns a position: the fraction in fixed point, 64 bits behind the point. Whole turns change nothing.
    const turns = frequency / (2 * Math.PI);
    const upper = (turns - Math.floor(turns)) * 2 ** 32;
    words[2 * i] = Math.floor(upper);
    words[2 * i + 1] = Math.floor((upper - Math.floor(upper)) * 2 ** 32);
  }
  return tensor(device, words, [frequencies.length, 2]);
}

export interface RopeOptions {
  /** Pairs are columns 2i and 2i + 1, as in the paper; by default i and i + pairs, as Llama's weights have them. */
  interleaved?: boolean;
  /** Whether heads come before positions, (B, H, T, D), or after, (B, T, H, D), as with `attention`. */
  layout?: 'bhtd' | 'bthd';
  /** What the turned columns are multiplied by: YaRN's attention factor. */
  scale?: number;
}

type Attributes = Required<RopeOptions>;

function turn(
  x: Tensor,
  positions: Tensor,
  table: Tensor,
  out: Tensor,
  attributes: Attributes,
  direction: 1 | -1,
): void {
  const { interleaved, layout, scale } = attributes;
  const [batch, second, third, columns] = x.shape as [number, number, number, number];
  const [heads, length] = layout === 'bhtd' ? [second, third] : [third, second];
  const pairs = table.shape[0]!;
  const unit = pairs % 4 === 0 && columns % 4 === 0 ? 4 : 1;
  const size = (batch * heads * length * (columns - pairs)) / unit;
  x.device.run(
    x.device.kernel(source, { ...typed(x), HALF: !interleaved, VEC4: unit === 4 }),
    [x, positions, table, out],
    {
      size,
      columns: columns / unit,
      pairs,
      length,
      repeat: layout === 'bhtd' ? 1 : heads,
      sample: positions.shape.length === 2 ? heads * length : 0,
      scale,
      direction,
    },
    Math.ceil(size / 64),
  );
}

const ropeOp = operation<readonly [Tensor, Tensor, Tensor], Attributes>({
  name: 'rope',
  dtypes: ['float', 'i32', 'u32'],
  shape([{ shape }, positions, table], { layout }) {
    const fail = (message: string): never => {
      throw new Error(`[rope] ${message}`);
    };
    if (shape.length !== 4)
      fail(`x must be ${layout === 'bhtd' ? '(B, H, T, D)' : '(B, T, H, D)'}, not ${formatShape(shape)}`);
    const [batch, length] = [shape[0]!, shape[layout === 'bhtd' ? 2 : 1]!];
    const own = positions.shape.length === 2;
    if (positions.shape.at(-1) !== length || (own ? positions.shape[0] !== batch : positions.shape.length !== 1))
      fail(
        `the positions for x ${formatShape(shape)} are ${formatShape([length])} or ${formatShape([batch, length])}, not ${formatShape(positions.shape)}`,
      );
    if (table.shape.length !== 2 || table.shape[1] !== 2)
      fail(`the table is (pairs, 2), as ropeTable makes it, not ${formatShape(table.shape)}`);
    if (2 * table.shape[0]! > shape[3]!)
      fail(`${table.shape[0]} pairs do not fit into the ${shape[3]} columns of x ${formatShape(shape)}`);
    return shape;
  },
  forward(ctx, [x, positions, table], attributes, shape) {
    const out = empty(x.device, shape, x.dtype);
    turn(x, positions, table, out, attributes, 1);
    ctx.save(positions, table);
    return out;
  },
  backward(ctx, [grad], attributes) {
    const [positions, table] = ctx.saved as [Tensor, Tensor];
    const dx = ctx.gradient(0);
    turn(grad!, positions, table, dx, attributes, -1);
    return [dx, null, null];
  },
});

/**
 * Rotary position embedding (Su et al., 2021, "RoFormer"): turns each pair of columns of x by its position times the pair's
 * frequency, exactly for every position below 2³¹. With fewer pairs than half the columns, the last columns stay as they are.
 *
 * @param x (B, H, T, D), or as `layout` says
 * @param positions i32 ≥ 0, (T,) or (B, T)
 * @param table of frequencies, by `ropeTable`
 */
export const rope = (
  x: Tensor,
  positions: Tensor,
  table: Tensor,
  { interleaved = false, layout = 'bhtd', scale = 1 }: RopeOptions = {},
): Tensor => apply(ropeOp, [x, positions, table], { interleaved, layout, scale });
