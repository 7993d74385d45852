// The exact search for the leaf that holds the greatest q · k, best first over boxes: what is open is kept with its bound, the node
// with the highest bound is opened next, and the search ends when no bound reaches the best key found. A bound is never below a
// key's product (tree_score.wgsl), so the result is exact, whatever it costs. One workgroup a (sample, query, key head); the open
// nodes lie in workgroup memory, and each step looks through all of them.

@group(0) @binding(0) var<storage, read> q: array<vec4<$T>>; // (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> nodes: array<vec4f>; // (B, KV, nodes, 2, D)
@group(0) @binding(2) var<storage, read> k: array<vec4<$K>>; // (B, Tk, KV, D)
@group(0) @binding(3) var<storage, read_write> found: array<u32>; // (B, Tq, KV): the leaf, or NONE
@group(0) @binding(4) var<storage, read_write> opened: array<vec2u>; // (B, Tq, KV): nodes, and of those leaves
#if STARTS
@group(0) @binding(5) var<storage, read> starts: array<u32>; // (B): position of the first query
#endif

struct Node {
  span: u32, // leaves that it covers
  number: u32, // of its level
}

// At most as many nodes are open as there are leaves.
var<workgroup> open: array<Node, $ROOM>;
var<workgroup> bounds: array<u32, $ROOM>;
var<workgroup> tops: array<vec2u, LANES>; // each lane's highest bound and its place, or its best key
var<workgroup> next: u32; // place of the node to be opened, or NONE

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let group = wg.x + wg.y * groups.x;
  let search = searchOf(group);
  if (search.batch >= params.batch) { return; }

  // Open at first: usable nodes without a usable parent.
  var count = 0u;
  for (var span = 1u; search.usable / span > 0u; span *= params.fanout) {
    let here = search.usable / span;
    let orphans = here / params.fanout * params.fanout;
    for (var i = lane; i < here - orphans; i += LANES) {
      open[count + i] = Node(span, orphans + i);
      bounds[count + i] = bound(search, span, orphans + i);
    }
    count += here - orphans;
  }
  var best = 0u; // the greatest product so far, in order
  var leaf = NONE;
  var total = vec2u(0u);
  loop {
    workgroupBarrier();
    var top = vec2u(0u, NONE);
    for (var i = lane; i < count; i += LANES) {
      if (bounds[i] > top.x) { top = vec2u(bounds[i], i); }
    }
    tops[lane] = top;
    workgroupBarrier();
    if (lane == 0u) {
      for (var l = 1u; l < LANES; l++) {
        if (tops[l].x > top.x) { top = tops[l]; }
      }
      next = select(NONE, top.y, top.x >= best); // as high as the best: it may be a leaf before that one
    }
    let at = workgroupUniformLoad(&next);
    if (at == NONE) { break; }
    let node = Node(workgroupUniformLoad(&open[at].span), workgroupUniformLoad(&open[at].number));
    total.x += 1u;
    count -= 1u;
    if (lane == 0u) {
      open[at] = open[count];
      bounds[at] = bounds[count];
    }
    workgroupBarrier();
    if (node.span > 1u) {
      let below = node.span / params.fanout;
      for (var i = lane; i < params.fanout; i += LANES) {
        let child = node.number * params.fanout + i;
        open[count + i] = Node(below, child);
        bounds[count + i] = bound(search, below, child);
      }
      count += params.fanout;
    } else {
      total.y += 1u;
      var greatest = 0u;
      for (var i = lane; i < params.block; i += LANES) {
        let row = (search.batch * params.keys + node.number * params.block + i) * params.kvHeads + search.kvHead;
        greatest = max(greatest, ascending(product(row * params.width, search)));
      }
      tops[lane] = vec2u(greatest, 0u);
      workgroupBarrier();
      for (var l = 0u; l < LANES; l++) { greatest = max(greatest, tops[l].x); }
      if (greatest > best || (greatest == best && node.number < leaf)) {
        best = greatest;
        leaf = node.number;
      }
    }
  }
  if (lane == 0u) {
    found[group] = leaf;
    opened[group] = total;
  }
}

// A node's score, as a whole number with its order.
fn bound(search: Search, span: u32, number: u32) -> u32 {
  return ascending(scores(array(levelAt(search.origin, span) + number), search.queryAt, search.share, 0u)[0]);
}

// As `scores`, of a key.
fn product(at: u32, search: Search) -> f32 {
  var best = LOWEST;
  for (var head = 0u; head < search.share; head++) {
    var sum = 0.0;
    for (var c = 0u; c < params.width; c++) {
      sum += dot(vec4f(q[search.queryAt + head * params.width + c]), vec4f(k[at + c]));
    }
    best = max(best, sum);
  }
  return best;
}

#include ./tree_search.wgsl
