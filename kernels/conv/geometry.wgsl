// What the direct kernels are told of a convolution (geometry.ts), and which taps a phase of the stride sees.

struct Params {
  batch: u32,
  groups: u32,
  channels: u32, // of the picture, in a group
  rows: u32, // channels of the result, in a group
  h: u32,
  w: u32,
  oh: u32,
  ow: u32,
  kh: u32,
  kw: u32,
  stride_y: u32,
  stride_x: u32,
  dilation_y: u32,
  dilation_x: u32,
  top: u32,
  left: u32,
}

#if TRANSPOSED
// The taps k < count with k · dilation ≡ rest (mod stride): the first one, the step to the next, how many.
fn taps_of(rest: u32, count: u32, dilation: u32, stride: u32) -> vec3u {
  var step = 1u;
  while (step * dilation % stride != 0u) { step++; }
  var first = 0u;
  while (first < step && first * dilation % stride != rest) { first++; }
  if (first == step || first >= count) { return vec3u(); }
  return vec3u(first, step, (count - first + step - 1u) / step);
}
#endif
