// What sampling needs of a backend: the largest logits in order and what their shares are of, against a plain sort; and the repetition penalty.
#include <algorithm>

#include "tests/kernels_support.h"

using namespace kernels_test;
using bg::Candidate;

namespace {

Mat<float> logits_of(int64_t V, const std::function<float(int64_t)>& value) {
  Mat<float> z(1, V);
  for (int64_t j = 0; j < V; ++j) z.at(0, j) = value(j);
  return z;
}

void check_candidates(Mat<float>& z, int64_t k, double temperature, std::vector<Backend>& list) {
  const int64_t V = z.cols;
  std::vector<Candidate> sorted;
  for (int64_t j = 0; j < V; ++j) sorted.push_back({double(z.at(0, j)), int32_t(j)});
  std::stable_sort(sorted.begin(), sorted.end(), [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  long double exact = 0;
  for (const Candidate& c : sorted) exact += std::exp(((long double)c.logit - (long double)sorted[0].logit) / (long double)temperature);
  const double allowed = (double(V) + 8 + 2 * (sorted[0].logit - sorted.back().logit) / temperature) * 0x1p-53;
  std::string isa;
  double first = 0;
  for (const Backend& b : list) {
    CAPTURE(b.label);
    CAPTURE(V);
    CAPTURE(k);
    const Mat<float> before = z;
    std::vector<Candidate> found(size_t(k) + 1, {-7, -7});
    const double sum = b.ops->candidates(found.data(), z.tensor(), k, temperature);
    CHECK(z.same_bits(before));
    CHECK(std::fabs(double((long double)sum - exact)) <= allowed * double(exact));
    int64_t wrong = 0;
    for (int64_t i = 0; i < k; ++i) wrong += found[size_t(i)].id != sorted[size_t(i)].id || found[size_t(i)].logit != sorted[size_t(i)].logit;
    CHECK(wrong == 0);
    CHECK(found[size_t(k)].id == -7);
    if (isa != b.ops->name()) {
      isa = b.ops->name();
      first = sum;
    }
    CHECK(sum == first);
  }
}

}  // namespace

TEST_CASE("sample: the largest logits are those of a plain sort, their sum is within its bound") {
  for (const int64_t V : {1, 2, 17, 1023, 1024, 1025, 4096, 4099, 9001}) {
    Mat<float> plain = logits_of(V, [](int64_t) { return normal(4); });
    Mat<float> ties = logits_of(V, [](int64_t j) { return j % 5 == 0 ? -0.0f : std::round(normal(2)) / 2; });  // zeros of either sign among them
    for (const int64_t k : {int64_t(1), int64_t(3), int64_t(64), bg::kMostCandidates}) {
      check_candidates(plain, std::min(k, V), 0.7, backends());
      check_candidates(ties, std::min(k, V), 2.5, backends());
    }
  }
}

TEST_CASE("sample: logits that are all equal, falling, rising, as far apart as floats can be") {
  Mat<float> equal = logits_of(5003, [](int64_t) { return -3.25f; }), falling = logits_of(5003, [](int64_t j) { return -float(j); }),
             rising = logits_of(5003, [](int64_t j) { return float(j) * 1e-3f; });
  for (const int64_t k : {int64_t(1), int64_t(1000), bg::kMostCandidates}) {
    check_candidates(equal, k, 1, backends());
    check_candidates(falling, k, 1, backends());
    check_candidates(rising, k, 1, backends());
  }
  Mat<float> far = logits_of(9, [](int64_t j) {
    const float values[] = {0x1p-149f, -0x1p-149f, 3.4028235e38f, -3.4028235e38f, 0.0f, -0.0f, 1.17549435e-38f, 3.4028235e38f, -1};
    return values[j];
  });
  for (int64_t k = 1; k <= 9; ++k) check_candidates(far, k, 1, backends());
}

TEST_CASE("sample: as many logits as the model's") {
  Mat<float> z = logits_of(151936, [](int64_t) { return normal(3); });
  for (int64_t i = 0; i < 700; ++i) z.at(0, (i * 7919 + 3) % 151936) = 9.5f;  // ties across all blocks
  check_candidates(z, 40, 1, backends());
  check_candidates(z, bg::kMostCandidates, 0.8, backends());
}

TEST_CASE("sample: a logit that is not finite is said") {
  for (const Backend& b : backends()) {
    INFO(b.label);
    for (const float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
      Mat<float> z = logits_of(4500, [](int64_t) { return normal(); });
      z.at(0, 4400) = bad;
      Candidate found[50];
      CHECK(b.ops->candidates(found, z.tensor(), 50, 1) == 0);
    }
  }
}

TEST_CASE("sample: the penalty divides positive and multiplies other logits, and stays finite") {
  const std::vector<int32_t> ids = {7, 0, 3, 599, 512};
  for (const double penalty : {1.3, 0.5, 1e300, 1e-300}) {
    Mat<float> z = logits_of(600, [](int64_t j) { return j == 3 ? 0.0f : j == 7 ? -2.5f : normal(5); });
    Mat<float> expected = z;
    for (const int32_t id : ids) {
      const double v = z.at(0, id), p = v > 0 ? v / penalty : v * penalty;
      expected.at(0, id) = float(std::clamp(p, -3.4028234663852886e38, 3.4028234663852886e38));
    }
    for (const Backend& b : backends()) {
      INFO(b.label << ", penalty " << penalty);
      Mat<float> y = z;
      b.ops->penalise(y.tensor(), ids.data(), int64_t(ids.size()), penalty);
      CHECK(y.same_bits(expected));
      b.ops->penalise(y.tensor(), ids.data(), 0, penalty);
      CHECK(y.same_bits(expected));
    }
  }
}
