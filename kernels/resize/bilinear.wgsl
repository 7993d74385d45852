// Bilinear resizing of each plane (sample and channel): out[y, x] lies at (Y, X) in the input and mixes the four pixels around
// it by their distance. Without antialiasing: where the picture shrinks, pixels between the places are not seen.
//
// Along each extent the place of output i is the fraction (scale · i + shift) / unit, limited to the input: a ratio of whole
// numbers, so that neighbour and weight are exact and the gradient finds the same ones.
//
// An invocation makes one result from four scalar loads. (8, 96, 32, 32) doubled takes a software adapter 29 ms, ten times as
// long as nearest neighbours; going by lines, with the row’s arithmetic the same for all lanes, gained nothing.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (planes, inH, inW)
@group(0) @binding(1) var<storage, read_write> out: array<$T>; // (planes, outH, outW)

struct Params {
  size: u32, // planes · outH · outW
  inH: i32, inW: i32,
  outH: i32, outW: i32,
  scaleH: i32, shiftH: i32, unitH: i32,
  scaleW: i32, shiftW: i32, unitW: i32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let line = i / u32(params.outW);
  let plane = line / u32(params.outH) * u32(params.inH);
  let vertical = max(i32(line % u32(params.outH)) * params.scaleH + params.shiftH, 0);
  let horizontal = max(i32(i % u32(params.outW)) * params.scaleW + params.shiftW, 0);
  let top = min(vertical / params.unitH, params.inH - 1);
  let left = min(horizontal / params.unitW, params.inW - 1);
  let bottom = min(top + 1, params.inH - 1);
  let right = min(left + 1, params.inW - 1);
  let down = f32(vertical % params.unitH) / f32(params.unitH);
  let across = f32(horizontal % params.unitW) / f32(params.unitW);
  let upper = (plane + u32(top)) * u32(params.inW);
  let lower = (plane + u32(bottom)) * u32(params.inW);
  out[i] = $T(mix(
    mix(f32(x[upper + u32(left)]), f32(x[upper + u32(right)]), across),
    mix(f32(x[lower + u32(left)]), f32(x[lower + u32(right)]), across),
    down,
  ));
}
