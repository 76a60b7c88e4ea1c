// Dilated attention (LongNet): several sparse attentions, each over the rows that a head keeps of a segment, mixed by softmax of their log-sum-exps.
// o, q, k, v (T, H·d). The zero rows that padding adds are walked through like any other key.
#include <cmath>

#include "kernels/ref/ref.h"

namespace bg::ref {
namespace {

constexpr double kMissing = -1e8;  // s of a pair that does not hold the row

// One row and head in one pair: the query, and the kept rows first, first + step, … (`count` of them) of its segment; from row `end` on they are zero.
template <class T>
struct Kept {
  const T* q;
  Tensor k, v;
  int64_t column, d, first, step, count, end;
  bool here;  // the group keeps this row

  bool zero(int64_t i) const { return first + i * step >= end; }
  // z_i = q·k_i/√d
  T score(int64_t i) const {
    if (zero(i)) return 0;
    T dot = 0;
    for (int64_t j = 0; j < d; ++j) dot += q[j] * row<T>(k, first + i * step)[column + j];
    return dot * T(1 / std::sqrt(double(d)));
  }
  T largest() const {
    T most = score(0);
    for (int64_t i = 1; i < count; ++i) most = std::fmax(most, score(i));
    return most;
  }
  T total(T most) const {
    T sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += std::exp(score(i) - most);
    return sum;
  }
  // s = ln Σ_i e^(z_i)
  T log_sum() const {
    if (!here) return T(kMissing);
    const T most = largest(), s = most + std::log(total(most));
    return s == 0 ? T(kMissing) : s;
  }
  // o += w·Σ_i e^(z_i)·v_i / Σ_i e^(z_i)
  void add_values(T* o, T w) const {
    if (!here) return;
    const T most = largest(), factor = w / total(most);
    for (int64_t i = 0; i < count; ++i) {
      if (zero(i)) continue;
      const T p = factor * std::exp(score(i) - most);
      for (int64_t j = 0; j < d; ++j) o[j] += p * row<T>(v, first + i * step)[column + j];
    }
  }
};

template <class T>
Kept<T> kept_rows(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads, int64_t t, int64_t h, const Dilation& pair) {
  const int64_t d = q.cols / heads, g = pair.segment, r = pair.dilation;
  const int64_t start = t / g * g, group = h / ((heads + r - 1) / r), count = (g + r - 1) / r;
  const int64_t end = k.rows - start < g ? k.rows : start + g;
  return {row<T>(q, t) + h * d, k, v, h * d, d, start + group, r, count, end, (t - start) % r == group};
}

}  // namespace

template <class T>
void attention_dilated(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n) {
  const int64_t d = q.cols / heads;
  for (int64_t t = 0; t < q.rows; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      T s[kMostDilations], most = -INFINITY, total = 0;
      for (int64_t p = 0; p < n; ++p) {
        s[p] = kept_rows<T>(q, k, v, heads, t, h, pairs[p]).log_sum();
        most = std::fmax(most, s[p]);
      }
      for (int64_t p = 0; p < n; ++p) total += std::exp(s[p] - most);
      T* out = row<T>(o, t) + h * d;
      for (int64_t j = 0; j < d; ++j) out[j] = 0;
      for (int64_t p = 0; p < n; ++p) kept_rows<T>(q, k, v, heads, t, h, pairs[p]).add_values(out, std::exp(s[p] - most) / total);
    }
  }
}

template void attention_dilated<float>(Tensor, Tensor, Tensor, Tensor, int64_t, const Dilation*, int64_t);
template void attention_dilated<double>(Tensor, Tensor, Tensor, Tensor, int64_t, const Dilation*, int64_t);

}  // namespace bg::ref
