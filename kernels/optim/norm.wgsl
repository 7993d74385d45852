// Sums of squares over the tiles of an arena's gradients (see adamw.wgsl): one partial a lane, which the host then sums.
// The tiles fix the order of additions. Values that are not finite are found by their exponent's bits, all ones, because
// adapters may break comparisons with NaN; they are counted and left out of the sum. No workgroup memory, so no barrier,
// which a software adapter pays for dearly.

@group(0) @binding(0) var<storage, read> gradients: array<vec4f>;
@group(0) @binding(1) var<storage, read> tiles: array<u32>; // (tiles, 3): first element, count, segment
@group(0) @binding(2) var<storage, read> segments: array<f32>; // (segments, 3): factor of the rate, decay, frozen
@group(0) @binding(3) var<storage, read_write> partials: array<vec2f>; // (…, 64): sum of squares, count of values not finite

struct Params {
  tiles: u32,
  before: u32, // tiles of the chunks before this one
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let tile = wg.x + wg.y * groups.x;
  if (tile >= params.tiles) { return; }
  let first = tiles[3u * tile];
  let frozen = segments[tiles[3u * tile + 2u] * 3u + 2u] != 0.0;
  let count = select(tiles[3u * tile + 1u], 0u, frozen);
  var squares = vec4f(0.0);
  var strange = vec4u(0u);
  for (var i = lane * 4u; i < count; i += 256u) {
    let inside = vec4u(i, i + 1u, i + 2u, i + 3u) < vec4u(count);
    let g = select(vec4f(0.0), gradients[(first + i) / 4u], inside);
    let finite = (bitcast<vec4u>(g) & vec4u(0x7f800000u)) != vec4u(0x7f800000u);
    squares += select(vec4f(0.0), g * g, finite);
    strange += select(vec4u(1u), vec4u(0u), finite);
  }
  let sum = (squares.x + squares.y) + (squares.z + squares.w);
  let count_strange = f32(strange.x + strange.y + strange.z + strange.w);
  partials[(params.before + tile) * 64u + lane] = vec2f(sum, count_strange);
}
