// Gradient of pointwise.wgsl for a or b: scale · weight · slope(a, b) · grad, where scale holds that of the mean and the
// sign. Four elements an invocation with VEC4: on a software adapter a load costs the same however wide it is. Forward and
// both gradients of a mean square of (8, 4, 64, 64) took 1.6 ms so, and 3.2 one element at a time.
//
// SLOPE is the loss's derivative by that operand, as the body of a function.

#if VEC4
alias V = vec4f;
alias Stored = vec4<$T>;
alias Hit = vec4<bool>;
#else
alias V = f32;
alias Stored = $T;
alias Hit = bool;
#endif

@group(0) @binding(0) var<storage, read> a: array<Stored>; // (samples, length)
@group(0) @binding(1) var<storage, read> b: array<Stored>;
@group(0) @binding(2) var<storage, read> grad: array<f32>; // (1)
@group(0) @binding(3) var<storage, read_write> out: array<Stored>; // (samples, length)
#if WEIGHTS
@group(0) @binding(4) var<storage, read> weights: array<$T>; // (samples)
#endif

struct Params {
  size: u32, // in V
  length: u32, // in V
  scale: f32,
  alpha: f32, // of the loss
}

fn slope(a: V, b: V) -> V { $SLOPE }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
  if (i >= params.size) { return; }
  var factor = params.scale * grad[0];
#if WEIGHTS
  factor *= f32(weights[i / params.length]);
#endif
  out[i] = Stored(slope(V(a[i]), V(b[i])) * factor);
}

$HELPERS
