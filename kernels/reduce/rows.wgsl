// What kernels share that reduce rows: one workgroup of LANES invocations walks one contiguous row and combines the lanes'
// values. rows.ts inserts it at the end of their text.
//
// SUBGROUPS: the workgroup is exactly one subgroup, so that combining needs no barrier (a barrier turns the whole shader
// into coroutines on a software adapter). Otherwise a tree in workgroup memory. Either way the order of additions depends
// on the row's length alone.
// VEC4: rows are read four elements at a time, where their length allows.

#if VEC4
alias T = vec4f;
const WIDTH = 4u; // elements of a T
fn fold(v: T) -> f32 { return (v.x + v.y) + (v.z + v.w); }
fn foldMax(v: T) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }
#else
alias T = f32;
const WIDTH = 1u;
fn fold(v: T) -> f32 { return v; }
fn foldMax(v: T) -> f32 { return v; }
#endif

const LANES: u32 = $LANES;

#if SUBGROUPS
fn sumLanes(v: f32, lane: u32) -> f32 { return subgroupAdd(v); }
fn sumLanes2(v: vec2f, lane: u32) -> vec2f { return subgroupAdd(v); }
fn maxLanes(v: f32, lane: u32) -> f32 { return subgroupMax(v); }
#else
var<workgroup> laneValues: array<vec2f, LANES>;

fn sumLanes2(v: vec2f, lane: u32) -> vec2f {
  workgroupBarrier(); // the row's previous result has been read
  laneValues[lane] = v;
  workgroupBarrier();
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    if (lane < reach) { laneValues[lane] += laneValues[lane + reach]; }
    workgroupBarrier();
  }
  return laneValues[0];
}

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
