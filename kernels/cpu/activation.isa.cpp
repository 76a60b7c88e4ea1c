// Activations of a run of n floats. Both use x·σ(w) with e = e^−|w|: σ(w) = 1/(1 + e) for w ≥ 0, e/(1 + e) for w < 0. e never overflows, and
//   gelu_tanh(x) = x/2·(1 + tanh z) = x·σ(2z),  z = √(2/π)·(x + 0.044715·x³).
// Error of gelu_tanh: 2z has relative error 7u, so e has at most 3u + 7u·max(w·e^−w) = 6u absolute, σ 6u + 3u, y 10u·|x| ≤ the contract's 16u·|x|.
#include <math.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

namespace bg::cpu::BG_ISA {
namespace {

// a·σ(w)
BG_INLINE V times_sigmoid(V a, V w) {
  const V zero = splat(0.0f), one = splat(1.0f), minus = sub(zero, w);
  const V e = exp_negative(where_less(zero, w, minus, w));
  return div(mul(a, where_less(w, zero, e, one)), add(one, e));
}

BG_INLINE V gelu(V x) {
  const V cube = mul(mul(mul(splat(0.044715f), x), x), x);
  return times_sigmoid(x, mul(splat(1.5957691216057308f), add(x, cube)));  // 2·√(2/π)
}

void gelu_tanh(float* y, const float* x, int64_t n) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(y + j, gelu(load(x + j)));
  if (j < n) store_first(y + j, gelu(load_first(x + j, n - j)), n - j);
}

void silu_mul(float* y, const float* gate, const float* up, int64_t n) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const V g = load(gate + j);
    store(y + j, mul(times_sigmoid(g, g), load(up + j)));
  }
  if (j < n) {
    const V g = load_first(gate + j, n - j);
    store_first(y + j, mul(times_sigmoid(g, g), load_first(up + j, n - j)), n - j);
  }
}

// erf stays the C library's, float by float.
void gelu_erf(float* y, const float* x, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] = x[j] / 2 * (1 + erff(x[j] * 0.70710678118654752440f));
}

void exp_negatives(float* y, const float* x, int64_t n) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(y + j, exp_negative(load(x + j)));
  if (j < n) store_first(y + j, exp_negative(load_first(x + j, n - j)), n - j);
}

}  // namespace

const ElementIsa element = {gelu_tanh, gelu_erf, silu_mul, exp_negatives};

}  // namespace bg::cpu::BG_ISA
