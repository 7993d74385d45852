// One token of each sequence: RMS norm, then queries, keys and values of the attention (with biases, norms of heads and
// rotation, where there are any), and the keys and values into the cache.
//
// A lane's product makes two quads of a head's columns that turn together: c … c + 3 and c + D / 2 …. Where nothing needs the
// whole head, LANES lanes (a subgroup) are a workgroup, and make such a pair. With norms of heads, or a cache in q8 (whose
// blocks share a scale), a workgroup makes a head (WHOLE): four subgroups take the pairs in turn. With BEHIND the norm behind
// the MLP of the layer before comes first, and a sequence's first workgroup stores what it leaves.

alias Float = vec4<$T>;
#if Q8
alias Cached = u32; // quants, then scales: see engine/formats.ts
#else
alias Cached = vec4<$C>;
#endif

$X
@group(0) @binding(1) var<storage, read> vectors: array<vec4f>;
$Q
$K
$V
@group(0) @binding(5) var<storage, read> extents: array<u32>; // starts (B), and from params.counts on, counts (B)
@group(0) @binding(6) var<storage, read> turns: array<vec2u>; // (D / 2): see rope.wgsl
@group(0) @binding(7) var<storage, read_write> queries: array<Float>; // (B, H, D); with BEHIND the states (B, C) stand before them
@group(0) @binding(8) var<storage, read_write> cachedKeys: array<Cached>; // (B, slots, KV, D)
@group(0) @binding(9) var<storage, read_write> cachedValues: array<Cached>;

struct Params {
  batch: u32,
  width: u32, // C
  heads: u32,
  kvHeads: u32,
  dim: u32, // D
  slots: u32,
  sinks: u32,
  counts: u32,
  eps: f32,
  offset: f32, // what is added to the weights of norms
  turnScale: f32,
  norm: u32, // where vectors begin, in elements
#if BEHIND
  behind: u32, // likewise
  y: u32, // where it begins behind x, in elements
  gain: f32, // 0: there is no y yet
  queries: u32, // where they begin, in elements
#endif
#if BIAS
  queryBias: u32,
  keyBias: u32,
  valueBias: u32,
#endif
#if HEAD_NORMS
  queryNorm: u32,
  keyNorm: u32,
#endif
#if Q8
  scales: u32, // word at which the cache's begin
  block: u32, // quads of a block; a parameter, so that no compiler unrolls the loops over it
#endif
}

#include ./shared.wgsl
#include ../random/turns.wgsl
#include ../cache/slot.wgsl
#if Q8
#include ../cache/q8.wgsl
#endif
#if WHOLE
const TEAMS = $TEAMS; // of LANES
var<workgroup> head: array<vec4f, ROWS * 64u>; // of D ≤ 256 columns
var<workgroup> turned: array<vec4f, ROWS * 64u>;
#else
const TEAMS = 1u;
#endif

// (cos, sin) of the angles of four pairs of columns, times the scale.
fn circles(position: u32, pair: u32) -> array<vec4f, 2> {
  var c: vec4f;
  var s: vec4f;
  for (var e = 0u; e < 4u; e++) {
    let frequency = turns[pair + e];
    let point = circle(position * frequency.x + mul_high(position, frequency.y)) * params.turnScale;
    c[e] = point.x;
    s[e] = point.y;
  }
  return array<vec4f, 2>(c, s);
}

// Stores a quad of a head: kind 0 is a query, 1 a key, 2 a value; `at` counts elements.
fn store(kind: u32, at: u32, value: vec4f) {
#if BEHIND
  if (kind == 0u) { queries[(params.queries + at) / 4u] = Float(value); }
#else
  if (kind == 0u) { queries[at / 4u] = Float(value); }
#endif
#if !Q8
  if (kind == 1u) { cachedKeys[at / 4u] = Cached(value); }
  if (kind == 2u) { cachedValues[at / 4u] = Cached(value); }
#endif
}

@compute @workgroup_size(LANES * TEAMS)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) invocation: u32) {
  let pairs = params.dim / 8u; // of quads
#if WHOLE
  let units = 1u;
#else
  let units = pairs;
#endif
  let allHeads = params.heads + 2u * params.kvHeads;
  let group = wg.x + wg.y * groups.x;
  let token = group / (units * allHeads) * ROWS;
  if (token >= params.batch) { return; }
  let which = group / units % allHeads;
  let kind = u32(which >= params.heads) + u32(which >= params.heads + params.kvHeads);
  let index = which - select(0u, params.heads + (kind - 1u) * params.kvHeads, kind > 0u); // the head among its kind
  let lane = invocation % LANES;
  let team = invocation / LANES;
  let ofKind = select(params.kvHeads, params.heads, kind == 0u);
#if BEHIND
  find_behind(token, lane);
  if (group % (units * allHeads) == 0u && team == 0u) {
    let quads = params.width / 4u;
    for (var j = 0u; j < min(ROWS, params.batch - token); j++) {
      for (var i = lane; i < quads; i += LANES) { queries[(token + j) * quads + i] = Float(state((token + j) * quads + i, i, j)); }
    }
  }
#endif

#if WHOLE
  for (var round = 0u; round < pairs; round += TEAMS) {
    let pair = min(round + team, pairs - 1u);
#else
  {
    let pair = group % units;
#endif
    let column = index * params.dim + pair * 4u;
    let second = column + params.dim / 2u;
    var dots: Dots;
    // Three loops: an adapter that masks lanes would run all branches of one.
    if (kind == 0u) { dots = dots_q(column, second, token, lane); }
    if (kind == 1u) { dots = dots_k(column, second, token, lane); }
    if (kind == 2u) { dots = dots_v(column, second, token, lane); }
    dots = normed(dots, lane);
#if BIAS
    let bias = select(select(params.valueBias, params.keyBias, kind == 1u), params.queryBias, kind == 0u);
    for (var j = 0u; j < ROWS; j++) {
      dots.first[j] += vectors[(bias + column) / 4u];
      dots.second[j] += vectors[(bias + second) / 4u];
    }
#endif
#if WHOLE
    if (lane == 0u && round + team < pairs) {
      for (var j = 0u; j < ROWS; j++) {
        head[j * 64u + pair] = dots.first[j];
        head[j * 64u + pair + pairs] = dots.second[j];
      }
    }
  }
  workgroupBarrier();
  for (var work = invocation; work < ROWS * pairs; work += LANES * TEAMS) {
    let j = work / pairs;
    let pair = work % pairs;
    var a = head[j * 64u + pair];
    var b = head[j * 64u + pair + pairs];
#if HEAD_NORMS
    if (kind < 2u) {
      var squares = 0.0;
      for (var i = 0u; i < 2u * pairs; i++) { squares += dot(head[j * 64u + i], head[j * 64u + i]); }
      let rms = inverseSqrt(squares / f32(params.dim) + params.eps);
      let weight = select(params.keyNorm, params.queryNorm, kind == 0u) / 4u + pair;
      a *= rms * (vectors[weight] + params.offset);
      b *= rms * (vectors[weight + pairs] + params.offset);
    }
#endif
#else
    if (lane >= ROWS) { return; }
    let j = lane;
    let a = dots.first[j];
    let b = dots.second[j];
#endif
    let sequence = token + j;
    if (sequence < params.batch) {
      let position = extents[sequence];
      var turnedA = a;
      var turnedB = b;
      if (kind < 2u) {
        let turn = circles(position, pair * 4u);
        turnedA = a * turn[0] - b * turn[1];
        turnedB = a * turn[1] + b * turn[0];
      }
      let row = select(sequence * params.slots + slotOf(position), sequence, kind == 0u);
      let at = (row * ofKind + index) * params.dim + pair * 4u;
      if (kind == 0u || extents[params.counts + sequence] > 0u) {
        store(kind, at, turnedA);
        store(kind, at + params.dim / 2u, turnedB);
      }
#if Q8
      turned[j * 64u + pair] = turnedA;
      turned[j * 64u + pair + pairs] = turnedB;
#endif
    }
  }
#if Q8
  workgroupBarrier();
  if (kind == 0u) { return; }
  let words = params.dim / 64u; // of scales
  for (var work = invocation; work < ROWS * words; work += LANES * TEAMS) {
    let sequence = token + work / words;
    if (sequence >= params.batch || extents[params.counts + sequence] == 0u) { continue; }
    let row = sequence * params.slots + slotOf(extents[sequence]);
    let at = (row * params.kvHeads + index) * params.dim + work % words * 64u;
    var scales = 0u;
    for (var block = 0u; block < 2u; block++) {
      let first = work / words * 64u + work % words * 16u + block * 8u;
      var most = 0.0;
      for (var i = 0u; i < params.block; i++) { most = largest(most, turned[first + i]); }
      let bits = scaleOf(most);
      scales |= bits << (block * 16u);
      for (var i = 0u; i < params.block; i++) {
        let word = wordOf(quantsOf(turned[first + i], unpack2x16float(bits).x));
        if (kind == 1u) { cachedKeys[at / 4u + block * 8u + i] = word; } else { cachedValues[at / 4u + block * 8u + i] = word; }
      }
    }
    if (kind == 1u) { cachedKeys[params.scales + at / 64u] = scales; } else { cachedValues[params.scales + at / 64u] = scales; }
  }
#endif
}
