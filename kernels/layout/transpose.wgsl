// out[i0, i1, i2, i3] = x[Σ i · step]: permuted dimensions, of which the host has joined those that stay together.
//
// WIDE: the innermost dimension stays innermost, whole vec4 are moved. TILE: another dimension of the result is innermost in
// x; each invocation turns a 4 × 4 block of the two around in registers, so that all loads and stores are vec4 (a
// software adapter pays by the load, not by its width: (8, 96, 256) turned takes it 0.21 ms, and (8, 97, 253), which goes one
// by one, 1.6). Elements are moved as u32 or f16 (W), whatever they stand for.

#if WIDE
alias T = vec4<$W>;
#else
alias T = $W;
#endif

@group(0) @binding(0) var<storage, read> x: array<T>;
@group(0) @binding(1) var<storage, read_write> out: array<T>;

// Extents count units (elements, vec4 or blocks); steps lead from unit to unit, in T.
struct Params {
  size: u32,
  n1: u32, n2: u32, n3: u32,
  from0: u32, from1: u32, from2: u32, from3: u32,
  to0: u32, to1: u32, to2: u32, to3: u32,
  fromRow: u32, // within a block: from one vec4 to the next
  toRow: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let unit = (wg.x + wg.y * groups.x) * 64u + lane;
  if (unit >= params.size) { return; }
  var rest = unit;
  let i3 = rest % params.n3; rest /= params.n3;
  let i2 = rest % params.n2; rest /= params.n2;
  let i1 = rest % params.n1;
  let i0 = rest / params.n1;
  let origin = i0 * params.from0 + i1 * params.from1 + i2 * params.from2 + i3 * params.from3;
  let place = i0 * params.to0 + i1 * params.to1 + i2 * params.to2 + i3 * params.to3;
#if TILE
  let a = x[origin];
  let b = x[origin + params.fromRow];
  let c = x[origin + 2u * params.fromRow];
  let d = x[origin + 3u * params.fromRow];
  out[place] = T(a.x, b.x, c.x, d.x);
  out[place + params.toRow] = T(a.y, b.y, c.y, d.y);
  out[place + 2u * params.toRow] = T(a.z, b.z, c.z, d.z);
  out[place + 3u * params.toRow] = T(a.w, b.w, c.w, d.w);
#else
  out[place] = x[origin];
#endif
}
