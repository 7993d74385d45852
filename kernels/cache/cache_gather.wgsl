// What a window's queries see, in order: of each sequence the cached sinks, the last cached positions that its first new
// query reaches, and then the new tokens. Places behind those are left as they are: nobody reads them.

@group(0) @binding(0) var<storage, read> cachedKeys: array<$C>; // (B, slots, KV, D)
@group(0) @binding(1) var<storage, read> cachedValues: array<$C>;
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
  seen: u32,
}

#include ./slot.wgsl

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.x + id.y * groups.x * 64u;
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
    seenKeys[i] = $T(cachedKeys[at]);
    seenValues[i] = $T(cachedValues[at]);
  } else if (position < start + counts[batch]) {
    let at = (batch * params.length + position - start) * params.row + column;
    seenKeys[i] = keys[at];
    seenValues[i] = values[at];
  }
}
