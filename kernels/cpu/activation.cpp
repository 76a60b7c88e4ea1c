// Element by element, a row per unit of work.
#include "kernels/cpu/cpu.h"

namespace bg::cpu {

void gelu_tanh(const Context& c, Tensor y, Tensor x) {
  for_rows(c, x.rows, 3 * x.cols, [&](int64_t t) { c.isa.element->gelu_tanh(row(y, t), row(x, t), x.cols); });
}

void gelu_erf(const Context& c, Tensor y, Tensor x) {
  for_rows(c, x.rows, 4 * x.cols, [&](int64_t t) { c.isa.element->gelu_erf(row(y, t), row(x, t), x.cols); });
}

void silu_mul(const Context& c, Tensor y, Tensor gate, Tensor up) {
  for_rows(c, gate.rows, 3 * gate.cols, [&](int64_t t) { c.isa.element->silu_mul(row(y, t), row(gate, t), row(up, t), gate.cols); });
}

void add(const Context& c, Tensor y, Tensor x) {
  for_rows(c, x.rows, x.cols, [&](int64_t t) { c.isa.element->add(row(y, t), row(x, t), x.cols); });
}

}  // namespace bg::cpu
