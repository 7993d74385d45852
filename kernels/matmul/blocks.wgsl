// 4×4 blocks of both operands, for the kernels that multiply such blocks: four vec4 loads each, whichever way an operand
// lies; a block that lies the other way is transposed in registers.

// Rows row … row + 3 of op(A) at k … k + 3, of the A that begins at `start`: column i is row + i. Zero past the end of k;
// past the last row, anything.
fn block_a(start: u32, row: u32, k: u32) -> mat4x4f {
  let r = min(row + vec4u(0u, 1u, 2u, 3u), vec4u(params.m - 1u));
  let q = k + vec4u(0u, 1u, 2u, 3u);
  let p = min(q, vec4u(params.k - 1u));
  let valid = q < vec4u(params.k);
#if VEC4_A
#if TRANSPOSE_A
  let at = (start + p * params.a_row + min(row, params.m - 4u)) / 4u;
  return transpose(mat4x4f(
    select(vec4f(), load_a(at.x), valid.x), select(vec4f(), load_a(at.y), valid.y),
    select(vec4f(), load_a(at.z), valid.z), select(vec4f(), load_a(at.w), valid.w)));
#else
  let at = (start + r * params.a_row + k) / 4u;
  return mat4x4f(load_a(at.x), load_a(at.y), load_a(at.z), load_a(at.w));
#endif
#else
#if TRANSPOSE_A
  let at = start + p * params.a_row;
  return mat4x4f(
    select(vec4f(), four_a(at + r.x), valid), select(vec4f(), four_a(at + r.y), valid),
    select(vec4f(), four_a(at + r.z), valid), select(vec4f(), four_a(at + r.w), valid));
#else
  let at = start + r * params.a_row;
  return mat4x4f(
    select(vec4f(), four_a(at.x + p), valid), select(vec4f(), four_a(at.y + p), valid),
    select(vec4f(), four_a(at.z + p), valid), select(vec4f(), four_a(at.w + p), valid));
#endif
#endif
}

// Columns col … col + 3 of op(B) at k … k + 3: column i is k + i.
fn block_b(start: u32, k: u32, col: u32) -> mat4x4f {
  let c = min(col + vec4u(0u, 1u, 2u, 3u), vec4u(params.n - 1u));
  let q = k + vec4u(0u, 1u, 2u, 3u);
  let p = min(q, vec4u(params.k - 1u));
  let valid = q < vec4u(params.k);
#if VEC4_B
#if TRANSPOSE_B
  let at = (start + c * params.b_row + k) / 4u;
  return transpose(mat4x4f(load_b(at.x), load_b(at.y), load_b(at.z), load_b(at.w)));
#else
  let at = (start + p * params.b_row + min(col, params.n - 4u)) / 4u;
  return mat4x4f(
    select(vec4f(), load_b(at.x), valid.x), select(vec4f(), load_b(at.y), valid.y),
    select(vec4f(), load_b(at.z), valid.z), select(vec4f(), load_b(at.w), valid.w));
#endif
#else
#if TRANSPOSE_B
  let at = start + c * params.b_row;
  return transpose(mat4x4f(
    select(vec4f(), four_b(at.x + p), valid), select(vec4f(), four_b(at.y + p), valid),
    select(vec4f(), four_b(at.z + p), valid), select(vec4f(), four_b(at.w + p), valid)));
#else
  let at = start + p * params.b_row;
  return mat4x4f(
    select(vec4f(), four_b(at.x + c), valid.x), select(vec4f(), four_b(at.y + c), valid.y),
    select(vec4f(), four_b(at.z + c), valid.z), select(vec4f(), four_b(at.w + c), valid.w));
#endif
#endif
}

#if !VEC4_A
fn four_a(at: vec4u) -> vec4f { return vec4f(f32(a[at.x]), f32(a[at.y]), f32(a[at.z]), f32(a[at.w])); }
#endif
#if !VEC4_B
fn four_b(at: vec4u) -> vec4f { return vec4f(f32(b[at.x]), f32(b[at.y]), f32(b[at.z]), f32(b[at.w])); }
#endif
