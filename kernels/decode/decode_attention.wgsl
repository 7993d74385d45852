// Attention of one query a head to a cache ("Flash-Decoding", Dao et al. 2023), read in the format that it is kept in: a
// workgroup attends to a span of keys for ROWS heads of those that read the same key head; decode_combine.wgsl puts the
// spans together. The new token sees all slots that hold a key, whichever positions those are. As
// kernels/attention/attention_split.wgsl, without lists, masks and queries at other positions; see its figures.
//
// With TREE the keys are those of the leaves that the query has selected, then those of its window (see kernels/tree), and a
// workgroup goes through all of its spans, by a running softmax: there are few, whatever the cache holds. It then makes the
// nodes that the new token completes, which that token's query cannot have selected.

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
#if TREE
@group(0) @binding(5) var<storage, read> selected: array<u32>; // (B, KV, beam): leaves, then what is none
@group(0) @binding(6) var<storage, read_write> nodes: array<vec4f>; // (B, KV, nodes, D), boxes (B, KV, nodes, 2, D)
#endif
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
#if TREE
  window: u32,
  block: u32, // keys of a leaf
  beam: u32, // leaves of a query, at most
  fanout: u32,
  nodes: u32, // of all levels
#endif
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

#include ../cache/cached.wgsl
#if TREE
fn load_key(at: u32) -> vec4f { return load(&keys, at); }

#include ../tree/tree_node.wgsl
#endif

// Which keys the query sees: all from slot `first` on, but for those of leaves, which come first.
struct Seen {
  list: u32, // where its leaves begin
  leafKeys: u32,
  first: u32,
}

// The slots of four of these keys.
fn slots_of(entry: vec4u, seen: Seen) -> vec4u {
#if TREE
  var slots = seen.first + entry - seen.leafKeys;
  for (var e = 0u; e < 4u; e++) {
    let i = entry[e];
    if (i < seen.leafKeys) { slots[e] = selected[seen.list + i / params.block] * params.block + i % params.block; }
  }
  return slots;
#else
  return entry;
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
  let row0 = batch * params.slots; // of the sequence's keys
  let length = select(0u, min(extents[batch] + 1u, params.slots), extents[params.counts + batch] > 0u); // keys
#if TREE
  let list = (batch * params.kvHeads + kvHead) * params.beam;
  var leaves = 0u;
  while (leaves < params.beam && selected[list + leaves] < params.slots / params.block) { leaves += 1u; }
  let seen = Seen(list, leaves * params.block, (max(length, params.window) - params.window) / params.block * params.block);
  let begin = 0u;
  let end = select(0u, seen.leafKeys + length - seen.first, length > 0u);
#else
  let seen = Seen();
  let begin = span * SPAN;
  let end = min(begin + SPAN, length);
#endif

  for (var i = lane; i < ROWS * width; i += LANES) {
    let row = kvHead * share + min(firstRow + i / width, share - 1u);
    queryTile[i] = vec4f(q[(batch * params.heads + row) * width + i % width]) * (params.scale * LOG2E);
  }

  var top: array<f32, ROWS>; // the largest score so far, in units of log 2
  var total: array<f32, ROWS>; // Σ exp(score − top)
  var sum: array<vec4f, ROWS>; // this invocation's share of Σ exp(score − top) v
  for (var r = 0u; r < ROWS; r++) {
    top[r] = HIDDEN;
    total[r] = 0.0;
    sum[r] = vec4f(0.0);
  }
  let stride = LANES / width; // invocations that share a quad
  for (var first = begin; first < end; first += SPAN) {
    let last = min(first + SPAN, end);
    let quads = (last - first + 3u) / 4u; // of keys
    workgroupBarrier(); // the queries are there, the scores of before are read
    var larger = top;
    for (var i = lane; i < quads; i += LANES) {
      let key = first + i * 4u + vec4u(0u, 1u, 2u, 3u);
      let at = ((row0 + slots_of(min(key, vec4u(last - 1u)), seen)) * params.kvHeads + kvHead) * width;
      var score: array<vec4f, ROWS>;
      for (var r = 0u; r < ROWS; r++) { score[r] = vec4f(0.0); }
      for (var c = 0u; c < width; c++) {
        let columns = mat4x4f(load(&keys, at.x + c), load(&keys, at.y + c), load(&keys, at.z + c), load(&keys, at.w + c));
        for (var r = 0u; r < ROWS; r++) { score[r] += queryTile[r * width + c] * columns; }
      }
      for (var r = 0u; r < ROWS; r++) {
        score[r] = select(score[r], vec4f(HIDDEN), key >= vec4u(last));
        larger[r] = max(larger[r], max(max(score[r].x, score[r].y), max(score[r].z, score[r].w)));
        scores[r * QUADS + i] = score[r];
      }
    }
    for (var r = 0u; r < ROWS; r++) { shares[r * LANES + lane].x = larger[r]; }
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
      for (var i = 0u; i < LANES; i++) { larger[r] = max(larger[r], shares[r * LANES + i].x); }
      let shrink = exp2(top[r] - larger[r]); // of what was summed so far
      top[r] = larger[r];
      total[r] *= shrink;
      sum[r] *= shrink;
      var added = 0.0;
      for (var i = lane; i < quads; i += LANES) {
        let score = scores[r * QUADS + i];
        let p = select(exp2(score - top[r]), vec4f(0.0), score <= vec4f(0.5 * HIDDEN));
        scores[r * QUADS + i] = p;
        added += dot(p, vec4f(1.0));
      }
      shares[r * LANES + lane].y = added;
    }
    workgroupBarrier();
    for (var r = 0u; r < ROWS; r++) {
      for (var i = 0u; i < LANES; i++) { total[r] += shares[r * LANES + i].y; }
    }
    if (lane < stride * width) {
      for (var i = lane / width; i < quads; i += stride) {
        let key = first + i * 4u + vec4u(0u, 1u, 2u, 3u);
        let at = ((row0 + slots_of(min(key, vec4u(last - 1u)), seen)) * params.kvHeads + kvHead) * width + lane % width;
        let columns = mat4x4f(load(&values, at.x), load(&values, at.y), load(&values, at.z), load(&values, at.w));
        for (var r = 0u; r < ROWS; r++) { sum[r] += columns * scores[r * QUADS + i]; }
      }
    }
  }
  workgroupBarrier(); // the shares are read
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
#if TREE

  if (firstRow > 0u || length == 0u || length % params.block > 0u || lane >= width) { return; }
  var node = length / params.block - 1u;
  var level = (batch * params.kvHeads + kvHead) * params.nodes; // where it begins
  var room = params.slots / params.block;
  let source = ((row0 + node * params.block) * params.kvHeads + kvHead) * width + lane;
  make_leaf((level + node) * NODE * width + lane, source, params.kvHeads * width, params.block, width);
  while ((node + 1u) % params.fanout == 0u) {
    let below = level + node + 1u - params.fanout;
    level += room;
    room /= params.fanout;
    node /= params.fanout;
    make_node((level + node) * NODE * width + lane, below * NODE * width + lane, params.fanout, width);
  }
#endif
}
