// 16-bit floats to float, exact, and back to the nearest, ties to even: f16 (IEEE binary16) and bf16 (the upper half of a float). Every value, subnormals,
// infinities and NaN included.
// Internal linkage on purpose: this is compiled into several instruction sets (kernels/cpu/*.isa.cpp), and the linker must never share one copy.
#pragma once
#include <stdint.h>
#include <string.h>

namespace bg {

static inline float float_of_bits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static inline float bf16_to_float(uint16_t h) { return float_of_bits(uint32_t(h) << 16); }

// sign(1) exponent(5, bias 15) mantissa(10) → sign(1) exponent(8, bias 127) mantissa(23)
static inline float f16_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return float_of_bits(sign | 0x7f800000 | (mantissa << 13));
  if (exponent == 0) {
    const float value = float(mantissa) * 5.9604644775390625e-8f;  // 2^-24, the unit of the subnormals
    return sign ? -value : value;
  }
  return float_of_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

static inline uint32_t bits_of_float(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return bits;
}

static inline uint16_t float_to_bf16(float f) {
  const uint32_t bits = bits_of_float(f);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 0x40);  // NaN stays one
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline uint16_t float_to_f16(float f) {
  const uint32_t bits = bits_of_float(f), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (size >= 0x477ff000) return uint16_t(sign | 0x7c00);  // from 65520 on: infinity
  if (size < 0x38800000) return uint16_t(sign | (bits_of_float(float_of_bits(size) + 0.5f) - 0x3f000000));  // subnormal: 0.5 has the unit 2^-24
  return uint16_t(sign | ((size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13));
}

}  // namespace bg
