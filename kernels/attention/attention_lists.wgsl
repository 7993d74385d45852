// Which blocks of columns each tile of rows visits, for the kernels that attend: rows are queries and columns keys, or the
// other way round for the gradients of keys. One invocation makes one list (attention_shared.wgsl says what is in it).
//
// A row sees the columns between two bounds that move with it, and (queries) the first `sinks` keys. So along the blocks
// of columns, seen by no row of the tile, by some, or by all changes at five places only: the list is made by jumping from
// one to the next, however long the sequence. With a selection of blocks, each of those is one more place.

@group(0) @binding(0) var<storage, read_write> lists: array<u32>; // (batches, heads, count, words)
#if QUERY_LENGTHS
@group(0) @binding($QUERY_LENGTHS) var<storage, read> queryLengths: array<u32>; // (B)
#endif
#if KEY_LENGTHS
@group(0) @binding($KEY_LENGTHS) var<storage, read> keyLengths: array<u32>; // (B)
#endif
#if SELECTION
@group(0) @binding($SELECTION) var<storage, read> selected: array<u32>; // (selectedBatches, selectedHeads, query blocks, bitWords): a bit a key block
#endif

struct Params {
  batches: u32,
  heads: u32,
  count: u32, // lists of a head
  words: u32, // of a list
  rows: u32, // a list stands for
  block: u32, // columns of a block
  queries: u32, // where a sequence has no length of its own
  keys: u32,
  causal: u32, // 0 or 1: key j ≤ i + keys − queries
  window: u32, // 0, or of those the last so many
  windowBlock: u32, // a window begins at a multiple of it
  sinks: u32, // and the first so many
  size: u32, // rows and columns of a selected block
  bitWords: u32, // words of bits a query block
  selectedBatches: u32,
  selectedHeads: u32,
}

const UNBOUNDED = 1 << 30; // larger than any distance, and safe to add to one

// Where the block that a key lies in begins and ends. Keys below 0 stay there.
fn blockFirst(key: i32) -> i32 { return key / i32(params.windowBlock) * i32(params.windowBlock); }
fn blockLast(key: i32) -> i32 { return blockFirst(key) + i32(params.windowBlock) - 1; }

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let index = id.x + id.y * groups.x * 64u;
  if (index >= params.batches * params.heads * params.count) { return; }
  let list = index % params.count;
  let head = (index / params.count) % params.heads;
  let batch = index / (params.count * params.heads);
  var queries = params.queries;
  var keys = params.keys;
#if QUERY_LENGTHS
  queries = min(queries, queryLengths[batch]);
#endif
#if KEY_LENGTHS
  keys = min(keys, keyLengths[batch]);
#endif
  let shift = i32(keys) - i32(queries); // sequences end together
  let ahead = select(UNBOUNDED, shift, params.causal == 1u);
  let behind = select(-UNBOUNDED, shift - i32(params.window), params.window > 0u);
  let sinks = select(0i, i32(params.sinks), params.window > 0u);

  var at = index * params.words;
  lists[at] = queries;
  lists[at + 1u] = keys;
  lists[at + 2u] = u32(ahead);
  lists[at + 3u] = u32(behind);
  lists[at + 4u] = params.windowBlock;
  lists[at + 5u] = u32(sinks);
  at += 6u;

  let block = i32(params.block);
  let first = i32(list * params.rows);
#if TRANSPOSED
  let columns = i32(queries);
  let last = min(first + i32(params.rows), i32(keys)) - 1;
  // Key r is seen by queries r − ahead … r − behind − 1, or so many more as it stands before its block's last; a sink by all
  // from there on.
  let lowFirst = clamp(first - ahead, 0, columns);
  let lowLast = clamp(last - ahead, 0, columns);
  let highAll = select(clamp(blockLast(max(first, sinks)) - behind, 0, columns), columns, last < sinks);
  let highSome = select(clamp(blockLast(last) - behind, 0, columns), columns, first < sinks);
  let sinksAll = 0;
  let sinksSome = 0;
#else
  let columns = i32(keys);
  let last = min(first + i32(params.rows), i32(queries)) - 1;
  // Query r sees keys r + behind + 1, or from its block's first on, to r + ahead, and sinks up to there.
  let lowFirst = clamp(blockFirst(first + behind + 1), 0, columns);
  let lowLast = clamp(blockFirst(last + behind + 1), 0, columns);
  let highAll = clamp(first + ahead + 1, 0, columns);
  let highSome = clamp(last + ahead + 1, 0, columns);
  let sinksAll = min(sinks, highAll) / block;
  let sinksSome = (min(sinks, highSome) + block - 1) / block;
#endif
  // In blocks. Seen by some row: low … end, and the first sinksSome; by all rows: fullLow … fullEnd, and the first sinksAll.
  let low = lowFirst / block;
  let end = select(0, (highSome + block - 1) / block, first <= last);
  let fullLow = (lowLast + block - 1) / block;
  let fullEnd = highAll / block;

  var previous = 0u; // second word of the last run, to join neighbours
  for (var b = select(low, 0, sinksSome > 0); b < end;) {
    var next = end;
    if (low > b) { next = min(next, low); }
    if (sinksSome > b) { next = min(next, sinksSome); }
    if (sinksAll > b) { next = min(next, sinksAll); }
    if (fullLow > b) { next = min(next, fullLow); }
    if (fullEnd > b) { next = min(next, fullEnd); }
    var seen = b >= low || b < sinksSome;
#if SELECTION
    let place = u32(b) * params.block / params.size; // the selected block that b lies in
    next = min(next, i32((place + 1u) * params.size / params.block));
    let queryBlock = select(list, place, TRANSPOSED);
    let keyBlock = select(place, list, TRANSPOSED);
    let queryBlocks = (params.queries + params.size - 1u) / params.size;
    let group = (batch % params.selectedBatches) * params.selectedHeads + head % params.selectedHeads;
    let word = selected[(group * queryBlocks + queryBlock) * params.bitWords + keyBlock / 32u];
    seen = seen && (word >> (keyBlock % 32u)) % 2u == 1u;
#if !TRANSPOSED
    // What is left of a word is often empty: on to the next.
    if (word >> (keyBlock % 32u) == 0u) { next = min(end, i32((keyBlock / 32u + 1u) * 32u * params.size / params.block)); }
#endif
#endif
    if (seen) {
      let full = (b >= fullLow && b < fullEnd) || b < sinksAll;
      let flag = select(1u, 0u, full);
      if (previous == u32(b) * 2u + flag && previous > 1u) { at -= 2u; } else { lists[at] = u32(b); }
      previous = u32(next) * 2u + flag;
      lists[at + 1u] = previous;
      at += 2u;
    }
    b = next;
  }
  lists[at] = 0u;
  lists[at + 1u] = 0u;
}
#if SELECTION

const TRANSPOSED = $TRANSPOSED;
#endif
