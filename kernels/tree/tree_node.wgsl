// A node of a tree over keys, for the kernels that make them: one quad of D of its summary, from the same quad of its
// children, added in their order, so that it has the same bits whichever kernel makes it. The mean (pooled: of the means
// below), or the least and the largest values (boxes). Places are in quads; `load_key` is the kernel's.

#if BOXES
const NODE = 2u; // rows of a node
#else
const NODE = 1u;
#endif

fn make_leaf(into: u32, source: u32, step: u32, keys: u32, width: u32) {
#if BOXES
  var least = vec4f(3.4e38);
  var most = vec4f(-3.4e38);
  for (var i = 0u; i < keys; i++) {
    let key = load_key(source + i * step);
    least = min(least, key);
    most = max(most, key);
  }
  nodes[into] = least;
  nodes[into + width] = most;
#else
  var sum = vec4f(0.0);
  for (var i = 0u; i < keys; i++) { sum += load_key(source + i * step); }
  nodes[into] = sum / f32(keys);
#endif
}

fn make_node(into: u32, source: u32, children: u32, width: u32) {
#if BOXES
  var least = vec4f(3.4e38);
  var most = vec4f(-3.4e38);
  for (var i = 0u; i < children; i++) {
    least = min(least, nodes[source + i * 2u * width]);
    most = max(most, nodes[source + (i * 2u + 1u) * width]);
  }
  nodes[into] = least;
  nodes[into + width] = most;
#else
  var sum = vec4f(0.0);
  for (var i = 0u; i < children; i++) { sum += nodes[source + i * width]; }
  nodes[into] = sum / f32(children);
#endif
}
