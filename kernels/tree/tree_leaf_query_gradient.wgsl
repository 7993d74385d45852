// tree_attention_query_gradient.wgsl for software adapters, leaf by leaf: adds scale · Σ ds k over the keys of a leaf to dq of all
// queries that have it at one place of their lists; see tree_leaf_attention.wgsl.

@group(0) @binding(0) var<storage, read> q: array<$ROW>; // (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$COLUMN>; // (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$COLUMN>; // as k
@group(0) @binding(3) var<storage, read> pairs: array<vec2u>; // (B, KV, beam, Tq): leaves in ascending order, and their queries
@group(0) @binding(4) var<storage, read> dout: array<$ROW>; // as q
@group(0) @binding(5) var<storage, read> lse: array<f32>; // (B, H, Tq)
@group(0) @binding(6) var<storage, read> delta: array<f32>; // (B, H, Tq)
@group(0) @binding(7) var<storage, read_write> dq: array<vec4f>; // as q

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
    var total: vec4f; // log-sum-exp
    var mean: vec4f; // delta
    for (var r = 0u; r < 4u; r++) {
      let row = rowOf(run, batch, kvHead, rows[r]);
      at[r] = row.at;
      total[r] = lse[row.statistics] * LOG2E;
      mean[r] = delta[row.statistics];
    }
    var sums = Rows(); // Σ ds k
    for (var first = 0u; first < params.block; first += BLOCK) {
      let keyAt = keysOf(batch, kvHead, leaf, first, lane);
      var score: Tile;
      products(&score, &q, at, &k, keyAt);
      var ds: Tile; // first dout · v
      products(&ds, &dout, at, &v, keyAt);
      for (var b = 0u; b < OWN; b++) {
        for (var l = 0u; l < LANES; l++) {
          let inside = first + b * LANES + l < params.block;
          let p = select(vec4f(0.0), exp2(score[b][l] * (params.scale * LOG2E) - total), inside);
          ds[b][l] = p * (ds[b][l] - mean);
        }
      }
      accumulate(&sums, vec4f(1.0), &ds, &k, keyAt);
    }
    let counts = (rows < vec4u(run.count)) & (total > vec4f(0.5 * UNSEEN));
    for (var i = 0u; i < params.dim; i++) {
      let r = i % 4u;
      if (counts[r]) { dq[at[r] / 4u + i / 4u] += sums[r][i / 4u] * params.scale; }
    }
  }
}

#include ./tree_leaf.wgsl
