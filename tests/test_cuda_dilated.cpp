// Dilated attention on the GPU tables, what the tests of every table (test_longnet.cpp) leave out: both precisions where tiles, spans and cells are many.
#include <algorithm>

#include "tests/kernels_support.h"

using namespace kernels_test;
using bg::Dilation;

TEST_CASE("cuda dilated: cut at a common multiple of the segments, the same bits in both precisions") {
  // Whole, tiles are of every second row in cells of 256: two of 64, four of 32. The last 8 rows alone are one cell; so are the first 512, with one pair of 256.
  const Dilation pairs[] = {{256, 1}, {512, 2}};
  const int64_t T = 520, heads = 2, d = 24;
  Mat<float> q = random(T, heads * d), k = random(T, heads * d), v = random(T, heads * d);
  for (const bg::Precision precision : {bg::Precision::fast, bg::Precision::float32}) {
    std::vector<Mat<float>> results;
    for (const bool backward : {false, true}) {
      const std::unique_ptr<Ops> ops(bg::make_emulated_ops(2, precision, backward));
      Mat<float> whole(T, heads * d), parts(T, heads * d);
      ops->attention_dilated(whole.tensor(), q.tensor(), k.tensor(), v.tensor(), heads, pairs, 2);
      for (const auto& [first, n] : {std::pair<int64_t, int64_t>{0, 512}, {512, 8}}) {
        ops->attention_dilated(parts.tensor().row_range(first, n), q.tensor().row_range(first, n), k.tensor().row_range(first, n), v.tensor().row_range(first, n), heads, pairs, 2);
      }
      CHECK(whole.same_bits(parts));
      CHECK(whole.guards_intact());
      results.push_back(whole);
    }
    CHECK(results[0].same_bits(results[1]));
  }
}

TEST_CASE("cuda dilated: queries of zero give means over keys and zero rows") {
  // v_t = t + 1 is exact in bf16, every weight is 1. Of dilation 3 a segment of 8 keeps three rows for each head, the last one of head 2 being padding.
  const Dilation pairs[] = {{8, 1}, {8, 3}};
  const int64_t T = 11, heads = 3, d = 72;
  Mat<float> q(T, heads * d), k = random(T, heads * d), v(T, heads * d);
  for (int64_t t = 0; t < T; ++t)
    for (int64_t c = 0; c < heads * d; ++c) v.at(t, c) = float(t + 1);
  for (const bg::Precision precision : {bg::Precision::fast, bg::Precision::float32}) {
    const std::unique_ptr<Ops> ops(bg::make_emulated_ops(1, precision));
    Mat<float> o(T, heads * d);
    ops->attention_dilated(o.tensor(), q.tensor(), k.tensor(), v.tensor(), heads, pairs, 2);
    double worst = 0;
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t start = t / 8 * 8;
        double sum = 0, keys = 0;
        for (const Dilation& p : pairs) {
          if ((t - start) % p.dilation != (p.dilation == 1 ? 0 : h)) continue;
          keys += double((p.segment + p.dilation - 1) / p.dilation);
          for (int64_t i = start + t % 8 % p.dilation; i < std::min(T, start + 8); i += p.dilation) sum += double(i + 1);
        }
        for (int64_t c = h * d; c < (h + 1) * d; ++c) worst = std::max(worst, std::fabs(o.at(t, c) - sum / keys) / (sum / keys));
      }
    }
    CHECK(worst <= 20 * u);
  }
}
