// attention_key_gradient.wgsl for software adapters: 4 · LANES keys a workgroup, four of them an invocation's; see attention_tile.wgsl.

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

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let group = wg.x + wg.y * groups.x;
  let tileIndex = group % params.tiles;
  let kvHead = (group / params.tiles) % params.kvHeads;
  let batch = group / (params.tiles * params.kvHeads);
  if (batch >= params.batch) { return; }
  let share = params.heads / params.kvHeads; // query heads that read this key head
  let rows = (tileIndex * LANES + lane) * 4u + vec4u(0u, 1u, 2u, 3u); // this lane's keys
  let at = keyRow(batch, kvHead, min(rows, vec4u(params.keys - 1u)));

  var keySums: Rows; // Σ ds q
  var valueSums: Rows; // Σ p dout
  let list = listOf(batch, kvHead, tileIndex);
  let rule = ruleOf(list);
  let span = spanOfKeys(rule, rows);
  var head = kvHead * share;
  var run = list + RULE_WORDS;
  var block = lists[run];
  var end = lists[run + 1u] / 2u;
  while (block < end) {
    let partial = lists[run + 1u] % 2u == 1u;
    var queryAt: array<u32, OWN>; // this lane's queries of the block
    var total: array<f32, OWN>; // and the log-sum-exp
    var mean: array<f32, OWN>; // and delta
    for (var b = 0u; b < OWN; b++) {
      let own = min(block * BLOCK + b * LANES + lane, rule.queries - 1u);
      queryAt[b] = queryRow(batch, head, vec4u(own)).x;
      total[b] = lse[(batch * params.heads + head) * params.queries + own] * LOG2E;
      mean[b] = delta[(batch * params.heads + head) * params.queries + own];
    }

    var p: Tile; // first the scores
    products(&p, &k, at, &q, queryAt);
    scores(&p, batch, head, rows, block * BLOCK, span, partial);
    var ds: Tile; // first v · dout
    products(&ds, &v, at, &dout, queryAt);
    for (var b = 0u; b < OWN; b++) {
      for (var l = 0u; l < LANES; l++) {
        let score = p[b][l];
        p[b][l] = select(exp2(score - subgroupShuffle(total[b], l)), vec4f(0.0), score <= vec4f(0.5 * HIDDEN));
        ds[b][l] = p[b][l] * (ds[b][l] - subgroupShuffle(mean[b], l));
      }
    }
    accumulate(&valueSums, vec4f(1.0), &p, &dout, queryAt);
    accumulate(&keySums, vec4f(1.0), &ds, &q, queryAt);

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

  for (var i = 0u; i < (params.dim + 3u) / 4u * 4u; i++) {
    let r = i % 4u;
    if (rows[r] < params.keys) {
      let counts = rows[r] < rule.keys;
      store(&dk, at[r], i / 4u, select(vec4f(0.0), keySums[r][i / 4u] * params.scale, counts));
      store(&dv, at[r], i / 4u, select(vec4f(0.0), valueSums[r][i / 4u], counts));
    }
  }
}

#include ./attention_tile.wgsl
