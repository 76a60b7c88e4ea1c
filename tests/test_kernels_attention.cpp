// Both attentions: bound, odd head dims, frames, grouped queries, splits of a prompt, keys that may not be seen.
#include <algorithm>
#include <array>

#include "tests/kernels_support.h"

using namespace kernels_test;

namespace {

// The contract's bound of output element (t, column): u·(2·(d + 4)·A + 2·S + 16)·Σ_s p_s·|v_s| over keys [first, last).
double attention_bound(const Mat<float>& q, const Mat<float>& k, const Mat<float>& v, int64_t t, int64_t q0, int64_t k0, int64_t j, int64_t d,
                       int64_t first, int64_t last) {
  double largest = 0, most = -1e300, total = 0, sum = 0;
  std::vector<double> z;
  for (int64_t s = first; s < last; ++s) {
    double dot = 0, absolute = 0;
    for (int64_t i = 0; i < d; ++i) {
      const double term = double(q.at(t, q0 + i)) * k.at(s, k0 + i);
      dot += term;
      absolute += std::fabs(term);
    }
    z.push_back(dot / std::sqrt(double(d)));
    largest = std::max(largest, absolute / std::sqrt(double(d)));
    most = std::max(most, z.back());
  }
  for (int64_t s = first; s < last; ++s) {
    const double p = std::exp(z[size_t(s - first)] - most);
    total += p;
    sum += p * std::fabs(double(v.at(s, k0 + j)));
  }
  return u * (2 * (double(d) + 4) * largest + 2 * double(last - first) + 16) * sum / total;
}

}  // namespace

TEST_CASE("attention_frames: within the bound") {
  const std::vector<std::array<int64_t, 4>> cases = {
      {1, 1, 1, 1}, {3, 2, 1, 4}, {17, 1, 3, 12}, {65, 2, 2, 20}, {64, 1, 1, 72}, {131, 1, 2, 72}, {30, 3, 2, 128}, {70, 1, 1, 256}};
  for (const auto& [frame, frames, heads, d] : cases) {
    for (const float scale : {1.0f, 4.0f}) {
      const int64_t T = frame * frames, D = heads * d;
      const Mat<float> q = random(T, D, scale, 1), k = random(T, D, 1, 2), v = random(T, D), empty(T, D, 5);
      check_operation("attention_frames d " + std::to_string(d), empty, {q, k, v},
                      [&, n = heads, f = frame](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.attention_frames(y, in[0], in[1], in[2], n, f); },
                      [&, f = frame, w = d](int64_t t, int64_t c, double) {
                        return attention_bound(q, k, v, t, c / w * w, c / w * w, c % w, w, t / f * f, t / f * f + f);
                      });
    }
  }
}

TEST_CASE("attention_causal: within the bound, with grouped queries and a past") {
  struct Case { int64_t T, past, heads, kv_heads, d; };
  for (const Case a : {Case{1, 0, 1, 1, 8}, Case{1, 130, 4, 1, 16}, Case{7, 0, 6, 2, 12}, Case{7, 60, 6, 2, 20}, Case{67, 3, 4, 4, 72},
                       Case{3, 61, 8, 2, 128}, Case{130, 1, 2, 1, 24}}) {
    const int64_t S = a.past + a.T;
    const Mat<float> q = random(a.T, a.heads * a.d, 2), k = random(S, a.kv_heads * a.d), v = random(S, a.kv_heads * a.d), empty(a.T, a.heads * a.d);
    check_operation("attention_causal d " + std::to_string(a.d), empty, {q, k, v},
                    [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.attention_causal(y, in[0], in[1], in[2], a.heads, a.kv_heads, a.past); },
                    [&](int64_t t, int64_t c, double) {
                      const int64_t h = c / a.d, kv = h / (a.heads / a.kv_heads);
                      return attention_bound(q, k, v, t, h * a.d, kv * a.d, c % a.d, a.d, 0, a.past + t + 1);
                    });
  }
}

TEST_CASE("attention_causal: the same bits in one call, three calls or token by token") {
  for (const int64_t d : {20, 64}) {
    const int64_t T = 143, heads = 6, kv_heads = 2;
    Mat<float> q = random(T, heads * d), k = random(T, kv_heads * d), v = random(T, kv_heads * d);
    for (const Backend& b : backends()) {
      Mat<float> whole(T, heads * d);
      b.ops->attention_causal(whole.tensor(), q.tensor(), k.tensor(), v.tensor(), heads, kv_heads, 0);
      for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{50, 14, 79}, std::vector<int64_t>(size_t(T), 1)}) {
        if (cuts.size() > 3 && b.label == "ref") continue;
        Mat<float> parts(T, heads * d);
        int64_t t = 0;
        for (const int64_t n : cuts) {
          b.ops->attention_causal(parts.tensor().row_range(t, n), q.tensor().row_range(t, n), k.tensor().row_range(0, t + n),
                                  v.tensor().row_range(0, t + n), heads, kv_heads, t);
          t += n;
        }
        CHECK_MESSAGE(whole.same_bits(parts), b.label);
      }
    }
  }
}

TEST_CASE("attention_causal: what lies behind a row's last key cannot reach it, not even NaN; what it sees does") {
  const int64_t T = 70, d = 12;
  Mat<float> q = random(T, d), k = random(T, d), v = random(T, d);
  v.at(40, 3) = NAN;
  k.at(66, 0) = NAN;
  for (const Backend& b : backends()) {
    Mat<float> o(T, d);
    b.ops->attention_causal(o.tensor(), q.tensor(), k.tensor(), v.tensor(), 1, 1, 0);
    int wrong = 0;
    for (int64_t t = 0; t < T; ++t)
      for (int64_t j = 0; j < d; ++j) wrong += std::isnan(o.at(t, j)) != (t >= 66 || (t >= 40 && j == 3));
    CHECK_MESSAGE(wrong == 0, b.label);
  }
}

TEST_CASE("attention: scores far apart and one key") {
  const int64_t T = 100, d = 16;
  Mat<float> q(T, d), k(T, d), v = random(T, d);
  for (int64_t t = 0; t < T; ++t) {
    q.at(t, 0) = 100;
    k.at(t, 0) = float(t);  // the last key visible to a row outweighs all others: e^−25 and less
  }
  for (const Backend& b : backends()) {
    Mat<float> o(T, d);
    b.ops->attention_causal(o.tensor(), q.tensor(), k.tensor(), v.tensor(), 1, 1, 0);
    double worst = 0;
    for (int64_t t = 0; t < T; ++t)
      for (int64_t j = 0; j < d; ++j) worst = std::max(worst, double(std::fabs(o.at(t, j) - v.at(t, j))));
    CHECK_MESSAGE(worst < 1e-9, b.label);
    for (int64_t j = 0; j < d; ++j) CHECK(o.at(0, j) == v.at(0, j));
  }
}
