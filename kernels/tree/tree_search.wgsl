// What the two searches through a tree share: the parameters, and what a query searches.

struct Params {
  batch: u32,
  queries: u32,
  heads: u32,
  kvHeads: u32,
  width: u32, // D / 4
  nodes: u32,
  keys: u32, // Tk: room for them
  block: u32,
  fanout: u32,
  window: u32,
#if BEAM
  beam: u32,
  sinks: u32, // leaves that are always selected
#endif
}

const LANES = $LANES;
const NONE = 0xffffffffu;

// What a workgroup searches: the part of one tree that lies before one query's window, for the heads that share it.
struct Search {
  batch: u32,
  kvHead: u32,
  share: u32, // heads
  queryAt: u32, // where the first of them begins in q
  origin: u32, // where the tree begins in `nodes`
  position: u32, // of the query
  windowLeaf: u32, // the window's first
  usable: u32, // leaves: those wholly before the window
}

// Of a (sample, query, key head); there is none of a sample past the last.
fn searchOf(group: u32) -> Search {
  let kvHead = group % params.kvHeads;
  let batch = group / (params.kvHeads * params.queries);
  let share = params.heads / params.kvHeads;
  var position = (group / params.kvHeads) % params.queries;
#if STARTS
  position += starts[min(batch, params.batch - 1u)];
#endif
  let windowLeaf = (max(position + 1u, params.window) - params.window) / params.block;
  let usable = min(windowLeaf, params.keys / params.block);
  let origin = (batch * params.kvHeads + kvHead) * params.nodes;
  return Search(batch, kvHead, share, group * share * params.width, origin, position, windowLeaf, usable);
}

// Where the nodes begin that cover `span` leaves each.
fn levelAt(origin: u32, span: u32) -> u32 {
  var at = origin;
  var room = params.keys / params.block;
  for (var s = 1u; s < span; s *= params.fanout) {
    at += room;
    room /= params.fanout;
  }
  return at;
}

#include ./tree_score.wgsl
