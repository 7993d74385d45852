// Two quads of rows of one weight times the inputs after their RMS norm, for the kernels of this folder: decode.ts inserts
// this text for each weight that they read.
//
// The norm costs no pass of its own: W (x ∘ w / rms(x)) = W (x ∘ w) / rms(x), and the sum of squares comes along with the
// products. A lane takes every LANES-th quad of the columns; eight rows are read for one of the states (two, with BEHIND).

$READER
#if BLOCKS
fn scales_at_$NAME() -> u32 { return ($SIZE + $PER_256 - 1u) / $PER_256 * 64u; } // words: see engine/formats.ts
#endif

// Sums of a lane's share: rows first … first + 3 and second … second + 3, for the inputs from `token` on.
fn dots_$NAME(first: u32, second: u32, token: u32, lane: u32) -> Dots {
  let quads = params.width / 4u;
  let next = vec4u(0u, 1u, 2u, 3u);
  let a = (first + next) * quads;
  let b = (second + next) * quads;
  var dots: Dots;
  for (var i = lane; i < quads; i += LANES) {
    let w = vectors[params.norm / 4u + i] + params.offset;
    let ya = mat4x4f(load_$NAME(a.x + i), load_$NAME(a.y + i), load_$NAME(a.z + i), load_$NAME(a.w + i));
    let yb = mat4x4f(load_$NAME(b.x + i), load_$NAME(b.y + i), load_$NAME(b.z + i), load_$NAME(b.w + i));
    for (var j = 0u; j < ROWS; j++) {
      let v = state(min(token + j, params.batch - 1u) * quads + i, i, j); // (B, C)
      dots.first[j] += (v * w) * ya;
      dots.second[j] += (v * w) * yb;
      dots.squares[j] += dot(v, v);
    }
  }
  return dots;
}
