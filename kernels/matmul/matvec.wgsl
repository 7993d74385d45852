// C = A · Bᵀ (+ bias) where A has few rows: decoding a token is y = W · x, and what it costs is reading W once.
//
// A workgroup makes four columns of C for one row or up to four: its lanes walk k together, four elements each, so that they
// read four rows of B as they lie; A's rows, which all workgroups share, stay in the cache. A lane keeps four partial sums
// (k modulo 4) of each element; they are added at the end, then the lanes', by the subgroup or, without subgroups, by a
// tree in workgroup memory. What a row of C adds up to, in which order, doesn't depend on the rows beside it.
//
// Software adapter, (2048, 2048), in turn with tiles, GFLOP/s: one row in f32 2.6 (tiles 1.6), f16 3.8 (2.2), bf16 4.2 (2.4),
// q8 3.4 (2.2), q4 3.4 (2.2), on a busy machine; f32 4.7 on a calmer one. Four rows: 5.4 (7.1), as an address that differs by
// lane is dear there and each row of A needs its own; so tiles do it. On a GPU, unmeasured, it is expected to be bound by
// memory up to four rows.

#include ./product.wgsl

const LANES: u32 = $LANES;

#if !SUBGROUPS
var<workgroup> partial: array<vec4f, LANES>;
#endif

// The sum over the lanes, in one of them at least: the first.
fn sum_lanes(value: vec4f, lane: u32) -> vec4f {
#if SUBGROUPS
  return subgroupAdd(value);
#else
  workgroupBarrier(); // the result before has been read
  partial[lane] = value;
  workgroupBarrier();
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    if (lane < reach) { partial[lane] += partial[lane + reach]; }
    workgroupBarrier();
  }
  return partial[0];
#endif
}

fn multiply_add(x: vec4f, y: mat4x4f, sums: mat4x4f) -> mat4x4f {
  return mat4x4f(fma(x, y[0], sums[0]), fma(x, y[1], sums[1]), fma(x, y[2], sums[2]), fma(x, y[3], sums[3]));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let across = (params.n + 3u) / 4u;
  let down = (params.m + $ROWS - 1u) / $ROWS;
  let group = wg.x + wg.y * groups.x;
  if (group >= across * down * params.batch) { return; }
  let row = (group / across) % down * $ROWS;
  let col = group % across * 4u;
  let item = group / (across * down);
  let next = vec4u(0u, 1u, 2u, 3u);
  let r = (params.a_at + item * params.a_step + min(row + next, vec4u(params.m - 1u)) * params.a_row) / 4u;
  let c = (params.b_at + item * params.b_step + min(col + next, vec4u(params.n - 1u)) * params.b_row) / 4u;

  var sums: array<mat4x4f, $ROWS>; // (row, column, k modulo 4)
  for (var i = lane; i < params.k / 4u; i += LANES) {
    let y = mat4x4f(load_b(c.x + i), load_b(c.y + i), load_b(c.z + i), load_b(c.w + i));
    for (var j = 0u; j < $ROWS; j++) { sums[j] = multiply_add(load_a(r[j] + i), y, sums[j]); }
  }

  var offset = vec4f();
#if BIAS
  let q = params.vector_at + min(col + next, vec4u(params.n - 1u));
  offset = vec4f(f32(bias[q.x]), f32(bias[q.y]), f32(bias[q.z]), f32(bias[q.w]));
#endif
  let at = params.out_at + item * params.out_step + row * params.out_row + col;
  for (var j = 0u; j < $ROWS; j++) {
    let sum = sum_lanes(vec4f(1.0) * sums[j], lane);
    if (lane == 0u && row + j < params.m) { store(at + j * params.out_row, min(4u, params.n - col), sum + offset); }
  }
}
