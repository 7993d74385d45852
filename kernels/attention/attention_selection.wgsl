// Turns lists of selected key blocks, in any order and with repetitions, into bits: a word for 32 key blocks. What is past
// the last key block stands for nothing.

@group(0) @binding(0) var<storage, read> ids: array<u32>; // (lists, listed)
@group(0) @binding(1) var<storage, read_write> bits: array<u32>; // (lists, words)

struct Params {
  lists: u32,
  listed: u32,
  words: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let index = id.x + id.y * groups.x * 64u;
  if (index >= params.lists * params.words) { return; }
  let first = index / params.words * params.listed;
  var word = 0u;
  for (var i = first; i < first + params.listed; i++) {
    if (ids[i] / 32u == index % params.words) { word |= 1u << (ids[i] % 32u); }
  }
  bits[index] = word;
}
