// The matrix product of every projection, and what may be done to it in the same pass. y (T, N), x (T, D), w (N, D), bias (N) or nullptr.
#include <cmath>
#include <vector>

#include "kernels/panels.h"
#include "kernels/ref/ref.h"

namespace bg::ref {
namespace {

template <class T>
T gelu_tanh(T x) {
  return x / 2 * (1 + std::tanh(T(0.79788456080286535588) * (x + T(0.044715) * x * x * x)));
}
template <class T>
T gelu_erf(T x) {
  return x / 2 * (1 + std::erf(x * T(0.70710678118654752440)));
}

// Σ_j x_j·w_j, ascending j, products and sum in T
template <class T>
T dot(const T* x, const float* w, int64_t D) {
  T sum = 0;
  for (int64_t j = 0; j < D; ++j) sum += x[j] * T(w[j]);
  return sum;
}

}  // namespace

// p_tn = Σ_j x_tj·w_nj + bias_n;  y = p, y += p, or y = gelu(p)
template <class T>
void linear(Tensor x, const Product& product) {
  std::vector<float> w(size_t(product.w.cols));
  for (int64_t n = 0; n < product.w.rows; ++n) {
    read_row(w.data(), product.w, n);
    for (int64_t t = 0; t < x.rows; ++t) {
      const T sum = dot(row<T>(x, t), w.data(), product.w.cols), p = product.bias != nullptr ? sum + T(product.bias[n]) : sum;
      T& y = row<T>(product.y, t)[n];
      switch (product.then) {
        case Then::store: y = p; break;
        case Then::add: y += p; break;
        case Then::gelu_tanh: y = gelu_tanh(p); break;
        case Then::gelu_erf: y = gelu_erf(p); break;
      }
    }
  }
}

// y = silu(x·gateᵀ)·(x·upᵀ), silu(a) = a/(1 + e^−a)
template <class T>
void gated(Tensor y, Tensor x, Weight gate, Weight up) {
  std::vector<float> wg(size_t(gate.cols)), wu(size_t(up.cols));
  for (int64_t n = 0; n < gate.rows; ++n) {
    read_row(wg.data(), gate, n);
    read_row(wu.data(), up, n);
    for (int64_t t = 0; t < x.rows; ++t) {
      const T g = dot(row<T>(x, t), wg.data(), gate.cols), u = dot(row<T>(x, t), wu.data(), up.cols);
      row<T>(y, t)[n] = g / (1 + std::exp(-g)) * u;
    }
  }
}

template void linear<float>(Tensor, const Product&);
template void linear<double>(Tensor, const Product&);
template void gated<float>(Tensor, Tensor, Weight, Weight);
template void gated<double>(Tensor, Tensor, Weight, Weight);

}  // namespace bg::ref
