// out = f(x) or f(x, y), element by element; y (and x) may be broadcast.
//
// Each invocation makes four neighbouring elements of the innermost dimension, so that loads are vec4: on a software
// adapter a load whose address differs by lane costs a hundred arithmetic instructions, however wide it is.
// Operands that are constant along the innermost dimension are read once and splatted. Innermost extents that are no
// multiple of four take the scalar variant.
//
// $F is the operation's expression of x and y (and of the parameters alpha and beta).

#if VEC4
#if X_SPLAT
@group(0) @binding(0) var<storage, read> a: array<f32>;
#else
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
#endif
@group(0) @binding(1) var<storage, read_write> out: array<vec4f>;
#if BINARY
#if Y_SPLAT
@group(0) @binding(2) var<storage, read> b: array<f32>;
#else
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
#endif
#endif
#else
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
#if BINARY
@group(0) @binding(2) var<storage, read> b: array<f32>;
#endif
#endif

// The result's extents (outer → inner, n3 innermost) and each operand's steps along them, 0 where it is broadcast.
struct Params {
  size: u32, // elements of the result
  n1: u32, n2: u32, n3: u32,
  a0: u32, a1: u32, a2: u32, a3: u32,
  b0: u32, b1: u32, b2: u32, b3: u32,
  alpha: f32,
  beta: f32,
}

$HELPERS

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let thread = (wg.x + wg.y * groups.x) * 64u + lane;
#if VEC4
  let first = thread * 4u;
#else
  let first = thread;
#endif
  if (first >= params.size) { return; }
#if FLAT
  let ia = first;
  let ib = first;
#else
  var rest = first;
  let i3 = rest % params.n3; rest /= params.n3;
  let i2 = rest % params.n2; rest /= params.n2;
  let i1 = rest % params.n1;
  let i0 = rest / params.n1;
  let ia = i0 * params.a0 + i1 * params.a1 + i2 * params.a2 + i3 * params.a3;
  let ib = i0 * params.b0 + i1 * params.b1 + i2 * params.b2 + i3 * params.b3;
#endif
#if VEC4
#if X_SPLAT
  let x4 = vec4f(a[ia]);
#else
  let x4 = a[ia / 4u];
#endif
#if BINARY
#if Y_SPLAT
  let y4 = vec4f(b[ib]);
#else
  let y4 = b[ib / 4u];
#endif
  out[thread] = vec4f(f(x4.x, y4.x), f(x4.y, y4.y), f(x4.z, y4.z), f(x4.w, y4.w));
#else
  out[thread] = vec4f(f(x4.x), f(x4.y), f(x4.z), f(x4.w));
#endif
#else
#if BINARY
  out[thread] = f(a[ia], b[ib]);
#else
  out[thread] = f(a[ia]);
#endif
#endif
}

#if BINARY
fn f(x: f32, y: f32) -> f32 { return $F; }
#else
fn f(x: f32) -> f32 { return $F; }
#endif
