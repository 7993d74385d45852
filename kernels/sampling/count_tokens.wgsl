// Notes tokens of sequences in their counts: adds to how often each was drawn, or marks it as part of the prompt. Whole
// numbers are added by atomics: the result doesn't depend on their order.

@group(0) @binding(0) var<storage, read> tokens: array<i32>; // (B, T)
@group(0) @binding(1) var<storage, read_write> counts: array<atomic<u32>>; // (B, V)

struct Params {
  size: u32, // B · T
  length: u32, // T
  vocabulary: u32,
  prompt: u32, // 1: they are a prompt's
  times: i32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size || tokens[i] < 0 || u32(tokens[i]) >= params.vocabulary) { return; }
  let at = i / params.length * params.vocabulary + u32(tokens[i]);
  if (params.prompt == 1u) {
    atomicOr(&counts[at], 0x80000000u);
  } else {
    atomicAdd(&counts[at], bitcast<u32>(params.times));
  }
}
