// The two matrix products of attention for software adapters, one subgroup a workgroup. An invocation owns four rows, the
// subgroup a block of LANES · OWN columns, of which each lane loads OWN and all read them by shuffle: no barrier, and each
// load whose address differs by lane (11 ns a vec4 on llvmpipe) is worth many multiply-adds. Scores stay in registers;
// the loops over D are left rolled, so that code and time to compile are the same for any width, and one pipeline
// serves many: what is indexed by such a loop (the four rows' sums) lies in memory, at one load and one store for
// 4 · LANES · OWN multiply-adds. The forward pass of 8 heads, 512 × 512, at widths 40, 64 and 128: 35, 39 and 41 GFLOP/s,
// where unrolled loops over D gave 32, 22 and 20, and compiled for 1.9, 4.2 and 13.5 s instead of 0.9.

const LANES = $LANES;
const OWN = $OWN; // columns a lane
const BLOCK = LANES * OWN; // column b · LANES + l of a block is lane l's
const WIDTH = $WIDTH; // quads there is room for in a row

alias Tile = array<array<vec4f, LANES>, OWN>; // (column, 4 rows)
alias Rows = array<array<vec4f, WIDTH>, 4>;

// tile = rows · columnsᵀ
fn products(
  tile: ptr<function, Tile>,
  rows: ptr<storage, array<$ROW>, read>,
  rowAt: vec4u,
  columns: ptr<storage, array<$COLUMN>, read>,
  columnAt: array<u32, OWN>,
) {
  for (var b = 0u; b < OWN; b++) {
    for (var l = 0u; l < LANES; l++) { (*tile)[b][l] = vec4f(0.0); }
  }
  let width = (params.dim + 3u) / 4u;
  for (var c = 0u; c < width; c++) {
    let row0 = loadRow(rows, rowAt.x, c);
    let row1 = loadRow(rows, rowAt.y, c);
    let row2 = loadRow(rows, rowAt.z, c);
    let row3 = loadRow(rows, rowAt.w, c);
    for (var b = 0u; b < OWN; b++) {
      let mine = loadColumn(columns, columnAt[b], c);
      for (var l = 0u; l < LANES; l++) {
        let column = subgroupShuffle(mine, l);
        (*tile)[b][l] += vec4f(dot(row0, column), dot(row1, column), dot(row2, column), dot(row3, column));
      }
    }
  }
}

// sums = sums · shrink + tileᵀ · columns
fn accumulate(
  sums: ptr<function, Rows>,
  shrink: vec4f,
  tile: ptr<function, Tile>,
  columns: ptr<storage, array<$COLUMN>, read>,
  columnAt: array<u32, OWN>,
) {
  let width = (params.dim + 3u) / 4u;
  for (var c = 0u; c < width; c++) {
    var sum0 = (*sums)[0][c] * shrink.x;
    var sum1 = (*sums)[1][c] * shrink.y;
    var sum2 = (*sums)[2][c] * shrink.z;
    var sum3 = (*sums)[3][c] * shrink.w;
    for (var b = 0u; b < OWN; b++) {
      let mine = loadColumn(columns, columnAt[b], c);
      for (var l = 0u; l < LANES; l++) {
        let column = subgroupShuffle(mine, l);
        let weight = (*tile)[b][l];
        sum0 = fma(vec4f(weight.x), column, sum0);
        sum1 = fma(vec4f(weight.y), column, sum1);
        sum2 = fma(vec4f(weight.z), column, sum2);
        sum3 = fma(vec4f(weight.w), column, sum3);
      }
    }
    (*sums)[0][c] = sum0;
    (*sums)[1][c] = sum1;
    (*sums)[2][c] = sum2;
    (*sums)[3][c] = sum3;
  }
}

#include ./attention_shared.wgsl
