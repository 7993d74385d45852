// Rotary position embedding: each pair (a, b) of a row's columns turns by position · frequency of the pair,
//
//   (a, b) → scale · (a cos − b sin, a sin + b cos)
//
// HALF pairs column i with column i + pairs, else column 2i with 2i + 1. Columns behind the pairs stay as they are. One
// invocation turns UNIT pairs, or copies as many columns. The gradient turns back: `direction` is −1.
//
// The angle is a product of a position up to 2³¹ and a frequency, of which only the fraction of a turn counts: in f32 it would
// be off by 0.004 at position 131,071. So frequencies come as turns in fixed point, 64 bits behind the point (rope.ts makes
// them), and the product in integers is exact to 2⁻³² turns.
//
// Nothing is shared between invocations: (8, 1024, 64) takes a software adapter 1.1 ms, angles, cosines and all.

#include ../random/turns.wgsl

#if VEC4
alias T = vec4<$T>;
alias F = vec4f;
const UNIT = 4u;
#else
alias T = $T;
alias F = f32;
const UNIT = 1u;
#endif

@group(0) @binding(0) var<storage, read> x: array<T>; // (rows, columns): all but the last dimension are rows
@group(0) @binding(1) var<storage, read> positions: array<i32>; // (batch or 1, length)
@group(0) @binding(2) var<storage, read> turns: array<vec2u>; // (pairs): turns a position · 2⁶⁴, upper and lower word
@group(0) @binding(3) var<storage, read_write> out: array<T>; // like x

struct Params {
  size: u32, // rows · units of a row
  columns: u32, // in T
  pairs: u32,
  length: u32, // positions of a sample
  repeat: u32, // neighbouring rows of one position: heads that come after positions
  sample: u32, // rows of a sample, 0 where all samples have the same positions
  scale: f32,
  direction: f32,
}

// scale · (cos, ± sin) of the angle of a pair.
fn turn(position: u32, pair: u32) -> vec2f {
  let frequency = turns[pair];
  return circle(position * frequency.x + mul_high(position, frequency.y)) * vec2f(1.0, params.direction) * params.scale;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (wg.x + wg.y * groups.x) * 64u + lane;
  if (index >= params.size) { return; }
  let pairs = params.pairs / UNIT;
  let units = params.columns - pairs; // of a row
  let row = index / units;
  let unit = index % units;
  let origin = row * params.columns;
  if (unit >= pairs) {
    let column = origin + unit + pairs;
    out[column] = x[column];
    return;
  }
  var at = row / params.repeat % params.length;
  if (params.sample > 0u) { at += row / params.sample * params.length; }
  let position = u32(positions[at]);
#if HALF
  let first = origin + unit;
  let second = first + pairs;
#else
  let first = origin + 2u * unit;
  let second = first + 1u;
#endif
#if VEC4
  let p = unit * 4u;
  let r0 = turn(position, p);
  let r1 = turn(position, p + 1u);
  let r2 = turn(position, p + 2u);
  let r3 = turn(position, p + 3u);
  let c = vec4f(r0.x, r1.x, r2.x, r3.x);
  let s = vec4f(r0.y, r1.y, r2.y, r3.y);
#if HALF
  let a = F(x[first]);
  let b = F(x[second]);
  out[first] = T(a * c - b * s);
  out[second] = T(a * s + b * c);
#else
  let low = F(x[first]);
  let high = F(x[second]);
  let a = vec4f(low.xz, high.xz);
  let b = vec4f(low.yw, high.yw);
  let u = a * c - b * s;
  let v = a * s + b * c;
  out[first] = T(vec4f(u.x, v.x, u.y, v.y));
  out[second] = T(vec4f(u.z, v.z, u.w, v.w));
#endif
#else
  let r = turn(position, unit);
  let a = F(x[first]);
  let b = F(x[second]);
  out[first] = T(a * r.x - b * r.y);
  out[second] = T(a * r.y + b * r.x);
#endif
}
