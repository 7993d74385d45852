// First pass of the sort (see sort.ts): every run of neighbours of a line is put in order by counting. An element's rank is the
// number of elements of its run that come before it: those with a smaller key, and those with the same key further ahead,
// which keeps the sort stable. That is `run` comparisons an element, but all lanes read the same address, and there is no
// barrier, no exchange and no workgroup memory (a barrier turns the whole shader into coroutines on a software adapter).
//
// Keys are u32 whose order is that of the values: of floats all NaN are alike and the largest, and −0 equals 0. They are made
// from bits, since adapters may break IEEE's rules of comparison.
//
// One workgroup orders 64 elements of one line. The first `keep` of each run go on. (8, 4096), merging included, took a software
// adapter 22 ms with runs of 64, 14 with 128, 18 with 256, 35 with 512.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (outer, n, inner)
#if ORDER
@group(0) @binding(1) var<storage, read_write> order: array<i32>; // (outer, kept, inner): places in x
#else
@group(0) @binding(1) var<storage, read_write> pairs: array<vec2u>; // (lines = outer · inner, kept): key, place in x
#endif

struct Params {
  lines: u32,
  n: u32,
  inner: u32,
  run: u32, // a multiple of 64
  keep: u32, // of each run, at most `run`
  kept: u32, // of the whole line
}

#if FLOAT
fn ascending(value: $T) -> u32 {
  let bits = bitcast<u32>(f32(value));
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return 0xffffffffu; } // NaN
  if (magnitude == 0u) { return 0x80000000u; }
  return select(bits ^ 0x80000000u, ~bits, bits != magnitude); // negative numbers: the larger the magnitude, the smaller
}
#endif
#if SIGNED
fn ascending(value: i32) -> u32 { return bitcast<u32>(value) ^ 0x80000000u; }
#endif
#if UNSIGNED
fn ascending(value: u32) -> u32 { return value; }
#endif

#if DESCENDING
fn key(value: $T) -> u32 { return ~ascending(value); }
#else
fn key(value: $T) -> u32 { return ascending(value); }
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = wg.x + wg.y * groups.x;
  let perLine = (params.n + 63u) / 64u;
  let line = group / perLine;
  let first = group % perLine * 64u;
  let place = first + lane;
  if (line >= params.lines || place >= params.n) { return; }
  let outer = line / params.inner;
  let column = line % params.inner;
  let origin = outer * params.n * params.inner + column;
  let own = key(x[origin + place * params.inner]);
  let start = first / params.run * params.run;
  var rank = 0u;
  for (var other = start; other < min(start + params.run, params.n); other++) {
    let theirs = key(x[origin + other * params.inner]);
    rank += u32(theirs < own || (theirs == own && other < place));
  }
  if (rank >= params.keep) { return; }
  let goal = start / params.run * params.keep + rank;
#if ORDER
  order[(outer * params.kept + goal) * params.inner + column] = i32(place);
#else
  pairs[line * params.kept + goal] = vec2u(own, place);
#endif
}
