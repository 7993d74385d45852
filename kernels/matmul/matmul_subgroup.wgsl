// C = Σ op(A) · op(B) (+ bias), one subgroup a workgroup: the variant for software adapters.
//
// The tile has 4·ROUNDS rows and 4·SUBGROUP columns. In each step of four k every lane loads a 4×4 block of A (its four
// rows) and a 4×4 block of B (its four columns), by four vec4 loads each whichever way the operand lies: a transposed
// operand is the same block transposed in registers. Then round l broadcasts lane l's block of A to all lanes, and each
// adds the 4×4×4 product to its accumulators: 4·ROUNDS vec4 of four columns, which stay in registers (or the stack).
//
// There is no workgroup memory and no barrier, because a barrier turns a shader into coroutines there. A load whose
// address differs by lane costs as much as about thirty multiply-adds, so the tile is as square and as large as the
// compiler unrolls: 512³ in f32 ran at 45 GFLOP/s with 32×32, 30 with 16×32, and 7 with 64×32 (no longer unrolled).
// Arrays are as long as the loop over them, else the loop isn't unrolled and they land in memory lane by lane: 16.

#include ./product.wgsl
#include ./blocks.wgsl

// Element l of an array that must stay in registers, where the compiler can't know l.
fn pick(values: ptr<function, array<vec4f, $ROUNDS>>, l: u32) -> vec4f {
  var value = vec4f();
  for (var i = 0u; i < $ROUNDS; i++) { value = select(value, values[i], i == l); }
  return value;
}

@compute @workgroup_size($SUBGROUP)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(subgroup_invocation_id) lane: u32) {
  const ROWS = 4u * $ROUNDS;
  const COLUMNS = 4u * $SUBGROUP;
  let across = (params.n + COLUMNS - 1u) / COLUMNS;
  let down = (params.m + ROWS - 1u) / ROWS;
  let group = wg.x + wg.y * groups.x;
  if (group >= across * down * params.batch) { return; }
  let row = (group / across) % down * ROWS;
  let col = group % across * COLUMNS + 4u * lane;
  let item = group / (across * down);

  var acc0: array<vec4f, $ROUNDS>; // row + 4·l
  var acc1: array<vec4f, $ROUNDS>; // row + 4·l + 1
  var acc2: array<vec4f, $ROUNDS>;
  var acc3: array<vec4f, $ROUNDS>;
#if BIAS
#if BIAS_COLUMN
  let r = params.vector_at + min(row + 4u * lane + vec4u(0u, 1u, 2u, 3u), vec4u(params.m - 1u));
  let offset = vec4f(f32(bias[r.x]), f32(bias[r.y]), f32(bias[r.z]), f32(bias[r.w])); // of this lane's rows
  for (var l = 0u; l < $ROUNDS; l++) {
    let o = subgroupShuffle(offset, l);
    acc0[l] = vec4f(o.x);
    acc1[l] = vec4f(o.y);
    acc2[l] = vec4f(o.z);
    acc3[l] = vec4f(o.w);
  }
#else
  let c = params.vector_at + min(col + vec4u(0u, 1u, 2u, 3u), vec4u(params.n - 1u));
  let offset = vec4f(f32(bias[c.x]), f32(bias[c.y]), f32(bias[c.z]), f32(bias[c.w])); // of this lane's columns
  for (var l = 0u; l < $ROUNDS; l++) {
    acc0[l] = offset;
    acc1[l] = offset;
    acc2[l] = offset;
    acc3[l] = offset;
  }
#endif
#endif
#if ROW_SUM
  var total = vec4f(); // of this lane's rows
#endif
  for (var product = item * params.sum; product < (item + 1u) * params.sum; product++) {
    for (var k = 0u; k < params.k; k += 4u) {
      var x: mat4x4f;
      if (lane < $ROUNDS) { x = block_a(params.a_at + product * params.a_step, row + 4u * lane, k); }
      let y = block_b(params.b_at + product * params.b_step, k, col);
#if ROW_SUM
      total += vec4f(1.0) * x;
#endif
      for (var l = 0u; l < $ROUNDS; l++) {
        acc0[l] += y * subgroupShuffle(x[0], l);
        acc1[l] += y * subgroupShuffle(x[1], l);
        acc2[l] += y * subgroupShuffle(x[2], l);
        acc3[l] += y * subgroupShuffle(x[3], l);
      }
    }
  }

  // Rounds that have rows. As the compiler can't unroll this loop, there are 4 places that store, not 32: stores are
  // what takes it longest (550 of 820 ms when unrolled).
  let rounds = (min(params.m, row + ROWS) - row + 3u) / 4u;
  let at = params.out_at + item * params.out_step + row * params.out_row + col;
  let count = min(4u, params.n - min(col, params.n));
  for (var l = 0u; l < rounds; l++) {
    let r = row + 4u * l;
    let sums = array(pick(&acc0, l), pick(&acc1, l), pick(&acc2, l), pick(&acc3, l));
    for (var i = 0u; i < 4u; i++) {
      if (r + i < params.m && count > 0u) { store(at + (4u * l + i) * params.out_row, count, sums[i]); }
    }
  }
#if ROW_SUM
  if (group % across == 0u && lane < $ROUNDS) {
    for (var i = 0u; i < 4u; i++) {
      if (row + 4u * lane + i < params.m) { store_row_sum(row + 4u * lane + i, total[i]); }
    }
  }
#endif
}
