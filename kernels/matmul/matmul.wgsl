// C = Σ op(A) · op(B) (+ bias) for adapters with fast workgroup memory. Its speed on a GPU has not been measured yet; on a
// software adapter 512³ runs at 7.4 GFLOP/s, against 47 of matmul_subgroup.wgsl.
//
// A workgroup makes a square tile of C: 64×64 by 16×8 threads, each 8 rows × 4 columns in registers; or, where that makes
// fewer than 16 workgroups, 32×32 by 8×8 threads of 4×4, so that small products still spread over a GPU (elsewhere that
// took a training step from 44 to 33 ms). In each step of 32 k every thread loads just one 4×4 block of A and one of B,
// neighbouring threads along the dimension in which the operand is contiguous, and stages both in workgroup memory with k
// outermost. Then, for each k, it reads its rows and its columns as two or three vec4, for 16 or 32 multiply-adds.
//
// Quads of a staged row change places: quad q of row k lies at q xor (k / 4). The eight threads that store blocks of one
// quad of rows, one for each quad of k, hit different banks so, and threads that read share their k and hit different
// banks anyway. Padding the rows can't do that, as blocks are four rows apart, and would need more than the 16 KiB that
// every adapter has.
//
// Every sum runs over k in order, by `fma`, whatever the tile: which of them it is may follow from the batch.

#include ./product.wgsl
#include ./blocks.wgsl

const TILE: u32 = $TILE; // 64 or 32
const QUADS = TILE / 4u;
const DEPTH = 32u;
const BLOCKS = TILE / 32u; // of four rows, to a thread

var<workgroup> tile_a: array<array<vec4f, QUADS>, DEPTH>; // (k, four rows)
var<workgroup> tile_b: array<array<vec4f, QUADS>, DEPTH>; // (k, four columns)

@compute @workgroup_size(2u * TILE)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let across = (params.n + TILE - 1u) / TILE;
  let down = (params.m + TILE - 1u) / TILE;
  let group = wg.x + wg.y * groups.x;
  if (group >= across * down * params.batch) { return; }
  let row = (group / across) % down * TILE;
  let col = group % across * TILE;
  let item = group / (across * down);

  // The blocks that this thread loads: quads of rows or columns, and of k.
#if TRANSPOSE_A
  let ra = thread % QUADS; let ka = thread / QUADS;
#else
  let ra = thread / 8u; let ka = thread % 8u;
#endif
#if TRANSPOSE_B
  let cb = thread / 8u; let kb = thread % 8u;
#else
  let cb = thread % QUADS; let kb = thread / QUADS;
#endif
  // What it computes: quads of rows and of columns.
  let r = thread / QUADS * BLOCKS;
  let c = thread % QUADS;

  var acc0: array<vec4f, BLOCKS>; // row 4·r + 4·l
  var acc1: array<vec4f, BLOCKS>; // row 4·r + 4·l + 1
  var acc2: array<vec4f, BLOCKS>;
  var acc3: array<vec4f, BLOCKS>;
#if ROW_SUM
  var total: array<vec4f, BLOCKS>;
#endif
  for (var product = item * params.sum; product < (item + 1u) * params.sum; product++) {
    let start_a = params.a_at + product * params.a_step;
    let start_b = params.b_at + product * params.b_step;
    for (var k = 0u; k < params.k; k += DEPTH) {
      var x = mat4x4f(); // Dawn zeroes what is only declared once, not in each round
      var y = mat4x4f();
      if (k + 4u * ka < params.k) { x = transpose(block_a(start_a, row + 4u * ra, k + 4u * ka)); }
      if (k + 4u * kb < params.k) { y = block_b(start_b, k + 4u * kb, col + 4u * cb); }
      workgroupBarrier(); // the step before has been read
      for (var i = 0u; i < 4u; i++) {
        tile_a[4u * ka + i][ra ^ ka] = x[i];
        tile_b[4u * kb + i][cb ^ kb] = y[i];
      }
      workgroupBarrier();
      for (var i = 0u; i < DEPTH; i++) {
        let columns = tile_b[i][c ^ (i / 4u)];
        for (var l = 0u; l < BLOCKS; l++) {
          let rows = tile_a[i][(r + l) ^ (i / 4u)];
          acc0[l] = fma(vec4f(rows.x), columns, acc0[l]);
          acc1[l] = fma(vec4f(rows.y), columns, acc1[l]);
          acc2[l] = fma(vec4f(rows.z), columns, acc2[l]);
          acc3[l] = fma(vec4f(rows.w), columns, acc3[l]);
#if ROW_SUM
          total[l] += rows;
#endif
        }
      }
    }
  }

  let at_col = col + 4u * c;
  let count = min(4u, params.n - min(at_col, params.n));
  var offset = vec4f();
#if BIAS
#if !BIAS_COLUMN
  let q = params.vector_at + min(at_col + vec4u(0u, 1u, 2u, 3u), vec4u(params.n - 1u));
  offset = vec4f(f32(bias[q.x]), f32(bias[q.y]), f32(bias[q.z]), f32(bias[q.w]));
#endif
#endif
  for (var l = 0u; l < BLOCKS; l++) {
    let sums = array(acc0[l], acc1[l], acc2[l], acc3[l]);
    for (var i = 0u; i < 4u; i++) {
      let at_row = row + 4u * (r + l) + i;
      if (at_row >= params.m) { continue; }
#if BIAS_COLUMN
      offset = vec4f(f32(bias[params.vector_at + at_row]));
#endif
      if (count > 0u) { store(params.out_at + item * params.out_step + at_row * params.out_row + at_col, count, sums[i] + offset); }
#if ROW_SUM
      if (at_col == 0u) { store_row_sum(at_row, total[l][i]); }
#endif
    }
  }
}
