// Attention of each query to the leaves that it has selected, merged with what it sees anyway: its window, which
// kernels/attention has attended to, or, with WINDOW (few queries: decoding), which this kernel walks as well.
//
// A workgroup has one query, and up to ROWS of the heads that read the same key head; keys and values are loaded once for all of
// them. Its keys are a sequence of entries: those of the selected leaves, then those of the window. They come in pieces of
// ENTRIES: first a lane scores whole keys, then it sums up a quad of D over all values of the piece, or where there are more lanes
// than quads, over a share of them. Pieces are put together by a running softmax; its first term is the window's result, with the
// weight exp(log-sum-exp).

#if Q8
alias Cached = u32; // see engine/formats.ts
#else
alias Cached = vec4<$K>;
#endif

@group(0) @binding(0) var<storage, read> q: array<vec4<$Q>>; // (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<Cached>; // (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<Cached>; // as k
@group(0) @binding(3) var<storage, read> selected: array<u32>; // (B, Tq, KV, beam): leaves, then what is none
@group(0) @binding(4) var<storage, read_write> out: array<vec4<$Q>>; // as q
@group(0) @binding(5) var<storage, read_write> lse: array<f32>; // (B, H, Tq)
#if WINDOW
#if QUERY_LENGTHS
@group(0) @binding($QUERY_LENGTHS) var<storage, read> queryLengths: array<u32>; // (B)
#endif
#if KEY_LENGTHS
@group(0) @binding($KEY_LENGTHS) var<storage, read> keyLengths: array<u32>; // (B)
#endif
#else
@group(0) @binding(6) var<storage, read> windowOut: array<vec4<$Q>>; // as q
@group(0) @binding(7) var<storage, read> windowLse: array<f32>; // (B, H, Tq)
#endif

const LANES = $LANES;
const ROWS = $ROWS;
const ENTRIES = 512u;
const WIDEST = 64u; // quads

var<workgroup> scores: array<f32, ROWS * ENTRIES>;
var<workgroup> sums: array<vec4f, ROWS * WIDEST>; // Σ exp(score − top) v
var<workgroup> shares: array<vec4f, ROWS * LANES>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let share = params.heads / params.kvHeads;
  let tiles = (share + ROWS - 1u) / ROWS;
  let index = wg.x + wg.y * groups.x;
  let group = index / tiles; // (sample, query, key head)
  let kvHead = group % params.kvHeads;
  let query = (group / params.kvHeads) % params.queries;
  let batch = group / (params.kvHeads * params.queries);
  if (batch >= params.batch) { return; }
  let width = params.width;
  let firstHead = index % tiles * ROWS; // of the group
  let rows = min(ROWS, share - firstHead);
  let queryAt = (group * share + firstHead) * width;
  let statistics = (batch * params.heads + kvHead * share + firstHead) * params.queries + query;
  let scale = params.scale * LOG2E;

  var top: array<f32, ROWS>; // the largest score so far, in units of log 2
  var total: array<f32, ROWS>; // Σ exp(score − top)
  var windowFirst = 0u;
  var windowKeys = 0u;
#if WINDOW
  var queries = params.queries;
  var keys = params.keys;
#if QUERY_LENGTHS
  queries = min(queries, queryLengths[batch]);
#endif
#if KEY_LENGTHS
  keys = min(keys, keyLengths[batch]);
#endif
  let counts = query < queries && query + keys >= queries;
  let position = query + keys - queries;
  windowFirst = (max(position + 1u, params.window) - params.window) / params.block * params.block;
  windowKeys = position + 1u - windowFirst;
  for (var r = 0u; r < ROWS; r++) { top[r] = HIDDEN; }
  for (var i = lane; i < ROWS * width; i += LANES) { sums[i] = vec4f(0.0); }
#else
  let counts = windowLse[statistics] > 0.5 * UNSEEN;
  for (var r = 0u; r < rows; r++) {
    top[r] = windowLse[statistics + r * params.queries] * LOG2E;
    total[r] = 1.0;
  }
  for (var i = lane; i < rows * width; i += LANES) { sums[i] = vec4f(windowOut[queryAt + i]); }
#endif
  if (!counts) {
    for (var i = lane; i < rows * width; i += LANES) { out[queryAt + i] = vec4<$Q>(); }
    for (var r = lane; r < rows; r += LANES) { lse[statistics + r * params.queries] = UNSEEN; }
    return;
  }

  workgroupBarrier(); // the sums are set
  let leafKeys = selectedCount(group) * params.block;
  let entries = leafKeys + windowKeys;
  let stride = max(1u, LANES / width); // lanes that share a quad
  for (var first = 0u; first < entries; first += ENTRIES) {
    let here = min(ENTRIES, entries - first);
    var larger = top;
    for (var i = lane; i < here; i += LANES) {
      let at = keyRow(batch, kvHead, entry(group, first + i, leafKeys, windowFirst));
      var score = array<f32, ROWS>();
      for (var c = 0u; c < width; c++) {
        let key = load(&k, at + c);
        for (var r = 0u; r < ROWS; r++) { score[r] += dot(vec4f(q[queryAt + min(r, rows - 1u) * width + c]), key); }
      }
      for (var r = 0u; r < ROWS; r++) {
        scores[r * ENTRIES + i] = score[r] * scale;
        larger[r] = max(larger[r], score[r] * scale);
      }
    }
    for (var r = 0u; r < ROWS; r++) { shares[r * LANES + lane].x = larger[r]; }
    workgroupBarrier();
    var shrink = array<f32, ROWS>();
    var added = array<f32, ROWS>();
    for (var r = 0u; r < ROWS; r++) {
      for (var l = 0u; l < LANES; l++) { larger[r] = max(larger[r], shares[r * LANES + l].x); }
      shrink[r] = exp2(top[r] - larger[r]);
      top[r] = larger[r];
      for (var i = lane; i < here; i += LANES) {
        let p = exp2(scores[r * ENTRIES + i] - larger[r]);
        scores[r * ENTRIES + i] = p;
        added[r] += p;
      }
      shares[r * LANES + lane].y = added[r];
    }
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
      total[r] *= shrink[r];
      for (var l = 0u; l < LANES; l++) { total[r] += shares[r * LANES + l].y; }
    }
    workgroupBarrier(); // the shares are read

    for (var c = lane; c < width * stride; c += LANES) {
      var sum = array<vec4f, ROWS>();
      for (var i = c / width; i < here; i += stride) {
        let value = load(&v, keyRow(batch, kvHead, entry(group, first + i, leafKeys, windowFirst)) + c % width);
        for (var r = 0u; r < ROWS; r++) { sum[r] = fma(vec4f(scores[r * ENTRIES + i]), value, sum[r]); }
      }
      for (var r = 0u; r < ROWS; r++) {
        if (stride > 1u) { shares[r * LANES + c] = sum[r]; } else { sums[r * width + c] = fma(sums[r * width + c], vec4f(shrink[r]), sum[r]); }
      }
    }
    workgroupBarrier();
    if (stride > 1u && lane < width) {
      for (var r = 0u; r < ROWS; r++) {
        var sum = sums[r * width + lane] * shrink[r];
        for (var i = 0u; i < stride; i++) { sum += shares[r * LANES + i * width + lane]; }
        sums[r * width + lane] = sum;
      }
    }
    workgroupBarrier();
  }

  for (var r = 0u; r < rows; r++) {
    for (var c = lane; c < width; c += LANES) { out[queryAt + r * width + c] = vec4<$Q>(sums[r * width + c] / total[r]); }
    if (lane == 0u) { lse[statistics + r * params.queries] = (top[r] + log2(total[r])) / LOG2E; }
  }
}

#include ./tree_entries.wgsl
#include ../cache/cached.wgsl
