// Puts new keys and values into a cache: token t of a sequence that has `starts` already goes to the slot of its position,
// starts + t. The first `sinks` positions keep their slots; those behind share the rest in turn (a ring), so that a cache as
// long as all positions never turns. Where a position's slot is taken by a later one of the same call, it is left out, so
// that no two invocations write the same place.

@group(0) @binding(0) var<storage, read> keys: array<$T>; // (B, T, KV, D)
@group(0) @binding(1) var<storage, read> values: array<$T>; // likewise
@group(0) @binding(2) var<storage, read> starts: array<u32>; // (B)
@group(0) @binding(3) var<storage, read> counts: array<u32>; // (B): of the T tokens, how many are there
@group(0) @binding(4) var<storage, read_write> cachedKeys: array<$C>; // (B, slots, KV, D)
@group(0) @binding(5) var<storage, read_write> cachedValues: array<$C>;

struct Params {
  size: u32, // B · T · row
  row: u32, // KV · D
  length: u32, // T
  slots: u32,
  sinks: u32,
}

#include ./slot.wgsl

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.x + id.y * groups.x * 64u;
  if (i >= params.size) { return; }
  let column = i % params.row;
  let token = (i / params.row) % params.length;
  let batch = i / (params.row * params.length);
  let position = starts[batch] + token;
  let end = starts[batch] + counts[batch];
  if (position >= end) { return; }
  if (position >= params.sinks && position + (params.slots - params.sinks) < end) { return; }
  let at = (batch * params.slots + slotOf(position)) * params.row + column;
  cachedKeys[at] = $C(keys[i]);
  cachedValues[at] = $C(values[i]);
}
