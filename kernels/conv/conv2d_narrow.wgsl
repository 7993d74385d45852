// 2-D convolution of groups with a few channels each, such as depthwise ones, where a tile of a matrix product would lie
// empty: a thread makes four results of a row, from the pixels and weights that they need, without any staging.
//
// 3×3, 96 channels, 8×16×16, on the software adapter: depthwise 2.9 ms where tiles take 10.1; in groups of two 3.6 where
// they take 5.1; in groups of four, where they take 2.8, it would be 5.6. The gradient by weights is left to the tiles: a
// workgroup a weight took 3.5 ms where they take 5.5, not enough for a kernel of its own.
//
// TRANSPOSED, phases and taps are those of conv2d.wgsl; a thread's four results are then of the same phase.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (batch, groups · channels, h, w)
@group(0) @binding(1) var<storage, read> weight: array<$T>; // (groups · rows, channels, kh, kw); TRANSPOSED: (groups · channels, rows, kh, kw)
@group(0) @binding(2) var<storage, read_write> out: array<$T>; // (batch, groups · rows, oh, ow)
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<$T>; // (groups · rows)
#endif

#include ./geometry.wgsl

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let kernel = params.kh * params.kw;
  let stride = vec2u(params.stride_x, params.stride_y);
  let dilation = vec2u(params.dilation_x, params.dilation_y);
  let edge = vec2u(params.w, params.h);
  let kw = params.kw;
  let channels = params.channels;
  let plane = edge.x * edge.y;
#if TRANSPOSED
  let phases = stride.x * stride.y;
  let wide = (params.ow + stride.x - 1u) / stride.x;
  let high = (params.oh + stride.y - 1u) / stride.y;
#else
  let phases = 1u;
  let wide = params.ow;
  let high = params.oh;
#endif
  let quads = (wide + 3u) / 4u;
  let i = (wg.x + wg.y * groups.x) * 64u + thread;
  let px = 4u * (i % quads) + vec4u(0u, 1u, 2u, 3u);
  let py = i / quads % high;
  let row = i / (quads * high * phases) % (params.groups * params.rows);
  let n = i / (quads * high * phases * params.groups * params.rows);
  if (n >= params.batch) { return; }
  let group = row / params.rows;
#if TRANSPOSED
  let phase = i / (quads * high) % phases;
  let offset = vec2u(phase % stride.x, phase / stride.x);
  let corner = offset + vec2u(params.left, params.top);
  let taps_x = taps_of(corner.x % stride.x, kw, dilation.x, stride.x);
  let taps_y = taps_of(corner.y % stride.y, params.kh, dilation.y, stride.y);
  let weight_start = (group * channels * params.rows + row % params.rows) * kernel;
  let weight_step = params.rows * kernel;
  let oy = py * stride.y + offset.y;
  let ox = px * stride.x + offset.x;
#else
  let corner = vec2u(params.left, params.top);
  let taps_x = vec3u(0u, 1u, kw);
  let taps_y = vec3u(0u, 1u, params.kh);
  let weight_start = row * channels * kernel;
  let weight_step = kernel;
  let oy = py;
  let ox = px;
#endif
  let start = (n * params.groups + group) * channels * plane;

  var acc = vec4f();
  for (var ty = 0u; ty < taps_y.z; ty++) {
    let ky = taps_y.x + ty * taps_y.y;
    for (var tx = 0u; tx < taps_x.z; tx++) {
      let kx = taps_x.x + tx * taps_x.y;
      // Coordinates below 0 wrap to huge ones, which are outside too.
#if TRANSPOSED
      let iy = py + u32(i32(corner.y - ky * dilation.y) / i32(stride.y));
      let ix = px + u32(i32(corner.x - kx * dilation.x) / i32(stride.x));
#else
      let iy = py * stride.y + ky * dilation.y - corner.y;
      let ix = px * stride.x + kx * dilation.x - corner.x;
#endif
      let inside = (ix < vec4u(edge.x)) & vec4<bool>(iy < edge.y);
      let seen = select(vec4u(), start + iy * edge.x + ix, inside);
      let at = weight_start + ky * kw + kx;
      for (var c = 0u; c < channels; c++) {
        let p = seen + c * plane;
        let y = vec4f(vec4<$T>(x[p.x], x[p.y], x[p.z], x[p.w]));
        acc += f32(weight[at + c * weight_step]) * select(vec4f(), y, inside);
      }
    }
  }
#if BIAS
  acc += f32(bias[row]);
#endif
  let result = ((n * params.groups * params.rows + row) * params.oh + oy) * params.ow + ox;
  for (var j = 0u; j < 4u; j++) {
    if (oy < params.oh && ox[j] < params.ow) { out[result[j]] = $T(acc[j]); }
  }
}
