// The gradient of an additive mask: ds = p (dp − delta) of each pair (attention_query_gradient.wgsl), summed over the heads
// that share the mask. One invocation a pair, with both products over D by itself: the result is a (Tq, Tk) matrix in any
// case, and a learnt bias is the exception. Heads are summed in order.

@group(0) @binding(0) var<storage, read> q: array<$ROW>; // (B, H, Tq, D) or (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$COLUMN>; // (B, KV, Tk, D) or (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$COLUMN>; // as k
@group(0) @binding(3) var<storage, read> lists: array<u32>; // a list for each tile of queries
@group(0) @binding(4) var<storage, read> dout: array<$ROW>; // as q
@group(0) @binding(5) var<storage, read> lse: array<f32>; // (B, H, Tq)
@group(0) @binding(6) var<storage, read> delta: array<f32>; // (B, H, Tq)
@group(0) @binding(7) var<storage, read_write> dmask: array<$MASK>; // as mask
@group(0) @binding(8) var<storage, read> mask: array<$MASK>; // (B, maskHeads, Tq, Tk)

const TILE = $TILE; // queries that share a list
const BLOCK = $BLOCK; // keys of a block in the lists

fn listed(list: u32, block: u32) -> bool {
  for (var run = list + RULE_WORDS; lists[run + 1u] > 0u; run += 2u) {
    if (block >= lists[run] && block < lists[run + 1u] / 2u) { return true; }
  }
  return false;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let index = id.x + id.y * groups.x * 64u;
  let key = index % params.keys;
  let query = (index / params.keys) % params.queries;
  let maskHead = (index / (params.keys * params.queries)) % params.maskHeads;
  let batch = index / (params.keys * params.queries * params.maskHeads);
  if (batch >= params.batch) { return; }
  let width = (params.dim + 3u) / 4u;
  var sum = 0.0;
  for (var head = maskHead; head < params.heads; head += params.maskHeads) {
    let kvHead = head / (params.heads / params.kvHeads);
    let list = listOf(batch, kvHead, query / TILE);
    let rule = ruleOf(list);
    let hidden = query >= rule.queries || outside(spanOfQueries(rule, vec4u(query)), key).x || !listed(list, key / BLOCK);
    if (hidden) { continue; }
    let queryAt = queryRow(batch, head, vec4u(query)).x;
    let keyAt = keyRow(batch, kvHead, vec4u(key)).x;
    var score = 0.0;
    var dp = 0.0;
    for (var c = 0u; c < width; c++) {
      score += dot(loadRow(&q, queryAt, c), loadColumn(&k, keyAt, c));
      dp += dot(loadRow(&dout, queryAt, c), loadColumn(&v, keyAt, c));
    }
    let statistics = (batch * params.heads + head) * params.queries + query;
    score = masked(score * params.scale * LOG2E, batch, head, query, key);
    if (score > 0.5 * HIDDEN) { sum += exp2(score - lse[statistics] * LOG2E) * (dp - delta[statistics]); }
  }
  dmask[index] = $MASK(sum);
}

#include ./attention_shared.wgsl
