// A further pass of the sort (see sort.ts): each two neighbouring runs of a line become one. An element's place in it is its
// place in its own run plus the number of elements of the other run that come before it, which a binary search finds: all
// elements are placed at once, without a barrier, by log₂(run) loads each. Of equal keys those of the left run come first,
// which keeps the sort stable. The first `keep` of each merged run go on.
//
// See sort_runs.wgsl for what it takes.

@group(0) @binding(0) var<storage, read> pairs: array<vec2u>; // (lines = outer · inner, n): key, place
#if ORDER
@group(0) @binding(1) var<storage, read_write> order: array<i32>; // (outer, kept, inner): places
#else
@group(0) @binding(1) var<storage, read_write> merged: array<vec2u>; // (lines, kept)
#endif

struct Params {
  size: u32, // lines · n
  n: u32,
  inner: u32,
  run: u32, // elements of a run; the last run of a line may be shorter
  keep: u32, // of each merged run, at most 2 · run
  kept: u32, // of the whole line
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (wg.x + wg.y * groups.x) * 64u + lane;
  if (index >= params.size) { return; }
  let line = index / params.n;
  let place = index % params.n;
  let two = place / (2u * params.run); // which two runs
  let middle = two * 2u * params.run + params.run;
  let left = place < middle;
  let own = pairs[index];
  // The other run is [low, high): from `low` on, what is not known to come before this element.
  let origin = select(middle - params.run, min(middle, params.n), left);
  var low = origin;
  var high = select(middle, min(middle + params.run, params.n), left);
  while (low < high) {
    let half = (low + high) / 2u;
    let theirs = pairs[line * params.n + half].x;
    if (theirs < own.x || (theirs == own.x && !left)) { low = half + 1u; } else { high = half; }
  }
  let rank = place - select(middle, middle - params.run, left) + low - origin;
  if (rank >= params.keep) { return; }
  let goal = two * params.keep + rank;
#if ORDER
  order[(line / params.inner * params.kept + goal) * params.inner + line % params.inner] = bitcast<i32>(own.y);
#else
  merged[line * params.kept + goal] = own;
#endif
}
