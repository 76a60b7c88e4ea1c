// Normalisation, a row per unit of work. Sums in double over eight chains (element j in chain j mod 8), then a fixed tree.
#include <cmath>

#include "kernels/cpu/cpu.h"

namespace bg::cpu {
namespace {

// Σ_j f(x_j)
template <class F>
double sum_of(const float* x, int64_t n, const F& f) {
  double chain[8] = {};
  int64_t j = 0;
  for (; j + 8 <= n; j += 8)
    for (int i = 0; i < 8; ++i) chain[i] += f(double(x[j + i]));
  for (int i = 0; j < n; ++j, ++i) chain[i] += f(double(x[j]));
  return ((chain[0] + chain[1]) + (chain[2] + chain[3])) + ((chain[4] + chain[5]) + (chain[6] + chain[7]));
}

}  // namespace

void layer_norm(const Context& c, Tensor y, Tensor x, const float* w, const float* b, float eps) {
  for_rows(c, x.rows, 4 * x.cols, [&](int64_t t) {
    const float* in = row(x, t);
    float* out = row(y, t);
    const double D = double(x.cols), mean = sum_of(in, x.cols, [](double a) { return a; }) / D;
    const double variance = sum_of(in, x.cols, [mean](double a) { return (a - mean) * (a - mean); }) / D;
    const float inverse = float(1 / std::sqrt(variance + eps)), center = float(mean);
    for (int64_t j = 0; j < x.cols; ++j) out[j] = (in[j] - center) * inverse * w[j] + b[j];
  });
}

void rms_norm(const Context& c, Tensor y, Tensor x, const float* w, float eps) {
  for_rows(c, x.rows, 3 * x.cols, [&](int64_t t) {
    const float* in = row(x, t);
    float* out = row(y, t);
    const float inverse = float(1 / std::sqrt(sum_of(in, x.cols, [](double a) { return a * a; }) / double(x.cols) + eps));
    for (int64_t j = 0; j < x.cols; ++j) out[j] = in[j] * inverse * w[j];
  });
}

}  // namespace bg::cpu
