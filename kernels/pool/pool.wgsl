// out[y, x] over the window of kernelH × kernelW pixels that begins at (y · strideH − top, x · strideW − left) in each plane
// (sample and channel). One invocation a result, which reads the window's pixels in row-major order.
//
// MAX: the largest of those pixels that exist; of equal ones the first, and a NaN wins, which is told by its bits. ARGMAX also
// writes which pixel of the plane that was, for the gradient. Otherwise: their sum · 1 / area, with padding counted as zeros,
// or with COUNT_INSIDE over the number of those that exist.
//
// Registers only; a window is read by scalars, as neighbouring windows begin anywhere. Windows of 2×2 over (8, 96, 32, 32) take
// a software adapter 2.5 ms.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (planes, inH, inW)
@group(0) @binding(1) var<storage, read_write> out: array<$T>; // (planes, outH, outW)
#if ARGMAX
@group(0) @binding(2) var<storage, read_write> origin: array<u32>; // (planes, outH, outW)
#endif

struct Params {
  size: u32, // planes · outH · outW
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
  let place = i32(i % u32(params.outH * params.outW));
  let plane = i / u32(params.outH * params.outW) * u32(params.inH * params.inW);
  let y = place / params.outW * params.strideH - params.top;
  let x0 = place % params.outW * params.strideW - params.left;
  let bottom = min(y + params.kernelH, params.inH);
  let right = min(x0 + params.kernelW, params.inW);
#if MAX
  var first = max(y, 0) * params.inW + max(x0, 0);
  var best = f32(x[plane + u32(first)]);
#else
  var sum = 0.0;
#endif
  for (var row = max(y, 0); row < bottom; row++) {
    for (var column = max(x0, 0); column < right; column++) {
      let pixel = row * params.inW + column;
      let value = f32(x[plane + u32(pixel)]);
#if MAX
      if (value > best || (isNaN(value) && !isNaN(best))) {
        best = value;
        first = pixel;
      }
#else
      sum += value;
#endif
    }
  }
#if MAX
  out[i] = $T(best);
#if ARGMAX
  origin[i] = u32(first);
#endif
#else
#if COUNT_INSIDE
  out[i] = $T(sum / f32((bottom - max(y, 0)) * (right - max(x0, 0))));
#else
  out[i] = $T(sum / f32(params.kernelH * params.kernelW));
#endif
#endif
}

fn isNaN(value: f32) -> bool { return (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u; }
