// Flash attention, backward, first of two (Dao 2023): dq, and delta = Σ dout · out of each row, which the second kernel
// reads. With p = exp(score − lse) recomputed block by block and dp = dout vᵀ, ds = p (dp − delta) and dq = scale · ds k.
// Runs and both ways to hand out a block's keys are those of attention.wgsl. A lane owns one query, with q, dout and dq in
// registers, and by shuffle its key of the block as well: two queries a lane compiled for twice as long and left arrays in
// memory (12 instead of 34 GFLOP/s with D = 40). The two products have loops of their own for the same reason.

@group(0) @binding(0) var<storage, read> q: array<$ELEMENT>; // (B, H, Tq, D) or (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$ELEMENT>; // (B, KV, Tk, D) or (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$ELEMENT>; // as k
@group(0) @binding(3) var<storage, read> runs: array<u32>; // where the runs of each query tile begin, then (first, end · 2 + partial)
@group(0) @binding(4) var<storage, read> out: array<$ELEMENT>; // as q
@group(0) @binding(5) var<storage, read> dout: array<$ELEMENT>; // as q
@group(0) @binding(6) var<storage, read> lse: array<f32>; // (B, H, Tq)
@group(0) @binding(7) var<storage, read_write> dq: array<$ELEMENT>; // as q
@group(0) @binding(8) var<storage, read_write> delta: array<f32>; // (B, H, Tq)
#if MASK
@group(0) @binding(9) var<storage, read> mask: array<f32>; // (B, maskHeads, Tq, Tk)
#endif

struct Params {
  batch: u32,
  heads: u32, // H
  kvHeads: u32, // KV
  queries: u32, // Tq
  keys: u32, // Tk
  tiles: u32, // query tiles a head
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

fn store(row: u32, c: u32, value: vec4f) {
#if VEC4
  dq[row / 4u + c] = value;
#else
  for (var e = 0u; e < min(4u, DIM - c * 4u); e++) { dq[row + c * 4u + e] = value[e]; }
#endif
}

#if !SUBGROUPS
var<workgroup> keyTile: array<vec4f, BLOCK * WIDTH>;
var<workgroup> valueTile: array<vec4f, BLOCK * WIDTH>;
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
  let rowBase = (batch * params.heads + head) * params.queries;
  let row = tileIndex * LANES + lane; // this lane's query
  let at = qBase + min(row, params.queries - 1u) * params.qRow;

  var query: array<vec4f, WIDTH>;
  var upstream: array<vec4f, WIDTH>; // dout
  var sum: array<vec4f, WIDTH>; // Σ ds k
  for (var c = 0u; c < $COLUMNS; c++) { query[c] = load(&q, at, c) * (params.scale * LOG2E); }
  for (var c = 0u; c < $COLUMNS; c++) { upstream[c] = load(&dout, at, c); }
  for (var c = 0u; c < $COLUMNS; c++) { sum[c] = vec4f(0.0); }
  var mean = 0.0; // delta
  for (var c = 0u; c < $COLUMNS; c++) { mean += dot(upstream[c], load(&out, at, c)); }
  let total = lse[rowBase + min(row, params.queries - 1u)] * LOG2E; // the log-sum-exp, in units of log 2

  // Read once: in the loop, immediates cost a quarter of the speed on llvmpipe.
  let keys = params.keys;
  let kRow = params.kRow;
  let ahead = params.ahead;
  let behind = params.behind;

  var run = runs[tileIndex];
  let lastRun = runs[tileIndex + 1u];
  var block = runs[run];
  while (run < lastRun) {
    let end = runs[run + 1u] / 2u;
    let partial = runs[run + 1u] % 2u == 1u;
    let firstKey = block * BLOCK;

    var score: array<f32, BLOCK>;
    var dp: array<f32, BLOCK>;
    for (var j = 0u; j < BLOCK; j++) { score[j] = 0.0; dp[j] = 0.0; }
#if SUBGROUPS
    let own = kBase + min(firstKey + lane, keys - 1u) * kRow;
    var mine: array<vec4f, WIDTH>; // this lane's key of the block
#else
    workgroupBarrier();
    for (var i = lane; i < BLOCK * WIDTH; i += LANES) {
      let keyAt = kBase + min(firstKey + i / WIDTH, keys - 1u) * kRow;
      keyTile[i] = load(&k, keyAt, i % WIDTH);
      valueTile[i] = load(&v, keyAt, i % WIDTH);
    }
    workgroupBarrier();
#endif
    for (var c = 0u; c < $COLUMNS; c++) {
#if SUBGROUPS
      mine[c] = load(&k, own, c);
#endif
      for (var j = 0u; j < BLOCK; j++) {
#if SUBGROUPS
        let key = subgroupShuffle(mine[c], j);
#else
        let key = keyTile[j * WIDTH + c];
#endif
        score[j] += dot(query[c], key);
      }
    }
    for (var c = 0u; c < $COLUMNS; c++) {
#if SUBGROUPS
      let myValue = load(&v, own, c);
#endif
      for (var j = 0u; j < BLOCK; j++) {
#if SUBGROUPS
        let value = subgroupShuffle(myValue, j);
#else
        let value = valueTile[j * WIDTH + c];
#endif
        dp[j] += dot(upstream[c], value);
      }
    }

    if (partial) {
      for (var j = 0u; j < BLOCK; j++) {
        let apart = i32(firstKey + j) - i32(row);
        if (firstKey + j >= keys || apart > ahead || apart <= behind) { score[j] = HIDDEN; }
      }
    }
#if MASK
    let maskHead = batch * params.maskHeads + head % params.maskHeads;
    let maskAt = (maskHead * params.queries + min(row, params.queries - 1u)) * keys;
    for (var j = 0u; j < BLOCK; j++) {
      score[j] = max(score[j] + mask[maskAt + min(firstKey + j, keys - 1u)] * LOG2E, HIDDEN);
    }
#endif

    for (var j = 0u; j < BLOCK; j++) {
      let p = select(exp2(score[j] - total), 0.0, score[j] <= 0.5 * HIDDEN);
      score[j] = p * (dp[j] - mean); // ds
    }
    for (var c = 0u; c < $COLUMNS; c++) {
      for (var j = 0u; j < BLOCK; j++) {
#if SUBGROUPS
        let key = subgroupShuffle(mine[c], j);
#else
        let key = keyTile[j * WIDTH + c];
#endif
        sum[c] = fma(vec4f(score[j]), key, sum[c]);
      }
    }

    block += 1u;
    if (block == end) {
      run += 2u;
      block = runs[run];
    }
  }

  if (row < params.queries) {
    for (var c = 0u; c < $COLUMNS; c++) { store(at, c, sum[c] * params.scale); }
    delta[rowBase + row] = mean;
  }
}
