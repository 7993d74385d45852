// Gradient of a product over the middle of (outer, n, inner): grad · Π of the others. An invocation a result walks twice:
// the product of what is not 0 and the number of zeros, then the quotients. A single zero has the product of the others,
// and where there are two, all is 0.

@group(0) @binding(0) var<storage, read> x: array<$T>; // (outer, n, inner)
@group(0) @binding(1) var<storage, read> grad: array<$T>; // (outer, inner)
@group(0) @binding(2) var<storage, read_write> dx: array<$T>; // (outer, n, inner)

struct Params {
  results: u32, // outer · inner
  n: u32,
  inner: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (wg.x + wg.y * groups.x) * 64u + lane;
  if (index >= params.results) { return; }
  let base = (index / params.inner) * params.n * params.inner + index % params.inner;
  var product = f32(grad[index]);
  var zeros = 0u;
  for (var i = 0u; i < params.n; i++) {
    let v = f32(x[base + i * params.inner]);
    if (v == 0.0) { zeros++; } else { product *= v; }
  }
  for (var i = 0u; i < params.n; i++) {
    let v = f32(x[base + i * params.inner]);
    var slope = 0.0;
    if (v == 0.0) {
      if (zeros == 1u) { slope = product; }
    } else if (zeros == 0u) {
      slope = product / v;
    }
    dx[base + i * params.inner] = $T(slope);
  }
}
