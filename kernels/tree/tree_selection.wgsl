// Which leaves of the tree each query attends to: a descent with a beam, one workgroup a (sample, query, key head).
//
// Usable is what lies wholly before the query's window. A level's candidates are the children of the beam's nodes and the
// usable nodes that have no usable parent (the last ones, fewer than `fanout`); the `beam` best of them go on. A node's score is
// the largest over the heads that read this key head. All of that follows from the query, its position and complete nodes
// alone, and sums have one order: a query selects the same in whatever chunk, batch or room it is computed.
//
// A lane scores whole nodes. The best are found by counting: a candidate's rank is the number of those with a higher score, or
// with the same and a lower number. Where all candidates go on, none is scored. A beam is kept in ascending order, so that
// candidates come in the order of their numbers.

@group(0) @binding(0) var<storage, read> q: array<vec4<$T>>; // (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> nodes: array<vec4f>; // (B, KV, nodes, D), boxes (B, KV, nodes, 2, D)
@group(0) @binding(2) var<storage, read_write> selected: array<u32>; // (B, Tq, KV, beam), ascending, then NONE
@group(0) @binding(3) var<storage, read_write> touched: array<vec2u>; // (B, Tq, KV): nodes scored, keys to attend to
#if STARTS
@group(0) @binding(4) var<storage, read> starts: array<u32>; // (B): position of the first query
#endif

struct Params {
  batch: u32,
  queries: u32,
  heads: u32,
  kvHeads: u32,
  width: u32, // D / 4
  nodes: u32,
  leaves: u32, // that there is room for
  block: u32,
  fanout: u32,
  beam: u32,
  window: u32,
  sinks: u32, // leaves that are always selected
}

const LANES = $LANES;
const ROOM = $ROOM; // candidates of a level, at most
const NONE = 0xffffffffu;

var<workgroup> ranks: array<u32, ROOM>; // each candidate's score as a whole number with its order; 0: not to be chosen
var<workgroup> chosen: array<u32, ROOM / 2u>; // the best, the best first
var<workgroup> beam: array<u32, ROOM / 2u>; // in ascending order

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let group = wg.x + wg.y * groups.x;
  let kvHead = group % params.kvHeads;
  let batch = group / (params.kvHeads * params.queries);
  if (batch >= params.batch) { return; }
  let share = params.heads / params.kvHeads;
  let queryAt = group * share * params.width; // of the group's first head
  let origin = (batch * params.kvHeads + kvHead) * params.nodes;
  var position = (group / params.kvHeads) % params.queries;
#if STARTS
  position += starts[batch];
#endif
  let windowLeaf = (max(position + 1u, params.window) - params.window) / params.block; // the window's first
  let usable = min(windowLeaf, params.leaves);
  let sinks = min(params.sinks, usable);

  // Up to the level that has fewer than `fanout` usable nodes.
  var span = 1u; // leaves of a node
  while (usable / span >= params.fanout) { span *= params.fanout; }
  var count = 0u; // nodes in the beam
  var scored = 0u;
  while (span > 0u) {
    let here = usable / span; // usable nodes of this level
    let orphans = here / params.fanout * params.fanout; // from here on without a usable parent
    let children = count * params.fanout;
    let total = children + here - orphans;
    // Sinks don't compete: they have places of their own.
    let apart = select(0u, sinks, span == 1u);
    if (total > params.beam) {
      var level = origin; // where its nodes begin
      var room = params.leaves;
      for (var s = 1u; s < span; s *= params.fanout) {
        level += room;
        room /= params.fanout;
      }
      for (var i = lane; i < total; i += LANES) {
        var node = orphans + i - children;
        if (i < children) { node = beam[i / params.fanout] * params.fanout + i % params.fanout; }
        ranks[i] = select(ascending(score(level + node, queryAt, share)), 0u, node < apart);
      }
      for (var i = lane; i < params.beam; i += LANES) { chosen[i] = select(NONE, i, i < apart); }
      scored += total;
      workgroupBarrier();
      for (var i = lane; i < total; i += LANES) {
        let own = ranks[i];
        var rank = apart;
        for (var j = 0u; j < total; j++) {
          let other = ranks[j];
          rank += u32(other > own || (other == own && j < i));
        }
        if (rank < params.beam && own > 0u) {
          chosen[rank] = orphans + i - children;
          if (i < children) { chosen[rank] = beam[i / params.fanout] * params.fanout + i % params.fanout; }
        }
      }
      count = params.beam;
    } else {
      for (var i = lane; i < total; i += LANES) {
        chosen[i] = orphans + i - children;
        if (i < children) { chosen[i] = beam[i / params.fanout] * params.fanout + i % params.fanout; }
      }
      count = total;
    }
    workgroupBarrier();
    for (var i = lane; i < count; i += LANES) {
      let own = chosen[i];
      var place = 0u;
      for (var j = 0u; j < count; j++) { place += u32(chosen[j] < own || (chosen[j] == own && j < i)); }
      beam[place] = own;
    }
    workgroupBarrier();
    span = select(span / params.fanout, 0u, span == 1u);
  }

  var keys = 0u;
  for (var i = 0u; i < count; i++) { keys += select(params.block, 0u, beam[i] == NONE); }
  for (var i = lane; i < params.beam; i += LANES) {
    selected[group * params.beam + i] = select(NONE, beam[min(i, ROOM / 2u - 1u)], i < count);
  }
  if (lane == 0u) { touched[group] = vec2u(scored, keys + position + 1u - windowLeaf * params.block); }
}

#include ./tree_score.wgsl
