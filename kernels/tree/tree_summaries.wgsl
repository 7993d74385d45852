// Summaries of a tree over keys: leaves of `block` keys, and nodes of `fanout` neighbours of the level below, only where they
// are complete. A summary is the mean of its keys (pooled: of the means below), or their least and largest values in each of
// the D dimensions (boxes). All levels lie in one buffer, the leaves first.
//
// One invocation makes one quad of D of one node: children are added in order, so that a node has the same bits whenever it is
// made, and quad c of a node needs quad c of its children alone. So levels `first` … `last` − 1 can be made by one dispatch where
// each gets at most one node (while decoding): an invocation reads what it has just written itself.

#if Q8
alias Cached = u32; // see engine/formats.ts
#else
alias Cached = vec4<$T>;
#endif

@group(0) @binding(0) var<storage, read> k: array<Cached>; // (B, Tk, KV, D)
@group(0) @binding(1) var<storage, read_write> nodes: array<vec4f>; // (B, KV, nodes, D), boxes (B, KV, nodes, 2, D): least, largest
#if KEY_LENGTHS
@group(0) @binding($KEY_LENGTHS) var<storage, read> keyLengths: array<u32>; // (B): keys that count
#endif
#if STARTS
@group(0) @binding($STARTS) var<storage, read> starts: array<u32>; // (B): keys of before, whose nodes are made
#endif

struct Params {
  batch: u32,
  keys: u32, // Tk: room for them
  kvHeads: u32,
  width: u32, // D / 4
  block: u32,
  fanout: u32,
  nodes: u32, // of all levels
  first: u32, // level
  last: u32,
  count: u32, // nodes of the first level that an invocation may make
#if Q8
  scales: u32, // word at which those of the keys begin
#endif
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let index = id.x + id.y * groups.x * 64u;
  let c = index % params.width;
  let nth = (index / params.width) % params.count;
  let head = (index / (params.width * params.count)) % params.kvHeads;
  let batch = index / (params.width * params.count * params.kvHeads);
  if (batch >= params.batch) { return; }
  var keys = params.keys;
#if KEY_LENGTHS
  keys = min(keys, keyLengths[batch]);
#endif
  var start = 0u;
#if STARTS
  start = starts[batch];
#endif
  let row = NODE * params.width; // of a node
  var level = (batch * params.kvHeads + head) * params.nodes; // where a level begins, and where the one below it does
  var below = level;
  var room = params.keys / params.block; // nodes of the level
  var span = params.block; // keys of a node
  for (var l = 0u; l < params.last; l++) {
    if (l >= params.first) {
      let node = start / span + nth;
      if (node >= keys / span) { return; } // then no node above it is complete
      let into = (level + node) * row + c;
      if (l == 0u) {
        let step = params.kvHeads * params.width;
        let source = (batch * params.keys + node * params.block) * step + head * params.width + c;
        make_leaf(into, source, step, params.block, params.width);
      } else {
        make_node(into, (below + node * params.fanout) * row + c, params.fanout, params.width);
      }
    }
    below = level;
    level += room;
    room /= params.fanout;
    span *= params.fanout;
  }
}

// Keys in q8 count as they are read back of the cache, however they came into it.
fn load_key(at: u32) -> vec4f { return load(&k, at); }

#include ./tree_node.wgsl
#include ../cache/cached.wgsl
