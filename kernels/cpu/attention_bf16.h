// Attention in bf16 (Precision::fast), what tiles of AMX and pairs by vdpbf16ps share: q, k, v and p are rounded to bf16, sums are float.
// Included by attention_tiles.h and attention_pairs.h only.
#pragma once
#include "kernels/cpu/attention_state.h"

namespace bg::cpu::BG_ISA {
namespace {

// Sixteen pairs (first, second).
BG_INLINE I to_pairs(V first, V second) {
  const I order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, to_bf16(first, second));
}

// 2^x for x ≤ 0, relative error below 2^−13: x = n + r with n = ⌊x⌋, a polynomial of degree 3 in r. 1 for 0, 0 for −∞.
BG_INLINE V exp2_short(V x) {
  const V r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
  V p = splat(7.7067042e-2f);
  p = madd(p, r, splat(2.27644991e-1f));
  p = madd(p, r, splat(6.95116786e-1f));
  p = madd(p, r, splat(1.0f));
  return _mm512_scalef_ps(p, x);
}

}  // namespace
}  // namespace bg::cpu::BG_ISA
