// Flash attention, backward, second of two (Dao 2023): dk and dv of one tile of keys, in one pass over the queries that
// see it: dv = pᵀ dout and dk = scale · dsᵀ q, with p and ds as in attention_query_gradient.wgsl. One fused kernel instead
// of two, because both need p. Each key's sum is one invocation's, over the group's query heads and then the blocks of
// queries, in a fixed order: no atomics, and the same bits each time.
//
// The mirror of attention_query_gradient.wgsl: rows are keys, with k, v, dk and dv in registers, columns are queries, and
// the lists are transposed, blocks of queries for each tile of keys.

@group(0) @binding(0) var<storage, read> q: array<$COLUMN>; // (B, H, Tq, D) or (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$ROW>; // (B, KV, Tk, D) or (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$ROW>; // as k
@group(0) @binding(3) var<storage, read> lists: array<u32>; // a list for each tile of keys
@group(0) @binding(4) var<storage, read> dout: array<$COLUMN>; // as q
@group(0) @binding(5) var<storage, read> lse: array<f32>; // (B, H, Tq)
@group(0) @binding(6) var<storage, read> delta: array<f32>; // (B, H, Tq)
@group(0) @binding(7) var<storage, read_write> dk: array<$ROW>; // as k
@group(0) @binding(8) var<storage, read_write> dv: array<$ROW>; // as k
#if MASK
@group(0) @binding(9) var<storage, read> mask: array<$MASK>; // (B, maskHeads, Tq, Tk)
#endif

var<workgroup> queryTile: Tile;
var<workgroup> upstreamTile: Tile; // dout

@compute @workgroup_size(LANES * PARTS)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let group = wg.x + wg.y * groups.x;
  let tileIndex = group % params.tiles;
  let kvHead = (group / params.tiles) % params.kvHeads;
  let batch = group / (params.tiles * params.kvHeads);
  if (batch >= params.batch) { return; }
  let share = params.heads / params.kvHeads; // query heads that read this key head
  let lane = index % LANES;
  let part = index / LANES;
  let row = tileIndex * LANES + lane; // this invocation's key
  let at = keyRow(batch, kvHead, vec4u(min(row, params.keys - 1u))).x;
  let scale = params.scale * LOG2E;

  var key: Part;
  loadPart(&key, &k, at, part);
  var value: Part;
  loadPart(&value, &v, at, part);
  var keySum: Part; // Σ ds q
  var valueSum: Part; // Σ p dout

  let list = listOf(batch, kvHead, tileIndex);
  let rule = ruleOf(list);
  let span = spanOfKeys(rule, vec4u(row));
  var head = kvHead * share;
  var run = list + RULE_WORDS;
  var block = lists[run];
  var end = lists[run + 1u] / 2u;
  while (block < end) {
    let partial = lists[run + 1u] % 2u == 1u;
    let first = block * BLOCK;
    let queryAt = queryRow(batch, head, vec4u(0u, 1u, 0u, 0u));

    workgroupBarrier(); // the tiles of before are read
    stage(&queryTile, &q, queryAt.x, queryAt.y - queryAt.x, first, rule.queries - 1u, index);
    stage(&upstreamTile, &dout, queryAt.x, queryAt.y - queryAt.x, first, rule.queries - 1u, index);
    workgroupBarrier();
    var p: Scores; // first the scores
    products(&p, &key, &queryTile, lane, part);
    for (var i = 0u; i < BLOCK; i++) { p[i] *= scale; }
#if MASK
    for (var i = 0u; i < BLOCK; i++) { p[i] = masked(p[i], batch, head, first + i, row); }
#endif
    if (partial) {
      for (var i = 0u; i < BLOCK; i++) { p[i] = select(p[i], HIDDEN, outside(span, first + i).x); }
    }
    var ds: Scores; // first v · dout
    products(&ds, &value, &upstreamTile, lane, part);
    for (var i = 0u; i < BLOCK; i++) {
      let statistics = (batch * params.heads + head) * params.queries + min(first + i, rule.queries - 1u);
      p[i] = select(exp2(p[i] - lse[statistics] * LOG2E), 0.0, p[i] <= 0.5 * HIDDEN);
      ds[i] = p[i] * (ds[i] - delta[statistics]);
    }
    accumulate(&valueSum, &p, &upstreamTile, part);
    accumulate(&keySum, &ds, &queryTile, part);

    block += 1u;
    if (block == end) {
      run += 2u;
      if (lists[run + 1u] == 0u && head + 1u < (kvHead + 1u) * share) {
        run = list + RULE_WORDS;
        head += 1u;
      }
      block = lists[run];
      end = lists[run + 1u] / 2u;
    }
  }

  if (row < params.keys) {
    storePart(&dk, at, part, &keySum, params.scale, row < rule.keys);
    storePart(&dv, at, part, &valueSum, 1.0, row < rule.keys);
  }
}

#include ./attention_staged.wgsl
