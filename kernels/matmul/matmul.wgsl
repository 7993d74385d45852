// C = Σ op(A) · op(B) (+ bias) for adapters with fast workgroup memory.
//
// A workgroup of 16×8 threads makes a 64×64 tile, each thread 8 rows × 4 columns in registers. Steps of 16 k are staged
// in workgroup memory, both operands with k outermost, so that a thread reads its eight rows and four columns as three
// vec4 for 32 multiply-adds. Neighbouring threads load neighbouring elements of whichever dimension of an operand is
// contiguous. Past the edges zeros are staged; only stores are conditional.

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>; // (n), or (m) with BIAS_ROW
#endif
#if ROW_SUM
@group(0) @binding(3) var<storage, read_write> row_sum: array<f32>; // (m): Σ over k (and over the products) of op(A)
#endif

struct Params {
  m: u32,
  n: u32,
  k: u32,
  batch: u32,
  sum: u32, // products added into one result
  a_step: u32, // elements from one product's A to the next one's; 0 where it is shared
  b_step: u32,
}

const TILE = 64u;
const DEPTH = 16u;
const THREADS = 128u;

var<workgroup> tile_a: array<array<f32, 68>, 16>; // (k, row), rows padded against bank conflicts
var<workgroup> tile_b: array<array<f32, 68>, 16>; // (k, column)

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let across = (params.n + TILE - 1u) / TILE;
  let down = (params.m + TILE - 1u) / TILE;
  let group = wg.x + wg.y * groups.x;
  if (group >= across * down * params.batch) { return; }
  let row = (group / across) % down * TILE;
  let col = group % across * TILE;
  let item = group / (across * down);
  let r = thread / 16u * 8u; // this thread's rows and columns in the tile
  let c = thread % 16u * 4u;

  var acc: array<vec4f, 8>;
#if ROW_SUM
  var total: array<f32, 8>;
#endif
  for (var product = item * params.sum; product < (item + 1u) * params.sum; product++) {
    let start_a = product * params.a_step;
    let start_b = product * params.b_step;
    for (var k = 0u; k < params.k; k += DEPTH) {
      for (var i = thread; i < TILE * DEPTH; i += THREADS) {
#if TRANSPOSE_A
        let ra = i % TILE; let ka = i / TILE;
        let at_a = start_a + (k + ka) * params.m + row + ra;
#else
        let ra = i / DEPTH; let ka = i % DEPTH;
        let at_a = start_a + (row + ra) * params.k + k + ka;
#endif
        tile_a[ka][ra] = 0.0;
        if (row + ra < params.m && k + ka < params.k) { tile_a[ka][ra] = a[at_a]; }
#if TRANSPOSE_B
        let cb = i / DEPTH; let kb = i % DEPTH;
        let at_b = start_b + (col + cb) * params.k + k + kb;
#else
        let cb = i % TILE; let kb = i / TILE;
        let at_b = start_b + (k + kb) * params.n + col + cb;
#endif
        tile_b[kb][cb] = 0.0;
        if (col + cb < params.n && k + kb < params.k) { tile_b[kb][cb] = b[at_b]; }
      }
      workgroupBarrier();
      for (var i = 0u; i < DEPTH; i++) {
        let y = vec4f(tile_b[i][c], tile_b[i][c + 1u], tile_b[i][c + 2u], tile_b[i][c + 3u]);
        for (var j = 0u; j < 8u; j++) {
          let x = tile_a[i][r + j];
          acc[j] = fma(vec4f(x), y, acc[j]);
#if ROW_SUM
          total[j] += x;
#endif
        }
      }
      workgroupBarrier();
    }
  }

  for (var j = 0u; j < 8u; j++) {
    let at_row = row + r + j;
    if (at_row >= params.m) { continue; }
    for (var i = 0u; i < 4u; i++) {
      let at_col = col + c + i;
      if (at_col >= params.n) { continue; }
      var value = acc[j][i];
#if BIAS
#if BIAS_ROW
      value += bias[at_row];
#else
      value += bias[at_col];
#endif
#endif
      out[(item * params.m + at_row) * params.n + at_col] = value;
    }
#if ROW_SUM
    if (col == 0u && c == 0u) { row_sum[at_row] = total[j]; }
#endif
  }
}
