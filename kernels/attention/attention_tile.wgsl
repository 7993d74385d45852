// What attention's kernels for software adapters share: two matrix products and the scores between them, one subgroup a
// workgroup. An invocation owns four rows, the subgroup a block of LANES · OWN columns, of which each lane loads OWN and
// all read them by shuffle: no barrier, and each load whose address differs by lane (11 ns a vec4 on llvmpipe) is worth many
// multiply-adds. Scores stay in registers; the loops over D are left rolled, so that code and time to compile are the same
// for any width, and one pipeline serves many: what is indexed by such a loop (the four rows' sums) lies in memory, at one
// load and one store for 4 · LANES · OWN multiply-adds. The forward pass of 8 heads, 512 × 512, at widths 40, 64 and 128:
// 35, 39 and 41 GFLOP/s, where unrolled loops over D gave 32, 22 and 20, and compiled for 1.9, 4.2 and 13.5 s instead of 0.9.

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
#if !TREE

// Products become scores: scaled, masked, and HIDDEN where a row does not see a column. The block begins at column `first`;
// `partial`: some of its pairs are hidden. Rows are queries and columns keys; with KEYS it is the other way round.
fn scores(tile: ptr<function, Tile>, batch: u32, head: u32, rows: vec4u, first: u32, span: Span, partial: bool) {
  let scale = params.scale * LOG2E;
  for (var b = 0u; b < OWN; b++) {
    for (var l = 0u; l < LANES; l++) { (*tile)[b][l] *= scale; }
  }
#if MASK
  for (var b = 0u; b < OWN; b++) {
    for (var l = 0u; l < LANES; l++) {
      let column = first + b * LANES + l;
      let s = (*tile)[b][l];
#if KEYS
      let queries = vec4u(column);
      let keys = rows;
#else
      let queries = rows;
      let keys = vec4u(column);
#endif
      (*tile)[b][l] = vec4f(
        masked(s.x, batch, head, queries.x, keys.x),
        masked(s.y, batch, head, queries.y, keys.y),
        masked(s.z, batch, head, queries.z, keys.z),
        masked(s.w, batch, head, queries.w, keys.w),
      );
    }
  }
#endif
  if (partial) {
    for (var b = 0u; b < OWN; b++) {
      for (var l = 0u; l < LANES; l++) {
        (*tile)[b][l] = select((*tile)[b][l], vec4f(HIDDEN), outside(span, first + b * LANES + l));
      }
    }
  }
}
#endif

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
