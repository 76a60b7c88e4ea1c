// Rotary positions: the reference's rows shared out (one pass over memory; nothing to gain by more).
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

namespace bg::cpu {

void rotary(const Context& c, Tensor y, int64_t heads, Tensor cos, Tensor sin) {
  for_rows(c, y.rows, 2 * y.cols, [&](int64_t t) { ref::rotary<float>(y.row_range(t, 1), heads, cos.row_range(t, 1), sin.row_range(t, 1)); });
}

}  // namespace bg::cpu
