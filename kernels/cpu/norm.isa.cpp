// Normalisation of rows. Sums in double over 32 chains (element j in chain j mod 32), then a fixed tree.
#include <math.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd_double.h"

namespace bg::cpu::BG_ISA {
namespace {

// Σ (x_j − from) and Σ (x_j − from)²: element j in chain j mod 32.
struct Chains {
  W sum[4], squares[4];
};
BG_INLINE Chains sums_of(const float* x, int64_t n, double from) {
  Chains c;
  const W shift = splat_d(from);
  BG_UNROLL for (int i = 0; i < 4; ++i) c.sum[i] = c.squares[i] = splat_d(0);
  int64_t j = 0;
  for (; j + 32 <= n; j += 32) {
    BG_UNROLL for (int i = 0; i < 4; ++i) {
      const W a = sub(load_wide(x + j + 8 * i), shift);
      c.sum[i] = add(c.sum[i], a);
      c.squares[i] = madd(a, a, c.squares[i]);
    }
  }
  if (j < n) {
    float rest[32];
    for (int i = 0; i < 32; ++i) rest[i] = j + i < n ? x[j + i] : float(from);
    BG_UNROLL for (int i = 0; i < 4; ++i) {
      const W a = sub(load_wide(rest + 8 * i), shift);
      c.sum[i] = add(c.sum[i], a);
      c.squares[i] = madd(a, a, c.squares[i]);
    }
  }
  return c;
}
BG_INLINE double total(const W* sum) { return sum_lanes(add(add(sum[0], sum[1]), add(sum[2], sum[3]))); }

// y_j = f(x_j, w_j, b_j) for whole vectors and the rest. Meanwhile `next` comes into the first cache.
template <class F>
BG_INLINE void each(float* y, const float* x, const float* w, const float* b, int64_t n, const float* next, F f) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    if (next != nullptr) __builtin_prefetch(next + j);
    store(y + j, f(load(x + j), load(w + j), b != nullptr ? load(b + j) : splat(0.0f)));
  }
  if (j < n) store_first(y + j, f(load_first(x + j, n - j), load_first(w + j, n - j), b != nullptr ? load_first(b + j, n - j) : splat(0.0f)), n - j);
}

// With a_j = x_j − x_0: mean = x_0 + Σ a/n, n·var = Σ a² − (Σ a)²/n. What cancels is small: (x_0 − mean)² is one of the squares of which n·var is the sum, so
// Σ a² ≤ (n + 1)·n·var, and var has a relative error of at most (n + 1)·(n/32 + 8)·2^−53: 10^−3·u at n = 4096.
void layer_norm(float* y, int64_t y_stride, const float* x, int64_t x_stride, int64_t rows, int64_t n, const float* w, const float* b, float eps) {
  for (; rows > 0; --rows, y += y_stride, x += x_stride) {
    const Chains c = sums_of(x, n, double(x[0]));
    const double sum = total(c.sum), rest = total(c.squares) - sum * (sum / double(n)), variance = rest < 0 ? 0 : rest / double(n);
    const V center = splat(float(double(x[0]) + sum / double(n))), inverse = splat(float(1 / sqrt(variance + double(eps))));
    each(y, x, w, b, n, rows > 1 ? x + x_stride : nullptr,
         [=](V a, V scale, V shift) __attribute__((always_inline)) { return madd(mul(sub(a, center), inverse), scale, shift); });
  }
}

void rms_norm(float* y, int64_t y_stride, const float* x, int64_t x_stride, int64_t rows, int64_t n, const float* w, float eps) {
  for (; rows > 0; --rows, y += y_stride, x += x_stride) {
    const V inverse = splat(float(1 / sqrt(total(sums_of(x, n, 0).squares) / double(n) + double(eps))));
    each(y, x, w, nullptr, n, rows > 1 ? x + x_stride : nullptr, [=](V a, V scale, V) __attribute__((always_inline)) { return mul(mul(a, inverse), scale); });
  }
}

void unit(float* y, const float* x, int64_t n) {
  const double length = sqrt(total(sums_of(x, n, 0).squares));
  const float norm = float(length) > 1e-12f ? float(length) : length != length ? NAN : 1e-12f;
  const V by = splat(norm);
  each(y, x, x, nullptr, n, nullptr, [by](V a, V, V) __attribute__((always_inline)) { return div(a, by); });
}

}  // namespace

const NormIsa norm = {layer_norm, rms_norm, unit};

}  // namespace bg::cpu::BG_ISA
