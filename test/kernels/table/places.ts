import { sizeOf } from '../../../engine/index.ts';
import type { HostRandom, Shape } from '../../../engine/index.ts';
import type { NdArray } from '../row.ts';

/** Where index `i` of a row-major array of `shape` lies along each axis. */
export function placeOf(shape: Shape, i: number): number[] {
  return shape.map((extent, k) => Math.floor(i / sizeOf(shape.slice(k + 1))) % extent);
}

/** The index of a place. */
export const indexOf = (shape: Shape, place: readonly number[]): number =>
  place.reduce((index, position, k) => index * shape[k]! + position, 0);

export const at = ({ shape, data }: NdArray, place: readonly number[]): number => data[indexOf(shape, place)]!;

/** `place` with another position along an axis. */
export const moved = (place: readonly number[], axis: number, position: number): number[] =>
  place.map((own, k) => (k === axis ? position : own));

/** `shape` with another extent along an axis. */
export const resized = (shape: Shape, axis: number, extent: number): number[] => moved(shape, axis, extent);

export const fromEnd = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);

/** Whole numbers, some of them alike: read as f32, these bits are subnormal or NaN. */
export const whole = (shape: Shape) => ({
  shape,
  dtype: 'i32' as const,
  value: (random: HostRandom) => random.below(99) - 9,
});

/** Values of which no two lie within 0.01 of each other (of up to 1009), so that a small change leaves their order as it is. */
export const apart = (shape: Shape) => ({
  shape,
  value: (random: HostRandom, i: number) => ((i * 7919) % 1009) / 64 - 8 + random.below(256) / 2 ** 16,
});
