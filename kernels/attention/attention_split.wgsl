// Attention of few queries to many keys (decoding; "Flash-Decoding", Dao et al. 2023): the keys are cut into spans, a
// workgroup attends to one, and attention_combine.wgsl puts the parts together. A workgroup takes ROWS of the rows that
// read the same key head (its query heads, times their queries), so that keys are read once for all of them.
//
// First each invocation scores four whole keys at a time, against the rows in workgroup memory; then each sums one quad of D
// over a share of the values, and the shares are added up. The tile of attention.wgsl would have 31 of 32 rows empty here:
// with 8 heads over 2 and 32,768 keys of width 64, 61 ms on a software adapter, against 12.

@group(0) @binding(0) var<storage, read> q: array<$ROW>; // (B, H, Tq, D) or (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$COLUMN>; // (B, KV, Tk, D) or (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$COLUMN>; // as k
@group(0) @binding(3) var<storage, read> lists: array<u32>; // one list for all queries
@group(0) @binding(4) var<storage, read_write> sums: array<vec4f>; // (B, H, Tq, spans, ⌈D / 4⌉): Σ exp(score − top) v
@group(0) @binding(5) var<storage, read_write> statistics: array<vec2f>; // (B, H, Tq, spans): top and Σ exp(score − top)
#if MASK
@group(0) @binding(6) var<storage, read> mask: array<$MASK>; // (B, maskHeads, Tq, Tk), added to the scores
#endif

const LANES = 64u;
const ROWS = $ROWS;
const SPAN = $SPAN; // keys
const QUADS = SPAN / 4u;
const BLOCK = $BLOCK; // keys of a block in the lists
const WIDEST = 64u; // quads

var<workgroup> queryTile: array<vec4f, ROWS * WIDEST>;
var<workgroup> scores: array<vec4f, ROWS * QUADS>; // four keys each
var<workgroup> shares: array<vec4f, ROWS * LANES>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let group = wg.x + wg.y * groups.x;
  let spans = (params.keys + SPAN - 1u) / SPAN;
  let span = group % spans;
  let tileIndex = (group / spans) % params.tiles;
  let kvHead = (group / (spans * params.tiles)) % params.kvHeads;
  let batch = group / (spans * params.tiles * params.kvHeads);
  if (batch >= params.batch) { return; }
  let width = (params.dim + 3u) / 4u;
  let share = params.heads / params.kvHeads;
  let rows = share * params.queries; // row r: query r % Tq of the group's head r / Tq
  let firstRow = tileIndex * ROWS;

  let list = listOf(batch, kvHead, 0u);
  let rule = ruleOf(list);
  let first = span * SPAN;
  let last = min(first + SPAN, rule.keys);

  for (var i = lane; i < ROWS * width; i += LANES) {
    let row = min(firstRow + i / width, rows - 1u);
    let at = queryRow(batch, kvHead * share + row / params.queries, vec4u(row % params.queries)).x;
    queryTile[i] = loadRow(&q, at, i % width) * (params.scale * LOG2E);
  }
  for (var i = lane; i < ROWS * QUADS; i += LANES) { scores[i] = vec4f(HIDDEN); }
  workgroupBarrier();
  // What the list names is marked in the first row's scores.
  for (var run = list + RULE_WORDS; lists[run + 1u] > 0u; run += 2u) {
    let begin = max(lists[run] * BLOCK, first) / 4u;
    let end = (min(lists[run + 1u] / 2u * BLOCK, last) + 3u) / 4u;
    for (var i = begin + lane; i < end; i += LANES) { scores[i - first / 4u] = vec4f(0.0); }
  }
  workgroupBarrier();

  var top: array<f32, ROWS>;
  for (var r = 0u; r < ROWS; r++) { top[r] = HIDDEN; }
  for (var i = lane; i < QUADS; i += LANES) {
    if (scores[i].x != 0.0) { continue; }
    let key = first + i * 4u;
    let at = keyRow(batch, kvHead, min(key + vec4u(0u, 1u, 2u, 3u), vec4u(rule.keys - 1u)));
    var score: array<vec4f, ROWS>;
    for (var r = 0u; r < ROWS; r++) { score[r] = vec4f(0.0); }
    for (var c = 0u; c < width; c++) {
      let key0 = loadColumn(&k, at.x, c);
      let key1 = loadColumn(&k, at.y, c);
      let key2 = loadColumn(&k, at.z, c);
      let key3 = loadColumn(&k, at.w, c);
      for (var r = 0u; r < ROWS; r++) {
        let query = queryTile[r * width + c];
        score[r] += vec4f(dot(query, key0), dot(query, key1), dot(query, key2), dot(query, key3));
      }
    }
    for (var r = 0u; r < ROWS; r++) {
      let row = min(firstRow + r, rows - 1u);
      let sees = spanOfQueries(rule, vec4u(row % params.queries));
      for (var e = 0u; e < 4u; e++) {
#if MASK
        score[r][e] = masked(score[r][e], batch, kvHead * share + row / params.queries, row % params.queries, key + e);
#endif
        if (outside(sees, key + e).x) { score[r][e] = HIDDEN; }
        top[r] = max(top[r], score[r][e]);
      }
      scores[r * QUADS + i] = score[r];
    }
  }
  for (var r = 0u; r < ROWS; r++) { shares[r * LANES + lane].x = top[r]; }
  workgroupBarrier();
  var total: array<f32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    for (var i = 0u; i < LANES; i++) { top[r] = max(top[r], shares[r * LANES + i].x); }
    total[r] = 0.0;
    for (var i = lane; i < QUADS; i += LANES) {
      let score = scores[r * QUADS + i];
      let p = select(exp2(score - top[r]), vec4f(0.0), score <= vec4f(0.5 * HIDDEN));
      scores[r * QUADS + i] = p;
      total[r] += dot(p, vec4f(1.0));
    }
    shares[r * LANES + lane].y = total[r];
  }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) {
    total[r] = 0.0;
    for (var i = 0u; i < LANES; i++) { total[r] += shares[r * LANES + i].y; }
  }
  workgroupBarrier(); // the shares are read

  let stride = LANES / width; // invocations that share a quad
  var sum: array<vec4f, ROWS>;
  for (var r = 0u; r < ROWS; r++) { sum[r] = vec4f(0.0); }
  if (lane < stride * width) {
    for (var i = lane / width; i < QUADS; i += stride) {
      var p: array<vec4f, ROWS>;
      var any = vec4f(0.0);
      for (var r = 0u; r < ROWS; r++) {
        p[r] = scores[r * QUADS + i];
        any += p[r];
      }
      if (all(any == vec4f(0.0))) { continue; }
      let at = keyRow(batch, kvHead, min(first + i * 4u + vec4u(0u, 1u, 2u, 3u), vec4u(rule.keys - 1u)));
      let value0 = loadColumn(&v, at.x, lane % width);
      let value1 = loadColumn(&v, at.y, lane % width);
      let value2 = loadColumn(&v, at.z, lane % width);
      let value3 = loadColumn(&v, at.w, lane % width);
      for (var r = 0u; r < ROWS; r++) {
        sum[r] += p[r].x * value0 + p[r].y * value1 + p[r].z * value2 + p[r].w * value3;
      }
    }
  }
  for (var r = 0u; r < ROWS; r++) { shares[r * LANES + lane] = sum[r]; }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) {
    let row = firstRow + r;
    if (row >= rows) { break; }
    let at = ((batch * params.heads + kvHead * share) * params.queries + row) * spans + span;
    if (lane < width) {
      for (var i = 1u; i < stride; i++) { sum[r] += shares[r * LANES + i * width + lane]; }
      sums[at * width + lane] = sum[r];
    }
    if (lane == 0u) { statistics[at] = vec2f(top[r], total[r]); }
  }
}

#include ./attention_shared.wgsl
