// What kernels that walk contiguous rows share; rows.ts inserts it at the end of their text. It says who walks a row, and
// combines what they found. A kernel is written once for both:
//
//   for (var i = lane; i < columns; i += LANES) { … load(base + i) … }
//   let total = sumLanes(fold(…), lane);
//
// LANE: one invocation walks a whole row, and GROUP rows make a workgroup. For software adapters: nothing is combined, so
// there is neither a barrier (which turns the whole shader into coroutines there) nor a subgroup operation, no lane idles
// on short rows, and what all rows share (a weight) is read at one address. Layer norm of (2048, 48) took 0.48 ms so and
// 0.88 ms with a subgroup of eight a row; (1024, 320) 1.24 and 1.49, (77, 768) 0.33 and 0.36.
// Otherwise one workgroup of LANES walks a row, neighbours beside each other, and combines by a tree in workgroup memory:
// for GPUs, where neighbouring loads become one and barriers are cheap.
// Either way the order of additions depends on the row's length alone.
//
// Arithmetic is f32. VEC4: rows are read four elements at a time, where their length allows.

#if VEC4
alias V = vec4f; // what is computed with
alias Stored = vec4<$T>; // what lies in memory
alias Hit = vec4<bool>;
const WIDTH = 4u; // elements of a V
fn fold(v: V) -> f32 { return (v.x + v.y) + (v.z + v.w); }
fn foldMax(v: V) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }
// Whether element `k` of the row is the V's at `i`, and which part of it.
fn isElement(i: u32, k: u32) -> Hit { return vec4u(i * 4u) + vec4u(0u, 1u, 2u, 3u) == vec4u(k); }
#else
alias V = f32;
alias Stored = $T;
alias Hit = bool;
const WIDTH = 1u;
fn fold(v: V) -> f32 { return v; }
fn foldMax(v: V) -> f32 { return v; }
fn isElement(i: u32, k: u32) -> Hit { return i == k; }
#endif

const LANES: u32 = $LANES;
// Part of a row, in V, that is summed up before it joins the row's sum: in long rows a sum term by term would gather the
// rounding of all of them.
const BLOCK: u32 = 32u * LANES;

#if LANE
fn rowOf(group: u32, invocation: u32) -> u32 { return group * $GROUP + invocation; }
fn laneOf(invocation: u32) -> u32 { return 0u; }

fn sumLanes(v: f32, lane: u32) -> f32 { return v; }
fn sumLanes2(v: vec2f, lane: u32) -> vec2f { return v; }
fn sumAcross2(v: vec2f, lane: u32, across: u32) -> vec2f { return v; }
fn maxLanes(v: f32, lane: u32) -> f32 { return v; }
#else
fn rowOf(group: u32, invocation: u32) -> u32 { return group; }
fn laneOf(invocation: u32) -> u32 { return invocation; }

var<workgroup> laneValues: array<vec2f, LANES>;

// Sums over each run of `across` neighbouring lanes, a power of two.
fn sumAcross2(v: vec2f, lane: u32, across: u32) -> vec2f {
  workgroupBarrier(); // the previous result has been read
  laneValues[lane] = v;
  workgroupBarrier();
  for (var reach = across / 2u; reach > 0u; reach /= 2u) {
    if (lane % across < reach) { laneValues[lane] += laneValues[lane + reach]; }
    workgroupBarrier();
  }
  return laneValues[lane - lane % across];
}

fn sumLanes2(v: vec2f, lane: u32) -> vec2f { return sumAcross2(v, lane, LANES); }
fn sumLanes(v: f32, lane: u32) -> f32 { return sumLanes2(vec2f(v, 0.0), lane).x; }

fn maxLanes(v: f32, lane: u32) -> f32 {
  workgroupBarrier();
  laneValues[lane].x = v;
  workgroupBarrier();
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    if (lane < reach) { laneValues[lane].x = max(laneValues[lane].x, laneValues[lane + reach].x); }
    workgroupBarrier();
  }
  return laneValues[0].x;
}
#endif
