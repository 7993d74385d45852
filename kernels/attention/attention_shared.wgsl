// What the kernels of this family share: the parameters, rows of D elements in quads, and who sees whom. With TREE that is a
// matter of kernels/tree. With Q8 columns are those of a cache in that format (engine/formats.ts), widened as they are read.

struct Params {
  batch: u32, // B
  heads: u32, // H
  kvHeads: u32, // KV
  queries: u32, // Tq
  keys: u32, // Tk: room for them; how many count is the list's to say
  dim: u32, // D
  positionsFirst: u32, // 1: (B, T, H, D); 0: (B, H, T, D)
#if TREE
  tiles: u32, // of a leaf
  block: u32, // keys of a leaf
  leaves: u32, // of all keys
  beam: u32, // leaves of a query, at most
  slot: u32, // which of them
#else
  maskHeads: u32, // 1 or H
  tiles: u32, // tiles of a head
  listTiles: u32, // tiles that share a list
  listWords: u32, // words of a list
  listHeads: u32, // KV, or 1 where all heads share the lists
  listBatches: u32, // B, or 1 where all samples do
#endif
  columns: u32, // PART of attention_staged.wgsl
  scale: f32,
#if Q8
  scales: u32, // word at which those of the columns begin
#endif
}

const LOG2E = 1.4426950408889634; // scores are in units of log 2, because exp2 is what hardware has
const HIDDEN = -3e38; // the score of a hidden pair: −∞ without its arithmetic, which software adapters may get wrong
const UNSEEN = -1e30; // the log-sum-exp of a query that sees no key

// Where a row of q and of k begins, in elements.
fn queryRow(batch: u32, head: u32, row: vec4u) -> vec4u {
  let position = (batch * params.queries + row) * params.heads + head;
  return params.dim * select((batch * params.heads + head) * params.queries + row, position, params.positionsFirst == 1u);
}
fn keyRow(batch: u32, head: u32, row: vec4u) -> vec4u {
  let position = (batch * params.keys + row) * params.kvHeads + head;
  return params.dim * select((batch * params.kvHeads + head) * params.keys + row, position, params.positionsFirst == 1u);
}

// Quad c of the row that begins at element `at`; zeros past D. Rows are what an invocation owns, columns what it visits.
fn loadRow(source: ptr<storage, array<$ROW>, read>, at: u32, c: u32) -> vec4f {
#if VEC4
  return vec4f(source[at / 4u + c]);
#else
  let i = at + c * 4u;
  let quad = vec4f(f32(source[i]), f32(source[i + 1u]), f32(source[i + 2u]), f32(source[i + 3u]));
  return select(vec4f(0.0), quad, c * 4u + vec4u(0u, 1u, 2u, 3u) < vec4u(params.dim));
#endif
}
fn loadColumn(source: ptr<storage, array<$COLUMN>, read>, at: u32, c: u32) -> vec4f {
#if Q8
  let quad = at / 4u + c;
  return quantsIn(source[quad]) * unpack2x16float(source[params.scales + quad / 16u])[quad / 8u % 2u];
#else
#if VEC4
  return vec4f(source[at / 4u + c]);
#else
  let i = at + c * 4u;
  let quad = vec4f(f32(source[i]), f32(source[i + 1u]), f32(source[i + 2u]), f32(source[i + 3u]));
  return select(vec4f(0.0), quad, c * 4u + vec4u(0u, 1u, 2u, 3u) < vec4u(params.dim));
#endif
#endif
}
#if Q8
#include ../cache/q8.wgsl
#endif
fn store(into: ptr<storage, array<$ROW>, read_write>, at: u32, c: u32, quad: vec4f) {
#if VEC4
  into[at / 4u + c] = $ROW(quad);
#else
  for (var e = 0u; e < min(4u, params.dim - c * 4u); e++) { into[at + c * 4u + e] = $ROW(quad[e]); }
#endif
}

#if !TREE

// A list (attention_lists.wgsl): six words of rule, then runs of blocks as (first, end · 2 + partial), then (0, 0).
struct Rule {
  queries: u32, // that count in this sequence
  keys: u32,
  ahead: i32, // query i sees key j where behind < j − i ≤ ahead,
  behind: i32,
  windowBlock: i32, // or j lies in the same block of so many keys as the first of them,
  sinks: u32, // and where j < sinks and j − i ≤ ahead
}
const RULE_WORDS = 6u;

fn listOf(batch: u32, kvHead: u32, tile: u32) -> u32 {
  let lists = (params.tiles + params.listTiles - 1u) / params.listTiles;
  let group = (batch % params.listBatches) * params.listHeads + kvHead % params.listHeads;
  return (group * lists + tile / params.listTiles) * params.listWords;
}
fn ruleOf(list: u32) -> Rule {
  let behind = i32(lists[list + 3u]);
  return Rule(lists[list], lists[list + 1u], i32(lists[list + 2u]), behind, i32(lists[list + 4u]), lists[list + 5u]);
}

// The columns that four rows see: low ≤ column < high, and the first `sinks`.
struct Span {
  low: vec4i,
  high: vec4i,
  sinks: vec4i,
}
fn spanOfQueries(rule: Rule, row: vec4u) -> Span {
  let high = min(vec4i(row) + rule.ahead + 1, vec4i(i32(rule.keys)));
  let low = (vec4i(row) + rule.behind + 1) / rule.windowBlock * rule.windowBlock;
  return Span(low, high, min(vec4i(i32(rule.sinks)), high));
}
fn spanOfKeys(rule: Rule, row: vec4u) -> Span {
  let queries = vec4i(i32(rule.queries));
  let last = vec4i(row) / rule.windowBlock * rule.windowBlock + rule.windowBlock - 1; // key of the block
  let high = select(min(last - rule.behind, queries), queries, row < vec4u(rule.sinks));
  return Span(vec4i(row) - rule.ahead, high, vec4i(0));
}
fn outside(span: Span, column: u32) -> vec4<bool> {
  let at = vec4i(i32(column));
  return (at >= span.high) | ((at < span.low) & (at >= span.sinks));
}
#endif
#if MASK

fn masked(score: f32, batch: u32, head: u32, query: u32, key: u32) -> f32 {
  let row = (batch * params.maskHeads + head % params.maskHeads) * params.queries + min(query, params.queries - 1u);
  return max(score + f32(mask[row * params.keys + min(key, params.keys - 1u)]) * LOG2E, HIDDEN);
}
#endif
