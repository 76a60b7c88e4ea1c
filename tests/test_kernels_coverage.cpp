// The coverage selector: lazy equals plain on the same C (indices and gains, bit by bit), backends agree within the bound, threads do not matter.
#include <algorithm>
#include <array>
#include <numeric>

#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"
#include "tests/kernels_support.h"

using namespace kernels_test;

namespace {

struct Choice {
  std::vector<int64_t> index;
  std::vector<double> gain;
  double total = 0;
  explicit Choice(int64_t k) : index(size_t(k), -7), gain(size_t(k), -7) {}
  bool operator==(const Choice& o) const { return index == o.index && gain == o.gain && total == o.total; }
};

struct Scratch {
  Ops& ops;
  size_t bytes;
  void* p;
  Scratch(Ops& o, size_t n) : ops(o), bytes(n), p(o.allocate(n)) {}
  ~Scratch() { ops.release(p, bytes); }
};

// e: E (m+L, L) as a backend keeps it at the start of its scratch when all of it may be stored: the CPU by columns.
Choice select(Ops& ops, Tensor v, Tensor t, int64_t k, std::vector<float>* e = nullptr) {
  Choice c(k);
  const size_t bytes = ops.coverage_scratch(v.rows, v.cols, t.rows, k, e != nullptr ? SIZE_MAX : 0);
  Scratch scratch(ops, bytes);
  bg::CoverageReport report;
  c.total = ops.coverage_select(c.index.data(), c.gain.data(), v, t, k, scratch.p, bytes, &report);
  CHECK(c.total <= report.most * (1 + 1e-5));  // to rounding of the similarities of a row with itself
  if (e == nullptr) return c;
  const auto* from = static_cast<const float*>(scratch.p);
  const int64_t L = v.rows, rows = L + t.rows;
  const bool by_columns = std::string(ops.name()).rfind("cpu", 0) == 0;
  e->resize(size_t(rows * L));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < L; ++j) (*e)[size_t(i * L + j)] = from[by_columns ? j * rows + i : i * L + j];
  return c;
}

// The plain definition on E.
Choice plain(const std::vector<float>& e, int64_t m, int64_t L, int64_t k) {
  std::vector<int64_t> c(e.size()), best(static_cast<size_t>(m + L));
  Choice out(k);
  out.total = bg::ref::coverage_of_exponentials(out.index.data(), out.gain.data(), e.data(), m, L, k, c.data(), best.data());
  return out;
}

Mat<float> rows_of_kind(const std::string& kind, int64_t L, int64_t D) {
  Mat<float> v = random(L, D);
  for (int64_t i = 0; i < L; ++i) {
    for (int64_t j = 0; j < D; ++j) {
      if (kind == "clustered") v.at(i, j) = (j == i % 7 ? 3.0f : 0.0f) + 0.05f * v.at(i, j);
      if (kind == "duplicated" && i >= L / 3) v.at(i, j) = v.at(i % (L / 3 + 1), j);
      if (kind == "constant") v.at(i, j) = 1;
      if (kind == "zero") v.at(i, j) = 0;
    }
  }
  return v;
}

}  // namespace

TEST_CASE("coverage: lazy greedy, with and without the matrix, equals the plain definition on the same similarities") {
  const Mat<float> none(0, 16);
  for (const char* kind : {"random", "clustered", "duplicated", "constant", "zero"}) {
    for (const auto& [L, m, k] : std::vector<std::array<int64_t, 3>>{
             {2, 0, 1}, {5, 3, 4}, {17, 0, 16}, {64, 5, 1}, {101, 31, 64}, {150, 0, 149}, {333, 120, 64}, {700, 11, 64}}) {
      Mat<float> v = rows_of_kind(kind, L, 16), t = m > 0 ? random(m, 16) : none;
      const std::string what = std::string(kind) + " L " + std::to_string(L) + " m " + std::to_string(m) + " k " + std::to_string(k) + ", ";
      std::string isa;
      Choice expected(k);
      for (const Backend& b : backends()) {
        if (b.label == "ref") continue;
        // A fiber per thread takes its time: large shapes only with rows that repeat, whose columns tie.
        if (b.label.rfind("emulated", 0) == 0 && L > 150 && std::string(kind) != "duplicated") continue;
        std::vector<float> e;
        const Choice lazy = select(*b.ops, v.tensor(), t.tensor(), k, &e);
        if (isa != b.ops->name()) expected = plain(e, m, L, k);
        isa = b.ops->name();
        CHECK_MESSAGE(lazy == expected, what << b.label);
        CHECK_MESSAGE(select(*b.ops, v.tensor(), t.tensor(), k) == expected, what << b.label << ", no matrix");
        CHECK(std::is_sorted(lazy.index.begin(), lazy.index.end()));
        CHECK(std::adjacent_find(lazy.index.begin(), lazy.index.end()) == lazy.index.end());
        if (std::string(kind) == "constant" && m == 0) {
          for (int64_t i = 0; i < k; ++i) CHECK(lazy.index[size_t(i)] == i);  // all tie: the lowest
        }
      }
    }
  }
}

TEST_CASE("coverage: a choice by hand") {
  // Rows of C: (3 0 2), (0 3 2): column 2 gains 4 first, then 0 and 1 tie at 1.
  const std::vector<int64_t> c = {3, 0, 2, 0, 3, 2};
  std::vector<int64_t> best(2);
  Choice out(2);
  out.total = bg::ref::greedy_plain(out.index.data(), out.gain.data(), c.data(), 2, 3, 2, best.data(), 1);
  CHECK(out.index == std::vector<int64_t>{0, 2});
  CHECK(out.gain == std::vector<double>{0.5, 2});
  CHECK(out.total == 2.5);
}

// Every element of C of a float backend has a relative error of at most e: a similarity of unit rows is off by (D + 2)u, plus 2·3u for the
// rounding of the two rows (Σ|a·b| ≤ 1), so its softmax argument (magnitude ≤ 1/τ) by (D + 10)u/τ with the division and the subtraction (2/τ·u);
// twice that in a quotient of exponentials, with 2·3u for e^x, L·u for the sum, 4u for the rest. The C of the whole follows with τ = 0.02 for
// text. Σ_i C_ij ≤ mass and Σ_i best_i ≤ mass, since an entry is at most its row's weight: 1/m for text, 1/(2L) or 1/L otherwise. So after
// the same choices every gain, and hence the largest, differs by at most B = 2·e·mass; this holds up to and with the first step at which
// two backends part. Choices are put in the order taken by falling gain (gains never rise, see kernels/cpu/coverage.cpp).
TEST_CASE("coverage: all float backends gain what the double reference gains, as long as they choose alike") {
  for (const auto& [L, m, D, k] : std::vector<std::array<int64_t, 4>>{{40, 0, 33, 12}, {120, 9, 64, 30}, {257, 17, 20, 64}, {97, 3, 531, 20}}) {
    Mat<float> v = random(L, D), t = random(m, D);
    Mat<double> v64 = widen(v), t64 = widen(t);
    const Choice exact = select(*truth(), v64.tensor(), t64.tensor(), k);
    const double tau = m > 0 ? 0.02 : 0.2, mass = m > 0 ? 1.5 : 1.0, e = (2 * ((double(D) + 10) / tau) + 10 + double(L)) * u;
    const auto order_taken = [](const Choice& c) {
      std::vector<size_t> order(c.index.size());
      std::iota(order.begin(), order.end(), size_t(0));
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return c.gain[a] > c.gain[b]; });
      return order;
    };
    const std::vector<size_t> expected = order_taken(exact);
    std::vector<Choice> fused;  // of the first instruction set with fused multiply-add: the others choose the same, bit by bit
    for (const Backend& b : backends()) {
      INFO(b.label);
      const Choice c = select(*b.ops, v.tensor(), t.tensor(), k);
      if (b.label != "ref" && b.label.find("portable") == std::string::npos) {
        if (fused.empty()) fused.push_back(c);
        CHECK(c == fused[0]);
      }
      const std::vector<size_t> order = order_taken(c);
      for (size_t i = 0; i < order.size(); ++i) {
        CHECK(std::fabs(c.gain[order[i]] - exact.gain[expected[i]]) <= 2 * e * mass);
        if (c.index[order[i]] != exact.index[expected[i]]) break;
      }
      const Choice again = select(*b.ops, v.tensor(), t.tensor(), k);
      CHECK(again == c);
    }
  }
}

TEST_CASE("coverage: the first choice is the column of greatest sum, computed here from the equations") {
  const int64_t L = 37, D = 24, m = 5;
  Mat<float> v = random(L, D), t = random(m, D);
  const auto softmax_row = [&](const Mat<float>& a, int64_t i, double tau) {
    const auto norm = [&](const Mat<float>& x, int64_t r) {
      double s = 0;
      for (int64_t d = 0; d < D; ++d) s += double(x.at(r, d)) * x.at(r, d);
      return std::sqrt(s);
    };
    std::vector<double> p;
    double total = 0;
    for (int64_t j = 0; j < L; ++j) {
      double dot = 0;
      for (int64_t d = 0; d < D; ++d) dot += double(a.at(i, d)) * v.at(j, d);
      p.push_back(std::exp(dot / norm(a, i) / norm(v, j) / tau));
      total += p.back();
    }
    for (double& x : p) x /= total * double(a.rows);
    return p;
  };
  std::vector<double> sum(static_cast<size_t>(L), 0.0);
  for (int64_t i = 0; i < m; ++i) {
    const auto p = softmax_row(t, i, 0.02);
    for (size_t j = 0; j < p.size(); ++j) sum[j] += p[j];
  }
  for (int64_t i = 0; i < L; ++i) {
    const auto q = softmax_row(v, i, 0.2);
    for (size_t j = 0; j < q.size(); ++j) sum[j] += q[j] / 2;
  }
  const auto most = std::max_element(sum.begin(), sum.end());
  Mat<double> v64 = widen(v), t64 = widen(t);
  const Choice exact = select(*truth(), v64.tensor(), t64.tensor(), 1);
  CHECK(exact.index[0] == most - sum.begin());
  CHECK(exact.gain[0] == doctest::Approx(*most).epsilon(1e-12));
  for (const Backend& b : backends()) CHECK(select(*b.ops, v.tensor(), t.tensor(), 1).gain[0] == doctest::Approx(*most).epsilon(1e-3));
}

TEST_CASE("coverage: rows of NaN still give k different columns") {
  Mat<float> v = random(30, 8), t(0, 8);
  for (int64_t j = 0; j < 8; ++j) v.at(4, j) = v.at(9, j) = NAN;
  for (const Backend& b : backends()) {
    const Choice c = select(*b.ops, v.tensor(), t.tensor(), 29);
    CHECK(std::is_sorted(c.index.begin(), c.index.end()));
    CHECK(std::adjacent_find(c.index.begin(), c.index.end()) == c.index.end());
    CHECK(c.index.front() >= 0);
    CHECK(c.index.back() < 30);
  }
}
