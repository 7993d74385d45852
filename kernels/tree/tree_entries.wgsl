// What the kernels that attend to selected leaves share: the parameters, and which key an entry of a query's list is.

struct Params {
  batch: u32, // B
  heads: u32, // H
  kvHeads: u32, // KV
  queries: u32, // Tq
  keys: u32, // Tk: room for them
  width: u32, // D / 4
  beam: u32, // leaves of a query, at most
  block: u32, // keys of a leaf
  window: u32,
  scale: f32,
#if Q8
  scales: u32, // word at which those of keys and values begin
#endif
}

const LOG2E = 1.4426950408889634; // scores are in units of log 2, because exp2 is what hardware has
const HIDDEN = -3e38;
const UNSEEN = -1e30; // the log-sum-exp of a query that sees no key

// How many leaves a query has selected; what is past the last leaf fills up its list.
fn selectedCount(group: u32) -> u32 {
  var count = 0u;
  while (count < params.beam && selected[group * params.beam + count] < params.keys / params.block) { count += 1u; }
  return count;
}

// The key of an entry: those of the selected leaves, then those of the window.
fn entry(group: u32, i: u32, leafKeys: u32, windowFirst: u32) -> u32 {
  if (i >= leafKeys) { return windowFirst + i - leafKeys; }
  return selected[group * params.beam + i / params.block] * params.block + i % params.block;
}

// Where a key's row begins, in quads.
fn keyRow(batch: u32, kvHead: u32, key: u32) -> u32 {
  return ((batch * params.keys + min(key, params.keys - 1u)) * params.kvHeads + kvHead) * params.width;
}
