// tree_attention_key_gradient.wgsl for software adapters: 4 · LANES keys a workgroup, four of them an invocation's; see
// attention_tile.wgsl. Its columns may lie anywhere, and here they are the queries that selected the leaf.

@group(0) @binding(0) var<storage, read> q: array<$COLUMN>; // (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$ROW>; // (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$ROW>; // as k
@group(0) @binding(3) var<storage, read> pairs: array<vec2u>; // (B, KV, beam, Tq): leaves in ascending order, and their queries
@group(0) @binding(4) var<storage, read> dout: array<$COLUMN>; // as q
@group(0) @binding(5) var<storage, read> lse: array<f32>; // (B, H, Tq)
@group(0) @binding(6) var<storage, read> delta: array<f32>; // (B, H, Tq)
@group(0) @binding(7) var<storage, read_write> dk: array<$ROW>; // as k
@group(0) @binding(8) var<storage, read_write> dv: array<$ROW>; // as k

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let group = wg.x + wg.y * groups.x;
  let line = group / (params.tiles * params.leaves); // (sample, key head)
  let kvHead = line % params.kvHeads;
  let batch = line / params.kvHeads;
  if (batch >= params.batch) { return; }
  let leaf = (group / params.tiles) % params.leaves;
  let end = (leaf + 1u) * params.block;
  let rows = leaf * params.block + (group % params.tiles * LANES + lane) * 4u + vec4u(0u, 1u, 2u, 3u); // this lane's keys
  let at = keyRow(batch, kvHead, min(rows, vec4u(end - 1u)));

  var keySums: Rows; // Σ ds q
  var valueSums: Rows; // Σ p dout
  for (var slot = 0u; slot < params.beam; slot++) {
    let run = runOf(line, slot, leaf);
    for (var first = 0u; first < run.count; first += BLOCK) {
      var queryAt: array<u32, OWN>; // this lane's columns
      var total: array<f32, OWN>; // and the log-sum-exp: so large that p is 0 for what is none, or does not count
      var mean: array<f32, OWN>; // and delta
      for (var b = 0u; b < OWN; b++) {
        let column = first + b * LANES + lane;
        let row = rowOf(run, batch, kvHead, column);
        let counts = column < run.count && lse[row.statistics] > 0.5 * UNSEEN;
        queryAt[b] = row.at;
        total[b] = select(1e38, lse[row.statistics] * LOG2E, counts);
        mean[b] = delta[row.statistics];
      }
      var p: Tile; // first the scores
      products(&p, &k, at, &q, queryAt);
      var ds: Tile; // first v · dout
      products(&ds, &v, at, &dout, queryAt);
      for (var b = 0u; b < OWN; b++) {
        for (var l = 0u; l < LANES; l++) {
          p[b][l] = exp2(p[b][l] * (params.scale * LOG2E) - subgroupShuffle(total[b], l));
          ds[b][l] = p[b][l] * (ds[b][l] - subgroupShuffle(mean[b], l));
        }
      }
      accumulate(&valueSums, vec4f(1.0), &p, &dout, queryAt);
      accumulate(&keySums, vec4f(1.0), &ds, &q, queryAt);
    }
  }

  for (var i = 0u; i < params.dim; i++) {
    let r = i % 4u;
    let quad = at[r] / 4u + i / 4u;
    if (rows[r] < end) {
      dk[quad] = $ROW(vec4f(dk[quad]) + keySums[r][i / 4u] * params.scale);
      dv[quad] = $ROW(vec4f(dv[quad]) + valueSums[r][i / 4u]);
    }
  }
}

#include ./tree_runs.wgsl
#include ../attention/attention_tile.wgsl
