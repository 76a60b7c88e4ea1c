// 16-bit floats to float, exact: f16 (IEEE binary16) and bf16 (the upper half of a float). Every value, subnormals, infinities and NaN included.
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

}  // namespace bg
