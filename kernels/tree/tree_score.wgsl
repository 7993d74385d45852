// A query's scores of NODES nodes: each the largest over the `share` heads of a group, of q · mean, or of q · the corner of a box
// that is largest in q's direction. That corner's product is added in the order of any key's in the box, and rounding keeps
// order: no key's product is larger, not even by rounding.

const HEADS = $HEADS; // at a time: a node is loaded once for so many
const NODES = $NODES; // and a query for so many nodes
const LOWEST = -3.4e38;

fn scores(node: array<u32, NODES>, queryAt: u32, share: u32, lane: u32) -> array<f32, NODES> {
  var best: array<f32, NODES>;
  for (var n = 0u; n < NODES; n++) { best[n] = LOWEST; }
  for (var head = 0u; head < share; head += HEADS) {
    var sums = array<array<f32, HEADS>, NODES>(); // said, because adapters keep a loop's variables of the round before
#if SUBGROUPS
    var parts: array<vec4f, HEADS>; // each lane's quad of LANES
#endif
    for (var c = 0u; c < params.width; c++) {
      var query: array<vec4f, HEADS>;
#if SUBGROUPS
      if (c % LANES == 0u) {
        for (var h = 0u; h < HEADS; h++) {
          parts[h] = vec4f(q[queryAt + min(head + h, share - 1u) * params.width + min(c + lane, params.width - 1u)]);
        }
      }
      for (var h = 0u; h < HEADS; h++) { query[h] = subgroupShuffle(parts[h], c % LANES); }
#else
      for (var h = 0u; h < HEADS; h++) { query[h] = vec4f(q[queryAt + min(head + h, share - 1u) * params.width + c]); }
#endif
      for (var n = 0u; n < NODES; n++) {
#if BOXES
        let least = nodes[node[n] * 2u * params.width + c];
        let most = nodes[(node[n] * 2u + 1u) * params.width + c];
        for (var h = 0u; h < HEADS; h++) { sums[n][h] += dot(query[h], select(least, most, query[h] > vec4f(0.0))); }
#else
        let mean = nodes[node[n] * params.width + c];
        for (var h = 0u; h < HEADS; h++) { sums[n][h] += dot(query[h], mean); }
#endif
      }
    }
    for (var n = 0u; n < NODES; n++) {
      for (var h = 0u; h < HEADS; h++) { best[n] = max(best[n], sums[n][h]); }
    }
  }
  return best;
}

// A whole number whose order is that of floats, from bits, since adapters may break IEEE's rules of comparison: −0 equals 0, and
// NaN is the lowest. Never 0.
fn ascending(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return 1u; }
  if (magnitude == 0u) { return 0x80000000u; }
  return select(bits ^ 0x80000000u, ~bits, bits != magnitude);
}
