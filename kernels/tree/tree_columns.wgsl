// The rows of q that selected a leaf, found in the sorted pairs: each query with all the heads that read the key head.

struct Columns {
  first: u32, // place in `pairs`
  count: u32,
}

// Where a line's leaves are not below this one.
fn lowerBound(line: u32, leaf: u32) -> u32 {
  var low = line * params.queries * params.beam;
  var high = low + params.queries * params.beam;
  while (low < high) {
    let half = (low + high) / 2u;
    if (pairs[half].x < leaf) { low = half + 1u; } else { high = half; }
  }
  return low;
}

fn columnsOf(line: u32, leaf: u32) -> Columns {
  let first = lowerBound(line, leaf);
  return Columns(first, (lowerBound(line, leaf + 1u) - first) * (params.heads / params.kvHeads));
}

struct Column {
  at: u32, // where the row of q begins, in elements
  lse: f32, // so large past the last one, and for a query that does not count, that p is 0
  delta: f32,
}

fn columnOf(columns: Columns, batch: u32, kvHead: u32, index: u32) -> Column {
  let share = params.heads / params.kvHeads;
  let inside = min(index, columns.count - 1u);
  let query = pairs[columns.first + inside / share].y / params.beam;
  let head = kvHead * share + inside % share;
  let row = (batch * params.heads + head) * params.queries + query;
  let counts = index < columns.count && lse[row] > 0.5 * UNSEEN;
  return Column(queryRow(batch, head, vec4u(query)).x, select(1e38, lse[row], counts), delta[row]);
}
