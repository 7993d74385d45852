// Backward pass of tree_attention.wgsl by keys: adds Σ p dout and scale · Σ ds q over the queries that selected a leaf to dv
// and dk of its keys, which hold the sums over the windows that see them. Who selected a leaf stands in the sorted pairs: so
// each key's sum is one invocation's, over queries in ascending order, without atomics, and has the same bits each time. A leaf
// that very many queries select (sinks) is walked by its workgroups alone.
//
// The products are those of attention_key_gradient.wgsl, with gathered columns: attention_staged.wgsl.

@group(0) @binding(0) var<storage, read> q: array<$COLUMN>; // (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$ROW>; // (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$ROW>; // as k
@group(0) @binding(3) var<storage, read> pairs: array<vec2u>; // (B, KV, beam, Tq): leaves in ascending order, and their queries
@group(0) @binding(4) var<storage, read> dout: array<$COLUMN>; // as q
@group(0) @binding(5) var<storage, read> lse: array<f32>; // (B, H, Tq)
@group(0) @binding(6) var<storage, read> delta: array<f32>; // (B, H, Tq)
@group(0) @binding(7) var<storage, read_write> dk: array<$ROW>; // as k
@group(0) @binding(8) var<storage, read_write> dv: array<$ROW>; // as k

var<workgroup> queryTile: Tile;
var<workgroup> upstreamTile: Tile; // dout

@compute @workgroup_size(LANES * PARTS)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let group = wg.x + wg.y * groups.x;
  let line = group / (params.tiles * params.leaves); // (sample, key head)
  let kvHead = line % params.kvHeads;
  let batch = line / params.kvHeads;
  if (batch >= params.batch) { return; }
  let leaf = (group / params.tiles) % params.leaves;
  let lane = index % LANES;
  let part = index / LANES;
  let end = (leaf + 1u) * params.block;
  let row = leaf * params.block + group % params.tiles * LANES + lane; // this invocation's key
  let at = keyRow(batch, kvHead, vec4u(min(row, end - 1u))).x;

  var key: Part;
  loadPart(&key, &k, at, part);
  var value: Part;
  loadPart(&value, &v, at, part);
  var keySum: Part; // Σ ds q
  var valueSum: Part; // Σ p dout
  for (var slot = 0u; slot < params.beam; slot++) {
    let run = runOf(line, slot, leaf);
    for (var first = 0u; first < run.count; first += BLOCK) {
      workgroupBarrier(); // the tiles of before are read
      for (var i = index; i < BLOCK * PARTS * PART; i += LANES * PARTS) {
        let c = i % (PARTS * PART);
        let row = rowOf(run, batch, kvHead, first + i / (PARTS * PART));
        queryTile[i] = vec4f(0.0);
        upstreamTile[i] = vec4f(0.0);
        if (c * 4u < params.dim) {
          queryTile[i] = loadColumn(&q, row.at, c);
          upstreamTile[i] = loadColumn(&dout, row.at, c);
        }
      }
      workgroupBarrier();
      var p: Scores; // first the scores
      products(&p, &key, &queryTile, lane, part);
      var ds: Scores; // first v · dout
      products(&ds, &value, &upstreamTile, lane, part);
      for (var i = 0u; i < BLOCK; i++) {
        let row = rowOf(run, batch, kvHead, first + i);
        let counts = first + i < run.count && lse[row.statistics] > 0.5 * UNSEEN;
        p[i] = select(0.0, exp2((p[i] * params.scale - lse[row.statistics]) * LOG2E), counts);
        ds[i] = p[i] * (ds[i] - delta[row.statistics]);
      }
      accumulate(&valueSum, &p, &upstreamTile, part);
      accumulate(&keySum, &ds, &queryTile, part);
    }
  }

  if (row < end) {
    for (var c = 0u; c < $COLUMNS; c++) {
      let quad = at / 4u + part * PART + c;
      if ((part * PART + c) * 4u < params.dim) {
        dk[quad] = $ROW(vec4f(dk[quad]) + keySum[c] * params.scale);
        dv[quad] = $ROW(vec4f(dv[quad]) + valueSum[c]);
      }
    }
  }
}

#include ./tree_runs.wgsl
#include ../attention/attention_staged.wgsl
