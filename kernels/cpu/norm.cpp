// Normalisation, a few rows per unit of work.
#include "kernels/cpu/cpu.h"

namespace bg::cpu {

void layer_norm(const Context& c, Tensor y, Tensor x, const float* w, const float* b, float eps) {
  for_runs(c, x.rows, 4 * x.cols, [&](int64_t t, int64_t rows) { c.isa.norm->layer_norm(row(y, t), y.stride, row(x, t), x.stride, rows, x.cols, w, b, eps); });
}

void rms_norm(const Context& c, Tensor y, Tensor x, const float* w, float eps) {
  for_runs(c, x.rows, 3 * x.cols, [&](int64_t t, int64_t rows) { c.isa.norm->rms_norm(row(y, t), y.stride, row(x, t), x.stride, rows, x.cols, w, eps); });
}

}  // namespace bg::cpu
