// The coverage selector at the size of slides: without the matrix as with it, and as the plain definition; slides by their 768 numbers as by
// their projected rows; memory.
#include <algorithm>
#include <numeric>

#include "kernels/panels.h"
#include "kernels/ref/ref.h"
#include "runtime/longnet.h"
#include "runtime/plan.h"
#include "runtime/slide_select.h"
#include "tests/kernels_support.h"

using namespace kernels_test;
using bg::Kept;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int64_t kMost = 2000;
#else
constexpr int64_t kMost = 20000;
#endif

bool same(const Kept& a, const Kept& b) { return a.index == b.index && a.gain == b.gain && a.coverage == b.coverage; }

// keep_e: E (m+L, L), as a backend keeps it at the start of its scratch: the CPU by columns
Kept select(Ops& ops, Tensor v, Tensor t, int64_t k, size_t allowed, std::vector<float>* keep_e = nullptr) {
  Kept kept;
  kept.index.resize(size_t(k));
  kept.gain.resize(size_t(k));
  const size_t bytes = ops.coverage_scratch(v.rows, v.cols, t.rows, k, allowed);
  void* scratch = ops.allocate(bytes);
  REQUIRE(scratch != nullptr);
  bg::CoverageReport report;
  kept.coverage = ops.coverage_select(kept.index.data(), kept.gain.data(), v, t, k, scratch, bytes, &report);
  kept.whole = report.most;
  if (keep_e != nullptr) {
    const int64_t L = v.rows, rows = L + t.rows;
    const bool by_columns = std::string(ops.name()).rfind("cpu", 0) == 0;
    keep_e->resize(size_t(rows * L));
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < L; ++j) (*keep_e)[size_t(i * L + j)] = static_cast<const float*>(scratch)[by_columns ? j * rows + i : i * L + j];
  }
  ops.release(scratch, bytes);
  return kept;
}

Mat<float> rows_of_kind(const std::string& kind, int64_t N, int64_t D) {
  Mat<float> v = random(N, D, 1, 0), centre = random(40, D);
  for (int64_t i = 0; i < N; ++i) {
    const int64_t group = int64_t(rng()() % 40);
    for (int64_t d = 0; d < D; ++d) {
      if (kind == "clustered") v.at(i, d) = centre.at(group, d) + 0.3f * v.at(i, d);
      if (kind == "duplicated" && i >= N / 7) v.at(i, d) = v.at(i % (N / 7), d);
      if (kind == "constant") v.at(i, d) = 0.5f;
    }
  }
  return v;
}

}  // namespace

TEST_CASE("coverage, large: with and without the matrix, any threads, the plain definition at 1,500 rows") {
  const int64_t N = kMost < 20000 ? 500 : 1500, k = 24;
  for (const char* kind : {"random", "clustered", "duplicated", "constant"}) {
    for (const int64_t m : {int64_t(0), int64_t(130)}) {
      Mat<float> v = rows_of_kind(kind, N, 24), t = random(m, 24);
      std::string isa;
      Kept expected;
      for (const Backend& b : backends()) {
        if (b.label == "ref" || std::string(b.ops->name()) == "emulated") continue;  // time; test_cuda_coverage.cpp has fewer rows
        INFO(kind << ", " << m << " text rows, " << b.label);
        if (isa != b.ops->name()) {
          std::vector<float> e;
          const Kept stored = select(*b.ops, v.tensor(), t.tensor(), k, SIZE_MAX, &e);
          std::vector<int64_t> c(e.size()), best(static_cast<size_t>(m + N));
          expected = stored;
          expected.coverage = bg::ref::coverage_of_exponentials(expected.index.data(), expected.gain.data(), e.data(), m, N, k, c.data(), best.data());
          CHECK(same(stored, expected));
          isa = b.ops->name();
        }
        CHECK(same(select(*b.ops, v.tensor(), t.tensor(), k, 0), expected));
      }
      if (std::string(kind) == "constant" && m == 0) {
        for (int64_t i = 0; i < k; ++i) CHECK(expected.index[size_t(i)] == i);  // all tie: the lowest
      }
    }
  }
}

TEST_CASE("coverage, large: 20,000 rows with and without the matrix") {
  for (const char* kind : {"random", "clustered", "duplicated", "constant"}) {
    INFO(kind);
    const bool text = std::string(kind) == "clustered";
    Mat<float> v = rows_of_kind(kind, kMost, 8), t = random(text ? 40 : 0, 8);
    const std::unique_ptr<Ops> two(bg::make_cpu_ops(2, bg::Isa::best, bg::Precision::float32)), three(bg::make_cpu_ops(3, bg::Isa::best, bg::Precision::float32));
    const size_t small = two->coverage_scratch(kMost, 8, t.rows, 16, 0), whole = two->coverage_scratch(kMost, 8, t.rows, 16, SIZE_MAX);
    CHECK(whole - size_t(4 * kMost * (kMost + t.rows)) < small);
    CHECK(two->coverage_scratch(kMost, 8, t.rows, 16, whole - 1) == small);
    CHECK(same(select(*two, v.tensor(), t.tensor(), 16, whole), select(*three, v.tensor(), t.tensor(), 16, 0)));
  }
}

namespace {

struct Projector {
  Mat<float> p;
  std::vector<float> c;
  Projector(int64_t D, int64_t w, int64_t rank) : p(D, w, 0), c(size_t(D)) {
    Mat<float> left = random(D, rank), right = random(rank, w);
    for (int64_t d = 0; d < D; ++d) {
      for (int64_t j = 0; j < w; ++j)
        for (int64_t r = 0; r < rank; ++r) p.at(d, j) += left.at(d, r) * right.at(r, j) / std::sqrt(float(rank));
      c[size_t(d)] = normal();
    }
  }
  bg::Linear linear(bool bias) { return {{p.tensor().data, Type::f32, p.rows, p.cols}, bias ? c.data() : nullptr}; }
};

std::vector<size_t> order_taken(const Kept& k) {
  std::vector<size_t> order(k.index.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return k.gain[a] > k.gain[b]; });
  return order;
}

// How far a gain may lie from that of the projected rows. Similarities by δ = 4·max η + (D + w + 14)·u (slide_select.h); exponents by 5·δ, text rows
// by 2·50·δ (the largest similarity moves too); a quotient E/Z by twice that, and 2·(3u + u) for e^x and the sum of Z: e. A gain is a sum of C − best over entries
// of a total of at most `mass`: 2·e·mass.
double gain_bound(const bg::Linear& p, const Mat<float>& states, Mat<double>& rows, bool text) {
  const int64_t w = states.cols, D = p.w.rows;
  double frobenius = 0, worst = 0;
  std::vector<float> values(static_cast<size_t>(w));
  for (int64_t i = 0; i < D; ++i) {
    bg::read_row(values.data(), p.w, i);
    for (const float value : values) frobenius += std::pow(double(value), 2);
    if (p.b != nullptr) frobenius += double(p.b[i]) * p.b[i];
  }
  for (int64_t i = 0; i < states.rows; ++i) {
    double x = 1, v = 0;
    for (int64_t j = 0; j < w; ++j) x += double(states.at(i, j)) * states.at(i, j);
    for (int64_t d = 0; d < D; ++d) v += rows.at(i, d) * rows.at(i, d);
    worst = std::max(worst, (double(w) + 3) * u * std::sqrt(frobenius * x / v));
  }
  const double delta = 4 * worst + double(D + w + 14) * u, e = 2 * (text ? 100 : 5) * delta + 8 * u;
  return 2 * e * (text ? 1.5 : 1);
}

}  // namespace

TEST_CASE("coverage of slides: by 768 numbers as by projected rows, or the gap lies inside the bound") {
  for (const auto& [N, w, D, rank, m, bias] : std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, bool>>{
           {300, 24, 70, 24, 0, true}, {300, 24, 70, 24, 9, true}, {400, 24, 70, 5, 7, true}, {200, 24, 16, 16, 4, false}, {200, 17, 65, 17, 3, false}, {150, 8, 40, 1, 0, true}}) {
    INFO("N " << N << " w " << w << " D " << D << " rank " << rank << " m " << m << " bias " << bias);
    Mat<float> states = rows_of_kind("clustered", N, w), text = random(m, D), wide(N, D, 0);
    Projector projector(D, w, rank);
    const bg::Linear p = projector.linear(bias);
    const bg::SlideFactor factor = bg::factor_of(p);
    const Mat<double> states64 = widen(states);
    Mat<double> rows(N, D), inputs = states64;
    truth()->linear(rows.tensor(), inputs.tensor(), p.w, p.b);
    const double bound = gain_bound(p, states, rows, m > 0);
    const int64_t k = 12;
    for (const Backend& b : backends()) {
      if (b.label == "ref" || b.label.find("with 2") == std::string::npos) continue;
      b.ops->linear(wide.tensor(), states.tensor(), p.w, p.b);
      bg::Arena arena(*b.ops, size_t(32) << 20);
      const bg::Run run{*b.ops, arena};
      const Kept expected = bg::select_coverage(run, wide.tensor(), text.tensor(), k), kept = bg::select_slide_coverage(run, states.tensor(), p, factor, text.tensor(), k);
      CHECK(same(bg::select_slide_coverage(run, states.tensor(), p, factor, text.tensor(), k, 0), kept));
      const auto a = order_taken(expected), c = order_taken(kept);
      for (size_t i = 0; i < a.size(); ++i) {  // where they part, both took what was largest to them: the gap lies inside the bound too
        CHECK(std::fabs(expected.gain[a[i]] - kept.gain[c[i]]) <= bound);
        if (expected.index[a[i]] != kept.index[c[i]]) break;
      }
      if (rank == w) CHECK(kept.index == expected.index);  // gaps of these rows are far wider
    }
  }
}

TEST_CASE("coverage of slides: inner products of the short rows are those of the projected ones") {
  // Two orthogonal states, projected onto one line by different lengths: cosine −1, 0 or 1 must survive a projector of rank 1.
  Projector projector(9, 3, 1);
  const bg::Linear p = projector.linear(false);
  const bg::SlideFactor factor = bg::factor_of(p);
  Mat<float> states(6, 3, 0);
  for (int64_t i = 0; i < 6; ++i) states.at(i, i % 3) = i < 3 ? 1.0f : -2.0f;
  const std::unique_ptr<Ops> ops(bg::make_cpu_ops(1, bg::Isa::best, bg::Precision::float32));
  bg::Arena arena(*ops, size_t(8) << 20);
  const Kept kept = bg::select_slide_coverage({*ops, arena}, states.tensor(), p, factor, {}, 2);
  REQUIRE(kept.index.size() == 2);
  Mat<float> wide(6, 9, 0);
  ops->linear(wide.tensor(), states.tensor(), p.w, nullptr);
  CHECK(kept.coverage == doctest::Approx(bg::select_coverage({*ops, arena}, wide.tensor(), {}, 2).coverage).epsilon(1e-4));
  CHECK(bg::select_slide_coverage({*ops, arena}, states.tensor(), p, factor, {}, 6).index == std::vector<int64_t>{0, 1, 2, 3, 4, 5});
}

TEST_CASE("coverage of slides: 100,000 tiles at the 8B's width, in the memory plan") {
  const std::unique_ptr<Ops> cpu(bg::make_cpu_ops(8, bg::Isa::best, bg::Precision::float32)), plan = bg::make_plan_ops(*cpu);
  bg::Arena arena(*plan, 0);
  const int64_t N = 100000, w = 768, D = 4096;
  const bg::Linear projector{{nullptr, Type::bf16, D, w}, nullptr};
  const Tensor states = arena.tensor(N, w), text = arena.tensor(512, D);
  bg::select_slide_coverage({*plan, arena}, states, projector, {}, text, 128);
  CHECK(arena.peak() > size_t(N * w * 4));
  CHECK(arena.peak() < size_t(1'300'000'000));
}
