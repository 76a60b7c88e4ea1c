// Sampling: the order of the filters, ties, log-probabilities of the untouched distribution, and the generator's spread.
#include <doctest/doctest.h>

#include <cmath>

#include "loaders/error.h"
#include "runtime/sampler.h"

using namespace bg;

namespace {

int32_t pick(std::vector<double> logits, const Sampling& s, uint64_t counter = 0, const std::vector<int32_t>& seen = {}) {
  double logprob = 0;
  return sample(logits, s, seen, counter, &logprob);
}

}  // namespace

TEST_CASE("sampler: greedy takes the largest, the lowest id on a tie") {
  CHECK(pick({1, 3, 3, 2}, {}) == 1);
  double logprob = 0;
  std::vector<double> logits = {0, std::log(3.0)};
  CHECK(sample(logits, {}, {}, 0, &logprob) == 1);
  CHECK(std::abs(logprob - std::log(0.75)) < 1e-15);
}

TEST_CASE("sampler: repetition penalty divides positive and multiplies negative logits, log-probabilities stay the model's") {
  Sampling s;
  s.repetition_penalty = 2;
  CHECK(pick({4, 3}, s, 0, {0, 0}) == 1);   // 4/2 < 3
  CHECK(pick({-1, -1.5}, s, 0, {0}) == 1);  // −2 < −1.5
  std::vector<double> logits = {4, 3};
  double logprob = 0;
  CHECK(sample(logits, s, {0}, 0, &logprob) == 1);
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
