// Activations of a run of n floats.
//   silu: x·σ(x) with e = e^−|x|: σ(x) = 1/(1 + e) for x ≥ 0, e/(1 + e) for x < 0. e never overflows.
//   gelu: x·F(x) = max(x, 0) − |x|·(1 − F(|x|)), as F(−x) = 1 − F(x). The logarithm of 1 − F is smooth: 1 − F(a) = 2^p(a) with a polynomial p (Remez, the
//         weight 1 − F(a)), so there is no division.
// Error of both gelu, in units of |x|: p(a) is that of the polynomial, 0.6u at most, and of its steps, each at most u·|p| (terms fall): with Horner's rule
// ln 2·2u·|p|·2^p ≤ 2u; 2^p 3u of ½ at most; product and sum 1u and u·|y|: below 8u·|x| + u·|y|, the contract has 16u·(|x| + |y|).
#include <math.h>

#include "kernels/blocks.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

namespace bg::cpu::BG_ISA {
namespace {

BG_INLINE V silu(V x) {
  const V zero = splat(0.0f), one = splat(1.0f), e = exp_negative(minus_abs(x));
  return div(mul(x, where_less(x, zero, e, one)), add(one, e));
}

// p has N coefficients, of a^0 first.
template <int N>
BG_INLINE V gelu(V x, const float (&c)[N]) {
  const V a = max(splat(-14.0f), minus_abs(x));  // −|x|, and no infinity
  V p = splat(c[N - 1]);
  BG_UNROLL for (int i = N - 2; i >= 0; --i) p = madd(p, a, splat(c[i]));
  return madd(a, exp2_negative(p), max(x, splat(0.0f)));
}

// of −a: the odd ones have the other sign
// log2 of 1/(1 + e^(2z)), z = √(2/π)·(a + 0.044715·a³): 0.53u
constexpr float kTanh[10] = {-1.00000009191f,  1.15109703474f,    -0.459309414816f,  0.0510983217666f,   0.0069109442651f,
                             -0.000695702815999f, -0.000667013785342f, 0.000150628831598f, 7.90649393643e-5f, 7.77543023242e-6f};
// log2 of ½·erfc(a/√2): 0.13u
constexpr float kErf[9] = {-0.999999978284f,    1.15110572351f,       -0.459204907315f,    0.0525050285989f,   0.00707547181609f,
                           0.000145870402935f, -0.000182547351204f, -3.86206578588e-5f, -2.77203817011e-6f};

// y_j = f(x_j) for whole vectors and the rest.
template <class F>
BG_INLINE void each(float* y, const float* x, int64_t n, F f) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(y + j, f(load(x + j)));
  if (j < n) store_first(y + j, f(load_first(x + j, n - j)), n - j);
}
template <class F>
BG_INLINE void each(float* y, const float* a, const float* b, int64_t n, F f) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(y + j, f(load(a + j), load(b + j)));
  if (j < n) store_first(y + j, f(load_first(a + j, n - j), load_first(b + j, n - j)), n - j);
}

void gelu_tanh(float* y, const float* x, int64_t n) {
  each(y, x, n, [](V a) __attribute__((always_inline)) { return gelu(a, kTanh); });
}

void gelu_erf(float* y, const float* x, int64_t n) {
  each(y, x, n, [](V a) __attribute__((always_inline)) { return gelu(a, kErf); });
}

void silu_mul(float* y, const float* gate, const float* up, int64_t n) {
  each(y, gate, up, n, [](V g, V u) __attribute__((always_inline)) { return mul(silu(g), u); });
}

void exp_negatives(float* y, const float* x, int64_t n) {
  each(y, x, n, [](V a) __attribute__((always_inline)) { return exp_negative(a); });
}

void add_floats(float* y, const float* x, int64_t n) {
  each(y, y, x, n, [](V a, V b) __attribute__((always_inline)) { return add(a, b); });
}

void mix(float* y, float f, const float* x, float w, int64_t n) {
  const V by = splat(f), weight = splat(w);
  each(y, y, x, n, [&](V a, V b) __attribute__((always_inline)) { return add(mul(a, by), mul(b, weight)); });
}

void divide(float* y, float by, int64_t n) {
  const V total = splat(by);
  each(y, y, n, [&](V a) __attribute__((always_inline)) { return div(a, total); });
}

// Plain loops, which the compiler makes vectors of.
void round_bf16(uint16_t* y, const float* x, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = float_to_bf16(x[j]);
}

// The largest |x| is found as a whole number: NaN is the largest of all then, and makes d NaN.
void round_q8_0(BlockQ8_0* y, const float* x, int64_t n) {
  for (; n > 0; n -= 32, x += 32, ++y) {
    uint32_t most = 0;
    for (int i = 0; i < 32; ++i) {
      const uint32_t size = bits_of_float(x[i]) & 0x7fffffff;
      most = size > most ? size : most;
    }
    y->d = float_to_f16(float_of_bits(most) / 127);
    const float d = f16_to_float(y->d);
    for (int i = 0; i < 32; ++i) {
      const float q = d > 0 ? nearbyintf(x[i] / d) : 0.0f;
      y->q[i] = int8_t(q > 127 ? 127 : q >= -127 ? q : -127);
    }
  }
}

}  // namespace

const ElementIsa element = {gelu_tanh, gelu_erf, silu_mul, exp_negatives, add_floats, mix, divide, round_bf16, round_q8_0};

}  // namespace bg::cpu::BG_ISA
