// Puts the spans of attention_split.wgsl together: out = Σ exp(topₛ − top) sumₛ / Σ exp(topₛ − top) totalₛ, one invocation a
// quad of D, in the order of the spans.

@group(0) @binding(0) var<storage, read> sums: array<vec4f>; // (B, H, Tq, spans, ⌈D / 4⌉)
@group(0) @binding(1) var<storage, read> statistics: array<vec2f>; // (B, H, Tq, spans)
@group(0) @binding(2) var<storage, read> lists: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<$ROW>; // (B, H, Tq, D) or (B, Tq, H, D)
@group(0) @binding(4) var<storage, read_write> lse: array<f32>; // (B, H, Tq)

const SPAN = $SPAN;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let index = id.x + id.y * groups.x * 64u;
  let width = (params.dim + 3u) / 4u;
  let spans = (params.keys + SPAN - 1u) / SPAN;
  let row = index / width;
  if (row >= params.batch * params.heads * params.queries) { return; }
  let query = row % params.queries;
  let head = (row / params.queries) % params.heads;
  let batch = row / (params.queries * params.heads);
  let rule = ruleOf(listOf(batch, head / (params.heads / params.kvHeads), 0u));

  var top = HIDDEN;
  for (var s = 0u; s < spans; s++) { top = max(top, statistics[row * spans + s].x); }
  var total = 0.0;
  var sum = vec4f(0.0);
  for (var s = 0u; s < spans; s++) {
    let part = statistics[row * spans + s];
    if (part.y > 0.0) {
      let weight = exp2(part.x - top);
      total = fma(weight, part.y, total);
      sum = fma(vec4f(weight), sums[(row * spans + s) * width + index % width], sum);
    }
  }
  let seen = total > 0.0 && query < rule.queries; // a row that sees no key gives zeros
  store(&out, queryRow(batch, head, vec4u(query)).x, index % width, select(vec4f(0.0), sum / total, seen));
  if (index % width == 0u) { lse[row] = select(UNSEEN, (top + log2(total)) / LOG2E, seen); }
}

#include ./attention_shared.wgsl
