// Dilated attention against its bound, by hand and against goldens of the definition (tests/oracle/longnet.py); then the whole slide branch.
#include <algorithm>
#include <array>
#include <map>

#include "loaders/error.h"
#include "runtime/longnet.h"
#include "runtime/plan.h"
#include "runtime/trace.h"
#include "tests/kernels_support.h"
#include "tests/support.h"
#include "tests/tiny.h"

using namespace bg;
using kernels_test::backends;
using kernels_test::Backend;
using kernels_test::check_operation;
using kernels_test::Mat;
using kernels_test::random;
using kernels_test::u;

namespace {

constexpr Dilation kModel[] = {{512, 1}, {1024, 2}, {2048, 4}};
const std::vector<int64_t> kLengths = {1, 7, 511, 512, 513, 1024, 2049, 6000};

std::vector<Dilation> model_pairs(int64_t N) {
  std::vector<Dilation> pairs(std::begin(kModel), std::end(kModel));
  for (Dilation& p : pairs) p.segment = std::min(p.segment, N);
  return pairs;
}

// As values() of the oracle: 24 bits of SplitMix64 in [−2, 2).
float value(uint64_t seed, int64_t i) {
  uint64_t z = seed + uint64_t(i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return float(int64_t(z >> 40) - (1 << 23)) * 0x1p-22f;
}

Mat<float> values(uint64_t seed, int64_t rows, int64_t cols) {
  Mat<float> m(rows, cols);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) m.at(r, c) = value(seed, r * cols + c);
  return m;
}

// The contract's bound of every element, from the definition.
Mat<double> dilated_bound(bool fast, const Mat<float>& q, const Mat<float>& k, const Mat<float>& v, int64_t heads, const std::vector<Dilation>& pairs) {
  const int64_t T = q.rows, d = q.cols / heads;
  Mat<double> out(T, q.cols);
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      double A = 0, S = 0, weights = 0;
      std::vector<double> sum(static_cast<size_t>(d));
      for (const Dilation& p : pairs) {
        const int64_t start = t / p.segment * p.segment, j = h / ((heads + p.dilation - 1) / p.dilation);
        if ((t - start) % p.dilation != j) continue;
        const int64_t end = std::min(T, start + p.segment);  // from here on zero rows
        double keys = 0, total = 0;                          // scores here are small enough for e^z
        std::vector<double> absolute(static_cast<size_t>(d));
        for (int64_t i = start + j; i < start + (p.segment + p.dilation - 1) / p.dilation * p.dilation; i += p.dilation) {
          keys += 1;
          double z = 0, a = 0;
          for (int64_t c = h * d; i < end && c < (h + 1) * d; ++c) {
            z += double(q.at(t, c)) * k.at(i, c) / std::sqrt(double(d));
            a += std::fabs(double(q.at(t, c)) * k.at(i, c)) / std::sqrt(double(d));
          }
          A = std::max(A, a);
          total += std::exp(z);
          for (int64_t c = 0; i < end && c < d; ++c) absolute[size_t(c)] += std::exp(z) * std::fabs(double(v.at(i, h * d + c)));
        }
        S = std::max(S, keys);
        weights += total;  // w ∝ e^s = Σ e^z, so w·Σ p|v| ∝ Σ e^z·|v|
        for (size_t c = 0; c < size_t(d); ++c) sum[c] += absolute[c];
      }
      const double factor = u * (4 * (double(d) + 6) * A + 7 * S + 12 * double(pairs.size()) + 40) + (fast ? 0x1p-8 * (8 * A + 2.5) : 0);
      for (int64_t c = 0; c < d; ++c) out.at(t, h * d + c) = weights == 0 ? 0 : factor * sum[size_t(c)] / weights;  // no pair has the row: 0
    }
  }
  return out;
}

}  // namespace

TEST_CASE("attention_dilated: within the bound, any number of threads") {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{8, 4}, {6, 5}, {3, 7}, {1, 12}, {5, 2}};
  const std::vector<Dilation> nested = {{8, 1}, {16, 2}, {32, 4}}, one = {{5, 3}}, odd = {{7, 4}, {9, 2}, {3, 5}, {100, 1}};
  const auto check = [](int64_t T, int64_t heads, int64_t d, const std::vector<Dilation>& pairs, float scale) {
    const Mat<float> q = random(T, heads * d, scale, 1), k = random(T, heads * d, 1, 2), v = random(T, heads * d), empty(T, heads * d, 5);
    for (const bool fast : {false, true}) {
      const Mat<double> bound = dilated_bound(fast, q, k, v, heads, pairs);
      check_operation("attention_dilated T " + std::to_string(T) + " heads " + std::to_string(heads) + " d " + std::to_string(d), empty, {q, k, v},
                      [&](Ops& o, Tensor y, const std::vector<Tensor>& in) {
                        o.attention_dilated(y, in[0], in[1], in[2], heads, pairs.data(), int64_t(pairs.size()));
                      },
                      [&](int64_t t, int64_t c, double) { return bound.at(t, c); }, fast ? kernels_test::fast_backends() : backends());
    }
  };
  for (const auto& [heads, d] : shapes) {
    for (const int64_t T : {1, 3, 7, 8, 9, 31, 32, 33, 101}) check(T, heads, d, nested, T % 2 == 0 ? 1.0f : 3.0f);
    for (const int64_t T : {2, 26, 105}) {
      check(T, heads, d, one, 1);
      check(T, heads, d, odd, 2);
    }
  }
  check(67, 2, 96, nested, 1);
  check(35, 1, 256, nested, 1);
  check(515, 3, 8, model_pairs(515), 1);
  check(700, 2, 4, model_pairs(5000), 2);
}

TEST_CASE("attention_dilated: by hand, with queries of zero") {
  // Every key weighs the same, so o_p is a mean over the kept rows, zero rows included, and e^s their number. Two heads; dilation 2 gives head 0 the even rows.
  for (const Backend& b : backends()) {
    INFO(b.label);
    Mat<float> q(3, 2), k = random(3, 2), v(3, 2), o(3, 2);
    for (int64_t t = 0; t < 3; ++t) v.at(t, 0) = v.at(t, 1) = t == 0 ? 5.0f : t == 1 ? 10.0f : 40.0f;
    const Dilation pairs[] = {{3, 1}, {3, 2}};
    b.ops->attention_dilated(o.tensor(), q.tensor(), k.tensor(), v.tensor(), 2, pairs, 2);
    const double all = 55;
    const auto near = [&](int64_t t, int64_t h, double expected) { CHECK(std::fabs(o.at(t, h) - expected) <= 100 * u * expected); };
    near(0, 0, (all + 5 + 40) / 5);   // rows 0, 2
    near(1, 0, all / 3);              // not kept by dilation 2
    near(2, 0, (all + 5 + 40) / 5);
    near(0, 1, all / 3);
    near(1, 1, (all + 10) / 5);       // row 1 and the zero row 3
    near(2, 1, all / 3);

    // One row: s is 0 in every pair, so all count as missing, each with a third; head 1 has no value in the last two.
    Mat<float> one(1, 2);
    const Dilation three[] = {{1, 1}, {1, 2}, {1, 4}};
    b.ops->attention_dilated(one.tensor(), q.tensor().row_range(0, 1), k.tensor().row_range(0, 1), v.tensor().row_range(0, 1), 2, three, 3);
    CHECK(std::fabs(one.at(0, 0) - 5) <= 100 * u * 5);
    CHECK(std::fabs(one.at(0, 1) - 5.0 / 3) <= 100 * u * 5);
    // Two rows: alone in its pair of dilation 2, a row has s = 0 there and the pair is missing, though it has a value.
    Mat<float> two(2, 2);
    const Dilation halves[] = {{2, 1}, {2, 2}};
    b.ops->attention_dilated(two.tensor(), q.tensor().row_range(0, 2), k.tensor().row_range(0, 2), v.tensor().row_range(0, 2), 2, halves, 2);
    for (int64_t t = 0; t < 2; ++t)
      for (int64_t h = 0; h < 2; ++h) CHECK(two.at(t, h) == 7.5f);
  }
}

TEST_CASE("attention_dilated: segments stand alone: cut calls give the same bits, and a NaN stays in its segments") {
  const std::vector<Dilation> pairs = {{8, 1}, {16, 2}, {32, 4}};
  const int64_t T = 77, heads = 8, d = 5;
  Mat<float> q = random(T, heads * d), k = random(T, heads * d), v = random(T, heads * d);
  k.at(40, 2 * d) = NAN;  // head 2: group 0 of dilation 2 (even rows: keeps 40), group 1 of dilation 4 (does not keep 32 + 8)
  for (const Backend& b : backends()) {
    Mat<float> whole(T, heads * d), parts(T, heads * d);
    b.ops->attention_dilated(whole.tensor(), q.tensor(), k.tensor(), v.tensor(), heads, pairs.data(), 3);
    for (const auto& [first, n] : {std::pair<int64_t, int64_t>{0, 64}, {64, 13}}) {
      b.ops->attention_dilated(parts.tensor().row_range(first, n), q.tensor().row_range(first, n), k.tensor().row_range(first, n), v.tensor().row_range(first, n), heads,
                               pairs.data(), 3);
    }
    CHECK_MESSAGE(whole.same_bits(parts), b.label);
    int wrong = 0;
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const bool sees = h == 2 && ((t >= 40 && t < 48) || (t >= 32 && t < 48 && t % 2 == 0));
        for (int64_t c = h * d; c < (h + 1) * d; ++c) wrong += std::isnan(whole.at(t, c)) != sees;
      }
    }
    CHECK_MESSAGE(wrong == 0, b.label);
  }
}

TEST_CASE("attention_dilated: against the definition in float64, the model's segments") {
  const Golden golden(golden_path("longnet/attention.safetensors"));
  for (const auto& [heads, d] : std::vector<std::pair<int64_t, int64_t>>{{8, 4}, {6, 5}, {3, 7}}) {
    for (const int64_t N : kLengths) {
      const std::string name = std::to_string(N) + "." + std::to_string(heads) + "." + std::to_string(d) + ".";
      const std::vector<int64_t> rows = golden.integers(name + "rows");
      const std::vector<double> expected = golden.values(name + "o");
      const std::vector<Dilation> pairs = model_pairs(N);
      Mat<float> q = values(1, N, heads * d), k = values(2, N, heads * d), v = values(3, N, heads * d), first(0, 0);
      std::string isa;
      for (const Backend& b : backends()) {
        if (heads > 3 && N > 7 && std::string(b.ops->name()) == "emulated") continue;  // time
        if (b.label == "ref" ? N > 7 && N != 513 : N == 6000 && b.label.find("with 2 ") == std::string::npos) continue;  // time
        Mat<float> o(N, heads * d);
        b.ops->attention_dilated(o.tensor(), q.tensor(), k.tensor(), v.tensor(), heads, pairs.data(), 3);
        std::vector<double> got;
        for (const int64_t t : rows)
          for (int64_t c = 0; c < heads * d; ++c) got.push_back(o.at(t, c));
        CHECK_MESSAGE(relative_error(got, expected) <= 1e-5, name << " " << b.label);
        if (isa != b.ops->name()) first = o;
        isa = b.ops->name();
        CHECK_MESSAGE(o.same_bits(first), name << " " << b.label << " differs from one thread");
      }
      if (N > 7 && N != 513) continue;
      Mat<double> q64 = widen(q), k64 = widen(k), v64 = widen(v), o64(N, heads * d);
      kernels_test::truth()->attention_dilated(o64.tensor(), q64.tensor(), k64.tensor(), v64.tensor(), heads, pairs.data(), 3);
      std::vector<double> got;
      for (const int64_t t : rows)
        for (int64_t c = 0; c < heads * d; ++c) got.push_back(o64.at(t, c));
      CHECK_MESSAGE(relative_error(got, expected) <= 1e-12, name << " ref64");
    }
  }
}

namespace {

struct Slide {
  std::shared_ptr<const Model> model = tiny_model("tiny-breastgpt");
  std::vector<float> features;
  int64_t N, D = model->config.slide.feature_dim, h = model->config.text.hidden;

  explicit Slide(int64_t tiles) : N(tiles) {
    for (int64_t i = 0; i < N * D; ++i) features.push_back(value(4, i));
  }
  std::vector<Tensor> tensors(Arena& arena, int64_t n, int64_t cols) const {
    std::vector<Tensor> list;
    for (int64_t i = 0; i < n; ++i) list.push_back(arena.tensor(N, cols));
    return list;
  }
};

// Every stage of the branch, by its trace name.
std::map<std::string, std::vector<double>> trace_slide(const Slide& s, Ops& ops) {
  TempDir folder;
  Arena arena(ops, size_t(128) << 20);
  {
    Trace trace(folder.file("trace"), true);
    const Run run{ops, arena, &trace, nullptr};
    const std::vector<Tensor> states = s.tensors(arena, s.model->config.slide.layers, s.D), features = s.tensors(arena, 1 + int64_t(states.size()), s.h);
    longnet(run, s.model->config.slide, s.model->weights.slide, s.features.data(), states);
    project_slide(run, s.model->weights.slide, states, features);
  }
  return read_trace_data(folder.file("trace"));
}

}  // namespace

TEST_CASE("longnet: every stage against the definition in float64") {
  const Golden golden(golden_path("longnet/branch.safetensors"));
  for (const int64_t N : kLengths) {
    const Slide slide(N);
    const std::string prefix = std::to_string(N) + ".";
    const std::vector<int64_t> rows = golden.integers(prefix + "rows");
    for (Ops* const made : {make_cpu_ops(2, Isa::best, bg::Precision::float32), make_cpu_ops(2, Isa::portable, bg::Precision::float32), make_ref_ops(Type::f32), make_ref_ops(Type::f64)}) {
      const std::unique_ptr<Ops> ops(made);
      const std::string backend = ops->name();
      if (backend[0] == 'r' ? N > 7 && N != 513 : backend == "cpu/portable" && N == 6000) continue;  // time
      const double bound = ops->type() == Type::f64 ? 0x1p-24 : 1e-5;  // the goldens are rounded to float
      const auto stages = trace_slide(slide, *ops);
      int compared = 0;
      for (const std::string& name : golden.names()) {
        if (name.rfind(prefix + "slide.", 0) != 0) continue;
        const std::string stage = name.substr(prefix.size());
        CAPTURE(name);
        CAPTURE(backend);
        REQUIRE(stages.count(stage) == 1);
        const std::vector<double>& all = stages.at(stage);
        const std::vector<double> expected = golden.values(name);
        const size_t width = expected.size() / rows.size();
        REQUIRE(all.size() == size_t(N) * width);
        std::vector<double> got;
        for (const int64_t t : rows) got.insert(got.end(), all.begin() + t * int64_t(width), all.begin() + (t + 1) * int64_t(width));
        if (stage == "slide.features")
          CHECK(got == expected);
        else
          CHECK(relative_error(got, expected) <= bound);
        ++compared;
      }
      CHECK(compared == 1 + 3 * 3 + 3 + 1);
    }
  }
}

TEST_CASE("longnet: features are rounded to bfloat16, ties to even") {
  Slide slide(1);
  slide.features.assign(size_t(slide.D), 0.0f);
  const std::vector<std::pair<float, float>> cases = {{1 + 0x1p-8f, 1.0f},         {1 + 3 * 0x1p-8f, 1 + 0x1p-6f}, {1 + 0x1.002p-8f, 1 + 0x1p-7f}, {-1 - 0x1p-8f, -1.0f},
                                                      {0x1p-140f, 0x1p-133f * 0}, {0x1.8p-133f, 0x1p-132f},       {-0.0f, -0.0f},                {0x1.fep127f, 0x1.fep127f}};
  for (size_t i = 0; i < cases.size(); ++i) slide.features[i] = cases[i].first;
  const auto check = [&](const std::vector<double>& x) {
    for (size_t i = 0; i < cases.size(); ++i) CHECK(x[i] == cases[i].second);
  };
  check(trace_slide(slide, *kernels_test::truth()).at("slide.features"));
  slide.features[0] = 0x1.ffp127f;  // beyond the largest bfloat16
  slide.features[1] = NAN;
  const std::vector<double> x = trace_slide(slide, *backends().back().ops).at("slide.features");
  CHECK(x[0] == INFINITY);
  CHECK(std::isnan(x[1]));
}

TEST_CASE("longnet: chosen rows, same bits for any threads, planned memory") {
  const Slide slide(2100);
  const Model& m = *slide.model;
  std::vector<float> first;
  for (const int threads : {1, 2, 3, 8}) {
    const std::unique_ptr<Ops> ops(make_cpu_ops(threads, Isa::best, bg::Precision::float32));
    const std::unique_ptr<Ops> plan = make_plan_ops(*ops);
    Arena counting(*plan, 0);
    longnet({*plan, counting, nullptr, nullptr}, m.config.slide, m.weights.slide, nullptr, slide.tensors(counting, 3, slide.D));
    const size_t needed = counting.peak();
    Arena arena(*ops, needed);  // just enough
    const Run run{*ops, arena, nullptr, nullptr};
    const std::vector<Tensor> states = slide.tensors(arena, 3, slide.D);
    longnet(run, m.config.slide, m.weights.slide, slide.features.data(), states);
    Arena more(*ops, size_t(16) << 20);
    const std::vector<int64_t> chosen = {0, 5, 2047, 2048, 2099};
    const Tensor all = more.tensor(slide.N, slide.h), rows = more.tensor(5, slide.D), out = more.tensor(5, slide.h);
    project_rows(run, m.weights.slide.projector, states[2], all);
    ops->gather_rows(rows, states[2], chosen.data());
    project_rows(run, m.weights.slide.projector, rows, out);
    std::vector<float> whole(size_t(slide.N * slide.h)), some(size_t(5 * slide.h));
    ops->read(whole.data(), all);
    ops->read(some.data(), out);
    for (size_t i = 0; i < 5; ++i) CHECK(std::memcmp(&some[i * size_t(slide.h)], &whole[size_t(chosen[i] * slide.h)], size_t(slide.h) * 4) == 0);
    if (first.empty()) first = whole;
    CHECK(std::memcmp(first.data(), whole.data(), whole.size() * 4) == 0);
  }
}

TEST_CASE("longnet: scratch does not grow with the slide") {
  const std::unique_ptr<Ops> real(make_ref_ops(Type::f32)), ops = make_plan_ops(*real);
  const Slide slide(1);
  size_t peaks[2];
  for (const int64_t N : {4096, 1'000'000}) {
    Arena arena(*ops, 0);
    const Tensor state{nullptr, Type::f32, N, slide.D, slide.D};
    longnet({*ops, arena, nullptr, nullptr}, slide.model->config.slide, slide.model->weights.slide, nullptr, {state, state, state});
    peaks[N == 4096 ? 0 : 1] = arena.peak();
  }
  CHECK(peaks[0] == peaks[1]);
}

TEST_CASE("longnet: a slide without tiles is refused; a cancelled one stops") {
  const std::unique_ptr<Ops> ops(make_ref_ops(Type::f32));
  const Slide slide(3);
  Arena arena(*ops, 1 << 20);
  const Tensor empty = arena.tensor(0, slide.D);
  CHECK_THROWS_WITH_AS(longnet({*ops, arena, nullptr, nullptr}, slide.model->config.slide, slide.model->weights.slide, nullptr, {empty, empty, empty}),
                       "a slide without tiles: give at least one tile feature", Error);
  int asked = 0;
  Callbacks callbacks;
  callbacks.cancel = [&] { return ++asked == 2; };
  const Run run{*ops, arena, nullptr, &callbacks};
  CHECK_THROWS_WITH_AS(longnet(run, slide.model->config.slide, slide.model->weights.slide, slide.features.data(), slide.tensors(arena, 3, slide.D)),
                       "cancelled by the caller during slide", Error);
}
