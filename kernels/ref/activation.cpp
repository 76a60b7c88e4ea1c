// Element by element, all (T, D).
#include <cmath>

#include "kernels/ref/ref.h"

namespace bg::ref {

// y = x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))
template <class T>
void gelu_tanh(Tensor y, Tensor x) {
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t j = 0; j < x.cols; ++j) {
      const T a = row<T>(x, t)[j];
      row<T>(y, t)[j] = a / 2 * (1 + std::tanh(T(0.79788456080286535588) * (a + T(0.044715) * a * a * a)));
    }
  }
}

// y = x/2·(1 + erf(x/√2))
template <class T>
void gelu_erf(Tensor y, Tensor x) {
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t j = 0; j < x.cols; ++j) {
      const T a = row<T>(x, t)[j];
      row<T>(y, t)[j] = a / 2 * (1 + std::erf(a * T(0.70710678118654752440)));
    }
  }
}

// y = gate/(1 + e^−gate)·up
template <class T>
void silu_mul(Tensor y, Tensor gate, Tensor up) {
  for (int64_t t = 0; t < gate.rows; ++t) {
    for (int64_t j = 0; j < gate.cols; ++j) {
      const T g = row<T>(gate, t)[j];
      row<T>(y, t)[j] = g / (1 + std::exp(-g)) * row<T>(up, t)[j];
    }
  }
}

// y += x
template <class T>
void add(Tensor y, Tensor x) {
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t j = 0; j < x.cols; ++j) row<T>(y, t)[j] += row<T>(x, t)[j];
}

#define BG_INSTANTIATE(T)                             \
  template void gelu_tanh<T>(Tensor, Tensor);         \
  template void gelu_erf<T>(Tensor, Tensor);          \
  template void silu_mul<T>(Tensor, Tensor, Tensor);  \
  template void add<T>(Tensor, Tensor);
BG_INSTANTIATE(float)
BG_INSTANTIATE(double)

}  // namespace bg::ref
