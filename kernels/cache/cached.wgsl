// Reading keys and values as a cache stores them: `Cached` is a quad of numbers, or a word of q8 whose scales begin at word
// `params.scales`.

// Quad `at`.
fn load(source: ptr<storage, array<Cached>, read>, at: u32) -> vec4f {
#if Q8
  return quantsIn(source[at]) * unpack2x16float(source[params.scales + at / 16u])[at / 8u % 2u];
#else
  return vec4f(source[at]);
#endif
}

#if Q8
#include ./q8.wgsl
#endif
