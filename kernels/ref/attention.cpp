// Softmax attention of one query row over a run of keys, and the two ways the model uses it. o, q (T, H·d); keys and
// values beside each other, (S, H·d), or a cache, (K·context, d), which is turned into the values that it holds first.
#include <cmath>
#include <vector>

#include "kernels/ref/ref.h"

namespace bg::ref {
namespace {

// z_s = q·k_s/√d
template <class T>
T score(const T* q, const T* k, int64_t d) {
  T dot = 0;
  for (int64_t j = 0; j < d; ++j) dot += q[j] * k[j];
  return dot * T(1 / std::sqrt(double(d)));
}

// o = Σ_s e^(z_s − max z)·v_s / Σ_s e^(z_s − max z), s in [first, last). Scores are computed twice so that no memory is needed.
template <class T>
void attend(T* o, const T* q, const Tensor& k, const Tensor& v, int64_t column, int64_t d, int64_t first, int64_t last) {
  T largest = score(q, row<T>(k, first) + column, d), total = 0;
  for (int64_t s = first + 1; s < last; ++s) largest = std::fmax(largest, score(q, row<T>(k, s) + column, d));
  for (int64_t j = 0; j < d; ++j) o[j] = 0;
  for (int64_t s = first; s < last; ++s) {
    const T p = std::exp(score(q, row<T>(k, s) + column, d) - largest);
    total += p;
    for (int64_t j = 0; j < d; ++j) o[j] += p * row<T>(v, s)[column + j];
  }
  for (int64_t j = 0; j < d; ++j) o[j] /= total;
}

// The values of a cache, (rows, cols).
template <class T>
std::vector<T> values_of(const Tensor& x) {
  std::vector<float> one(size_t(x.cols));
  std::vector<T> all;
  for (int64_t t = 0; t < x.rows; ++t) {
    widen_row(one.data(), x.type, x.row_range(t, 1).data, x.cols);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

}  // namespace

// Row t sees the rows of its own frame.
template <class T>
void attention_frames(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame) {
  const int64_t d = q.cols / heads;
  for (int64_t t = 0; t < q.rows; ++t)
    for (int64_t h = 0; h < heads; ++h) attend(row<T>(o, t) + h * d, row<T>(q, t) + h * d, k, v, h * d, d, t / frame * frame, (t / frame + 1) * frame);
}

// Row t sees cache rows 0 … past + t; query head h reads kv head h div (H/K).
template <class T>
void attention_causal(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past) {
  if (k.type != q.type) {
    std::vector<T> keys = values_of<T>(k), values = values_of<T>(v);
    return attention_causal<T>(o, q, {keys.data(), q.type, k.rows, k.cols, k.cols}, {values.data(), q.type, v.rows, v.cols, v.cols}, heads, kv_heads, past);
  }
  const int64_t d = q.cols / heads;
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t kv = h / (heads / kv_heads);
    for (int64_t t = 0; t < q.rows; ++t) attend(row<T>(o, t) + h * d, row<T>(q, t) + h * d, k.part(kv, kv_heads), v.part(kv, kv_heads), 0, d, 0, past + t + 1);
  }
}

#define BG_INSTANTIATE(T)                                                                 \
  template void attention_frames<T>(Tensor, Tensor, Tensor, Tensor, int64_t, int64_t);    \
  template void attention_causal<T>(Tensor, Tensor, Tensor, Tensor, int64_t, int64_t, int64_t);
BG_INSTANTIATE(float)
BG_INSTANTIATE(double)

}  // namespace bg::ref
