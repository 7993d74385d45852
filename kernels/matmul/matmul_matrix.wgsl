// C = Σ op(A) · op(B) (+ bias) in f16 by matrices of a subgroup ("tensor cores"): f16 is multiplied and added in f32, as sums
// in f16 overflow past 65,504 and lose digits long before.
//
// Its speed is unknown: no adapter at hand has the feature. Dawn's front end accepts it, and its arithmetic holds where the
// matrices are emulated (test/kernels/matmul_matrix.test.ts).
//
// The adapter says which M×K times K×N it multiplies; nothing of that is written in here. Eight subgroups, 2 down and 4
// across, make a tile of C: each 4 by 2 matrices, which for 16×16×16 is 128×128. In each step of 32 k (or K, where that is
// more) all invocations copy a piece of A and of B into workgroup memory as it lies, by vec4: an operand that lies the other
// way is read by columns when its matrices are loaded, and nothing is transposed. Rows of the pieces are 16 bytes longer than
// they need be, against bank conflicts. Past the edges zeros are staged.
//
// A subgroup can't convert or bound what it stores, so results go through workgroup memory, a matrix of each subgroup at a
// time; there the bias is added. Rows of both operands and of C are whole vec4s.

enable chromium_experimental_subgroup_matrix;

#include ./product.wgsl

const M: u32 = $M;
const N: u32 = $N;
const K: u32 = $K;
const SUBGROUP: u32 = $SUBGROUP;
const DOWN = 2u; // subgroups of a workgroup
const ACROSS = 4u;
const MATRICES_M = 4u; // of a subgroup
const MATRICES_N = 2u;
const TILE_M = DOWN * MATRICES_M * M;
const TILE_N = ACROSS * MATRICES_N * N;
const DEPTH = max(32u, K);
const THREADS = DOWN * ACROSS * SUBGROUP;

// The pieces as they lie: rows, and how far apart they are.
#if TRANSPOSE_A
const ROWS_A = DEPTH;
const LENGTH_A = TILE_M;
#else
const ROWS_A = TILE_M;
const LENGTH_A = DEPTH;
#endif
#if TRANSPOSE_B
const ROWS_B = TILE_N;
const LENGTH_B = DEPTH;
#else
const ROWS_B = DEPTH;
const LENGTH_B = TILE_N;
#endif
const STRIDE_A = LENGTH_A + 8u;
const STRIDE_B = LENGTH_B + 8u;

var<workgroup> tile_a: array<f16, ROWS_A * STRIDE_A>;
var<workgroup> tile_b: array<f16, ROWS_B * STRIDE_B>;
var<workgroup> results: array<f32, DOWN * ACROSS * M * N>; // a matrix of each subgroup

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let across = (params.n + TILE_N - 1u) / TILE_N;
  let down = (params.m + TILE_M - 1u) / TILE_M;
  let group = wg.x + wg.y * groups.x;
  if (group >= across * down * params.batch) { return; }
  let row = (group / across) % down * TILE_M;
  let col = group % across * TILE_N;
  let item = group / (across * down);
  let down_at = subgroup / ACROSS * MATRICES_M * M; // this subgroup's part of the tile
  let across_at = subgroup % ACROSS * MATRICES_N * N;

  var acc: array<subgroup_matrix_result<f32, N, M>, MATRICES_M * MATRICES_N>;
#if ROW_SUM
  var total = 0.0; // of row `thread` of the tile
#endif
  for (var product = item * params.sum; product < (item + 1u) * params.sum; product++) {
    let start_a = params.a_at + product * params.a_step;
    let start_b = params.b_at + product * params.b_step;
    for (var k = 0u; k < params.k; k += DEPTH) {
      for (var i = thread; i < ROWS_A * LENGTH_A / 4u; i += THREADS) {
        let r = i / (LENGTH_A / 4u);
        let c = i % (LENGTH_A / 4u) * 4u;
#if TRANSPOSE_A
        let inside = k + r < params.k && row + c < params.m;
        let at = start_a + (k + r) * params.a_row + row + c;
#else
        let inside = row + r < params.m && k + c < params.k;
        let at = start_a + (row + r) * params.a_row + k + c;
#endif
        var values = vec4<f16>();
        if (inside) { values = a[at / 4u]; }
        for (var j = 0u; j < 4u; j++) { tile_a[r * STRIDE_A + c + j] = values[j]; }
      }
      for (var i = thread; i < ROWS_B * LENGTH_B / 4u; i += THREADS) {
        let r = i / (LENGTH_B / 4u);
        let c = i % (LENGTH_B / 4u) * 4u;
#if TRANSPOSE_B
        let inside = col + r < params.n && k + c < params.k;
        let at = start_b + (col + r) * params.b_row + k + c;
#else
        let inside = k + r < params.k && col + c < params.n;
        let at = start_b + (k + r) * params.b_row + col + c;
#endif
        var values = vec4<f16>();
        if (inside) { values = b[at / 4u]; }
        for (var j = 0u; j < 4u; j++) { tile_b[r * STRIDE_B + c + j] = values[j]; }
      }
      workgroupBarrier();
      for (var s = 0u; s < DEPTH; s += K) {
        var right: array<subgroup_matrix_right<f16, N, K>, MATRICES_N>;
        for (var j = 0u; j < MATRICES_N; j++) {
#if TRANSPOSE_B
          right[j] = subgroupMatrixLoad<subgroup_matrix_right<f16, N, K>, col_major>(&tile_b, (across_at + j * N) * STRIDE_B + s, STRIDE_B);
#else
          right[j] = subgroupMatrixLoad<subgroup_matrix_right<f16, N, K>, row_major>(&tile_b, s * STRIDE_B + across_at + j * N, STRIDE_B);
#endif
        }
        for (var i = 0u; i < MATRICES_M; i++) {
#if TRANSPOSE_A
          let left = subgroupMatrixLoad<subgroup_matrix_left<f16, K, M>, col_major>(&tile_a, s * STRIDE_A + down_at + i * M, STRIDE_A);
#else
          let left = subgroupMatrixLoad<subgroup_matrix_left<f16, K, M>, row_major>(&tile_a, (down_at + i * M) * STRIDE_A + s, STRIDE_A);
#endif
          for (var j = 0u; j < MATRICES_N; j++) {
            acc[i * MATRICES_N + j] = subgroupMatrixMultiplyAccumulate(left, right[j], acc[i * MATRICES_N + j]);
          }
        }
      }
#if ROW_SUM
      if (col == 0u && thread < TILE_M) {
        for (var s = 0u; s < DEPTH; s++) {
#if TRANSPOSE_A
          total += f32(tile_a[s * STRIDE_A + thread]);
#else
          total += f32(tile_a[thread * STRIDE_A + s]);
#endif
        }
      }
#endif
      workgroupBarrier(); // before the next step's pieces
    }
  }

  for (var i = 0u; i < MATRICES_M; i++) {
    for (var j = 0u; j < MATRICES_N; j++) {
      subgroupMatrixStore<row_major>(&results, subgroup * M * N, acc[i * MATRICES_N + j], N);
      workgroupBarrier();
      for (var q = lane * 4u; q < M * N; q += SUBGROUP * 4u) {
        let at = subgroup * M * N + q;
        let at_row = row + down_at + i * M + q / N;
        let at_col = col + across_at + j * N + q % N;
        if (at_row >= params.m || at_col >= params.n) { continue; }
        var sums = vec4f(results[at], results[at + 1u], results[at + 2u], results[at + 3u]);
#if BIAS
#if BIAS_COLUMN
        sums += f32(bias[params.vector_at + at_row]);
#else
        let c = params.vector_at + at_col;
        sums += vec4f(f32(bias[c]), f32(bias[c + 1u]), f32(bias[c + 2u]), f32(bias[c + 3u]));
#endif
#endif
        store(params.out_at + item * params.out_step + at_row * params.out_row + at_col, 4u, sums);
      }
      workgroupBarrier(); // before the next matrices
    }
  }
#if ROW_SUM
  if (col == 0u && thread < TILE_M && row + thread < params.m) { store_row_sum(row + thread, total); }
#endif
}
