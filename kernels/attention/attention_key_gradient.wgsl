// Flash attention, backward, second of two (Dao 2023): dk and dv of one tile of keys, in one pass over the queries that
// see it: dv = pᵀ dout and dk = scale · dsᵀ q, with p and ds as in attention_query_gradient.wgsl. One fused kernel instead
// of two, because both need p. Each key's sum is one invocation's, over the group's query heads and then the blocks of
// queries, in a fixed order: no atomics, and the same bits each time.
//
// The mirror of attention_query_gradient.wgsl: a lane owns one key with k, v, dk and dv in registers, queries come in
// blocks of BLOCK by shuffle or through workgroup memory, and `runs` is the transposed list, query blocks by key tile.

@group(0) @binding(0) var<storage, read> q: array<$ELEMENT>; // (B, H, Tq, D) or (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$ELEMENT>; // (B, KV, Tk, D) or (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$ELEMENT>; // as k
@group(0) @binding(3) var<storage, read> runs: array<u32>; // where the runs of each key tile begin, then (first, end · 2 + partial)
@group(0) @binding(4) var<storage, read> dout: array<$ELEMENT>; // as q
@group(0) @binding(5) var<storage, read> lse: array<f32>; // (B, H, Tq)
@group(0) @binding(6) var<storage, read> delta: array<f32>; // (B, H, Tq)
@group(0) @binding(7) var<storage, read_write> dk: array<$ELEMENT>; // as k
@group(0) @binding(8) var<storage, read_write> dv: array<$ELEMENT>; // as k
#if MASK
@group(0) @binding(9) var<storage, read> mask: array<f32>; // (B, maskHeads, Tq, Tk)
#endif

struct Params {
  batch: u32,
  heads: u32, // H
  kvHeads: u32, // KV
  queries: u32, // Tq
  keys: u32, // Tk
  tiles: u32, // key tiles a head
  qRow: u32,
  qHead: u32,
  kRow: u32,
  kHead: u32,
  ahead: i32, // query i sees key j where behind < j − i ≤ ahead
  behind: i32,
  maskHeads: u32, // 1 or H
  width: u32, // WIDTH
  scale: f32,
}

const DIM = $DIM;
const WIDTH = $WIDTH;
const LANES = $LANES;
const BLOCK = $BLOCK;
const LOG2E = 1.4426950408889634;
const HIDDEN = -1e30;

fn load(source: ptr<storage, array<$ELEMENT>, read>, row: u32, c: u32) -> vec4f {
#if VEC4
  return source[row / 4u + c];
#else
  let at = row + c * 4u;
  let values = vec4f(source[at], source[at + 1u], source[at + 2u], source[at + 3u]);
  return select(vec4f(0.0), values, c * 4u + vec4u(0u, 1u, 2u, 3u) < vec4u(DIM));
#endif
}

fn store(into: ptr<storage, array<$ELEMENT>, read_write>, row: u32, c: u32, value: vec4f) {
#if VEC4
  into[row / 4u + c] = value;
#else
  for (var e = 0u; e < min(4u, DIM - c * 4u); e++) { into[row + c * 4u + e] = value[e]; }
#endif
}

#if !SUBGROUPS
var<workgroup> queryTile: array<vec4f, BLOCK * WIDTH>;
var<workgroup> upstreamTile: array<vec4f, BLOCK * WIDTH>; // dout
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
  let kvHead = (group / params.tiles) % params.kvHeads;
  let batch = group / (params.tiles * params.kvHeads);
  if (batch >= params.batch) { return; }
  let share = params.heads / params.kvHeads; // query heads that read this key head
  let kBase = batch * params.kvHeads * params.keys * DIM + kvHead * params.kHead;
  let row = tileIndex * LANES + lane; // this lane's key
  let at = kBase + min(row, params.keys - 1u) * params.kRow;

  var key: array<vec4f, WIDTH>;
  var value: array<vec4f, WIDTH>;
  var keySum: array<vec4f, WIDTH>; // Σ ds q
  var valueSum: array<vec4f, WIDTH>; // Σ p dout
  for (var c = 0u; c < $COLUMNS; c++) { key[c] = load(&k, at, c) * (params.scale * LOG2E); }
  for (var c = 0u; c < $COLUMNS; c++) { value[c] = load(&v, at, c); }
  for (var c = 0u; c < $COLUMNS; c++) { keySum[c] = vec4f(0.0); valueSum[c] = vec4f(0.0); }

  // Read once: in the loop, immediates cost a quarter of the speed on llvmpipe.
  let queries = params.queries;
  let qRow = params.qRow;
  let ahead = params.ahead;
  let behind = params.behind;

  // One loop over the group's heads, their runs and the runs' blocks, for llvmpipe's sake; see attention.wgsl.
  let firstRun = runs[tileIndex];
  let lastRun = runs[tileIndex + 1u];
  let headEnd = (kvHead + 1u) * share;
  var head = select(headEnd, kvHead * share, firstRun < lastRun);
  var run = firstRun;
  var block = runs[run];
  while (head < headEnd) {
    let qBase = batch * params.heads * queries * DIM + head * params.qHead;
    let rowBase = (batch * params.heads + head) * queries;
    let end = runs[run + 1u] / 2u;
    let partial = runs[run + 1u] % 2u == 1u;
    let firstQuery = block * BLOCK;

    var score: array<f32, BLOCK>;
    var dp: array<f32, BLOCK>;
    for (var i = 0u; i < BLOCK; i++) { score[i] = 0.0; dp[i] = 0.0; }
#if SUBGROUPS
    let own = min(firstQuery + lane, queries - 1u);
    let ownAt = qBase + own * qRow;
    var myQuery: array<vec4f, WIDTH>; // this lane's query of the block
    var myUpstream: array<vec4f, WIDTH>; // and its dout
#else
    workgroupBarrier();
    for (var i = lane; i < BLOCK * WIDTH; i += LANES) {
      let queryAt = qBase + min(firstQuery + i / WIDTH, queries - 1u) * qRow;
      queryTile[i] = load(&q, queryAt, i % WIDTH);
      upstreamTile[i] = load(&dout, queryAt, i % WIDTH);
    }
    workgroupBarrier();
#endif
    for (var c = 0u; c < $COLUMNS; c++) {
#if SUBGROUPS
      myQuery[c] = load(&q, ownAt, c);
#endif
      for (var i = 0u; i < BLOCK; i++) {
#if SUBGROUPS
        let query = subgroupShuffle(myQuery[c], i);
#else
        let query = queryTile[i * WIDTH + c];
#endif
        score[i] += dot(key[c], query);
      }
    }
    for (var c = 0u; c < $COLUMNS; c++) {
#if SUBGROUPS
      myUpstream[c] = load(&dout, ownAt, c);
#endif
      for (var i = 0u; i < BLOCK; i++) {
#if SUBGROUPS
        let upstream = subgroupShuffle(myUpstream[c], i);
#else
        let upstream = upstreamTile[i * WIDTH + c];
#endif
        dp[i] += dot(value[c], upstream);
      }
    }

    if (partial) {
      for (var i = 0u; i < BLOCK; i++) {
        let apart = i32(row) - i32(firstQuery + i);
        if (firstQuery + i >= queries || apart > ahead || apart <= behind) { score[i] = HIDDEN; }
      }
    }
#if MASK
    let maskHead = batch * params.maskHeads + head % params.maskHeads;
    for (var i = 0u; i < BLOCK; i++) {
      let maskRow = maskHead * queries + min(firstQuery + i, queries - 1u);
      score[i] = max(score[i] + mask[maskRow * params.keys + min(row, params.keys - 1u)] * LOG2E, HIDDEN);
    }
#endif

#if SUBGROUPS
    let myTotal = lse[rowBase + own] * LOG2E;
    let myMean = delta[rowBase + own];
#endif
    for (var i = 0u; i < BLOCK; i++) {
#if SUBGROUPS
      let total = subgroupShuffle(myTotal, i);
      let mean = subgroupShuffle(myMean, i);
#else
      let total = lse[rowBase + min(firstQuery + i, queries - 1u)] * LOG2E;
      let mean = delta[rowBase + min(firstQuery + i, queries - 1u)];
#endif
      let p = select(exp2(score[i] - total), 0.0, score[i] <= 0.5 * HIDDEN);
      score[i] = p;
      dp[i] = p * (dp[i] - mean); // ds
    }
    for (var c = 0u; c < $COLUMNS; c++) {
      for (var i = 0u; i < BLOCK; i++) {
#if SUBGROUPS
        let query = subgroupShuffle(myQuery[c], i);
#else
        let query = queryTile[i * WIDTH + c];
#endif
        keySum[c] = fma(vec4f(dp[i]), query, keySum[c]);
      }
    }
    for (var c = 0u; c < $COLUMNS; c++) {
      for (var i = 0u; i < BLOCK; i++) {
#if SUBGROUPS
        let upstream = subgroupShuffle(myUpstream[c], i);
#else
        let upstream = upstreamTile[i * WIDTH + c];
#endif
        valueSum[c] = fma(vec4f(score[i]), upstream, valueSum[c]);
      }
    }

    block += 1u;
    if (block == end) {
      run += 2u;
      if (run == lastRun) {
        run = firstRun;
        head += 1u;
      }
      block = runs[run];
    }
  }

  if (row < params.keys) {
    for (var c = 0u; c < $COLUMNS; c++) { store(&dk, at, c, keySum[c] * params.scale); }
    for (var c = 0u; c < $COLUMNS; c++) { store(&dv, at, c, valueSum[c]); }
  }
}
