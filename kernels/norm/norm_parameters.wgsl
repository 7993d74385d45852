// Gradients of a norm's weight and bias, last stage: the shares are added in order, an invocation a channel.

@group(0) @binding(0) var<storage, read> shares: array<f32>; // (2, parts, channels): of weight, of bias
@group(0) @binding(1) var<storage, read_write> dweight: array<$T>; // (channels)
#if BIAS
@group(0) @binding(2) var<storage, read_write> dbias: array<$T>; // (channels)
#endif

struct Params {
  parts: u32,
  channels: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let channel = (wg.x + wg.y * groups.x) * 64u + lane;
  if (channel >= params.channels) { return; }
  var dw = 0.0;
  var db = 0.0;
  for (var part = 0u; part < params.parts; part++) {
    dw += shares[part * params.channels + channel];
    db += shares[(params.parts + part) * params.channels + channel];
  }
  dweight[channel] = $T(dw);
#if BIAS
  dbias[channel] = $T(db);
#endif
}
