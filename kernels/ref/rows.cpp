// Moving rows: host ↔ device, by index, out of a weight matrix. x, y are (T, D); nothing is computed except in scatter_add and add_interpolated.
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

// y_t = x_t
template <class T>
void copy(Tensor y, Tensor x) {
  for (int64_t t = 0; t < y.rows; ++t)
    for (int64_t j = 0; j < y.cols; ++j) row<T>(y, t)[j] = row<T>(x, t)[j];
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
