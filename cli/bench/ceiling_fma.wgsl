// How fast the adapter multiplies and adds in f32: eight independent chains an invocation, so that latency is hidden, and
// few enough to stay in registers everywhere; their sum is stored, so that nothing can be left out. Sixteen steps in a row
// pay for the loop around them: on a software adapter 94 GFLOP/s, where one step a turn made 20, and eight vec4 15.

@group(0) @binding(0) var<storage, read_write> out: array<f32>; // one an invocation

struct Params {
  rounds: u32,
  factor: f32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  let x = params.factor;
  let y = f32(i);
  var a = y; var b = y + 1.0; var c = y + 2.0; var d = y + 3.0;
  var e = y + 4.0; var f = y + 5.0; var g = y + 6.0; var h = y + 7.0;
  for (var round = 0u; round < params.rounds; round++) {
    for (var step = 0u; step < 16u; step++) {
      a = fma(a, x, y); b = fma(b, x, y); c = fma(c, x, y); d = fma(d, x, y);
      e = fma(e, x, y); f = fma(f, x, y); g = fma(g, x, y); h = fma(h, x, y);
    }
  }
  out[i] = a + b + c + d + e + f + g + h;
}
