// See elements.h. Every pair of types goes through float, which holds all three exactly.
#include "weights_convert/elements.h"

#include <bit>
#include <cstring>

#include "kernels/half.h"

namespace bg {
namespace {

struct F32 {
  using Bits = uint32_t;
  static float decode(Bits b) { return std::bit_cast<float>(b); }
  static Bits encode(float f) { return std::bit_cast<Bits>(f); }
  static bool finite(Bits b) { return (b & 0x7f800000) != 0x7f800000; }
};

struct Bf16 {
  using Bits = uint16_t;
  static float decode(Bits b) { return bf16_to_float(b); }
  // Adding 0x7fff, and one more if the kept part is odd, carries exactly when the dropped half is above one half, or one half with an odd kept part.
  static Bits encode(float f) {
    const uint32_t b = std::bit_cast<uint32_t>(f);
    return Bits((b + 0x7fff + (b >> 16 & 1)) >> 16);
  }
  static bool finite(Bits b) { return (b & 0x7f80) != 0x7f80; }
};

struct F16 {
  using Bits = uint16_t;
  static float decode(Bits b) { return f16_to_float(b); }
  static Bits encode(float f) {
    const uint32_t b = std::bit_cast<uint32_t>(f), sign = b >> 16 & 0x8000, magnitude = b & 0x7fffffff;
    if (magnitude >= 0x477ff000) return Bits(sign | 0x7c00);  // 65520 and above round to infinity
    if (magnitude < 0x38800000) {
      // Below 2^-14: subnormal. Adding 0.5, whose last place is 2^-24, makes the addition do the rounding to the subnormals' grid.
      const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
      return Bits(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
    }
    // Exponent bias 127 → 15, and rounding as for bf16, at bit 13.
    return Bits(sign | (magnitude - 0x38000000 + 0x0fff + (magnitude >> 13 & 1)) >> 13);
  }
  static bool finite(Bits b) { return (b & 0x7c00) != 0x7c00; }
};

template <class To, class From>
int64_t convert(void* y, const void* x, int64_t n) {
  constexpr int64_t block = 256;  // checked as a whole, so that the loop stays free of branches
  typename From::Bits in[block];
  typename To::Bits out[block];
  for (int64_t first = 0; first < n; first += block) {
    const int64_t m = n - first < block ? n - first : block;
    std::memcpy(in, static_cast<const char*>(x) + first * int64_t(sizeof(in[0])), size_t(m) * sizeof(in[0]));
    bool fine = true;
    for (int64_t i = 0; i < m; ++i) {
      out[i] = To::encode(From::decode(in[i]));
      fine &= From::finite(in[i]);
      fine &= To::finite(out[i]);
    }
    if (!fine)
      for (int64_t i = 0; i < m; ++i)
        if (!From::finite(in[i]) || !To::finite(out[i])) return first + i;
    std::memcpy(static_cast<char*>(y) + first * int64_t(sizeof(out[0])), out, size_t(m) * sizeof(out[0]));
  }
  return -1;
}

template <class To>
int64_t convert_from(void* y, const void* x, Type from, int64_t n) {
  return from == Type::f32 ? convert<To, F32>(y, x, n) : from == Type::bf16 ? convert<To, Bf16>(y, x, n) : convert<To, F16>(y, x, n);
}

}  // namespace

int64_t convert_elements(void* y, Type to, const void* x, Type from, int64_t n) {
  return to == Type::f32 ? convert_from<F32>(y, x, from, n) : to == Type::bf16 ? convert_from<Bf16>(y, x, from, n) : convert_from<F16>(y, x, from, n);
}

float element_value(const void* x, Type type, int64_t i) {
  if (type == Type::f32) {
    float f;
    std::memcpy(&f, static_cast<const char*>(x) + 4 * i, 4);
    return f;
  }
  uint16_t h;
  std::memcpy(&h, static_cast<const char*>(x) + 2 * i, 2);
  return type == Type::bf16 ? bf16_to_float(h) : f16_to_float(h);
}

}  // namespace bg
