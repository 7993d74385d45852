// Puts new keys and values into a cache: token t of a sequence that has `starts` already goes to the slot of its position,
// starts + t. The first `sinks` positions keep their slots; those behind share the rest in turn (a ring), so that a cache as
// long as all positions never turns. Where a position's slot is taken by a later one of the same call, it is left out, so
// that no two invocations write the same place. In q8 an invocation rounds two blocks, whose scales share a word.

#if Q8
alias Cached = u32; // quants, then scales: see engine/formats.ts
#else
alias Cached = $C;
#endif

@group(0) @binding(0) var<storage, read> keys: array<$T>; // (B, T, KV, D)
@group(0) @binding(1) var<storage, read> values: array<$T>; // likewise
@group(0) @binding(2) var<storage, read> starts: array<u32>; // (B)
@group(0) @binding(3) var<storage, read> counts: array<u32>; // (B): of the T tokens, how many are there
@group(0) @binding(4) var<storage, read_write> cachedKeys: array<Cached>; // (B, slots, KV, D)
@group(0) @binding(5) var<storage, read_write> cachedValues: array<Cached>;

struct Params {
  size: u32, // B · T · row
  row: u32, // KV · D
  length: u32, // T
  slots: u32,
  sinks: u32,
  scales: u32, // word at which they begin
  block: u32, // 32; a parameter, so that no compiler unrolls the loops over it
}

#include ./slot.wgsl
#if Q8
#include ./q8.wgsl
const UNIT = 64u;
#else
const UNIT = 1u;
#endif

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = (id.x + id.y * groups.x * 64u) * UNIT;
  if (i >= params.size) { return; }
  let column = i % params.row;
  let token = (i / params.row) % params.length;
  let batch = i / (params.row * params.length);
  let position = starts[batch] + token;
  let end = starts[batch] + counts[batch];
  if (position >= end) { return; }
  if (position >= params.sinks && position + (params.slots - params.sinks) < end) { return; }
  let at = (batch * params.slots + slotOf(position)) * params.row + column;
#if Q8
  var keyScales = 0u;
  var valueScales = 0u;
  for (var block = 0u; block < 2u; block++) {
    let first = i + block * 32u;
    var keyMost = 0.0;
    var valueMost = 0.0;
    for (var e = 0u; e < params.block; e += 4u) {
      keyMost = largest(keyMost, four(&keys, first + e));
      valueMost = largest(valueMost, four(&values, first + e));
    }
    let scales = vec2u(scaleOf(keyMost), scaleOf(valueMost));
    let scale = vec2f(unpack2x16float(scales.x).x, unpack2x16float(scales.y).x);
    for (var e = 0u; e < params.block; e += 4u) {
      let word = (at + block * 32u + e) / 4u;
      cachedKeys[word] = wordOf(quantsOf(four(&keys, first + e), scale.x));
      cachedValues[word] = wordOf(quantsOf(four(&values, first + e), scale.y));
    }
    keyScales |= scales.x << (block * 16u);
    valueScales |= scales.y << (block * 16u);
  }
  cachedKeys[params.scales + at / 64u] = keyScales;
  cachedValues[params.scales + at / 64u] = valueScales;
}

fn four(source: ptr<storage, array<$T>, read>, at: u32) -> vec4f {
  return vec4f(f32(source[at]), f32(source[at + 1u]), f32(source[at + 2u]), f32(source[at + 3u]));
}
#else
  cachedKeys[at] = $C(keys[i]);
  cachedValues[at] = $C(values[i]);
}
#endif
