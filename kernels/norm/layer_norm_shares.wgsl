// Layer norm's gradients of weight and bias, first stage: each workgroup adds grad · x̂ and grad over a chunk of rows, its
// lanes over the columns, so that a row's statistics are read at an address all lanes share.

@group(0) @binding(0) var<storage, read> x: array<T>; // (rows, columns)
@group(0) @binding(1) var<storage, read> stats: array<Stats>; // (rows)
@group(0) @binding(2) var<storage, read> grad: array<T>; // (rows, columns)
@group(0) @binding(3) var<storage, read_write> shares: array<T>; // (2, chunks, columns): of weight, of bias

struct Stats {
  mean: f32, // rounded
  rest: f32, // what the rounding left
  rstd: f32,
}

struct Params {
  rows: u32,
  columns: u32, // in T
  chunks: u32,
  chunk: u32, // rows of a chunk
}

@compute @workgroup_size($LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let part = wg.x + wg.y * groups.x;
  if (part >= params.chunks) { return; }
  let begin = part * params.chunk;
  let end = min(begin + params.chunk, params.rows);
  for (var column = lane; column < params.columns; column += LANES) {
    var dw = T(0.0);
    var db = T(0.0);
    for (var row = begin; row < end; row++) {
      let at = row * params.columns + column;
      let g = grad[at];
      dw += g * (((x[at] - stats[row].mean) - stats[row].rest) * stats[row].rstd);
      db += g;
    }
    shares[part * params.columns + column] = dw;
    shares[(params.chunks + part) * params.columns + column] = db;
  }
}

$ROWS
