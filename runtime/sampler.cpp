// See sampler.h.
#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "loaders/error.h"

namespace bg {

void check_sampling(const Sampling& s) {
  if (!(s.temperature >= 0) || !std::isfinite(s.temperature)) throw Error(Status::invalid_argument, "temperature must be 0 (greedy) or a positive number");
  if (s.top_k < 0) throw Error(Status::invalid_argument, "top-k must be 0 (all) or positive");
  if (!(s.top_p > 0 && s.top_p <= 1)) throw Error(Status::invalid_argument, "top-p must be above 0 and at most 1");
  if (!(s.repetition_penalty > 0) || !std::isfinite(s.repetition_penalty)) throw Error(Status::invalid_argument, "repetition penalty must be a positive number");
}

double uniform(uint64_t seed, uint64_t counter) {
  // SplitMix64's finaliser over a Weyl sequence: every (seed, counter) stands alone.
  uint64_t z = seed * 0xD1342543DE82EF95u + (counter + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  return double(z >> 11) * 0x1p-53;
}

namespace {

[[noreturn]] void refuse() {
  throw Error(Status::internal, "the model produced a logit that is not a finite number; run `breastgpt verify` on the weights");
}

double log_sum_exp(const std::vector<double>& x, double top) {
  double sum = 0;
  for (double v : x) sum += std::exp(v - top);
  return top + std::log(sum);
}

int32_t draw(const std::vector<double>& logits, const Sampling& s, double u) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](int32_t a, int32_t b) { return logits[size_t(a)] != logits[size_t(b)] ? logits[size_t(a)] > logits[size_t(b)] : a < b; };
  const size_t k = s.top_k > 0 ? std::min(size_t(s.top_k), order.size()) : order.size();
  std::partial_sort(order.begin(), order.begin() + int64_t(k), order.end(), before);
  order.resize(k);

  std::vector<double> p(k);
  double sum = 0;
  for (size_t i = 0; i < k; ++i) sum += p[i] = std::exp((logits[size_t(order[i])] - logits[size_t(order[0])]) / s.temperature);
  // top-p: the shortest prefix whose share reaches top_p; the first token always stays.
  double kept = 0;
  size_t n = 0;
  do kept += p[n++];
  while (n < k && kept < s.top_p * sum);
  double target = u * kept;
  for (size_t i = 0; i < n; ++i) {
    target -= p[i];
    if (target < 0) return order[i];
  }
  return order[n - 1];
}

}  // namespace

int32_t greedy_token(const Likeliest& found, double* logprob) {
  if (!found.finite) refuse();
  *logprob = found.logprob;
  return found.id;
}

int32_t sample(std::vector<double>& logits, const Sampling& s, const std::vector<int32_t>& seen, uint64_t counter, double* logprob) {
  for (double v : logits)
    if (!std::isfinite(v)) refuse();
  const double top = *std::max_element(logits.begin(), logits.end());
  const double norm = log_sum_exp(logits, top);
  const auto finish = [&](int32_t id, double logit) {
    *logprob = logit - norm;
    return id;
  };
  const std::vector<double> untouched = s.repetition_penalty != 1 ? logits : std::vector<double>();
  if (s.repetition_penalty != 1) {
    std::vector<int32_t> once = seen;
    std::sort(once.begin(), once.end());
    once.erase(std::unique(once.begin(), once.end()), once.end());
    for (int32_t id : once) {
      double& v = logits[size_t(id)];
      v = v > 0 ? v / s.repetition_penalty : v * s.repetition_penalty;
    }
  }
  const int32_t id = s.temperature == 0 ? int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin()) : draw(logits, s, uniform(s.seed, counter));
  return finish(id, untouched.empty() ? logits[size_t(id)] : untouched[size_t(id)]);
}

}  // namespace bg
