// Flash attention, backward, first of two (Dao 2023): dq, and delta = Σ dout · out of each row, which the second kernel
// reads. With p = exp(score − lse) recomputed block by block and dp = dout vᵀ, ds = p (dp − delta) and dq = scale · ds k.
// Lists are those of attention.wgsl, and so is the layout (attention_staged.wgsl); keys and values are staged together.

@group(0) @binding(0) var<storage, read> q: array<$ROW>; // (B, H, Tq, D) or (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$COLUMN>; // (B, KV, Tk, D) or (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$COLUMN>; // as k
@group(0) @binding(3) var<storage, read> lists: array<u32>; // a list for each tile of queries
@group(0) @binding(4) var<storage, read> out: array<$ROW>; // as q
@group(0) @binding(5) var<storage, read> dout: array<$ROW>; // as q
@group(0) @binding(6) var<storage, read> lse: array<f32>; // (B, H, Tq)
@group(0) @binding(7) var<storage, read_write> dq: array<$ROW>; // as q
@group(0) @binding(8) var<storage, read_write> delta: array<f32>; // (B, H, Tq)
#if MASK
@group(0) @binding(9) var<storage, read> mask: array<$MASK>; // (B, maskHeads, Tq, Tk)
#endif

var<workgroup> keyTile: Tile;
var<workgroup> valueTile: Tile;

@compute @workgroup_size(LANES * PARTS)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let group = wg.x + wg.y * groups.x;
  let tileIndex = group % params.tiles;
  let head = (group / params.tiles) % params.heads;
  let batch = group / (params.tiles * params.heads);
  if (batch >= params.batch) { return; }
  let kvHead = head / (params.heads / params.kvHeads);
  let lane = index % LANES;
  let part = index / LANES;
  let row = tileIndex * LANES + lane; // this invocation's query
  let inside = min(row, params.queries - 1u);
  let at = queryRow(batch, head, vec4u(inside)).x;
  let keyAt = keyRow(batch, kvHead, vec4u(0u, 1u, 0u, 0u));
  let statistics = (batch * params.heads + head) * params.queries + inside;
  let total = lse[statistics] * LOG2E;
  let scale = params.scale * LOG2E;

  var query: Part;
  loadPart(&query, &q, at, part);
  var upstream: Part; // dout
  loadPart(&upstream, &dout, at, part);
  var mean = 0.0; // delta: each invocation reads the whole rows, once
  for (var c = 0u; c * 4u < params.dim; c++) { mean += dot(loadRow(&dout, at, c), loadRow(&out, at, c)); }
  var sum: Part; // Σ ds k

  let list = listOf(batch, kvHead, tileIndex);
  let rule = ruleOf(list);
  let span = spanOfQueries(rule, vec4u(row));
  var run = list + RULE_WORDS;
  var block = lists[run];
  var end = lists[run + 1u] / 2u;
  while (block < end) {
    let partial = lists[run + 1u] % 2u == 1u;
    let first = block * BLOCK;

    workgroupBarrier(); // the tiles of before are read
    stage(&keyTile, &k, keyAt.x, keyAt.y - keyAt.x, first, rule.keys - 1u, index);
    stage(&valueTile, &v, keyAt.x, keyAt.y - keyAt.x, first, rule.keys - 1u, index);
    workgroupBarrier();
    var score: Scores;
    products(&score, &query, &keyTile, lane, part);
    for (var j = 0u; j < BLOCK; j++) { score[j] *= scale; }
#if MASK
    for (var j = 0u; j < BLOCK; j++) { score[j] = masked(score[j], batch, head, row, first + j); }
#endif
    if (partial) {
      for (var j = 0u; j < BLOCK; j++) { score[j] = select(score[j], HIDDEN, outside(span, first + j).x); }
    }
    var ds: Scores; // first dout · v
    products(&ds, &upstream, &valueTile, lane, part);
    for (var j = 0u; j < BLOCK; j++) {
      let p = select(exp2(score[j] - total), 0.0, score[j] <= 0.5 * HIDDEN);
      ds[j] = p * (ds[j] - mean);
    }
    accumulate(&sum, &ds, &keyTile, part);

    block += 1u;
    if (block == end) {
      run += 2u;
      block = lists[run];
      end = lists[run + 1u] / 2u;
    }
  }

  if (row < params.queries) {
    storePart(&dq, at, part, &sum, params.scale, row < rule.queries);
    if (part == 0u) { delta[statistics] = mean; }
  }
}

#include ./attention_staged.wgsl
