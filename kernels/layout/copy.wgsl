// Copies a region of rows into rows of another length: dst[row, at + i] = src[row, i + shift], 0 where that lies outside the
// source's row. Serves concatenation, slicing and the gradients of both.
//
// Elements are moved as words, whatever they stand for: four of 32 bits at once where all extents are whole multiples of
// that, else one, else halves of one (odd extents of f16: two invocations then write to the two halves of a word, which
// f16 storage allows). A software adapter pays by the load, not by its width: half the columns of (1024, 1024) take it 1.1 ms
// by vec4, and 3.3 with odd extents.

@group(0) @binding(0) var<storage, read> src: array<$T>; // (rows, srcWidth)
@group(0) @binding(1) var<storage, read_write> dst: array<$T>; // (rows, dstWidth)

// Extents are in T.
struct Params {
  size: u32, // rows · width
  width: u32, // of the region
  at: u32, // where the region begins in a row of dst
  dstWidth: u32,
  shift: i32,
  srcWidth: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (wg.x + wg.y * groups.x) * 64u + lane;
  if (index >= params.size) { return; }
  let row = index / params.width;
  let i = index % params.width;
  let place = i32(i) + params.shift;
  var value = $T();
  if (place >= 0 && u32(place) < params.srcWidth) { value = src[row * params.srcWidth + u32(place)]; }
  dst[row * params.dstWidth + params.at + i] = value;
}
