// Flash attention, forward (Dao 2023, FlashAttention-2): out = softmax(scale · q kᵀ) v for one tile of queries at a time,
// in one pass over the keys with a running maximum and sum, so that no (Tq, Tk) matrix exists. The log-sum-exp of each
// row is kept for the backward pass, which recomputes the scores from it. Which blocks of keys a tile visits is data: its
// list. attention_staged.wgsl says how rows, columns and the two products are laid out.

@group(0) @binding(0) var<storage, read> q: array<$ROW>; // (B, H, Tq, D) or (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$COLUMN>; // (B, KV, Tk, D) or (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$COLUMN>; // as k
@group(0) @binding(3) var<storage, read> lists: array<u32>; // a list for each tile of queries
@group(0) @binding(4) var<storage, read_write> out: array<$ROW>; // as q
@group(0) @binding(5) var<storage, read_write> lse: array<f32>; // (B, H, Tq)
#if MASK
@group(0) @binding(6) var<storage, read> mask: array<$MASK>; // (B, maskHeads, Tq, Tk), added to the scores
#endif

var<workgroup> tile: Tile; // the block's keys, then its values

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
  let at = queryRow(batch, head, vec4u(min(row, params.queries - 1u))).x;
  let keyAt = keyRow(batch, kvHead, vec4u(0u, 1u, 0u, 0u));
  let scale = params.scale * LOG2E;

  var query: Part;
  loadPart(&query, &q, at, part);
  var sum: Part; // Σ exp(score − top) v
  var top = HIDDEN; // the largest score so far
  var total = 0.0; // Σ exp(score − top)

  let list = listOf(batch, kvHead, tileIndex);
  let rule = ruleOf(list);
  let span = spanOfQueries(rule, vec4u(row));
  var run = list + RULE_WORDS;
  var block = lists[run];
  var end = lists[run + 1u] / 2u;
  while (block < end) {
    let partial = lists[run + 1u] % 2u == 1u;
    let first = block * BLOCK;

    workgroupBarrier(); // the values of before are read
    stage(&tile, &k, keyAt.x, keyAt.y - keyAt.x, first, rule.keys - 1u, index);
    workgroupBarrier();
    var score: Scores;
    products(&score, &query, &tile, lane, part);
    for (var j = 0u; j < BLOCK; j++) { score[j] *= scale; }
#if MASK
    for (var j = 0u; j < BLOCK; j++) { score[j] = masked(score[j], batch, head, row, first + j); }
#endif
    if (partial) {
      for (var j = 0u; j < BLOCK; j++) { score[j] = select(score[j], HIDDEN, outside(span, first + j).x); }
    }

    // the running softmax: what was summed so far shrinks where a larger score came
    var larger = top;
    for (var j = 0u; j < BLOCK; j++) { larger = max(larger, score[j]); }
    let shrink = exp2(top - larger);
    top = larger;
    total *= shrink;
    for (var j = 0u; j < BLOCK; j++) {
      score[j] = select(exp2(score[j] - larger), 0.0, score[j] <= 0.5 * HIDDEN);
      total += score[j];
    }
    for (var c = 0u; c < $COLUMNS; c++) { sum[c] *= shrink; }

    workgroupBarrier(); // the keys are read
    stage(&tile, &v, keyAt.x, keyAt.y - keyAt.x, first, rule.keys - 1u, index);
    workgroupBarrier();
    accumulate(&sum, &score, &tile, part);

    block += 1u;
    if (block == end) {
      run += 2u;
      block = lists[run];
      end = lists[run + 1u] / 2u;
    }
  }

  if (row < params.queries) {
    let seen = total > 0.0 && row < rule.queries; // a row that sees no key gives zeros
    storePart(&out, at, part, &sum, 1.0 / total, seen);
    if (part == 0u) {
      lse[(batch * params.heads + head) * params.queries + row] = select(UNSEEN, (top + log2(total)) / LOG2E, seen);
    }
  }
}

#include ./attention_staged.wgsl
