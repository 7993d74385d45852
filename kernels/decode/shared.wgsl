// What the kernels of decoding share. Small vectors of a layer (norms, biases) lie in one buffer and are found by `params`.

const LANES: u32 = $LANES; // that share a product
const ROWS: u32 = $ROWS; // sequences of a workgroup: the weights are read once for all of them

struct Dots {
  first: array<vec4f, ROWS>,
  second: array<vec4f, ROWS>,
  squares: array<f32, ROWS>,
}

// Σ over the lanes, in all of them.
#if SUBGROUPS
fn add_lanes(own: Dots, lane: u32) -> Dots {
  var all: Dots;
  for (var j = 0u; j < ROWS; j++) {
    all.first[j] = subgroupAdd(own.first[j]);
    all.second[j] = subgroupAdd(own.second[j]);
    all.squares[j] = subgroupAdd(own.squares[j]);
  }
  return all;
}
#else
// Of half the lanes: with the heads in decode_project.wgsl, all would be more than the 16 KiB that WebGPU guarantees.
const HALF = LANES / 2u;
var<workgroup> partial: array<Dots, HALF>;

fn add_lanes(own: Dots, lane: u32) -> Dots {
  workgroupBarrier(); // the result before has been read
  if (lane >= HALF) { partial[lane - HALF] = own; }
  workgroupBarrier();
  if (lane < HALF) {
    for (var j = 0u; j < ROWS; j++) {
      partial[lane].first[j] += own.first[j];
      partial[lane].second[j] += own.second[j];
      partial[lane].squares[j] += own.squares[j];
    }
  }
  workgroupBarrier();
  for (var reach = HALF / 2u; reach > 0u; reach /= 2u) {
    if (lane < reach) {
      for (var j = 0u; j < ROWS; j++) {
        partial[lane].first[j] += partial[lane + reach].first[j];
        partial[lane].second[j] += partial[lane + reach].second[j];
        partial[lane].squares[j] += partial[lane + reach].squares[j];
      }
    }
    workgroupBarrier();
  }
  return partial[0];
}
#endif

// What all lanes have found together: products of the inputs after their norm.
fn normed(own: Dots, lane: u32) -> Dots {
  var all = add_lanes(own, lane);
  for (var j = 0u; j < ROWS; j++) {
    let rms = inverseSqrt(all.squares[j] / f32(params.width) + params.eps);
    all.first[j] *= rms;
    all.second[j] *= rms;
  }
  return all;
}

#if BEHIND
// The states are x + (offset + w) ∘ y / rms(y): what the half of a layer before has left, with the norm that stands behind it.
// x and y lie in one buffer. Each team of lanes finds rms(y) for itself: it reads y once more, where it reads eight or more
// rows of weights for each of x, and so the norm takes no dispatch of its own.
var<private> behind: array<f32, ROWS>; // gain / rms(y), of this workgroup's sequences

fn find_behind(token: u32, lane: u32) {
  let quads = params.width / 4u;
  var own: Dots; // the squares alone
  for (var i = lane; i < quads; i += LANES) {
    for (var j = 0u; j < ROWS; j++) {
      let y = load_x(params.y / 4u + min(token + j, params.batch - 1u) * quads + i);
      own.squares[j] += dot(y, y);
    }
  }
  let all = add_lanes(own, lane);
  for (var j = 0u; j < ROWS; j++) {
    behind[j] = params.gain * inverseSqrt(all.squares[j] / f32(params.width) + params.eps);
  }
}
#endif

// Quad `at` of the states, which is quad i of the workgroup's sequence j.
fn state(at: u32, i: u32, j: u32) -> vec4f {
#if BEHIND
  return load_x(at) + load_x(params.y / 4u + at) * behind[j] * (vectors[params.behind / 4u + i] + params.offset);
#else
  return load_x(at);
#endif
}
