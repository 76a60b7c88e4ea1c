// Rotary positions, a row per unit of work.
#include "kernels/cpu/cpu.h"

namespace bg::cpu {

void rotary(const Context& c, Tensor y, int64_t heads, Tensor cos, Tensor sin) {
  for_rows(c, y.rows, 2 * y.cols, [&](int64_t t) { c.isa.rotary->rotate(row(y, t), heads, y.cols / heads / 2, row(cos, t), row(sin, t)); });
}

}  // namespace bg::cpu
