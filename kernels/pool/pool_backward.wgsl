// Gradient of pool.wgsl: each input pixel adds what the windows that cover it send back, in row-major order, so that nothing is
// added by two invocations and sums have one order. MAX: a window sends its gradient to the one pixel that it took.
// Otherwise each gets an equal share.

@group(0) @binding(0) var<storage, read> grad: array<$T>; // (planes, outH, outW)
@group(0) @binding(1) var<storage, read_write> dx: array<$T>; // (planes, inH, inW)
#if MAX
@group(0) @binding(2) var<storage, read> origin: array<u32>; // (planes, outH, outW)
#endif

struct Params {
  size: u32, // planes · inH · inW
  inH: i32, inW: i32,
  outH: i32, outW: i32,
  kernelH: i32, kernelW: i32,
  strideH: i32, strideW: i32,
  top: i32, left: i32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  let pixel = i % u32(params.inH * params.inW);
  let plane = i / u32(params.inH * params.inW) * u32(params.outH * params.outW);
  let y = i32(pixel) / params.inW + params.top;
  let x = i32(pixel) % params.inW + params.left;
  let bottom = min(y / params.strideH + 1, params.outH);
  let right = min(x / params.strideW + 1, params.outW);
  var sum = 0.0;
  for (var row = first(y, params.kernelH, params.strideH); row < bottom; row++) {
    for (var column = first(x, params.kernelW, params.strideW); column < right; column++) {
      let window = plane + u32(row * params.outW + column);
#if MAX
      if (origin[window] == pixel) { sum += f32(grad[window]); }
#else
#if COUNT_INSIDE
      let high = inside(row * params.strideH - params.top, params.kernelH, params.inH);
      let wide = inside(column * params.strideW - params.left, params.kernelW, params.inW);
      sum += f32(grad[window]) / f32(high * wide);
#else
      sum += f32(grad[window]) / f32(params.kernelH * params.kernelW);
#endif
#endif
    }
  }
  dx[i] = $T(sum);
}

// The first window that covers a place, counted from the start of the padding: ⌈(place − kernel + 1) / stride⌉, at least 0.
fn first(place: i32, kernel: i32, stride: i32) -> i32 {
  return max(place - kernel + stride, 0) / stride;
}

#if COUNT_INSIDE
fn inside(start: i32, kernel: i32, extent: i32) -> i32 { return min(start + kernel, extent) - max(start, 0); }
#endif
