// A query's score of a node: the largest over the `share` heads of a group, of q · mean, or of q · the corner of a box that is
// largest in q's direction. That corner's product is added in the order of any key's in the box, and rounding keeps order: no
// key's product is larger, not even by rounding.

const HEADS = $HEADS; // at a time: a node is loaded once for so many
const LOWEST = -3.4e38;

fn score(node: u32, queryAt: u32, share: u32) -> f32 {
  var best = LOWEST;
  for (var head = 0u; head < share; head += HEADS) {
    var sums = array<f32, HEADS>(); // said, because adapters keep a loop's variables of the round before
    for (var c = 0u; c < params.width; c++) {
#if BOXES
      let least = nodes[node * 2u * params.width + c];
      let most = nodes[(node * 2u + 1u) * params.width + c];
#else
      let mean = nodes[node * params.width + c];
#endif
      for (var h = 0u; h < HEADS; h++) {
        let query = vec4f(q[queryAt + min(head + h, share - 1u) * params.width + c]);
#if BOXES
        sums[h] += dot(query, select(least, most, query > vec4f(0.0)));
#else
        sums[h] += dot(query, mean);
#endif
      }
    }
    for (var h = 0u; h < HEADS; h++) { best = max(best, sums[h]); }
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
