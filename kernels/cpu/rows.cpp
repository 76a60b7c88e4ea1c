// Moving rows. x, y (T, D) float.
#include <cstring>

#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

namespace bg::cpu {
namespace {

void copy_row(float* y, const float* x, int64_t n) { std::memcpy(y, x, size_t(n) * sizeof(float)); }

}  // namespace

void write(const Context& c, Tensor y, const float* x) {
  for_rows(c, y.rows, y.cols, [&](int64_t t) { copy_row(row(y, t), x + t * y.cols, y.cols); });
}

void read(const Context& c, float* y, Tensor x) {
  for_rows(c, x.rows, x.cols, [&](int64_t t) { copy_row(y + t * x.cols, row(x, t), x.cols); });
}

void read(const Context& c, double* y, Tensor x) {
  for_rows(c, x.rows, x.cols, [&](int64_t t) {
    for (int64_t j = 0; j < x.cols; ++j) y[t * x.cols + j] = row(x, t)[j];
  });
}

void put_row(const Context& c, void* y, Type type, const float* x, int64_t n) {
  if (type == Type::f32) return copy_row(static_cast<float*>(y), x, n);
  if (type == Type::bf16) return c.isa.element->round_bf16(static_cast<uint16_t*>(y), x, n);
  c.isa.element->round_q8_0(static_cast<BlockQ8_0*>(y), x, n);
}

void copy(const Context& c, Tensor y, Tensor x) {
  for_rows(c, x.rows, 2 * x.cols, [&](int64_t t) { put_row(c, y.row_range(t, 1).data, y.type, row(x, t), x.cols); });
}

void gather_rows(const Context& c, Tensor y, Tensor x, const int64_t* index) {
  for_rows(c, y.rows, y.cols, [&](int64_t t) { copy_row(row(y, t), row(x, index[t]), y.cols); });
}

void scatter_rows(const Context& c, Tensor y, Tensor x, const int64_t* index) {
  for_rows(c, x.rows, x.cols, [&](int64_t t) { copy_row(row(y, index[t]), row(x, t), x.cols); });
}

void scatter_add_rows(const Context& c, Tensor y, Tensor x, const int64_t* index) {
  for_rows(c, x.rows, x.cols, [&](int64_t t) { c.isa.element->add(row(y, index[t]), row(x, t), x.cols); });
}

// The reference is already one pass over memory; here its rows are shared out.
void embed(const Context& c, Tensor y, Weight w, const int32_t* ids) {
  for_rows(c, y.rows, 4 * y.cols, [&](int64_t t) { ref::embed<float>(y.row_range(t, 1), w, ids + t); });
}

void add_interpolated(const Context& c, Tensor y, Weight table, const int32_t* index, const float* weight) {
  for_rows(c, y.rows, 16 * y.cols, [&](int64_t t) { ref::add_interpolated<float>(y.row_range(t, 1), table, index + 4 * t, weight + 4 * t); });
}

}  // namespace bg::cpu
