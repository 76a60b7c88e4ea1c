// The matrix product of every projection. y (T, N), x (T, D), w (N, D), bias (N) or nullptr.
#include "kernels/ref/ref.h"

namespace bg::ref {

// y_tn = Σ_j x_tj·w_nj + bias_n, ascending j, products and sum in T
template <class T>
void linear(Tensor y, Tensor x, Weight w, const float* bias) {
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t n = 0; n < w.rows; ++n) {
      T sum = 0;
      for (int64_t j = 0; j < w.cols; ++j) sum += row<T>(x, t)[j] * weight_at<T>(w, n, j);
      row<T>(y, t)[n] = bias != nullptr ? sum + T(bias[n]) : sum;
    }
  }
}

template void linear<float>(Tensor, Tensor, Weight, const float*);
template void linear<double>(Tensor, Tensor, Weight, const float*);

}  // namespace bg::ref
