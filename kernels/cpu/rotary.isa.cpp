// Rotary positions of one row, in place.
#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

namespace bg::cpu::BG_ISA {
namespace {

// (a, b) → (a·cos − b·sin, b·cos + a·sin)
BG_INLINE void turn(V& a, V& b, V cos, V sin) {
  const V was = a;
  a = madd(a, cos, mul(b, sub(splat(0.0f), sin)));
  b = madd(b, cos, mul(was, sin));
}

void rotate(float* y, int64_t heads, int64_t half, const float* cos, const float* sin) {
  for (; heads > 0; --heads, y += 2 * half) {
    int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      V a = load(y + i), b = load(y + half + i);
      turn(a, b, load(cos + i), load(sin + i));
      store(y + i, a);
      store(y + half + i, b);
    }
    if (const int64_t n = half - i; n > 0) {
      V a = load_first(y + i, n), b = load_first(y + half + i, n);
      turn(a, b, load_first(cos + i, n), load_first(sin + i, n));
      store_first(y + i, a, n);
      store_first(y + half + i, b, n);
    }
  }
}

}  // namespace

const RotaryIsa rotary = {rotate};

}  // namespace bg::cpu::BG_ISA
