// Draws a token for each sequence from its logits, a workgroup a sequence, in one dispatch and without a sort.
//
//   1. A walk over the vocabulary changes the logits (penalties, bias, mask) and writes them down; on the way it finds the
//      largest ones, and Σ exp of the unmodified ones as it goes (Milakov & Gimelshein, 2018).
//   2. Top-n (of the unmodified logits), top-k and top-p each keep a *prefix* of the tokens in the order (probability
//      descending, id ascending), whose last token is found digit by digit: a histogram of the digit over those that share the
//      digits before, then the bin in which the wanted number of tokens, or mass, is reached. One walk a digit; as soon as
//      the bin holds a single token, or is wanted whole, the rest of the digits doesn't matter. Five digits say all: three
//      of the token's distance from the best, two of its id, for those that tie. A typical search takes two or three.
//   3. The draw: of the tokens kept, the one with the largest logit / temperature + Gumbel noise, which is distributed as
//      the softmax (Gumbel, 1954). No running sum, so no order, and each token's noise is a function of sequence, step and id.
//
// The first digit is of 1 + distance, whose float bits spread the bulk of a vocabulary over a few hundred bins: float bits
// of the logits themselves would crowd it into three or four. Mass is counted in whole numbers, 64 bits by two atomics, in
// units of 2⁻⁴⁴ of the best token's: so sums are exact, and no order of additions shows.
//
// Software adapter, one sequence of 50,257, time of the processor: greedy 0.8 ms, plain 1.1, top-p 0.95 2.2, top-p 0.99 at a
// temperature of 3 2.5, greedy with a list of 20 1.5; of 262,144, 1.8 to 16 on a busy machine. On a GPU it is unmeasured: a
// walk is there to be read four tokens at a time by 512 lanes.
//
// Barriers turn the shader into coroutines on that adapter, and unrolled loops multiply what they carry: with a tree over the
// lanes and loops of constant length it compiled in 7.3 s, as it stands in 2.5.

#include ../random/turns.wgsl
#include ../random/philox.wgsl

@group(0) @binding(0) var<storage, read> logits: array<$T>; // (B, V)
@group(0) @binding(1) var<storage, read_write> parameters: array<u32>; // (B, 11): Settings
@group(0) @binding(2) var<storage, read_write> samples: array<i32>; // (3 + 2 · top, B)
@group(0) @binding(3) var<storage, read_write> changed: array<vec4f>; // (B, ⌈V / 4⌉)
// What is not given is bound to something else, and not read.
@group(0) @binding(4) var<storage, read> counts: array<u32>; // (B, V)
@group(0) @binding(5) var<storage, read> bias: array<f32>; // (B or 1, V)
@group(0) @binding(6) var<storage, read> mask: array<u32>; // (B or 1, ⌈V / 32⌉)

struct Params {
  batch: u32,
  vocabulary: u32,
  top: u32,
  one: u32, // 1, which compilers don't know: loops that it bounds are not unrolled
  counts_rows: u32, // 0 where there are none
  bias_rows: u32,
  mask_rows: u32,
}

struct Settings {
  temperature: f32,
  top_k: u32,
  top_p: f32,
  min_p: f32,
  repetition: f32,
  presence: f32,
  frequency: f32,
  low: u32, // the key
  high: u32,
  sample: u32,
  step: u32,
}

// The last token that is kept, by key and, among equal keys, id.
struct Prefix {
  key: u32,
  id: u32,
}

struct Search {
  want: vec2u, // what is still wanted of tokens or mass within the digits found
  key: u32, // the digits found
  id: u32,
  last: Prefix,
  done: u32,
}

const LANES: u32 = $LANES;
const EXCLUDED = -0x1.fffffep+127; // the lowest number that there is: masks are made with it
const KEYS = 1u << 26u;
const BINS = 512u;
const GROUPS = 32u; // of bins
const MOST_TOP = 20u;
const LEVELS = 5u;
const RUN = 16u; // lanes whose findings one of them puts together first
const TOP = 0u; // searches
const K = 1u;
const P = 2u;
const NAN_BITS = 0x7fc00000;
const NEGATIVE_INFINITY_BITS = -0x800000; // 0xff800000
const NOT_FINITE = 1;
const NONE_ALLOWED = 2;

// Digit by digit: how far down a key, and an id, the digits before it reach, and it reaches itself.
const KEY_ABOVE = array(26u, 17u, 8u, 0u, 0u);
const KEY_DOWN = array(17u, 8u, 0u, 0u, 0u);
const ID_ABOVE = array(18u, 18u, 18u, 18u, 9u);
const ID_DOWN = array(18u, 18u, 18u, 9u, 0u);

var<private> own: Settings;
var<workgroup> lanes_found: array<vec4u, LANES>;
var<workgroup> bins: array<atomic<u32>, 3u * BINS>; // tokens, and their mass: lower and upper words
var<workgroup> group_sums: array<vec2u, GROUPS>;
var<workgroup> search: Search;
var<workgroup> listed: atomic<u32>;
var<workgroup> list: array<vec2u, MOST_TOP>; // bits of a logit, id

fn not_finite(value: f32) -> bool {
  let bits = bitcast<u32>(value);
  return (bits & 0x7fffffffu) > 0x7f800000u || bits == 0x7f800000u; // −∞ is fine
}

// An unmodified logit of a sequence; past the vocabulary EXCLUDED.
fn raw(row: u32, id: u32) -> f32 {
  if (id >= params.vocabulary) { return EXCLUDED; }
  return f32(logits[row * params.vocabulary + id]);
}

fn modified(value: f32, row: u32, id: u32) -> f32 {
  var v = value;
  if (params.counts_rows > 0u) {
    let word = counts[row * params.vocabulary + id];
    if (word != 0u) {
      v = select(v * own.repetition, v / own.repetition, v > 0.0);
      let drawn = f32(word & 0x7fffffffu);
      v -= select(0.0, own.presence, drawn > 0.0) + own.frequency * drawn;
    }
  }
  if (params.bias_rows > 0u) { v += bias[row % params.bias_rows * params.vocabulary + id]; }
  return v;
}

fn allowed(row: u32, id: u32) -> bool {
  if (params.mask_rows == 0u) { return true; }
  let words = (params.vocabulary + 31u) / 32u;
  return ((mask[row % params.mask_rows * words + id / 32u] >> (id % 32u)) & 1u) == 1u;
}

// The distance from the best as an order: bits of 1 + distance, less those of 1. What is so far that exp(−distance) is 0 in f32
// comes to the same.
fn key_of(value: f32, best: f32, temperature: f32) -> u32 {
  return min(bitcast<u32>(1.0 + min((best - value) / temperature, 255.0)) - 0x3f800000u, KEYS - 1u);
}
// The probability, relative to the best's.
fn weight_of(key: u32) -> f32 { return exp(1.0 - bitcast<f32>(key + 0x3f800000u)); }

fn within(key: u32, id: u32, last: Prefix) -> bool { return key < last.key || (key == last.key && id <= last.id); }

// Sums of 64 bits: lower and upper words.
fn plus(a: vec2u, b: vec2u) -> vec2u {
  let low = a.x + b.x;
  return vec2u(low, a.y + b.y + u32(low < b.x));
}
fn minus(a: vec2u, b: vec2u) -> vec2u { return vec2u(a.x - b.x, a.y - b.y - u32(a.x < b.x)); }
fn less(a: vec2u, b: vec2u) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }
// total · share, at least 1.
fn share_of(total: vec2u, share: f32) -> vec2u {
  let fraction = u32(share * 0x1p32f);
  let part = plus(vec2u(total.y * fraction, mul_high(total.y, fraction)), vec2u(mul_high(total.x, fraction), 0u));
  return select(part, vec2u(1u, 0u), all(part == vec2u(0u)));
}

fn better(a: vec2u, b: vec2u) -> bool { // of bits of a number and an id
  let x = bitcast<f32>(a.x);
  let y = bitcast<f32>(b.x);
  return x > y || (x == y && a.y < b.y);
}

// What a lane has found, as words: (largest unmodified logit, Σ exp(logit − largest), best number, its id); a negative sum
// says that something was not finite.
fn merged(a: vec4u, b: vec4u) -> vec4u {
  let x = bitcast<vec2f>(a.xy);
  let y = bitcast<vec2f>(b.xy);
  let largest = max(x.x, y.x);
  let sum = select(x.y * exp(x.x - largest) + y.y * exp(y.x - largest), -1.0, min(x.y, y.y) < 0.0);
  return vec4u(bitcast<vec2u>(vec2f(largest, sum)), select(b.zw, a.zw, better(a.zw, b.zw)));
}

// Leaves what all lanes have found in lanes_found[0]: runs of lanes are put together, then the runs, in that order.
fn put_together(found: vec4u, lane: u32) {
  lanes_found[lane] = found;
  workgroupBarrier();
  for (var round = 0u; round < 2u * params.one; round++) {
    let step = select(1u, RUN, round == 1u);
    let count = select(RUN, LANES / RUN, round == 1u);
    if (lane % (step * count) == 0u) {
      var all = lanes_found[lane];
      for (var i = 1u; i < count; i++) { all = merged(all, lanes_found[lane + i * step]); }
      lanes_found[lane] = all;
    }
    workgroupBarrier();
  }
}

// Tokens (or their mass) in a bin.
fn amount(bin: u32, mass: bool) -> vec2u {
  if (mass) { return vec2u(atomicLoad(&bins[BINS + bin]), atomicLoad(&bins[2u * BINS + bin])); }
  return vec2u(atomicLoad(&bins[bin]), 0u);
}

// The next digit of the search: the bin in which what is wanted is reached.
fn find_digit(kind: u32, level: u32) {
  let mass = kind == P;
  if (mass && level == 0u) {
    var total = vec2u(0u);
    for (var g = 0u; g < GROUPS * params.one; g++) { total = plus(total, group_sums[g]); }
    search.want = share_of(total, own.top_p);
  }
  var before = vec2u(0u);
  var g = 0u;
  while (g < GROUPS && less(plus(before, group_sums[g]), search.want)) {
    before = plus(before, group_sums[g]);
    g++;
  }
  if (g == GROUPS) { // there is no more than what is wanted
    search.done = 1u;
    return;
  }
  var bin = g * (BINS / GROUPS);
  while (less(plus(before, amount(bin, mass)), search.want)) {
    before = plus(before, amount(bin, mass));
    bin++;
  }
  search.want = minus(search.want, before);
  if (level < 3u) {
    search.key = (search.key << (KEY_ABOVE[level] - KEY_DOWN[level])) | bin;
  } else {
    search.id = (search.id << 9u) | bin;
  }
  let tokens = atomicLoad(&bins[bin]);
  if (tokens == 1u || (!mass && search.want.x == tokens) || level == LEVELS - 1u) {
    search.done = 1u;
    let key = ((search.key + 1u) << KEY_DOWN[level]) - 1u;
    let id = ((search.id + 1u) << ID_DOWN[level]) - 1u;
    if (key < search.last.key) { search.last = Prefix(key, id); }
    if (key == search.last.key) { search.last.id = min(search.last.id, id); }
  }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = wg.x;
  let quads = (params.vocabulary + 3u) / 4u;
  let at = row * 11u;
  own = Settings(
    bitcast<f32>(parameters[at]),
    parameters[at + 1u],
    bitcast<f32>(parameters[at + 2u]),
    bitcast<f32>(parameters[at + 3u]),
    bitcast<f32>(parameters[at + 4u]),
    bitcast<f32>(parameters[at + 5u]),
    bitcast<f32>(parameters[at + 6u]),
    parameters[at + 7u],
    parameters[at + 8u],
    parameters[at + 9u],
    parameters[at + 10u],
  );

  var largest = EXCLUDED; // of the unmodified logits
  var sum = 0.0;
  var best = EXCLUDED; // of the modified ones
  var best_id = 0u;
  var wrong = false;
  for (var q = lane; q < quads; q += LANES) {
    var values = vec4f(EXCLUDED);
    for (var c = 0u; c < 4u * params.one; c++) {
      let id = 4u * q + c;
      var v = raw(row, id);
      wrong = wrong || not_finite(v);
      if (v <= EXCLUDED) { continue; }
      if (v > largest) {
        sum *= exp(largest - v);
        largest = v;
      }
      sum += exp(v - largest);
      v = modified(v, row, id);
      wrong = wrong || not_finite(v);
      if (v <= EXCLUDED || !allowed(row, id)) { continue; }
      values[c] = v;
      if (v > best) {
        best = v;
        best_id = id;
      }
    }
    changed[row * quads + q] = values;
  }
  if (wrong) { sum = -1.0; }
  put_together(vec4u(bitcast<u32>(largest), bitcast<u32>(sum), bitcast<u32>(best), best_id), lane);
  let found = lanes_found[0];
  let unmodified = bitcast<vec2f>(found.xy);
  let highest = bitcast<f32>(found.z);
  let log_sum = unmodified.x + log(unmodified.y);
  let failed = unmodified.y < 0.0 || highest <= EXCLUDED;

  var last = Prefix(KEYS - 1u, ~0u);
  for (var kind = TOP; kind <= P * params.one; kind++) {
    if (lane == 0u) {
      var want = 0u;
      if (kind == TOP) { want = params.top; }
      if (kind == K && own.top_k < params.vocabulary) { want = own.top_k; }
      if (kind == P && own.top_p < 1.0) { want = 1u; } // which follows from the mass
      if (failed || (kind != TOP && own.temperature == 0.0)) { want = 0u; }
      search = Search(vec2u(want, 0u), 0u, 0u, last, u32(want == 0u));
    }
    let reference = select(highest, unmodified.x, kind == TOP);
    let temperature = select(own.temperature, 1.0, kind == TOP);
    for (var level = 0u; ; level++) {
      let now = workgroupUniformLoad(&search);
      if (now.done != 0u) { break; }
      for (var i = lane; i < 3u * BINS; i += LANES) { atomicStore(&bins[i], 0u); }
      workgroupBarrier();
      for (var q = lane; q < quads; q += LANES) {
        let values = changed[row * quads + q];
        for (var c = 0u; c < 4u * params.one; c++) {
          let id = 4u * q + c;
          var v = values[c];
          if (kind == TOP) { v = raw(row, id); }
          let key = key_of(v, reference, temperature);
          if (
            v <= EXCLUDED || !within(key, id, now.last) ||
            (key >> KEY_ABOVE[level]) != now.key || (id >> ID_ABOVE[level]) != now.id
          ) { continue; }
          let digit = select(key >> KEY_DOWN[level], id >> ID_DOWN[level], level >= 3u) % BINS;
          let bin = select(digit, digit % 256u, level == 2u);
          atomicAdd(&bins[bin], 1u);
          if (kind == P) {
            let mass = weight_of(key) * 4096.0;
            var upper = u32(mass);
            let lower = u32((mass - f32(upper)) * 0x1p32f);
            let sum = atomicAdd(&bins[BINS + bin], lower) + lower;
            upper += u32(sum < lower);
            if (upper > 0u) { atomicAdd(&bins[2u * BINS + bin], upper); }
          }
        }
      }
      workgroupBarrier();
      if (lane < GROUPS) {
        var total = vec2u(0u);
        for (var i = 0u; i < BINS / GROUPS * params.one; i++) { total = plus(total, amount(lane * (BINS / GROUPS) + i, kind == P)); }
        group_sums[lane] = total;
      }
      workgroupBarrier();
      if (lane == 0u) { find_digit(kind, level); }
    }
    let found_last = workgroupUniformLoad(&search).last;
    if (kind != TOP) {
      last = found_last;
      continue;
    }
    // The list, in order.
    let listing = params.top > 0u && !failed;
    for (var id = lane; listing && id < params.vocabulary; id += LANES) {
      let v = raw(row, id);
      if (v > EXCLUDED && within(key_of(v, reference, temperature), id, found_last)) {
        let slot = atomicAdd(&listed, 1u);
        if (slot < MOST_TOP) { list[slot] = vec2u(bitcast<u32>(v), id); }
      }
    }
    workgroupBarrier();
    let entries = atomicLoad(&listed);
    for (var i = lane; i < params.top; i += LANES) {
      var rank = i;
      var id = -1;
      var log_probability = NEGATIVE_INFINITY_BITS;
      if (i < entries) {
        rank = 0u;
        for (var other = 0u; other < entries; other++) { rank += u32(better(list[other], list[i])); }
        id = i32(list[i].y);
        log_probability = bitcast<i32>(bitcast<f32>(list[i].x) - log_sum);
      }
      samples[(3u + rank) * params.batch + row] = id;
      samples[(3u + params.top + rank) * params.batch + row] = log_probability;
    }
  }

  var score = EXCLUDED;
  var chosen = found.w;
  if (own.temperature > 0.0 && !failed) {
    for (var q = lane; q < quads; q += LANES) {
      let values = changed[row * quads + q];
      var words: vec4u;
      var made = false;
      for (var c = 0u; c < 4u * params.one; c++) {
        let id = 4u * q + c;
        let key = key_of(values[c], highest, own.temperature);
        let likely = key == 0u || weight_of(key) >= own.min_p;
        if (values[c] <= EXCLUDED || !likely || !within(key, id, last)) { continue; }
        if (!made) {
          words = philox(vec4u(q, own.sample, own.step, 0u), vec2u(own.low, own.high));
          made = true;
        }
        let noisy = 1.0 - bitcast<f32>(key + 0x3f800000u) - log(-log_uniform(words[c]));
        if (noisy > score) {
          score = noisy;
          chosen = id;
        }
      }
    }
  }
  put_together(vec4u(0u, 0u, bitcast<u32>(score), chosen), lane);
  if (lane > 0u) { return; }
  var token = -1;
  var log_probability = NAN_BITS;
  var flag = select(NONE_ALLOWED, NOT_FINITE, unmodified.y < 0.0);
  if (!failed) {
    let drawn = lanes_found[0].w;
    token = i32(drawn);
    log_probability = bitcast<i32>(raw(row, drawn) - log_sum);
    flag = 0;
    parameters[at + 10u] = own.step + 1u;
  }
  samples[row] = token;
  samples[params.batch + row] = log_probability;
  samples[2u * params.batch + row] = flag;
}
