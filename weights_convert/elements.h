// Weights from one element type to another: F32, BF16, F16, rounded to nearest even, with every value checked.
// In: n packed elements, any alignment. Out: n packed elements. Not here: files.
#pragma once
#include <cstdint>

#include "kernels/ops.h"

namespace bg {

// y_i = x_i rounded to `to`. Returns the first i whose value is not finite, or whose rounding overflows to infinity (y is then unusable); −1 when all is well.
int64_t convert_elements(void* y, Type to, const void* x, Type from, int64_t n);

float element_value(const void* x, Type type, int64_t i);  // f32, bf16, f16; for messages

}  // namespace bg
