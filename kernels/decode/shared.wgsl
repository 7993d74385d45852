// What the kernels of decoding share. Small vectors of a layer (norms, biases) lie in one buffer and are found by `params`.

const LANES: u32 = $LANES; // that share a product
const ROWS: u32 = $ROWS; // sequences of a workgroup: the weights are read once for all of them

struct Dots {
  first: array<vec4f, ROWS>,
  second: array<vec4f, ROWS>,
  squares: array<f32, ROWS>,
}

#if !SUBGROUPS
var<workgroup> partial: array<vec4f, LANES>;

fn sum_lanes(value: vec4f, lane: u32) -> vec4f {
  workgroupBarrier(); // the result before has been read
  partial[lane] = value;
  workgroupBarrier();
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    if (lane < reach) { partial[lane] += partial[lane + reach]; }
    workgroupBarrier();
  }
  return partial[0];
}
#else
fn sum_lanes(value: vec4f, lane: u32) -> vec4f { return subgroupAdd(value); }
#endif

// What all lanes have found together: products of the inputs after their norm.
fn normed(dots: Dots, lane: u32) -> Dots {
  var all: Dots;
  for (var j = 0u; j < ROWS; j++) {
    let squares = sum_lanes(vec4f(dots.squares[j]), lane).x;
    let rms = inverseSqrt(squares / f32(params.width) + params.eps);
    all.first[j] = sum_lanes(dots.first[j], lane) * rms;
    all.second[j] = sum_lanes(dots.second[j], lane) * rms;
  }
  return all;
}
