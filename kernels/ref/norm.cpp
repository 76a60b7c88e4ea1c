// Normalisation of rows. y, x (T, D), w, b (D). Sums in double whatever T is.
#include <cmath>

#include "kernels/ref/ref.h"

namespace bg::ref {

// y_td = (x_td − mean_t)/√(var_t + eps)·w_d + b_d,  mean = Σ x/D,  var = Σ (x − mean)²/D
template <class T>
void layer_norm(Tensor y, Tensor x, const float* w, const float* b, float eps) {
  for (int64_t t = 0; t < x.rows; ++t) {
    const T* in = row<T>(x, t);
    double sum = 0, squares = 0;
    for (int64_t j = 0; j < x.cols; ++j) sum += in[j];
    const double mean = sum / double(x.cols);
    for (int64_t j = 0; j < x.cols; ++j) squares += (in[j] - mean) * (in[j] - mean);
    const T inverse = T(1 / std::sqrt(squares / double(x.cols) + eps));
    for (int64_t j = 0; j < x.cols; ++j) row<T>(y, t)[j] = (in[j] - T(mean)) * inverse * T(w[j]) + T(b[j]);
  }
}

// y_td = x_td/√(Σ x²/D + eps)·w_d
template <class T>
void rms_norm(Tensor y, Tensor x, const float* w, float eps) {
  for (int64_t t = 0; t < x.rows; ++t) {
    const T* in = row<T>(x, t);
    double squares = 0;
    for (int64_t j = 0; j < x.cols; ++j) squares += double(in[j]) * double(in[j]);
    const T inverse = T(1 / std::sqrt(squares / double(x.cols) + eps));
    for (int64_t j = 0; j < x.cols; ++j) row<T>(y, t)[j] = in[j] * inverse * T(w[j]);
  }
}

#define BG_INSTANTIATE(T)                                                          \
  template void layer_norm<T>(Tensor, Tensor, const float*, const float*, float);  \
  template void rms_norm<T>(Tensor, Tensor, const float*, float);
BG_INSTANTIATE(float)
BG_INSTANTIATE(double)

}  // namespace bg::ref
