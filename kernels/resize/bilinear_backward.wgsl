// Gradient of bilinear.wgsl: each input pixel adds, in row-major order, the gradients of the output pixels that lie less than
// one pixel from it, by the weights that they gave it.
// Gathered, so that no two invocations add to one place: with (8, 96, 32, 32) doubled it takes a software adapter about as long
// as the forward pass (53 ms for both).

@group(0) @binding(0) var<storage, read> grad: array<$T>; // (planes, outH, outW)
@group(0) @binding(1) var<storage, read_write> dx: array<$T>; // (planes, inH, inW)

struct Params {
  size: u32, // planes · inH · inW
  inH: i32, inW: i32,
  outH: i32, outW: i32,
  scaleH: i32, shiftH: i32, unitH: i32,
  scaleW: i32, shiftW: i32, unitW: i32,
}

// An extent of the picture; place of output i in the input: (scale · i + shift) / unit.
struct Extent { inputs: i32, outputs: i32, scale: i32, shift: i32, unit: i32 }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let high = Extent(params.inH, params.outH, params.scaleH, params.shiftH, params.unitH);
  let wide = Extent(params.inW, params.outW, params.scaleW, params.shiftW, params.unitW);
  let line = i / u32(params.inW);
  let plane = line / u32(params.inH) * u32(params.outH);
  let y = i32(line % u32(params.inH));
  let x = i32(i % u32(params.inW));
  let bottom = end(y, high);
  let right = end(x, wide);
  var sum = 0.0;
  for (var row = first(y, high); row < bottom; row++) {
    var part = 0.0;
    for (var column = first(x, wide); column < right; column++) {
      part += f32(grad[(plane + u32(row)) * u32(params.outW) + u32(column)]) * weight(column, x, wide);
    }
    sum += part * weight(row, y, high);
  }
  dx[i] = $T(sum);
}

// What output i takes of input k: 1 − |distance|, where the input's edges reach out for ever.
fn weight(i: i32, k: i32, extent: Extent) -> f32 {
  let place = clamp(i * extent.scale + extent.shift, 0, (extent.inputs - 1) * extent.unit);
  return f32(max(extent.unit - abs(place - k * extent.unit), 0)) / f32(extent.unit);
}

// The first output whose place is ≥ k − 1, and the first whose place is ≥ k + 1; at the edges, all that lie beyond.
fn first(k: i32, extent: Extent) -> i32 {
  if (k == 0) { return 0; }
  return reach(k - 1, extent);
}
fn end(k: i32, extent: Extent) -> i32 {
  if (k == extent.inputs - 1) { return extent.outputs; }
  return reach(k + 1, extent);
}
fn reach(k: i32, extent: Extent) -> i32 {
  let distance = max(k * extent.unit - extent.shift, 0);
  return min((distance + extent.scale - 1) / extent.scale, extent.outputs);
}
