// What a window's queries see, in order: of each sequence the cached sinks, the last cached positions that its first new
// query reaches, and then the new tokens. Places behind those are left as they are: nobody reads them.
// Of a cache in q8, an invocation takes a block; new tokens are rounded as they will be in the cache, so that a query sees
// the same key whether it came before or in the same call.

#if Q8
alias Cached = u32; // quants, then scales: see engine/formats.ts
#else
alias Cached = $C;
#endif

@group(0) @binding(0) var<storage, read> cachedKeys: array<Cached>; // (B, slots, KV, D)
@group(0) @binding(1) var<storage, read> cachedValues: array<Cached>;
@group(0) @binding(2) var<storage, read> keys: array<$T>; // (B, T, KV, D)
@group(0) @binding(3) var<storage, read> values: array<$T>;
@group(0) @binding(4) var<storage, read> starts: array<u32>; // (B)
@group(0) @binding(5) var<storage, read> counts: array<u32>; // (B)
@group(0) @binding(6) var<storage, read_write> seenKeys: array<$T>; // (B, seen, KV, D)
@group(0) @binding(7) var<storage, read_write> seenValues: array<$T>;

struct Params {
  size: u32, // B · seen · row
  row: u32, // KV · D
  length: u32, // T
  slots: u32,
  sinks: u32,
  scales: u32, // word at which they begin
  block: u32, // 32; a parameter, so that no compiler unrolls the loops over it
  seen: u32,
}

#include ./slot.wgsl
#if Q8
#include ./q8.wgsl
const UNIT = 32u;
#else
const UNIT = 1u;
#endif

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = (id.x + id.y * groups.x * 64u) * UNIT;
  if (i >= params.size) { return; }
  let column = i % params.row;
  let place = (i / params.row) % params.seen;
  let batch = i / (params.row * params.seen);
  let start = starts[batch];
  let sinks = min(start, params.sinks);
  // The first query sees the last `window` positions up to its own: one fewer of those before it.
  let before = min(start - sinks, params.slots - params.sinks - 1u);
  var position = place;
  if (place >= sinks) { position = start - before + (place - sinks); }
  if (position < start) {
    let at = (batch * params.slots + slotOf(position)) * params.row + column;
#if Q8
    let scales = vec2f(unpack2x16float(cachedKeys[params.scales + at / 64u])[at / 32u % 2u],
      unpack2x16float(cachedValues[params.scales + at / 64u])[at / 32u % 2u]);
    for (var e = 0u; e < params.block; e += 4u) {
      store(i + e, quantsIn(cachedKeys[(at + e) / 4u]) * scales.x, quantsIn(cachedValues[(at + e) / 4u]) * scales.y);
    }
#else
    seenKeys[i] = $T(cachedKeys[at]);
    seenValues[i] = $T(cachedValues[at]);
#endif
  } else if (position < start + counts[batch]) {
    let at = (batch * params.length + position - start) * params.row + column;
#if Q8
    var keyMost = 0.0;
    var valueMost = 0.0;
    for (var e = 0u; e < params.block; e += 4u) {
      keyMost = largest(keyMost, four(&keys, at + e));
      valueMost = largest(valueMost, four(&values, at + e));
    }
    let scale = vec2f(unpack2x16float(scaleOf(keyMost)).x, unpack2x16float(scaleOf(valueMost)).x);
    for (var e = 0u; e < params.block; e += 4u) {
      let key = vec4f(quantsOf(four(&keys, at + e), scale.x)) * scale.x;
      store(i + e, key, vec4f(quantsOf(four(&values, at + e), scale.y)) * scale.y);
    }
#else
    seenKeys[i] = keys[at];
    seenValues[i] = values[at];
#endif
  }
}
#if Q8

fn four(source: ptr<storage, array<$T>, read>, at: u32) -> vec4f {
  return vec4f(f32(source[at]), f32(source[at + 1u]), f32(source[at + 2u]), f32(source[at + 3u]));
}
fn store(at: u32, key: vec4f, value: vec4f) {
  for (var e = 0u; e < 4u; e++) {
    seenKeys[at + e] = $T(key[e]);
    seenValues[at + e] = $T(value[e]);
  }
}
#endif
