// Moving rows: host ↔ device, by index, out of a weight matrix, into and out of a cache's type. x, y are (T, D); nothing is computed except in scatter_add and
// add_interpolated.
#include <cmath>
#include <vector>

#include "kernels/panels.h"
#include "kernels/ref/ref.h"

namespace bg::ref {

// y_tj = x[t·cols + j]
template <class T>
void write(Tensor y, const float* x) {
  for (int64_t t = 0; t < y.rows; ++t)
    for (int64_t j = 0; j < y.cols; ++j) row<T>(y, t)[j] = x[t * y.cols + j];
}

// y[t·cols + j] = x_tj
template <class T, class Host>
void read(Host* y, Tensor x) {
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t j = 0; j < x.cols; ++j) y[t * x.cols + j] = Host(row<T>(x, t)[j]);
}

// d = max|x|/127 as f16, q = x/d to nearest. d is 0 where that rounds to 0, and a block with a NaN in it becomes NaN: q·NaN.
static BlockQ8_0 rounded_q8_0(const float* x) {
  BlockQ8_0 b;
  float most = 0;
  for (int i = 0; i < 32; ++i)
    if (!(std::fabs(x[i]) <= most)) most = std::isnan(most) ? most : std::fabs(x[i]);
  b.d = float_to_f16(most / 127);
  const float d = f16_to_float(b.d);
  for (int i = 0; i < 32; ++i) {
    const float q = d > 0 ? std::nearbyint(x[i] / d) : 0;  // a d near the end of f16's range may be far below max|x|/127
    b.q[i] = int8_t(q > 127 ? 127 : q >= -127 ? q : -127);
  }
  return b;
}

void round_row(void* y, Type type, const float* x, int64_t n) {
  if (type == Type::bf16) {
    for (int64_t j = 0; j < n; ++j) static_cast<uint16_t*>(y)[j] = float_to_bf16(x[j]);
  } else {
    for (int64_t j = 0; j < n; j += 32) static_cast<BlockQ8_0*>(y)[j / 32] = rounded_q8_0(x + j);
  }
}

void widen_row(float* y, Type type, const void* x, int64_t n) {
  if (type == Type::bf16) {
    for (int64_t j = 0; j < n; ++j) y[j] = bf16_to_float(static_cast<const uint16_t*>(x)[j]);
  } else {
    floats_of_q8_0(y, static_cast<const BlockQ8_0*>(x), n);
  }
}

// y_t = x_t
template <class T>
void copy(Tensor y, Tensor x) {
  std::vector<float> values(size_t(y.type == x.type ? 0 : y.cols));
  for (int64_t t = 0; t < y.rows; ++t) {
    if (y.type == x.type) {
      for (int64_t j = 0; j < y.cols; ++j) row<T>(y, t)[j] = row<T>(x, t)[j];
    } else {
      for (int64_t j = 0; j < y.cols; ++j) values[size_t(j)] = float(row<T>(x, t)[j]);
      round_row(y.row_range(t, 1).data, y.type, values.data(), y.cols);
    }
  }
}

// y_t = x_{index[t]}
template <class T>
void gather_rows(Tensor y, Tensor x, const int64_t* index) {
  for (int64_t t = 0; t < y.rows; ++t)
    for (int64_t j = 0; j < y.cols; ++j) row<T>(y, t)[j] = row<T>(x, index[t])[j];
}

// y_{index[t]} = x_t
template <class T>
void scatter_rows(Tensor y, Tensor x, const int64_t* index) {
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t j = 0; j < x.cols; ++j) row<T>(y, index[t])[j] = row<T>(x, t)[j];
}

// y_{index[t]} += x_t
template <class T>
void scatter_add_rows(Tensor y, Tensor x, const int64_t* index) {
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t j = 0; j < x.cols; ++j) row<T>(y, index[t])[j] += row<T>(x, t)[j];
}

// y_t = w_{ids[t]}
template <class T>
void embed(Tensor y, Weight w, const int32_t* ids) {
  std::vector<float> values(size_t(w.cols));
  for (int64_t t = 0; t < y.rows; ++t) {
    read_row(values.data(), w, ids[t]);
    for (int64_t j = 0; j < y.cols; ++j) row<T>(y, t)[j] = values[size_t(j)];
  }
}

// y_t += Σ_{c<4} weight[4t+c] · table_{index[4t+c]}
template <class T>
void add_interpolated(Tensor y, Weight table, const int32_t* index, const float* weight) {
  std::vector<float> values(size_t(4 * table.cols));
  for (int64_t t = 0; t < y.rows; ++t) {
    for (int64_t c = 0; c < 4; ++c) read_row(values.data() + c * table.cols, table, index[4 * t + c]);
    for (int64_t j = 0; j < y.cols; ++j) {
      T sum = 0;
      for (int64_t c = 0; c < 4; ++c) sum += T(weight[4 * t + c]) * T(values[size_t(c * table.cols + j)]);
      row<T>(y, t)[j] += sum;
    }
  }
}

#define BG_INSTANTIATE(T)                                              \
  template void write<T>(Tensor, const float*);                        \
  template void read<T, float>(float*, Tensor);                        \
  template void read<T, double>(double*, Tensor);                      \
  template void copy<T>(Tensor, Tensor);                               \
  template void gather_rows<T>(Tensor, Tensor, const int64_t*);        \
  template void scatter_rows<T>(Tensor, Tensor, const int64_t*);       \
  template void scatter_add_rows<T>(Tensor, Tensor, const int64_t*);   \
  template void embed<T>(Tensor, Weight, const int32_t*);              \
  template void add_interpolated<T>(Tensor, Weight, const int32_t*, const float*);
BG_INSTANTIATE(float)
BG_INSTANTIATE(double)

}  // namespace bg::ref
