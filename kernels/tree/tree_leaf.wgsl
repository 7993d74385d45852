// What the two kernels that go leaf by leaf share.

// Where the keys of a leaf begin that a lane loads of its block from `first` on; past the leaf's end, its last one.
fn keysOf(batch: u32, kvHead: u32, leaf: u32, first: u32, lane: u32) -> array<u32, OWN> {
  var at: array<u32, OWN>;
  for (var b = 0u; b < OWN; b++) {
    let key = leaf * params.block + min(first + b * LANES + lane, params.block - 1u);
    at[b] = keyRow(batch, kvHead, vec4u(key)).x;
  }
  return at;
}

#include ./tree_runs.wgsl
#include ../attention/attention_tile.wgsl
