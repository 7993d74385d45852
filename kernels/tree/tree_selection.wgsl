// Which leaves of the tree each query attends to: a descent with a beam, one workgroup a (sample, query, key head).
//
// Usable is what lies wholly before the query's window. A level's candidates are the children of the beam's nodes and the
// usable nodes that have no usable parent (the last ones, fewer than `fanout`); the `beam` best of them go on. A node's score is
// the largest over the heads that read this key head. All of that follows from the query, its position and complete nodes
// alone, and sums have one order: a query selects the same in whatever chunk, batch or room it is computed.
//
// A lane scores whole nodes, NODES at a time. Where all candidates go on, none is scored. A beam is kept in ascending order, so
// that candidates come in the order of their numbers. How the best are found:
// - by counting: a candidate's rank is the number of those with a higher score, or with the same and a lower number;
// - with SUBGROUPS (software adapters; the workgroup is one subgroup): one after the other, each the first of the highest.
// 16,384 queries of one head of width 64, of the processor's time on a software adapter: 0.32 s by counting, a node at a time;
// 0.19 with three at a time; 0.14 with subgroups, by which the query's quads are handed around as well.

@group(0) @binding(0) var<storage, read> q: array<vec4<$T>>; // (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> nodes: array<vec4f>; // (B, KV, nodes, D), boxes (B, KV, nodes, 2, D)
@group(0) @binding(2) var<storage, read_write> selected: array<u32>; // (B, Tq, KV, beam), ascending, then NONE
@group(0) @binding(3) var<storage, read_write> touched: array<vec2u>; // (B, Tq, KV): nodes scored, keys to attend to
#if STARTS
@group(0) @binding(4) var<storage, read> starts: array<u32>; // (B): position of the first query
#endif

const ROOM = $ROOM; // candidates of a level, at most

var<workgroup> ranks: array<u32, ROOM>; // each candidate's score as a whole number with its order; 0: not to be chosen
var<workgroup> beams: array<u32, ROOM>; // one half holds the beam, in ascending order; into the other goes the next level's
#if !SUBGROUPS
var<workgroup> chosen: array<u32, ROOM / 2u>; // the best, the best first
#endif

// The number of a level's candidate: the beam's children come before the nodes without a usable parent, `orphans` and higher.
fn candidate(i: u32, half: u32, children: u32, orphans: u32) -> u32 {
  if (i >= children) { return orphans + i - children; }
  return beams[half + i / params.fanout] * params.fanout + i % params.fanout;
}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let group = wg.x + wg.y * groups.x;
  let search = searchOf(group);
  if (search.batch >= params.batch) { return; }
  let usable = search.usable;
  let sinks = min(params.sinks, usable);

  // Up to the level that has fewer than `fanout` usable nodes.
  var span = 1u; // leaves of a node
  while (usable / span >= params.fanout) { span *= params.fanout; }
  var half = 0u; // of `beams`: where the beam begins
  var count = 0u; // nodes in it
  var scored = 0u;
  while (span > 0u) {
    let here = usable / span; // usable nodes of this level
    let orphans = here / params.fanout * params.fanout; // from here on without a usable parent
    let children = count * params.fanout;
    let total = children + here - orphans;
    let into = ROOM / 2u - half;
    if (total > params.beam) {
      // Sinks don't compete: they have places of their own, the first ones.
      let apart = select(0u, sinks, span == 1u);
      let level = levelAt(search.origin, span);
      for (var first = 0u; first < total; first += NODES * LANES) {
        var numbers: array<u32, NODES>;
        var at: array<u32, NODES>;
        for (var n = 0u; n < NODES; n++) {
          numbers[n] = candidate(min(first + n * LANES + lane, total - 1u), half, children, orphans);
          at[n] = level + numbers[n];
        }
        let values = scores(at, search.queryAt, search.share, lane);
        for (var n = 0u; n < NODES; n++) {
          let i = first + n * LANES + lane;
          if (i < total) { ranks[i] = select(ascending(values[n]), 0u, numbers[n] < apart); }
        }
      }
      scored += total;
      for (var i = lane; i < apart; i += LANES) { beams[into + i] = i; }
#if SUBGROUPS
      var mine = 0u; // of this lane's candidates: a bit for each that is chosen
      for (var n = apart; n < params.beam; n++) {
        var highest = 0u;
        var best = NONE;
        for (var i = lane; i < total; i += LANES) { // what this lane has written
          if (ranks[i] > highest) {
            highest = ranks[i];
            best = i;
          }
        }
        if (best == subgroupMin(select(NONE, best, highest == subgroupMax(highest)))) {
          ranks[best] = 0u;
          mine |= 1u << (best / LANES);
        }
      }
      var place = into + apart;
      for (var first = 0u; first < total; first += LANES) {
        let goes = extractBits(mine, first / LANES, 1u) == 1u;
        let lanes = subgroupBallot(goes).x;
        if (goes) {
          beams[place + countOneBits(lanes & ((1u << lane) - 1u))] = candidate(first + lane, half, children, orphans);
        }
        place += countOneBits(lanes);
      }
#else
      workgroupBarrier();
      for (var first = lane; first < total; first += NODES * LANES) {
        var own: array<u32, NODES>;
        var rank: array<u32, NODES>;
        for (var n = 0u; n < NODES; n++) {
          own[n] = select(0u, ranks[min(first + n * LANES, total - 1u)], first + n * LANES < total);
          rank[n] = apart;
        }
        for (var j = 0u; j < total; j++) {
          for (var n = 0u; n < NODES; n++) { rank[n] += u32(ranks[j] + u32(j < first + n * LANES) > own[n]); }
        }
        for (var n = 0u; n < NODES; n++) {
          if (own[n] > 0u && rank[n] < params.beam) { chosen[rank[n]] = candidate(first + n * LANES, half, children, orphans); }
        }
      }
      workgroupBarrier();
      for (var i = apart + lane; i < params.beam; i += LANES) {
        var place = into + apart;
        for (var j = apart; j < params.beam; j++) { place += u32(chosen[j] < chosen[i]); }
        beams[place] = chosen[i];
      }
#endif
      count = params.beam;
    } else {
      for (var i = lane; i < total; i += LANES) { beams[into + i] = candidate(i, half, children, orphans); }
      count = total;
    }
    workgroupBarrier();
    half = into;
    span = select(span / params.fanout, 0u, span == 1u);
  }

  for (var i = lane; i < params.beam; i += LANES) {
    selected[group * params.beam + i] = select(NONE, beams[half + min(i, ROOM / 2u - 1u)], i < count);
  }
  if (lane == 0u) {
    let keys = count * params.block + search.position + 1u - search.windowLeaf * params.block;
    touched[group] = vec2u(scored, keys);
  }
}

#include ./tree_search.wgsl
