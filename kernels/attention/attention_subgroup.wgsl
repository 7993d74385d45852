// attention.wgsl for software adapters: 4 · LANES queries a workgroup, four of them an invocation's; see attention_tile.wgsl.

@group(0) @binding(0) var<storage, read> q: array<$ROW>; // (B, H, Tq, D) or (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$COLUMN>; // (B, KV, Tk, D) or (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$COLUMN>; // as k
@group(0) @binding(3) var<storage, read> lists: array<u32>; // a list for each tile of queries
@group(0) @binding(4) var<storage, read_write> out: array<$ROW>; // as q
@group(0) @binding(5) var<storage, read_write> lse: array<f32>; // (B, H, Tq)
#if MASK
@group(0) @binding(6) var<storage, read> mask: array<$MASK>; // (B, maskHeads, Tq, Tk), added to the scores
#endif

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let group = wg.x + wg.y * groups.x;
  let tileIndex = group % params.tiles;
  let head = (group / params.tiles) % params.heads;
  let batch = group / (params.tiles * params.heads);
  if (batch >= params.batch) { return; }
  let kvHead = head / (params.heads / params.kvHeads);
  let rows = (tileIndex * LANES + lane) * 4u + vec4u(0u, 1u, 2u, 3u); // this lane's queries
  let at = queryRow(batch, head, min(rows, vec4u(params.queries - 1u)));

  var sums: Rows; // Σ exp(score − top) v
  var top = vec4f(HIDDEN); // the largest score so far
  var total = vec4f(0.0); // Σ exp(score − top)

  let list = listOf(batch, kvHead, tileIndex);
  let rule = ruleOf(list);
  let span = spanOfQueries(rule, rows);
  var run = list + RULE_WORDS;
  var block = lists[run];
  var end = lists[run + 1u] / 2u;
  while (block < end) {
    let partial = lists[run + 1u] % 2u == 1u;
    var keyAt: array<u32, OWN>; // this lane's keys of the block
    for (var b = 0u; b < OWN; b++) {
      keyAt[b] = keyRow(batch, kvHead, vec4u(min(block * BLOCK + b * LANES + lane, rule.keys - 1u))).x;
    }

    var score: Tile;
    products(&score, &q, at, &k, keyAt);
    scores(&score, batch, head, rows, block * BLOCK, span, partial);

    // the running softmax: what was summed so far shrinks where a larger score came
    var larger = top;
    for (var b = 0u; b < OWN; b++) {
      for (var l = 0u; l < LANES; l++) { larger = max(larger, score[b][l]); }
    }
    let shrink = exp2(top - larger);
    top = larger;
    total *= shrink;
    for (var b = 0u; b < OWN; b++) {
      for (var l = 0u; l < LANES; l++) {
        let p = select(exp2(score[b][l] - larger), vec4f(0.0), score[b][l] <= vec4f(0.5 * HIDDEN));
        score[b][l] = p;
        total += p;
      }
    }
    accumulate(&sums, shrink, &score, &v, keyAt);

    block += 1u;
    if (block == end) {
      run += 2u;
      block = lists[run];
      end = lists[run + 1u] / 2u;
    }
  }

  // a row that sees no key gives zeros
  let seen = (total > vec4f(0.0)) & (rows < vec4u(rule.queries));
  let inverse = select(vec4f(0.0), 1.0 / total, seen);
  let logSumExp = select(vec4f(UNSEEN), (top + log2(total)) / LOG2E, seen);
  for (var i = 0u; i < (params.dim + 3u) / 4u * 4u; i++) {
    let r = i % 4u;
    if (rows[r] < params.queries) {
      if (i < 4u) { lse[(batch * params.heads + head) * params.queries + rows[r]] = logSumExp[r]; }
      store(&out, at[r], i / 4u, select(vec4f(0.0), sums[r][i / 4u] * inverse[r], seen[r]));
    }
  }
}

#include ./attention_tile.wgsl
