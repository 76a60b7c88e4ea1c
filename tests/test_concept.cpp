// The learned ConceptSelector: its operations within their bounds, its choices against goldens of the definition (tests/oracle/concept.py), its weights.
#include <algorithm>
#include <array>
#include <numeric>

#include "loaders/error.h"
#include "runtime/plan.h"
#include "runtime/selector.h"
#include "tests/checkpoint.h"
#include "tests/kernels_support.h"
#include "tests/support.h"
#include "tests/tiny.h"
#include "weights_convert/convert.h"

using namespace bg;
using kernels_test::backends;
using kernels_test::Backend;
using kernels_test::check_operation;
using kernels_test::Mat;
using kernels_test::random;
using kernels_test::u;

TEST_CASE("products: within the bound; scale") {
  for (const auto& [T, N, D] : std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {3, 50, 5}, {17, 3, 16}, {130, 53, 33}, {129, 49, 96}, {9, 7, 520}}) {
    const Mat<float> a = random(T, D), b = random(N, D, 1, 0), empty(T, N, 4);
    check_operation("products", empty, {a, b}, [](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.products(y, in[0], in[1]); },
                    [&](int64_t t, int64_t n, double) {
                      double sum = 0;
                      for (int64_t j = 0; j < a.cols; ++j) sum += std::fabs(double(a.at(t, j)) * b.at(n, j));
                      return double(a.cols + 2) * u * sum;
                    });
    check_operation("scale", a, {}, [](Ops& o, Tensor y, const std::vector<Tensor>&) { o.scale(y, 1 / 3.0); }, [](int64_t, int64_t, double y) { return 2 * u * std::fabs(y); });
  }
}

namespace {

// concept_scores on a copy of z, which it overwrites.
void score(Ops& ops, Tensor y, Tensor z, int64_t heads) {
  const size_t bytes = size_t(z.rows * z.cols) * type_size(ops.type());
  Tensor copy = z;
  copy.data = ops.allocate(bytes);
  copy.stride = z.cols;
  ops.copy(copy, z);
  void* scratch = ops.allocate(ops.concept_scratch(z.cols));
  ops.concept_scores(y, copy, heads, scratch);
  ops.release(scratch, ops.concept_scratch(z.cols));
  ops.release(copy.data, bytes);
}

}  // namespace

TEST_CASE("concept_scores: within the bound, floor and NaN") {
  for (const auto& [L, heads, C] : std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {2, 8, 33}, {97, 3, 5}, {300, 2, 64}, {41, 1, 7}}) {
    for (const float scale : {1.0f, 12.0f}) {
      Mat<float> z = random(L, heads * C, scale);
      if (L == 41) z.at(3, 2) = NAN, z.at(0, 4) = NAN;
      double most = 0;
      for (int64_t l = 0; l < L; ++l)
        for (int64_t c = 0; c < heads * C; ++c) most = std::fmax(most, std::fabs(z.at(l, c)));
      check_operation("concept_scores", Mat<float>(L, 1), {z}, [&, H = heads](Ops& o, Tensor y, const std::vector<Tensor>& in) { score(o, y, in[0], H); },
                      [&](int64_t, int64_t, double y) { return u * (4 * most + 8 + std::fabs(y)); });
    }
  }
  // One head, two concepts: concept 0 divides 3 : 1 between the rows 0 and 1, concept 1 gives row 1 everything.
  for (const Backend& b : backends()) {
    Mat<float> z(3, 2), y(3, 1);
    z.at(0, 0) = std::log(3.0f);
    z.at(2, 0) = -100;
    z.at(1, 1) = 200;
    score(*b.ops, y.tensor(), z.tensor(), 1);
    CHECK(std::fabs(y.at(0, 0) - std::log(0.75)) <= 1000 * u);
    CHECK(y.at(1, 0) == 0);
    CHECK(y.at(2, 0) == float(std::log(1e-8)));
  }
}

namespace {

// A golden case as the selector's inputs, float32 in the files.
struct ConceptCase {
  Golden golden;
  std::vector<float> v, text, q, k, queries, gate, bias;
  int64_t D, L, m;
  ConceptWeights weights;

  explicit ConceptCase(const std::string& name) : golden(golden_path("concept/" + name + ".safetensors")) {
    for (auto& [key, to] : std::vector<std::pair<const char*, std::vector<float>*>>{
             {"v", &v}, {"text", &text}, {"q", &q}, {"k", &k}, {"queries", &queries}, {"gate", &gate}, {"bias", &bias}}) {
      const std::vector<double> values = golden.values(key);
      to->assign(values.begin(), values.end());
    }
    D = int64_t(gate.size());
    L = int64_t(v.size()) / D;
    m = int64_t(text.size()) / D;
    weights = {{q.data(), Type::f32, D, D}, {k.data(), Type::f32, D, D}, {queries.data(), Type::f32, 32, D}, {gate.data(), Type::f32, 1, D}, bias[0]};
  }

  // How far a score may be off, in units of u. The gate's argument by x = (D + 2)·mean Σ|T·w| + 1, so g and 1−g relatively by x + 2; a concept by two
  // roundings more, q by D + 2 and two for 1/√d, a key by D + 2, z by d + 2: in all e·M, M the largest Σ|q|·|k| with absolute values inside. Twice that
  // and the contract of concept_scores.
  double score_bound(double floor_score) const {
    const int64_t d = D / 8;
    const auto abs_product = [&](const std::vector<float>& x, int64_t row, const std::vector<float>& w, int64_t j) {
      double sum = 0;
      for (int64_t i = 0; i < D; ++i) sum += std::fabs(double(x[size_t(row * D + i)]) * w[size_t(j * D + i)]);
      return sum;
    };
    double x = 1;
    for (int64_t i = 0; i < m; ++i) x += (double(D) + 2) * abs_product(text, i, gate, 0) / double(m);
    std::vector<double> keys(v.size());
    for (int64_t l = 0; l < L; ++l)
      for (int64_t j = 0; j < D; ++j) keys[size_t(l * D + j)] = abs_product(v, l, k, j);
    double M = 0;
    for (int64_t c = 0; c < 32 + m; ++c) {
      std::vector<double> query;
      for (int64_t j = 0; j < D; ++j) query.push_back(c < 32 ? abs_product(queries, c, q, j) : abs_product(text, c - 32, q, j));
      for (int64_t l = 0; l < L; ++l) {
        for (int64_t h = 0; h < 8; ++h) {
          double sum = 0;
          for (int64_t j = h * d; j < (h + 1) * d; ++j) sum += query[size_t(j)] * keys[size_t(l * D + j)];
          M = std::max(M, sum / std::sqrt(double(d)));
        }
      }
    }
    return 2 * (x + 2 * double(D) + double(d) + 12) * M + 4 * M + 8 + std::fabs(floor_score);
  }
};

template <class Select>
Kept with_memory(Ops& ops, const Select& select) {
  const std::unique_ptr<Ops> plan = make_plan_ops(ops);
  Arena counting(*plan, 0);
  select(Run{*plan, counting, nullptr, nullptr});
  Arena arena(ops, std::max<size_t>(counting.peak(), 1));  // just enough
  return select(Run{ops, arena, nullptr, nullptr});
}

Tensor upload(const Run& run, const std::vector<float>& x, int64_t cols) {
  const Tensor t = run.arena.tensor(int64_t(x.size()) / cols, cols);
  run.ops.write(t, x.data());
  return t;
}

}  // namespace

TEST_CASE("ConceptSelector: goldens of the definition") {
  for (const char* name : {"random", "one-text-row", "long-text", "gate-open", "gate-shut", "duplicated", "constant", "floor", "zero-rows", "wide"}) {
    const ConceptCase c(name);
    const std::vector<double> scores = c.golden.values("score");
    const double bound = c.score_bound(std::log(1e-8));
    int budgets = 0;
    for (const std::string& key : c.golden.names()) {
      if (key.rfind("kept.", 0) != 0) continue;
      const int64_t k = std::stoll(key.substr(5));
      ++budgets;
      const auto check = [&](Ops& ops, const std::string& label, double unit) {
        INFO(std::string(name) << " " << key << " " << label);
        const Kept kept = with_memory(ops, [&](const Run& run) { return select_concept(run, c.weights, upload(run, c.v, c.D), upload(run, c.text, c.D), k); });
        CHECK(kept.index == c.golden.integers(key));
        CHECK(kept.gain.size() == (c.L <= k ? 0 : size_t(k)));
        double sum = 0;
        for (size_t i = 0; i < kept.gain.size(); ++i) {
          const double expected = std::exp(scores[size_t(kept.index[i])]);
          CHECK(std::fabs(kept.gain[i] - expected) <= expected * std::expm1(unit * bound));
          sum += kept.gain[i];
        }
        CHECK(kept.coverage == sum);
        double whole = 0;
        for (const double s : scores) whole += std::exp(s);
        if (c.L > k) CHECK(std::fabs(kept.whole - whole) <= whole * std::expm1(unit * bound));
      };
      for (const Backend& b : backends()) check(*b.ops, b.label, u);
      check(*kernels_test::truth(), "ref64", 2 * 0x1p-53);  // the golden's own error as well
    }
    CHECK(budgets > 0);
  }
}

TEST_CASE("ConceptSelector: a slide's features block by block are the features as a whole") {
  const ConceptCase c("wide");
  const int64_t N = 1500, d = 40;  // more than one block
  const Mat<float> states = random(N, d, 1, 0), p = random(c.D, d, 0.2f, 0);
  std::vector<float> x, weight, bias(size_t(c.D), 0.25f);
  for (int64_t t = 0; t < N; ++t)
    for (int64_t j = 0; j < d; ++j) x.push_back(states.at(t, j));
  for (int64_t n = 0; n < c.D; ++n)
    for (int64_t j = 0; j < d; ++j) weight.push_back(p.at(n, j));
  const Linear projector{{weight.data(), Type::f32, c.D, d}, bias.data()};
  std::string isa;
  Kept first;
  for (const Backend& b : backends()) {
    INFO(b.label);
    const Kept kept = with_memory(*b.ops, [&](const Run& run) { return select_concept(run, c.weights, projector, upload(run, x, d), upload(run, c.text, c.D), 128); });
    const Kept whole = with_memory(*b.ops, [&](const Run& run) {
      const Tensor v = run.arena.tensor(N, c.D);
      run.ops.linear(v, upload(run, x, d), projector.w, projector.b);
      return select_concept(run, c.weights, v, upload(run, c.text, c.D), 128);
    });
    CHECK(kept.index == whole.index);
    CHECK(kept.gain == whole.gain);
    if (isa != b.ops->name()) first = kept;
    isa = b.ops->name();
    CHECK(kept.gain == first.gain);  // any number of threads
  }
}

TEST_CASE("ConceptSelector: no text is refused where it is needed; NaN features keep the first rows") {
  ConceptCase c("random");
  for (const Backend& b : backends()) {
    if (b.label != "ref" && b.label.find("with 2") == std::string::npos) continue;
    Arena arena(*b.ops, 1 << 20);
    const Run run{*b.ops, arena, nullptr, nullptr};
    const Tensor v = upload(run, c.v, c.D);
    CHECK_THROWS_WITH_AS(select_concept(run, c.weights, v, {}, 5), "the ConceptSelector weighs its concepts by the text of the prompt, and there is none; give a question", Error);
    CHECK(select_concept(run, c.weights, v, {}, c.L).index.size() == size_t(c.L));
    c.v[size_t(7 * c.D)] = NAN;
    const Kept kept = select_concept(run, c.weights, upload(run, c.v, c.D), upload(run, c.text, c.D), 3);
    CHECK(kept.index == std::vector<int64_t>{0, 1, 2});
    c.v[size_t(7 * c.D)] = 0;
  }
}

TEST_CASE("ConceptSelector: weights of both instances, read from a converted checkpoint") {
  const ConceptCase c("wide");
  const TempDir dir;
  TestCheckpoint checkpoint = TestCheckpoint::read(golden_path("tiny-breastgpt"));
  REQUIRE(checkpoint.tensors.at("model.language_model.norm.weight").shape[0] == c.D);
  for (const std::string part : {"visual_selector.", "deepstack_selector."}) {
    const float factor = part[0] == 'v' ? 1.0f : -1.0f;
    const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, std::vector<float> x) {
      for (float& f : x) f *= factor;
      checkpoint.tensors[part + name] = {"F32", shape, std::string(reinterpret_cast<const char*>(x.data()), x.size() * 4)};
    };
    add("cross_attn.q_proj.weight", {c.D, c.D}, c.q);
    add("cross_attn.k_proj.weight", {c.D, c.D}, c.k);
    add("concept_queries", {1, 32, c.D}, c.queries);
    add("concept_gate.0.weight", {1, c.D}, c.gate);
    add("concept_gate.0.bias", {1}, c.bias);
  }
  checkpoint.edit("config.json", "CoverageTokenSelector", "ConceptSelector");
  checkpoint.write(dir.file("learned"));
  ConvertOptions options;
  options.input = dir.file("learned");
  options.target = dir.file("learned.gguf");
  options.matrices = Type::f32;
  options.layout = bg::Layout::rows;
  convert_checkpoint(options);
  const Model model(options.target);

  const auto same = [](const float* a, const std::vector<float>& b, float factor) {
    for (size_t i = 0; i < b.size(); ++i)
      if (a[i] != factor * b[i]) return false;
    return true;
  };
  for (const float factor : {1.0f, -1.0f}) {
    const ConceptWeights& w = factor > 0 ? model.weights.concept_top : model.weights.concept_deep;
    CHECK(same(static_cast<const float*>(w.q.data), c.q, factor));
    CHECK(same(static_cast<const float*>(w.k.data), c.k, factor));
    CHECK(same(static_cast<const float*>(w.queries.data), c.queries, factor));
    CHECK(same(static_cast<const float*>(w.gate.data), c.gate, factor));
    CHECK(w.gate_bias == factor * c.bias[0]);
    CHECK(w.queries.rows == 32);
  }
  const std::unique_ptr<Ops> ops(make_cpu_ops(2, Isa::best, bg::Precision::float32));
  const Kept kept = with_memory(*ops, [&](const Run& run) { return select_concept(run, model.weights.concept_top, upload(run, c.v, c.D), upload(run, c.text, c.D), 10); });
  CHECK(kept.index == c.golden.integers("kept.10"));
  CHECK(tiny_model("tiny-breastgpt")->weights.concept_top.q.data == nullptr);
}
