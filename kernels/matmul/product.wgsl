// What the kernels of matrix products share, each of which includes this text: bindings and parameters.
//
// An operand lies row by row, whichever dimension of the product its rows are: A as (m, k), or as (k, m) with TRANSPOSE_A;
// B as (k, n), or as (n, k) with TRANSPOSE_B.
// VEC4_A, VEC4_B, VEC4_OUT: its rows are whole vec4s, as those of every storage format are.

#if VEC4_A
$A
#else
@group(0) @binding(0) var<storage, read> a: array<$T_A>;
#endif
#if VEC4_B
$B
#else
@group(0) @binding(1) var<storage, read> b: array<$T_B>;
#endif
#if VEC4_OUT
@group(0) @binding(2) var<storage, read_write> out: array<vec4<$T>>;
#else
@group(0) @binding(2) var<storage, read_write> out: array<$T>;
#endif
#if BIAS
@group(0) @binding($VECTOR) var<storage, read> bias: array<$T>; // (n), or (m) with BIAS_COLUMN
#endif
#if ROW_SUM
@group(0) @binding($VECTOR) var<storage, read_write> row_sum: array<$T>; // (m): Σ over k (and over the products) of op(A)
#endif

struct Params {
  m: u32,
  n: u32,
  k: u32,
  batch: u32,
  sum: u32, // products added into one result
  a_at: u32, // where A begins in its binding; all of these in elements
  a_row: u32, // from one of its rows to the next, as it lies
  a_step: u32, // from one product's A to the next one's; 0 where it is shared
  b_at: u32,
  b_row: u32,
  b_step: u32,
  out_at: u32,
  out_row: u32,
  out_step: u32,
  vector_at: u32, // where this part of the bias, or of the row sums, begins
}

// Stores the first `count` of four neighbours; all four with VEC4_OUT. ADD: adds them to what stands there.
fn store(at: u32, count: u32, sums: vec4f) {
#if VEC4_OUT
#if ADD
  out[at / 4u] = vec4<$T>(vec4f(out[at / 4u]) + sums);
#else
  out[at / 4u] = vec4<$T>(sums);
#endif
#else
  for (var i = 0u; i < count; i++) {
#if ADD
    out[at + i] = $T(f32(out[at + i]) + sums[i]);
#else
    out[at + i] = $T(sums[i]);
#endif
  }
#endif
}

#if ROW_SUM
fn store_row_sum(row: u32, total: f32) {
  let at = params.vector_at + row;
#if ADD
  row_sum[at] = $T(f32(row_sum[at]) + total);
#else
  row_sum[at] = $T(total);
#endif
}
#endif
