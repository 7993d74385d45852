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

#if VEC4
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>;
#else
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
#endif
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

// Rows row … row + 3 of op(A) at k … k + 3: column i is row + i.
fn block_a(start: u32, row: u32, k: u32) -> mat4x4f {
  let r = min(vec4u(row, row + 1u, row + 2u, row + 3u), vec4u(params.m - 1u));
  let q = vec4u(k, k + 1u, k + 2u, k + 3u);
  let valid = q < vec4u(params.k);
#if VEC4
#if TRANSPOSE_A
  let at = (start + min(q, vec4u(params.k - 1u)) * params.m + min(row, params.m - 4u)) / 4u;
  return transpose(mat4x4f(
    select(vec4f(), a[at.x], valid.x), select(vec4f(), a[at.y], valid.y),
    select(vec4f(), a[at.z], valid.z), select(vec4f(), a[at.w], valid.w)));
#else
  let at = (start + r * params.k + k) / 4u;
  return mat4x4f(a[at.x], a[at.y], a[at.z], a[at.w]);
#endif
#else
#if TRANSPOSE_A
  let at = start + min(q, vec4u(params.k - 1u)) * params.m;
  return mat4x4f(
    select(vec4f(), vec4f(a[at.x + r.x], a[at.y + r.x], a[at.z + r.x], a[at.w + r.x]), valid),
    select(vec4f(), vec4f(a[at.x + r.y], a[at.y + r.y], a[at.z + r.y], a[at.w + r.y]), valid),
    select(vec4f(), vec4f(a[at.x + r.z], a[at.y + r.z], a[at.z + r.z], a[at.w + r.z]), valid),
    select(vec4f(), vec4f(a[at.x + r.w], a[at.y + r.w], a[at.z + r.w], a[at.w + r.w]), valid));
#else
  let at = start + r * params.k;
  let p = min(q, vec4u(params.k - 1u));
  return mat4x4f(
    select(vec4f(), vec4f(a[at.x + p.x], a[at.x + p.y], a[at.x + p.z], a[at.x + p.w]), valid),
    select(vec4f(), vec4f(a[at.y + p.x], a[at.y + p.y], a[at.y + p.z], a[at.y + p.w]), valid),
    select(vec4f(), vec4f(a[at.z + p.x], a[at.z + p.y], a[at.z + p.z], a[at.z + p.w]), valid),
    select(vec4f(), vec4f(a[at.w + p.x], a[at.w + p.y], a[at.w + p.z], a[at.w + p.w]), valid));
#endif
#endif
}

// Columns col … col + 3 of op(B) at k … k + 3: column i is k + i.
fn block_b(start: u32, k: u32, col: u32) -> mat4x4f {
  let c = min(vec4u(col, col + 1u, col + 2u, col + 3u), vec4u(params.n - 1u));
  let q = vec4u(k, k + 1u, k + 2u, k + 3u);
  let valid = q < vec4u(params.k);
#if VEC4
#if TRANSPOSE_B
  let at = (start + c * params.k + k) / 4u;
  return transpose(mat4x4f(b[at.x], b[at.y], b[at.z], b[at.w]));
#else
  let at = (start + min(q, vec4u(params.k - 1u)) * params.n + min(col, params.n - 4u)) / 4u;
  return mat4x4f(
    select(vec4f(), b[at.x], valid.x), select(vec4f(), b[at.y], valid.y),
    select(vec4f(), b[at.z], valid.z), select(vec4f(), b[at.w], valid.w));
#endif
#else
  let p = min(q, vec4u(params.k - 1u));
#if TRANSPOSE_B
  let at = start + c * params.k;
  return transpose(mat4x4f(
    select(vec4f(), vec4f(b[at.x + p.x], b[at.x + p.y], b[at.x + p.z], b[at.x + p.w]), valid),
    select(vec4f(), vec4f(b[at.y + p.x], b[at.y + p.y], b[at.y + p.z], b[at.y + p.w]), valid),
    select(vec4f(), vec4f(b[at.z + p.x], b[at.z + p.y], b[at.z + p.z], b[at.z + p.w]), valid),
    select(vec4f(), vec4f(b[at.w + p.x], b[at.w + p.y], b[at.w + p.z], b[at.w + p.w]), valid)));
#else
  let at = start + p * params.n;
  return mat4x4f(
    select(vec4f(), vec4f(b[at.x + c.x], b[at.x + c.y], b[at.x + c.z], b[at.x + c.w]), valid.x),
    select(vec4f(), vec4f(b[at.y + c.x], b[at.y + c.y], b[at.y + c.z], b[at.y + c.w]), valid.y),
    select(vec4f(), vec4f(b[at.z + c.x], b[at.z + c.y], b[at.z + c.z], b[at.z + c.w]), valid.z),
    select(vec4f(), vec4f(b[at.w + c.x], b[at.w + c.y], b[at.w + c.z], b[at.w + c.w]), valid.w));
#endif
#endif
}

// Element l of an array that must stay in registers, where the compiler can't know l.
fn pick(values: ptr<function, array<vec4f, $ROUNDS>>, l: u32) -> vec4f {
  var value = vec4f();
  for (var i = 0u; i < $ROUNDS; i++) { value = select(value, values[i], i == l); }
  return value;
}

fn store(at: u32, count: u32, sums: vec4f) {
#if VEC4
  out[at / 4u] = sums;
#else
  for (var i = 0u; i < count; i++) { out[at + i] = sums[i]; }
#endif
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
#if BIAS_ROW
  let r = min(row + 4u * lane + vec4u(0u, 1u, 2u, 3u), vec4u(params.m - 1u));
  let offset = vec4f(bias[r.x], bias[r.y], bias[r.z], bias[r.w]); // of this lane's rows
  for (var l = 0u; l < $ROUNDS; l++) {
    let o = subgroupShuffle(offset, l);
    acc0[l] = vec4f(o.x);
    acc1[l] = vec4f(o.y);
    acc2[l] = vec4f(o.z);
    acc3[l] = vec4f(o.w);
  }
#else
  let c = min(col + vec4u(0u, 1u, 2u, 3u), vec4u(params.n - 1u));
  let offset = vec4f(bias[c.x], bias[c.y], bias[c.z], bias[c.w]); // of this lane's columns
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
      if (lane < $ROUNDS) { x = block_a(product * params.a_step, row + 4u * lane, k); }
      let y = block_b(product * params.b_step, k, col);
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
  let at = (item * params.m + row) * params.n + col;
  let count = min(4u, params.n - min(col, params.n));
  for (var l = 0u; l < rounds; l++) {
    let r = row + 4u * l;
    let sums = array(pick(&acc0, l), pick(&acc1, l), pick(&acc2, l), pick(&acc3, l));
    for (var i = 0u; i < 4u; i++) {
      if (r + i < params.m && count > 0u) { store(at + (4u * l + i) * params.n, count, sums[i]); }
    }
  }
#if ROW_SUM
  if (group % across == 0u && lane < $ROUNDS) {
    for (var i = 0u; i < 4u; i++) {
      if (row + 4u * lane + i < params.m) { row_sum[row + 4u * lane + i] = total[i]; }
    }
  }
#endif
}
