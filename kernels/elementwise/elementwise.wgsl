// out = a chain of element-wise operations on operands that may be broadcast.
//
// The text of the chain is made from the operations' expressions (chain.ts): the operands' bindings, one function an
// operation, and `load`, which reads element i of every operand (or four from 4i on) and goes through the chain in
// registers.
//
// Each invocation makes four neighbouring elements of the innermost dimension, so that loads are vec4: on a software
// adapter a load whose address differs by lane costs a hundred arithmetic instructions, however wide it is.
// Operands that are constant along the innermost dimension are read once and splatted. Innermost extents that are no
// multiple of four take the scalar variant. Arithmetic is f32 (or integer); f16 is what memory holds.
//
// (1024, 1024) on a software adapter: one operation 2.1 ms, eight in a chain 2.4, eight one by one 16.

$OPERAND

#if VEC4
$OUT var<storage, read_write> out: array<vec4<$T>>;
#else
$OUT var<storage, read_write> out: array<$T>;
#endif

// For broadcast operands: where the part begins in the whole result, the result's extents (n3 innermost) and each operand's
// steps along them, 0 where it is repeated.
struct Params {
  size: u32, // elements to make
  $FIELDS
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = (wg.x + wg.y * groups.x) * 64u + lane;
#if VEC4
  if (i * 4u >= params.size) { return; }
  out[i] = vec4<$T>(load(i));
#else
  if (i >= params.size) { return; }
  out[i] = $T(load(i));
#endif
}
