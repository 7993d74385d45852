// The two matrix products of attention for GPUs. A workgroup owns LANES rows (32: others report that 64 are slower on
// NVIDIA), each cut along D into PARTS of PART quads: an invocation holds its part of one row, in registers. A block of
// columns is staged in workgroup memory, and read there by broadcast: the LANES invocations with the same part read the same
// address. Of a score each part computes a share; the shares meet in workgroup memory, and every invocation adds them up in
// one order. At most 32 numbers of a row an invocation: rows of D = 64 held whole leave too few registers. 16 KiB of
// workgroup memory at most, which every adapter has.
//
// The loops over a part run to $COLUMNS: a constant, which unrolls them, or a parameter on software adapters, where the
// unrolled reads of workgroup memory take a minute to compile. Its speed on a GPU has not been measured; on a software adapter
// 8 heads of 1024 × 1024, width 40, run at 3.1 GFLOP/s, against 35 of attention_tile.wgsl.

const LANES = $LANES;
const PARTS = $PARTS;
const PART = $PART;
const BLOCK = $BLOCK;

alias Part = array<vec4f, PART>;
alias Scores = array<f32, BLOCK>; // of one row, and a block of columns
alias Tile = array<vec4f, BLOCK * PARTS * PART>; // (BLOCK, D)

#if SPLIT
var<workgroup> shares: array<f32, PARTS * BLOCK * LANES>;
#endif

// tile = columns first … first + BLOCK − 1, of which those past `last` are filled up by it. Column j begins at base + j · step.
fn stage(tile: ptr<workgroup, Tile>, source: ptr<storage, array<$COLUMN>, read>, base: u32, step: u32, first: u32, last: u32, index: u32) {
  for (var i = index; i < BLOCK * PARTS * PART; i += LANES * PARTS) {
    let c = i % (PARTS * PART);
    var quad = vec4f(0.0);
    if (c * 4u < params.dim) { quad = loadColumn(source, base + min(first + i / (PARTS * PART), last) * step, c); }
    (*tile)[i] = quad;
  }
}

fn loadPart(into: ptr<function, Part>, source: ptr<storage, array<$ROW>, read>, at: u32, part: u32) {
  for (var c = 0u; c < $COLUMNS; c++) {
    let quad = part * PART + c;
    (*into)[c] = vec4f(0.0);
    if (quad * 4u < params.dim) { (*into)[c] = loadRow(source, at, quad); }
  }
}

fn storePart(into: ptr<storage, array<$ROW>, read_write>, at: u32, part: u32, sum: ptr<function, Part>, factor: f32, counts: bool) {
  for (var c = 0u; c < $COLUMNS; c++) {
    let quad = part * PART + c;
    if (quad * 4u < params.dim) { store(into, at, quad, select(vec4f(0.0), (*sum)[c] * factor, counts)); }
  }
}

// scores = row · columnsᵀ
fn products(scores: ptr<function, Scores>, row: ptr<function, Part>, tile: ptr<workgroup, Tile>, lane: u32, part: u32) {
  for (var j = 0u; j < BLOCK; j++) { (*scores)[j] = 0.0; }
  for (var c = 0u; c < $COLUMNS; c++) {
    for (var j = 0u; j < BLOCK; j++) { (*scores)[j] += dot((*row)[c], (*tile)[(j * PARTS + part) * PART + c]); }
  }
#if SPLIT
  workgroupBarrier(); // the shares of before are read
  for (var j = 0u; j < BLOCK; j++) { shares[(part * BLOCK + j) * LANES + lane] = (*scores)[j]; }
  workgroupBarrier();
  for (var j = 0u; j < BLOCK; j++) {
    var score = 0.0;
    for (var p = 0u; p < PARTS; p++) { score += shares[(p * BLOCK + j) * LANES + lane]; }
    (*scores)[j] = score;
  }
#endif
}

// sum += weightsᵀ · columns
fn accumulate(sum: ptr<function, Part>, weights: ptr<function, Scores>, tile: ptr<workgroup, Tile>, part: u32) {
  for (var c = 0u; c < $COLUMNS; c++) {
    for (var j = 0u; j < BLOCK; j++) {
      (*sum)[c] = fma(vec4f((*weights)[j]), (*tile)[(j * PARTS + part) * PART + c], (*sum)[c]);
    }
  }
}

#include ./attention_shared.wgsl
