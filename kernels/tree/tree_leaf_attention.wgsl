// tree_attention.wgsl for software adapters, leaf by leaf instead of query by query: a workgroup attends to the keys of one leaf
// for all queries that have it at one place (`slot`) of their lists, 4 · LANES rows at a time, with the products of
// attention_tile.wgsl. So a load of a key serves 32 rows, not one. A query occurs once in a dispatch: its result is merged in
// place with what it has seen so far, by the log-sum-exps; one dispatch a slot. 2048 queries of one head of width 64 before
// 16,384 keys, window included: 0.09 s of the processor's time on a software adapter, against 0.51 query by query.

@group(0) @binding(0) var<storage, read> q: array<$ROW>; // (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$COLUMN>; // (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$COLUMN>; // as k
@group(0) @binding(3) var<storage, read> pairs: array<vec2u>; // (B, KV, beam, Tq): leaves in ascending order, and their queries
@group(0) @binding(4) var<storage, read_write> out: array<vec4f>; // as q
@group(0) @binding(5) var<storage, read_write> lse: array<f32>; // (B, H, Tq)

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let index = wg.x + wg.y * groups.x;
  let leaf = index % params.leaves;
  let group = index / params.leaves;
  let kvHead = group % params.kvHeads;
  let batch = group / params.kvHeads;
  if (batch >= params.batch) { return; }
  let run = runOf(group, params.slot, leaf);
  for (var start = 0u; start < run.count; start += 4u * LANES) {
    let rows = start + lane * 4u + vec4u(0u, 1u, 2u, 3u); // this lane's
    var at: vec4u;
    var statistics: vec4u;
    for (var r = 0u; r < 4u; r++) {
      let row = rowOf(run, batch, kvHead, rows[r]);
      at[r] = row.at;
      statistics[r] = row.statistics;
    }
    var sums = Rows(); // Σ exp(score − top) v
    var top = vec4f(HIDDEN); // the largest score so far
    var total = vec4f(0.0); // Σ exp(score − top)
    for (var first = 0u; first < params.block; first += BLOCK) {
      let keyAt = keysOf(batch, kvHead, leaf, first, lane);
      var score: Tile;
      products(&score, &q, at, &k, keyAt);
      var larger = top;
      for (var b = 0u; b < OWN; b++) {
        for (var l = 0u; l < LANES; l++) {
          let inside = first + b * LANES + l < params.block;
          score[b][l] = select(vec4f(HIDDEN), score[b][l] * (params.scale * LOG2E), inside);
          larger = max(larger, score[b][l]);
        }
      }
      let shrink = exp2(top - larger);
      top = larger;
      total *= shrink;
      for (var b = 0u; b < OWN; b++) {
        for (var l = 0u; l < LANES; l++) {
          score[b][l] = select(exp2(score[b][l] - larger), vec4f(0.0), score[b][l] <= vec4f(0.5 * HIDDEN));
          total += score[b][l];
        }
      }
      accumulate(&sums, shrink, &score, &v, keyAt);
    }

    // exp(lse) of before and of the leaf, both relative to the larger one
    var before: vec4f;
    for (var r = 0u; r < 4u; r++) { before[r] = lse[statistics[r]] * LOG2E; }
    let larger = max(before, top);
    let old = exp2(before - larger);
    let fresh = exp2(top - larger);
    let sum = old + fresh * total;
    let counts = (rows < vec4u(run.count)) & (before > vec4f(0.5 * UNSEEN));
    for (var i = 0u; i < params.dim; i++) {
      let r = i % 4u;
      if (counts[r]) {
        let quad = at[r] / 4u + i / 4u;
        out[quad] = (out[quad] * old[r] + sums[r][i / 4u] * fresh[r]) / sum[r];
        if (i < 4u) { lse[statistics[r]] = (larger[r] + log2(sum[r])) / LOG2E; }
      }
    }
  }
}

#include ./tree_leaf.wgsl
