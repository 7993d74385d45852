// Backward pass of tree_attention.wgsl by keys: adds Σ p dout and scale · Σ ds q over the queries that selected a leaf to dv
// and dk of its keys, which hold the sums over the windows that see them. Who selected a leaf stands in the sorted pairs: so
// each key's sum is one invocation's, over queries in ascending order, without atomics, and has the same bits each time. A leaf
// that very many queries select (sinks) is walked by its workgroups alone.
//
// The products are those of attention_key_gradient.wgsl, with gathered columns: attention_staged.wgsl.

@group(0) @binding(0) var<storage, read> q: array<$COLUMN>; // (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<$ROW>; // (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<$ROW>; // as k
@group(0) @binding(3) var<storage, read> pairs: array<vec2u>; // (B, KV, Tq · beam): leaves in ascending order, and their places
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
  let line = group / (params.tiles * params.leaves);
  let kvHead = line % params.kvHeads;
  let batch = line / params.kvHeads;
  if (batch >= params.batch) { return; }
  let leaf = (group / params.tiles) % params.leaves;
  let columns = columnsOf(line, leaf);
  if (columns.count == 0u) { return; }
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
  for (var first = 0u; first < columns.count; first += BLOCK) {
    workgroupBarrier(); // the tiles of before are read
    for (var i = index; i < BLOCK * PARTS * PART; i += LANES * PARTS) {
      let c = i % (PARTS * PART);
      let column = columnOf(columns, batch, kvHead, first + i / (PARTS * PART));
      queryTile[i] = vec4f(0.0);
      upstreamTile[i] = vec4f(0.0);
      if (c * 4u < params.dim) {
        queryTile[i] = loadColumn(&q, column.at, c);
        upstreamTile[i] = loadColumn(&dout, column.at, c);
      }
    }
    workgroupBarrier();
    var p: Scores; // first the scores
    products(&p, &key, &queryTile, lane, part);
    var ds: Scores; // first v · dout
    products(&ds, &value, &upstreamTile, lane, part);
    for (var i = 0u; i < BLOCK; i++) {
      let column = columnOf(columns, batch, kvHead, first + i);
      p[i] = exp2((p[i] * params.scale - column.lse) * LOG2E);
      ds[i] = p[i] * (ds[i] - column.delta);
    }
    accumulate(&valueSum, &p, &upstreamTile, part);
    accumulate(&keySum, &ds, &queryTile, part);
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

#include ./tree_columns.wgsl
#include ../attention/attention_staged.wgsl
