// The coverage selector of a GPU, emulated, beyond what every table is tested for: with and without the matrix the same bits, whatever the scratch memory held, in
// wide tiles too; the same bits as a CPU with FMA; ties, copies, rows of zeros and NaN; how much is evaluated; how much memory is asked for.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/kernels_support.h"

using namespace kernels_test;

namespace {

struct Choice {
  std::vector<int64_t> index;
  std::vector<double> gain;
  double total = 0;
  bg::CoverageReport report;
  bool operator==(const Choice& o) const { return index == o.index && gain == o.gain && total == o.total; }
};

enum class Matrix { stored, computed };

// dirt: what every byte of the scratch memory is before.
Choice select(Ops& ops, Mat<float>& v, Mat<float>& t, int64_t k, Matrix matrix, int dirt = 0) {
  const size_t bytes = ops.coverage_scratch(v.rows, v.cols, t.rows, k, matrix == Matrix::stored ? SIZE_MAX : 0);
  void* scratch = ops.allocate(bytes);
  std::memset(scratch, dirt, bytes);  // the emulated device's memory is the host's
  Choice c;
  c.index.resize(size_t(k), -7);
  c.gain.resize(size_t(k), -7);
  c.total = ops.coverage_select(c.index.data(), c.gain.data(), v.tensor(), t.tensor(), k, scratch, bytes, &c.report);
  ops.release(scratch, bytes);
  return c;
}

Ops& forward() {
  static const std::unique_ptr<Ops> ops(bg::make_emulated_ops(1, bg::Precision::fast));
  return *ops;
}
Ops& backward() {
  static const std::unique_ptr<Ops> ops(bg::make_emulated_ops(2, bg::Precision::fast, true));
  return *ops;
}

// Groups of neighbours, some rows several times, one of zeros, one with a NaN.
Mat<float> tissue(int64_t L, int64_t D, int64_t groups) {
  Mat<float> v = random(L, D), centre = random(groups, D, 2);
  for (int64_t i = 0; i < L; ++i)
    for (int64_t d = 0; d < D; ++d) v.at(i, d) = i % 11 == 10 ? v.at(i - 3, d) : centre.at(i * i % groups, d) + 0.4f * v.at(i, d);
  for (int64_t d = 0; d < D; ++d) v.at(L / 2, d) = 0;
  v.at(L / 3, D / 2) = NAN;
  return v;
}

void check_same(const Choice& c, const Choice& expected, const std::string& what) {
  CHECK_MESSAGE(c == expected, what);
  CHECK_MESSAGE(c.report.most == expected.report.most, what);
}

}  // namespace

TEST_CASE("cuda coverage: with and without the matrix, threads in either order, scratch memory used before") {
  for (const auto& [L, D, m, k] : std::vector<std::array<int64_t, 4>>{{300, 37, 0, 8}, {290, 16, 70, 5}, {700, 3, 5, 8}, {66, 97, 1, 2}, {65, 1, 0, 1}}) {
    INFO("L " << L << " D " << D << " m " << m << " k " << k);
    Mat<float> v = tissue(L, D, 17), t = random(m, D);
    const Choice stored = select(forward(), v, t, k, Matrix::stored), computed = select(forward(), v, t, k, Matrix::computed);
    CHECK(forward().coverage_scratch(L, D, m, k, 0) < forward().coverage_scratch(L, D, m, k, SIZE_MAX));
    check_same(computed, stored, "without the matrix");
    check_same(select(backward(), v, t, k, Matrix::stored, 0xff), stored, "backward");
    const Choice again = select(backward(), v, t, k, Matrix::computed, 0x7f);
    check_same(again, stored, "backward, without the matrix");
    CHECK(again.report.evaluations == computed.report.evaluations);
    CHECK(stored.report.evaluations == k * L - k * (k - 1) / 2);
    CHECK(computed.report.evaluations <= stored.report.evaluations);
    CHECK(stored.total <= stored.report.most * (1 + 1e-5));
  }
}

TEST_CASE("cuda coverage: wide tiles") {
  Mat<float> v = tissue(1569, 5, 60), t = random(3, 5);  // the last tile: 33 rows
  const Choice stored = select(forward(), v, t, 4, Matrix::stored);
  const Choice computed = select(backward(), v, t, 4, Matrix::computed);
  check_same(computed, stored, "without the matrix");
  CHECK(computed.report.evaluations < stored.report.evaluations);
}

TEST_CASE("cuda coverage: the bits of a CPU with FMA") {
  const std::unique_ptr<Ops> cpu(bg::make_cpu_ops(2, bg::Isa::best, bg::Precision::fast));
  if (bg::best_isa() == bg::Isa::portable) return;
  for (const auto& [L, D, m, k] : std::vector<std::array<int64_t, 4>>{{210, 101, 0, 40}, {128, 33, 65, 127}}) {
    INFO("L " << L << " D " << D << " m " << m << " k " << k);
    Mat<float> v = tissue(L, D, 9), t = random(m, D);
    CHECK(select(forward(), v, t, k, Matrix::stored) == select(*cpu, v, t, k, Matrix::computed));
  }
}

TEST_CASE("cuda coverage: ties go to the lowest column") {
  const int64_t L = 400;
  Mat<float> none(0, 4), v(L, 4, 1);
  for (const float value : {1.0f, 0.0f}) {
    for (int64_t i = 0; i < L; ++i)
      for (int64_t d = 0; d < 4; ++d) v.at(i, d) = value;
    for (const Matrix matrix : {Matrix::stored, Matrix::computed}) {
      const Choice c = select(backward(), v, none, 5, matrix);
      CHECK(c.index == std::vector<int64_t>{0, 1, 2, 3, 4});
      CHECK(c.gain[0] == doctest::Approx(1.0 / L).epsilon(1e-12));
      CHECK(c.report.most == c.gain[0]);
      CHECK(std::accumulate(c.gain.begin() + 1, c.gain.end(), 0.0) == 0);
      // More equal bounds than a batch holds: the lowest 256 each time. The first two choices are exact anyway.
      if (matrix == Matrix::computed) CHECK(c.report.evaluations == L + (L - 1) + 3 * 256);
    }
  }
  // All but one.
  Mat<float> few = random(67, 4), text = random(2, 4);
  const Choice all = select(forward(), few, text, 66, Matrix::stored);
  CHECK(std::adjacent_find(all.index.begin(), all.index.end(), std::greater_equal<>()) == all.index.end());
  CHECK(all.index.front() >= 0);
  CHECK(all.index.back() <= 66);
}

TEST_CASE("cuda coverage: memory") {
  const Ops& ops = forward();
  const int64_t L = 100000, D = 769, k = 128;
  const size_t small = ops.coverage_scratch(L, D, 0, k, size_t(4) << 30), whole = ops.coverage_scratch(L, D, 0, k, SIZE_MAX);
  CHECK(small < 500'000'000);
  CHECK(ops.coverage_scratch(L, D, 512, k, size_t(4) << 30) < 700'000'000);
  CHECK(whole > size_t(4 * L * L));
  CHECK(ops.coverage_scratch(L, D, 0, k, whole) == whole);
  CHECK(ops.coverage_scratch(L, D, 0, k, whole - 1) == small);
}
