// Attention of one query a head to a cache ("Flash-Decoding", Dao et al. 2023), read in the format that it is kept in: a
// workgroup attends to a span of slots for ROWS heads of those that read the same key head; decode_combine.wgsl puts the
// spans together. The new token sees all slots that hold a key, whichever positions those are. As
// kernels/attention/attention_split.wgsl, without lists, masks and queries at other positions; see its figures.

alias Float = vec4<$T>;
#if Q8
alias Cached = u32;
#else
alias Cached = vec4<$C>;
#endif

@group(0) @binding(0) var<storage, read> q: array<Float>; // (B, H, D)
@group(0) @binding(1) var<storage, read> keys: array<Cached>; // (B, slots, KV, D)
@group(0) @binding(2) var<storage, read> values: array<Cached>;
@group(0) @binding(3) var<storage, read> extents: array<u32>; // starts (B), and from params.counts on, counts (B)
#if ONE
@group(0) @binding(4) var<storage, read_write> out: array<Float>; // (B, H, D)
#else
@group(0) @binding(4) var<storage, read_write> sums: array<vec4f>; // (B, H, spans, D / 4): Σ exp(score − top) v
@group(0) @binding(5) var<storage, read_write> statistics: array<vec2f>; // (B, H, spans): top and Σ exp(score − top)
#endif

struct Params {
  batch: u32,
  heads: u32,
  kvHeads: u32,
  dim: u32,
  slots: u32,
  counts: u32,
  spans: u32,
  scales: u32, // word at which the cache's begin
  scale: f32,
}

const LOG2E = 1.4426950408889634; // scores are in units of log 2
const HIDDEN = -3e38;
const LANES = 64u;
const ROWS = $ROWS;
const SPAN = $SPAN; // slots
const QUADS = SPAN / 4u;

var<workgroup> queryTile: array<vec4f, ROWS * 64u>; // D ≤ 256
var<workgroup> scores: array<vec4f, ROWS * QUADS>; // four keys each
var<workgroup> shares: array<vec4f, ROWS * LANES>;

#if Q8
#include ../cache/q8.wgsl
#endif
// Quad c of the row that begins at element `at`.
fn load(source: ptr<storage, array<Cached>, read>, at: u32, c: u32) -> vec4f {
#if Q8
  let block = at / 32u + c / 8u;
  return quantsIn(source[at / 4u + c]) * unpack2x16float(source[params.scales + block / 2u])[block % 2u];
#else
  return vec4f(source[at / 4u + c]);
#endif
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = wg.x + wg.y * groups.x;
  let share = params.heads / params.kvHeads;
  let tiles = (share + ROWS - 1u) / ROWS;
  let span = group % params.spans;
  let firstRow = group / params.spans % tiles * ROWS;
  let kvHead = group / (params.spans * tiles) % params.kvHeads;
  let batch = group / (params.spans * tiles * params.kvHeads);
  if (batch >= params.batch) { return; }
  let width = params.dim / 4u;
  let count = extents[params.counts + batch];
  let length = select(0u, min(extents[batch] + 1u, params.slots), count > 0u); // keys
  let first = span * SPAN;
  let last = min(first + SPAN, length);

  for (var i = lane; i < ROWS * width; i += LANES) {
    let row = kvHead * share + min(firstRow + i / width, share - 1u);
    queryTile[i] = vec4f(q[(batch * params.heads + row) * width + i % width]) * (params.scale * LOG2E);
  }
  for (var i = lane; i < ROWS * QUADS; i += LANES) { scores[i] = vec4f(HIDDEN); }
  workgroupBarrier();

  var top: array<f32, ROWS>;
  for (var r = 0u; r < ROWS; r++) { top[r] = HIDDEN; }
  for (var i = lane; first + i * 4u < last; i += LANES) {
    let key = first + i * 4u + vec4u(0u, 1u, 2u, 3u);
    let at = ((batch * params.slots + min(key, vec4u(last - 1u))) * params.kvHeads + kvHead) * params.dim;
    var score: array<vec4f, ROWS>;
    for (var r = 0u; r < ROWS; r++) { score[r] = vec4f(0.0); }
    for (var c = 0u; c < width; c++) {
      let columns = mat4x4f(load(&keys, at.x, c), load(&keys, at.y, c), load(&keys, at.z, c), load(&keys, at.w, c));
      for (var r = 0u; r < ROWS; r++) { score[r] += queryTile[r * width + c] * columns; }
    }
    for (var r = 0u; r < ROWS; r++) {
      score[r] = select(score[r], vec4f(HIDDEN), key >= vec4u(last));
      top[r] = max(top[r], max(max(score[r].x, score[r].y), max(score[r].z, score[r].w)));
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
    for (var i = lane / width; first + i * 4u < last; i += stride) {
      let key = min(first + i * 4u + vec4u(0u, 1u, 2u, 3u), vec4u(last - 1u));
      let at = ((batch * params.slots + key) * params.kvHeads + kvHead) * params.dim;
      let c = lane % width;
      let columns = mat4x4f(load(&values, at.x, c), load(&values, at.y, c), load(&values, at.z, c), load(&values, at.w, c));
      for (var r = 0u; r < ROWS; r++) { sum[r] += columns * scores[r * QUADS + i]; }
    }
  }
  for (var r = 0u; r < ROWS; r++) { shares[r * LANES + lane] = sum[r]; }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) {
    if (firstRow + r >= share) { break; }
    let row = batch * params.heads + kvHead * share + firstRow + r;
    if (lane < width) {
      for (var i = 1u; i < stride; i++) { sum[r] += shares[r * LANES + i * width + lane]; }
#if ONE
      // A sequence without a new token gives zeros.
      out[row * width + lane] = Float(select(vec4f(0.0), sum[r] / total[r], total[r] > 0.0));
#else
      sums[(row * params.spans + span) * width + lane] = sum[r];
#endif
    }
#if !ONE
    if (lane == 0u) { statistics[row * params.spans + span] = vec2f(top[r], total[r]); }
#endif
  }
}
