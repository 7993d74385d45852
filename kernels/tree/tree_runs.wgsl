// Which queries selected a leaf. For each sample, key head and place in the queries' lists there is a line of all queries in the
// order of the leaf that they have there: the queries that have one leaf are a run of it. Rows are those queries, each with all
// the heads that read the key head.

struct Run {
  first: u32, // place in `pairs`
  count: u32, // rows
}

// Where a line's leaves are not below this one.
fn lowerBound(line: u32, leaf: u32) -> u32 {
  var low = line * params.queries;
  var high = low + params.queries;
  while (low < high) {
    let half = (low + high) / 2u;
    if (pairs[half].x < leaf) { low = half + 1u; } else { high = half; }
  }
  return low;
}

fn runOf(group: u32, slot: u32, leaf: u32) -> Run {
  let line = group * params.beam + slot;
  let first = lowerBound(line, leaf);
  return Run(first, (lowerBound(line, leaf + 1u) - first) * (params.heads / params.kvHeads));
}

struct QueryRow {
  at: u32, // where the row of q begins, in elements
  statistics: u32, // its place in (B, H, Tq)
}

// A row of a run; past its end, the last one.
fn rowOf(run: Run, batch: u32, kvHead: u32, index: u32) -> QueryRow {
  let share = params.heads / params.kvHeads;
  let inside = min(index, run.count - 1u);
  let query = pairs[run.first + inside / share].y;
  let head = kvHead * share + inside % share;
  return QueryRow(queryRow(batch, head, vec4u(query)).x, (batch * params.heads + head) * params.queries + query);
}
