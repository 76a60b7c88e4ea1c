// Sampling: the order of the filters, ties, log-probabilities of the untouched distribution, and the generator's spread.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>

#include "loaders/error.h"
#include "runtime/answer.h"
#include "runtime/sampler.h"

using namespace bg;

namespace {

int32_t next(Ops& ops, Tensor logits, const Sampling& s, uint64_t counter, const std::vector<int32_t>& seen, double* logprob) {
  Arena arena(ops, size_t(1) << 20);
  const Run run{ops, arena, nullptr, nullptr};
  return next_token(run, logits, s, seen, counter, logprob);
}

int32_t pick(std::vector<double> logits, const Sampling& s, uint64_t counter = 0, const std::vector<int32_t>& seen = {}, double* logprob = nullptr) {
  static const std::unique_ptr<Ops> ops(make_ref_ops(Type::f64));
  double unused = 0;
  const int64_t V = int64_t(logits.size());
  return next(*ops, {logits.data(), Type::f64, 1, V, V}, s, counter, seen, logprob ? logprob : &unused);
}

// MODEL.md §6 as it stands there: everything sorted, nothing left to a backend. rank: of the token, counted from 0.
int32_t plain(const std::vector<float>& logits, const Sampling& s, uint64_t counter, const std::vector<int32_t>& seen, double* logprob, size_t* rank) {
  std::vector<double> x(logits.begin(), logits.end());
  double norm = 0;
  for (const double v : x) norm += std::exp(v);
  for (const int32_t id : seen) {
    double& v = x[size_t(id)];
    v = float(v > 0 ? v / s.repetition_penalty : v * s.repetition_penalty);
  }
  std::vector<int32_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return x[size_t(a)] > x[size_t(b)]; });
  if (s.top_k > 0 && size_t(s.top_k) < order.size()) order.resize(size_t(s.top_k));
  std::vector<double> p;
  double sum = 0, kept = 0;
  for (const int32_t id : order) sum += p.emplace_back(std::exp((x[size_t(id)] - x[size_t(order[0])]) / s.temperature));
  size_t n = 0;
  while (n < p.size() && (n == 0 || kept < s.top_p * sum)) kept += p[n++];
  double target = uniform(s.seed, counter) * kept;
  *rank = 0;
  while (*rank + 1 < n && (target -= p[*rank]) >= 0) ++*rank;
  *logprob = double(logits[size_t(order[*rank])]) - std::log(norm);
  return order[*rank];
}

}  // namespace

TEST_CASE("sampler: greedy takes the largest, the lowest id on a tie") {
  CHECK(pick({1, 3, 3, 2}, {}) == 1);
  double logprob = 0;
  CHECK(pick({0, std::log(3.0)}, {}, 0, {}, &logprob) == 1);
  CHECK(std::abs(logprob - std::log(0.75)) < 1e-15);
}

TEST_CASE("sampler: repetition penalty divides positive and multiplies negative logits, log-probabilities stay the model's") {
  Sampling s;
  s.repetition_penalty = 2;
  CHECK(pick({4, 3}, s, 0, {0}) == 1);      // 4/2 < 3
  CHECK(pick({-1, -1.5}, s, 0, {0}) == 1);  // −2 < −1.5
  double logprob = 0;
  CHECK(pick({4, 3}, s, 0, {0}, &logprob) == 1);
  CHECK(std::abs(logprob - (3 - std::log(std::exp(4.0) + std::exp(3.0)))) < 1e-14);
}

TEST_CASE("sampler: top-k and top-p keep exactly what they say") {
  Sampling s;
  s.temperature = 1;
  s.top_k = 2;
  for (uint64_t i = 0; i < 500; ++i) CHECK(pick({0, 1, 2, 1}, s, i) != 0);
  for (uint64_t i = 0; i < 500; ++i) CHECK(pick({0, 1, 2, 1}, s, i) != 3);  // ties: the lower id stays
  s.top_k = 0;
  s.top_p = 0.5;  // probabilities .1 .2 .3 .4: {3, 2} reach .5
  for (uint64_t i = 0; i < 500; ++i) CHECK(pick({std::log(.1), std::log(.2), std::log(.3), std::log(.4)}, s, i) >= 2);
  s.top_p = 1e-9;
  for (uint64_t i = 0; i < 50; ++i) CHECK(pick({0, 1, 0}, s, i) == 1);
}

TEST_CASE("sampler: frequencies follow the softmax at the temperature") {
  Sampling s;
  s.temperature = 2;
  s.seed = 7;
  const std::vector<double> logits = {0, 1, 2, 3};
  double sum = 0;
  for (double v : logits) sum += std::exp(v / 2);
  const int n = 20000;
  std::vector<int> count(4);
  for (int i = 0; i < n; ++i) ++count[size_t(pick(logits, s, uint64_t(i)))];
  for (size_t i = 0; i < 4; ++i) {
    const double p = std::exp(logits[i] / 2) / sum;
    CHECK(std::abs(count[i] - n * p) <= 5 * std::sqrt(n * p * (1 - p)));  // five standard deviations
  }
}

TEST_CASE("sampler: a logit that is not a number is an error") {
  CHECK_THROWS_AS(pick({0, NAN}, {}), Error);
  CHECK_THROWS_AS(pick({0, INFINITY}, {}), Error);
}

TEST_CASE("sampler: from a backend's candidates, or from all logits where these do not suffice, the token of a plain sort") {
  struct Case {
    const char* what;
    float spread;
    Sampling s;
    bool behind;  // some tokens lie behind the candidates
  };
  const std::vector<Case> cases = {
      {"peaked", 4, {1, 0, 1, 1, 1}, false},          {"peaked, top-p", 4, {0.8, 0, 0.9, 1, 2}, false},    {"flat", 0.1f, {1, 0, 1, 1, 3}, true},
      {"flat, top-p", 0.1f, {1, 0, 0.7, 1, 4}, true}, {"flat, small top-p", 0.1f, {1, 0, 0.1, 1, 5}, false}, {"top-k", 0.1f, {1.5, 50, 1, 1, 6}, false},
      {"large top-k", 0.1f, {1, 2000, 1, 1, 7}, true}, {"top-k and top-p", 2, {1.2, 300, 0.8, 1, 8}, false}, {"top-k beyond all", 0.1f, {1, 100000, 0.9, 1, 9}, true},
      {"penalty", 4, {1, 0, 1, 1.4, 10}, false},      {"penalty, top-k", 2, {0.6, 20, 0.95, 0.7, 11}, false},
  };
  std::mt19937 rng(5);
  const int64_t V = 5003;
  for (const char* backend : {"ref", "cpu", "emulated"}) {
    const std::unique_ptr<Ops> ops = make_ops(backend, 3, Precision::float32);
    Arena memory(*ops, size_t(1) << 20);
    const Tensor logits = memory.tensor(1, V);
    for (const Case& c : cases) {
      CAPTURE(backend);
      CAPTURE(c.what);
      std::vector<float> x(size_t(V), 0.0f);
      std::vector<int32_t> seen;
      for (float& v : x) v = std::round(std::normal_distribution<float>(0, c.spread)(rng) * 64) / 64;  // with ties
      for (int32_t id = 3; c.s.repetition_penalty != 1 && id < V; id += 2) seen.push_back(id);
      ops->write(logits, x.data());
      bool behind = false;
      for (uint64_t counter = 0; counter < 12; ++counter) {
        size_t rank = 0;
        double expected = 0, logprob = 0;
        const int32_t id = plain(x, c.s, counter, seen, &expected, &rank);
        CHECK(next(*ops, logits, c.s, counter, seen, &logprob) == id);
        CHECK(std::fabs(logprob - expected) < 1e-11);
        behind = behind || rank >= size_t(kMostCandidates);
      }
      CHECK(behind == c.behind);
      std::vector<float> after(size_t(V), 0.0f);
      ops->read(after.data(), logits);
      CHECK(after == x);
    }
  }
}
