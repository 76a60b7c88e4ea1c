// Floats → blocks of Q8_0, Q4_K, Q6_K (kernels/blocks.h). In: whole blocks of finite floats. Out: blocks. Each block depends on its own values alone, and
// the arithmetic is fixed (plain float, no fused multiply-add), so the bytes are the same on every machine and for any number of threads.
// Not here: which tensor gets which type (mix.h), files, threads.
#pragma once
#include <cstdint>

#include "kernels/ops.h"

namespace bg {

// Above this a block's scale might not fit its f16; no weight comes near it.
constexpr float kLargestQuantised = 65504;

// The error is Σ(x − x̂)² of a block: with inputs of unknown size, each weight counts alike.
//   Q8_0: d = max|x|/127 rounded to f16, q = x/d rounded to nearest. |x − x̂| ≤ d/2 + 2^-17 (the last where d is a subnormal f16).
//   Q4_K: a search. Per sub-block, least squares of scale and minimum for some widths of the steps; then d, dmin and the six-bit integers by turns.
//     With r_b the range of sub-block b and 0, m_b = −min(x, 0), dmin = ⌈max m_b/63⌉, d = ⌈max(r_b + dmin)/945⌉ (⌈⌉: up to a f16), never worse than
//     Σ(x − x̂)² ≤ Σ_b 32·((r_b + dmin)/15 + d)²/4: codes that cover each range are among the candidates.
//   Q6_K: likewise without minima: with a_b = max|x| of sub-block b, d = ⌈max a_b/3937⌉, Σ(x − x̂)² ≤ Σ_b 16·(a_b/31 + d)²/4.
// n values, |x| ≤ kLargestQuantised.
void quantise(void* y, Type to, const float* x, int64_t n);

}  // namespace bg
