// Backward pass of tree_attention.wgsl by queries: adds scale · Σ ds k over the keys of a query's leaves to dq, which holds the
// sum over its window's keys. p = exp(score − lse) and ds = p (dout · v − delta), with the log-sum-exp and delta of the whole
// softmax, as in attention_query_gradient.wgsl. One workgroup a query, as forward: lanes have whole keys, then quads of D.

@group(0) @binding(0) var<storage, read> q: array<vec4<$Q>>; // (B, Tq, H, D)
@group(0) @binding(1) var<storage, read> k: array<vec4<$K>>; // (B, Tk, KV, D)
@group(0) @binding(2) var<storage, read> v: array<vec4<$K>>; // as k
@group(0) @binding(3) var<storage, read> selected: array<u32>; // (B, Tq, KV, beam): leaves, then what is none
@group(0) @binding(4) var<storage, read> dout: array<vec4<$Q>>; // as q
@group(0) @binding(5) var<storage, read> lse: array<f32>; // (B, H, Tq)
@group(0) @binding(6) var<storage, read> delta: array<f32>; // (B, H, Tq)
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<$Q>>; // as q

const LANES = $LANES;
const ROWS = $ROWS;
const ENTRIES = 512u;
const WIDEST = 64u; // quads

var<workgroup> ds: array<f32, ROWS * ENTRIES>;
var<workgroup> sums: array<vec4f, ROWS * WIDEST>;
var<workgroup> shares: array<vec4f, ROWS * LANES>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) wg: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let share = params.heads / params.kvHeads;
  let tiles = (share + ROWS - 1u) / ROWS;
  let index = wg.x + wg.y * groups.x;
  let group = index / tiles; // (sample, query, key head)
  let kvHead = group % params.kvHeads;
  let query = (group / params.kvHeads) % params.queries;
  let batch = group / (params.kvHeads * params.queries);
  if (batch >= params.batch) { return; }
  let width = params.width;
  let firstHead = index % tiles * ROWS; // of the group
  let rows = min(ROWS, share - firstHead);
  let queryAt = (group * share + firstHead) * width;
  let statistics = (batch * params.heads + kvHead * share + firstHead) * params.queries + query;
  let leafKeys = selectedCount(group) * params.block;
  if (leafKeys == 0u || lse[statistics] < 0.5 * UNSEEN) { return; }
  let stride = max(1u, LANES / width); // lanes that share a quad
  for (var i = lane; i < ROWS * width; i += LANES) { sums[i] = vec4f(0.0); }

  for (var first = 0u; first < leafKeys; first += ENTRIES) {
    let here = min(ENTRIES, leafKeys - first);
    for (var i = lane; i < here; i += LANES) {
      let at = keyRow(batch, kvHead, entry(group, first + i, leafKeys, 0u));
      var score = array<f32, ROWS>();
      var dp = array<f32, ROWS>();
      for (var c = 0u; c < width; c++) {
        let key = vec4f(k[at + c]);
        let value = vec4f(v[at + c]);
        for (var r = 0u; r < ROWS; r++) {
          let quad = queryAt + min(r, rows - 1u) * width + c;
          score[r] += dot(vec4f(q[quad]), key);
          dp[r] += dot(vec4f(dout[quad]), value);
        }
      }
      for (var r = 0u; r < ROWS; r++) {
        let row = statistics + min(r, rows - 1u) * params.queries;
        let p = exp2((score[r] * params.scale - lse[row]) * LOG2E);
        ds[r * ENTRIES + i] = p * (dp[r] - delta[row]);
      }
    }
    workgroupBarrier();
    for (var c = lane; c < width * stride; c += LANES) {
      var sum = array<vec4f, ROWS>();
      for (var i = c / width; i < here; i += stride) {
        let key = vec4f(k[keyRow(batch, kvHead, entry(group, first + i, leafKeys, 0u)) + c % width]);
        for (var r = 0u; r < ROWS; r++) { sum[r] = fma(vec4f(ds[r * ENTRIES + i]), key, sum[r]); }
      }
      for (var r = 0u; r < ROWS; r++) {
        if (stride > 1u) { shares[r * LANES + c] = sum[r]; } else { sums[r * width + c] += sum[r]; }
      }
    }
    workgroupBarrier();
    if (stride > 1u && lane < width) {
      for (var r = 0u; r < ROWS; r++) {
        for (var i = 0u; i < stride; i++) { sums[r * width + lane] += shares[r * LANES + i * width + lane]; }
      }
    }
    workgroupBarrier();
  }

  for (var i = lane; i < rows * width; i += LANES) {
    dq[queryAt + i] = vec4<$Q>(vec4f(dq[queryAt + i]) + sums[i] * params.scale);
  }
}

#include ./tree_entries.wgsl
