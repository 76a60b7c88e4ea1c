// What the learned ConceptSelector needs beyond the common operations: a product of two activations, a factor, and the scores.
#include <cmath>

#include "kernels/ref/ref.h"

namespace bg::ref {

// y_tn = Σ_j a_tj·b_nj, ascending j
template <class T>
void products(Tensor y, Tensor a, Tensor b) {
  for (int64_t t = 0; t < a.rows; ++t) {
    for (int64_t n = 0; n < b.rows; ++n) {
      T sum = 0;
      for (int64_t j = 0; j < a.cols; ++j) sum += row<T>(a, t)[j] * row<T>(b, n)[j];
      row<T>(y, t)[n] = sum;
    }
  }
}

// y *= a
template <class T>
void scale(Tensor y, double a) {
  for (int64_t t = 0; t < y.rows; ++t)
    for (int64_t j = 0; j < y.cols; ++j) row<T>(y, t)[j] *= T(a);
}

size_t concept_scratch(int64_t columns) { return 2 * size_t(columns) * sizeof(double); }

// y_l = ln max(1e-8, 1/H·Σ_h max_c p_{l,h,c}),  p = e^(z − max_l z) / Σ_l e^(z − max_l z)
template <class T>
void concept_scores(Tensor y, Tensor z, int64_t heads, void* scratch) {
  double *most = static_cast<double*>(scratch), *total = most + z.cols;
  for (int64_t c = 0; c < z.cols; ++c) {
    most[c] = row<T>(z, 0)[c];
    for (int64_t l = 1; l < z.rows; ++l) most[c] = std::fmax(most[c], double(row<T>(z, l)[c]));
    total[c] = 0;
    for (int64_t l = 0; l < z.rows; ++l) total[c] += std::exp(row<T>(z, l)[c] - T(most[c]));
  }
  const int64_t concepts = z.cols / heads;
  for (int64_t l = 0; l < z.rows; ++l) {
    double sum = 0;
    for (int64_t h = 0; h < heads; ++h) {
      double best = 0;
      for (int64_t c = h * concepts; c < (h + 1) * concepts; ++c) best = std::fmax(best, double(std::exp(row<T>(z, l)[c] - T(most[c]))) / total[c]);
      sum += best;
    }
    *row<T>(y, l) = T(std::log(std::fmax(1e-8, sum / double(heads))));
  }
}

#define BG_INSTANTIATE(T)                                    \
  template void products<T>(Tensor, Tensor, Tensor);         \
  template void scale<T>(Tensor, double);                    \
  template void concept_scores<T>(Tensor, Tensor, int64_t, void*);
BG_INSTANTIATE(float)
BG_INSTANTIATE(double)

}  // namespace bg::ref
