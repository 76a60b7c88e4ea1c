// What the next token is chosen by: the likeliest of a row of logits z, the largest of them with what their shares are of, and the repetition penalty.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/ref/ref.h"

namespace bg::ref {

// arg max_j z_j, the lowest on a tie, and z − ln Σ_j e^(z_j), ascending j
template <class T>
Likeliest likeliest(Tensor logits) {
  const T* z = row<T>(logits, 0);
  Likeliest best;
  for (int64_t j = 0; j < logits.cols; ++j) {
    best.finite = best.finite && std::isfinite(z[j]);
    if (z[j] > z[best.id]) best.id = int32_t(j);
  }
  double sum = 0;
  for (int64_t j = 0; j < logits.cols; ++j) sum += std::exp(double(z[j]) - double(z[best.id]));
  best.logit = double(z[best.id]);
  best.logprob = double(z[best.id]) - (double(z[best.id]) + std::log(sum));
  return best;
}

// The k largest, falling, the lowest on a tie, and Σ_j e^((z_j − max)/temperature), ascending j; 0 where a z is not finite
template <class T>
double candidates(Candidate* found, Tensor logits, int64_t k, double temperature) {
  const T* z = row<T>(logits, 0);
  std::vector<Candidate> all;
  for (int64_t j = 0; j < logits.cols; ++j) {
    if (!std::isfinite(z[j])) return 0;
    all.push_back({double(z[j]), int32_t(j)});
  }
  std::partial_sort(all.begin(), all.begin() + k, all.end(), [](const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; });
  std::copy(all.begin(), all.begin() + k, found);
  double sum = 0;
  for (int64_t j = 0; j < logits.cols; ++j) sum += std::exp((double(z[j]) - all[0].logit) / temperature);
  return sum;
}

// z_id ← z_id > 0 ? z_id/penalty : z_id·penalty
template <class T>
void penalise(Tensor logits, const int32_t* ids, int64_t n, double penalty) {
  constexpr double kMost = double(std::numeric_limits<T>::max());
  for (int64_t i = 0; i < n; ++i) {
    T& z = row<T>(logits, 0)[ids[i]];
    const double p = z > 0 ? double(z) / penalty : double(z) * penalty;
    z = T(p > kMost ? kMost : p < -kMost ? -kMost : p);
  }
}

#define BG_INSTANTIATE(T)                                              \
  template Likeliest likeliest<T>(Tensor);                             \
  template double candidates<T>(Candidate*, Tensor, int64_t, double);  \
  template void penalise<T>(Tensor, const int32_t*, int64_t, double);
BG_INSTANTIATE(float)
BG_INSTANTIATE(double)

}  // namespace bg::ref
