// Flash attention, forward (Dao 2023, FlashAttention-2): out = softmax(scale · q kᵀ) v for one tile of queries at a time,
// in one pass over the keys with a running maximum and sum, so that no (Tq, Tk) matrix exists. The log-sum-exp of each
// row is kept for the backward pass, which recomputes the scores from it.
//
// Tile: each invocation owns ROWS queries, with their q and their result in registers; a workgroup has LANES invocations.
// Keys come in blocks of BLOCK; which blocks a tile visits is data: runs of neighbouring blocks, marked where some pair
// inside is hidden. Two ways to hand a block to all rows:
//   SUBGROUPS  for software adapters, one subgroup a workgroup: lane j loads row j of the block, and all read it by
//              shuffle. No barrier, and each load whose address differs by lane (11 ns a vec4 on llvmpipe) is worth
//              4 · BLOCK multiply-adds for each of the ROWS. 8 heads of 1024 × 40 there: 27 GFLOP/s with one row a lane,
//              35 with two, 33 with four.
//   otherwise  for GPUs: the block is staged in workgroup memory and read there by broadcast.
// Scores are in units of log 2, because exp2 is what hardware has.
//
// Written for llvmpipe's unroller: an array indexed in a loop that stays a loop lies in memory, and everything is three
// times as slow. So the loads stand inside the loops that use them, and all blocks of all runs are one loop.

@group(0) @binding(0) var<storage, read> q: array<$ELEMENT>; // (B, H, Tq, D) or (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$ELEMENT>; // (B, KV, Tk, D) or (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$ELEMENT>; // as k
@group(0) @binding(3) var<storage, read> runs: array<u32>; // where the runs of each query tile begin, then (first, end · 2 + partial)
@group(0) @binding(4) var<storage, read_write> out: array<$ELEMENT>; // as q
@group(0) @binding(5) var<storage, read_write> lse: array<f32>; // (B, H, Tq)
#if MASK
@group(0) @binding(6) var<storage, read> mask: array<f32>; // (B, maskHeads, Tq, Tk), added to the scores
#endif

struct Params {
  batch: u32,
  heads: u32, // H
  kvHeads: u32, // KV
  queries: u32, // Tq
  keys: u32, // Tk
  tiles: u32, // query tiles a head
  qRow: u32, // elements from one query to the next
  qHead: u32, // and from one head to the next
  kRow: u32,
  kHead: u32,
  ahead: i32, // query i sees key j where behind < j − i ≤ ahead
  behind: i32,
  maskHeads: u32, // 1 or H
  width: u32, // WIDTH
  scale: f32,
}

const DIM = $DIM; // D
const WIDTH = $WIDTH; // vec4s a head: ⌈D / 4⌉
const LANES = $LANES;
const ROWS = $ROWS;
const BLOCK = $BLOCK;
const LOG2E = 1.4426950408889634;
const HIDDEN = -1e30; // the score of a hidden pair: −∞ without its arithmetic, which software adapters may get wrong

fn load(source: ptr<storage, array<$ELEMENT>, read>, row: u32, c: u32) -> vec4f {
#if VEC4
  return source[row / 4u + c];
#else
  let at = row + c * 4u;
  let values = vec4f(source[at], source[at + 1u], source[at + 2u], source[at + 3u]);
  return select(vec4f(0.0), values, c * 4u + vec4u(0u, 1u, 2u, 3u) < vec4u(DIM));
#endif
}

fn store(row: u32, c: u32, value: vec4f) {
#if VEC4
  out[row / 4u + c] = value;
#else
  for (var e = 0u; e < min(4u, DIM - c * 4u); e++) { out[row + c * 4u + e] = value[e]; }
#endif
}

#if !SUBGROUPS
var<workgroup> tile: array<vec4f, BLOCK * WIDTH>; // the block's keys, then its values
#endif

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
#if SUBGROUPS
  @builtin(subgroup_invocation_id) lane: u32,
#else
  @builtin(local_invocation_index) lane: u32,
#endif
) {
  let group = wg.x + wg.y * groups.x;
  let tileIndex = group % params.tiles;
  let head = (group / params.tiles) % params.heads;
  let batch = group / (params.tiles * params.heads);
  if (batch >= params.batch) { return; }
  let kvHead = head / (params.heads / params.kvHeads);
  let qBase = batch * params.heads * params.queries * DIM + head * params.qHead;
  let kBase = batch * params.kvHeads * params.keys * DIM + kvHead * params.kHead;
  let firstRow = tileIndex * LANES * ROWS + lane; // this lane's rows: firstRow + r · LANES

  var query: array<array<vec4f, WIDTH>, ROWS>;
  var sum: array<array<vec4f, WIDTH>, ROWS>; // Σ exp(score − top) v
  var top: array<f32, ROWS>; // the largest score so far
  var total: array<f32, ROWS>; // Σ exp(score − top)
  for (var r = 0u; r < ROWS; r++) {
    let at = qBase + min(firstRow + r * LANES, params.queries - 1u) * params.qRow;
    for (var c = 0u; c < $COLUMNS; c++) {
      query[r][c] = load(&q, at, c) * (params.scale * LOG2E);
      sum[r][c] = vec4f(0.0);
    }
    top[r] = HIDDEN;
    total[r] = 0.0;
  }

  var run = runs[tileIndex];
  let lastRun = runs[tileIndex + 1u];
  var block = runs[run];
  while (run < lastRun) {
    let end = runs[run + 1u] / 2u;
    let partial = runs[run + 1u] % 2u == 1u;
    let firstKey = block * BLOCK;

    // scores (ROWS, BLOCK)
    var score: array<array<f32, BLOCK>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      for (var j = 0u; j < BLOCK; j++) { score[r][j] = 0.0; }
    }
#if SUBGROUPS
    let own = kBase + min(firstKey + lane, params.keys - 1u) * params.kRow;
#else
    workgroupBarrier();
    for (var i = lane; i < BLOCK * WIDTH; i += LANES) {
      tile[i] = load(&k, kBase + min(firstKey + i / WIDTH, params.keys - 1u) * params.kRow, i % WIDTH);
    }
    workgroupBarrier();
#endif
    for (var c = 0u; c < $COLUMNS; c++) {
#if SUBGROUPS
      let mine = load(&k, own, c);
#endif
      for (var j = 0u; j < BLOCK; j++) {
#if SUBGROUPS
        let key = subgroupShuffle(mine, j);
#else
        let key = tile[j * WIDTH + c];
#endif
        for (var r = 0u; r < ROWS; r++) { score[r][j] += dot(query[r][c], key); }
      }
    }

    if (partial) {
      for (var r = 0u; r < ROWS; r++) {
        let row = firstRow + r * LANES;
        for (var j = 0u; j < BLOCK; j++) {
          let key = firstKey + j;
          let apart = i32(key) - i32(row);
          if (key >= params.keys || apart > params.ahead || apart <= params.behind) { score[r][j] = HIDDEN; }
        }
      }
    }
#if MASK
    for (var r = 0u; r < ROWS; r++) {
      let row = min(firstRow + r * LANES, params.queries - 1u);
      let at = ((batch * params.maskHeads + head % params.maskHeads) * params.queries + row) * params.keys;
      for (var j = 0u; j < BLOCK; j++) {
        let added = mask[at + min(firstKey + j, params.keys - 1u)] * LOG2E;
        score[r][j] = max(score[r][j] + added, HIDDEN);
      }
    }
#endif

    // the running softmax: what was summed so far shrinks where a larger score came
    for (var r = 0u; r < ROWS; r++) {
      var larger = top[r];
      for (var j = 0u; j < BLOCK; j++) { larger = max(larger, score[r][j]); }
      let shrink = exp2(top[r] - larger);
      top[r] = larger;
      total[r] *= shrink;
      for (var j = 0u; j < BLOCK; j++) {
        let p = select(exp2(score[r][j] - larger), 0.0, score[r][j] <= 0.5 * HIDDEN);
        score[r][j] = p;
        total[r] += p;
      }
      for (var c = 0u; c < $COLUMNS; c++) { sum[r][c] *= shrink; }
    }

#if SUBGROUPS
#else
    workgroupBarrier();
    for (var i = lane; i < BLOCK * WIDTH; i += LANES) {
      tile[i] = load(&v, kBase + min(firstKey + i / WIDTH, params.keys - 1u) * params.kRow, i % WIDTH);
    }
    workgroupBarrier();
#endif
    for (var c = 0u; c < $COLUMNS; c++) {
#if SUBGROUPS
      let mine = load(&v, own, c);
#endif
      for (var j = 0u; j < BLOCK; j++) {
#if SUBGROUPS
        let value = subgroupShuffle(mine, j);
#else
        let value = tile[j * WIDTH + c];
#endif
        for (var r = 0u; r < ROWS; r++) { sum[r][c] = fma(vec4f(score[r][j]), value, sum[r][c]); }
      }
    }

    block += 1u;
    if (block == end) {
      run += 2u;
      block = runs[run];
    }
  }

  for (var r = 0u; r < ROWS; r++) {
    let row = firstRow + r * LANES;
    if (row < params.queries) {
      let seen = total[r] > 0.0; // a row that sees no key gives zeros
      let inverse = select(0.0, 1.0 / total[r], seen);
      for (var c = 0u; c < $COLUMNS; c++) { store(qBase + row * params.qRow, c, sum[r][c] * inverse); }
      lse[(batch * params.heads + head) * params.queries + row] = select(HIDDEN, (top[r] + log2(total[r])) / LOG2E, seen);
    }
  }
}
