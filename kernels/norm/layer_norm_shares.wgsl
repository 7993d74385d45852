// Layer and RMS norm's gradients of weight and bias, first stage: sums of grad · x̂ and of grad over chunks of rows. An
// invocation has one place in the row (four with VEC4) and walks down the chunk, so that neighbours read neighbours, and a
// row's statistics are read at an address all share.
// Nothing is combined between invocations: norm_parameters.wgsl adds the chunks, which have a fixed number of rows.

#if VEC4
alias V = vec4f;
alias Stored = vec4<$T>;
#else
alias V = f32;
alias Stored = $T;
#endif

@group(0) @binding(0) var<storage, read> x: array<Stored>; // (rows, columns)
@group(0) @binding(1) var<storage, read> stats: array<Stats>; // (rows)
@group(0) @binding(2) var<storage, read> grad: array<Stored>; // (rows, columns)
@group(0) @binding(3) var<storage, read_write> shares: array<V>; // (2, chunks, columns): of weight, of bias

struct Stats {
  mean: f32,
  rest: f32,
  rstd: f32,
}

struct Params {
  rows: u32,
  columns: u32, // in V
  blocks: u32, // workgroups along a row
  chunks: u32,
  chunk: u32, // rows of a chunk
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = wg.x + wg.y * groups.x;
  let part = group / params.blocks;
  let column = (group % params.blocks) * 32u + lane;
  if (part >= params.chunks || column >= params.columns) { return; }
  let end = min((part + 1u) * params.chunk, params.rows);
  var dw = V(0.0);
  var db = V(0.0);
  for (var row = part * params.chunk; row < end; row++) {
    let at = row * params.columns + column;
    let g = V(grad[at]);
    dw += g * (((V(x[at]) - stats[row].mean) - stats[row].rest) * stats[row].rstd);
    db += g;
  }
  shares[part * params.columns + column] = dw;
  shares[(params.chunks + part) * params.columns + column] = db;
}
