// One token of each sequence: RMS norm, both products of a gated MLP, and act(gate) · up (Shazeer 2020), for eight columns.
// With BEHIND the norm behind the attention comes first, and a sequence's first workgroup stores what it leaves.

$X
@group(0) @binding(1) var<storage, read> vectors: array<vec4f>;
$GATE
$UP
@group(0) @binding(4) var<storage, read_write> out: array<vec4<$T>>; // (B, hidden)
#if BEHIND
@group(0) @binding(5) var<storage, read_write> states: array<vec4<$T>>; // (B, C), with room for what comes
#endif

struct Params {
  batch: u32,
  width: u32, // C
  hidden: u32,
  eps: f32,
  offset: f32, // what is added to the norm's weights
  norm: u32, // where vectors begin, in elements
#if BEHIND
  behind: u32, // likewise
  y: u32, // where it begins behind x, in elements
  gain: f32, // 0: there is no y yet
#endif
#if BIAS
  gateBias: u32,
  upBias: u32,
#endif
}

#include ./shared.wgsl

fn act(z: vec4f) -> vec4f {
#if GELU
  let u = 0.7978845608 * (z + 0.044715 * z * z * z);
  return z / (1.0 + exp(-2.0 * u)); // ½ z (1 + tanh u)
#else
  return z / (1.0 + exp(-z));
#endif
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let across = params.hidden / 8u;
  let group = wg.x + wg.y * groups.x;
  let token = group / across * ROWS;
  if (token >= params.batch) { return; }
  let column = group % across * 8u;
#if BEHIND
  find_behind(token, lane);
  if (column == 0u) {
    let quads = params.width / 4u;
    for (var j = 0u; j < min(ROWS, params.batch - token); j++) {
      for (var i = lane; i < quads; i += LANES) { states[(token + j) * quads + i] = vec4<$T>(state((token + j) * quads + i, i, j)); }
    }
  }
#endif
  var gate = normed(dots_gate(column, column + 4u, token, lane), lane);
  var up = normed(dots_up(column, column + 4u, token, lane), lane);
#if BIAS
  for (var j = 0u; j < ROWS; j++) {
    gate.first[j] += vectors[(params.gateBias + column) / 4u];
    gate.second[j] += vectors[(params.gateBias + column) / 4u + 1u];
    up.first[j] += vectors[(params.upBias + column) / 4u];
    up.second[j] += vectors[(params.upBias + column) / 4u + 1u];
  }
#endif
  if (lane >= ROWS || token + lane >= params.batch) { return; }
  let at = ((token + lane) * params.hidden + column) / 4u;
  out[at] = vec4<$T>(act(gate.first[lane]) * up.first[lane]);
  out[at + 1u] = vec4<$T>(act(gate.second[lane]) * up.second[lane]);
}
