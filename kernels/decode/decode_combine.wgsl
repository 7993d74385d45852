// Puts the spans of decode_attention.wgsl together: out = Σ exp(topₛ − top) sumₛ / Σ exp(topₛ − top) totalₛ, one invocation a
// quad of D, in the order of the spans.

@group(0) @binding(0) var<storage, read> sums: array<vec4f>; // (B, H, spans, D / 4)
@group(0) @binding(1) var<storage, read> statistics: array<vec2f>; // (B, H, spans)
@group(0) @binding(2) var<storage, read_write> out: array<vec4<$T>>; // (B, H, D)

struct Params {
  rows: u32, // B · H
  width: u32, // D / 4
  spans: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let index = id.x + id.y * groups.x * 64u;
  let row = index / params.width;
  if (row >= params.rows) { return; }
  var top = -3e38;
  for (var s = row * params.spans; s < (row + 1u) * params.spans; s++) { top = max(top, statistics[s].x); }
  var total = 0.0;
  var sum = vec4f(0.0);
  for (var s = row * params.spans; s < (row + 1u) * params.spans; s++) {
    let part = statistics[s];
    if (part.y > 0.0) {
      let weight = exp2(part.x - top);
      total = fma(weight, part.y, total);
      sum = fma(vec4f(weight), sums[s * params.width + index % params.width], sum);
    }
  }
  out[index] = vec4<$T>(select(vec4f(0.0), sum / total, total > 0.0));
}
