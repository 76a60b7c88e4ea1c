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

double share(const Candidate& c, const Candidate& first, const Sampling& s) { return std::exp((c.logit - first.logit) / s.temperature); }

// What u draws of the distribution whose n likeliest tokens, in falling order, are c, with shares of `sum`. whole: these are all that may be drawn. −1: it
// takes the tokens behind them to know.
int32_t draw(const std::vector<Candidate>& c, bool whole, double sum, const Sampling& s, double u) {
  // top-p: the shortest prefix whose share reaches top_p; the first token always stays.
  size_t n = c.size();
  double kept = sum;
  if (s.top_p < 1) {
    n = 0, kept = 0;
    do kept += share(c[n++], c[0], s);
    while (n < c.size() && kept < s.top_p * sum);
    if (kept < s.top_p * sum && !whole) return -1;
  }
  double target = u * kept;
  for (size_t i = 0; i < n; ++i) {
    target -= share(c[i], c[0], s);
    if (target < 0) return c[i].id;
  }
  return s.top_p < 1 || whole ? c[n - 1].id : -1;  // by rounding alone
}

// The `kept` largest of all logits, on the host: what a backend's candidates are the beginning of.
std::vector<Candidate> sort_all(Ops& ops, Tensor logits, int64_t kept) {
  std::vector<double> values(size_t(logits.cols));
  ops.read(values.data(), logits);
  std::vector<Candidate> c;
  for (int64_t j = 0; j < logits.cols; ++j) c.push_back({values[size_t(j)], int32_t(j)});
  std::partial_sort(c.begin(), c.begin() + kept, c.end(), [](const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; });
  c.resize(size_t(kept));
  return c;
}

// Of the top_k largest logits, or of all. Where the distribution is so flat that the candidates do not suffice, or top_k asks for more of them, all are sorted here.
int32_t sample(Ops& ops, Tensor logits, const Sampling& s, double u) {
  const int64_t V = logits.cols, kept = s.top_k > 0 ? std::min(s.top_k, V) : V;
  std::vector<Candidate> c(size_t(std::min(kept, kMostCandidates)));
  const double all = ops.candidates(c.data(), logits, int64_t(c.size()), s.temperature);
  const bool whole = int64_t(c.size()) == kept;
  const auto sum = [&] { return s.top_k == 0 ? all : std::accumulate(c.begin(), c.end(), 0.0, [&](double t, const Candidate& x) { return t + share(x, c[0], s); }); };
  if (whole || s.top_k == 0) {
    const int32_t id = draw(c, whole, sum(), s, u);
    if (id >= 0) return id;
  }
  c = sort_all(ops, logits, kept);
  return draw(c, true, sum(), s, u);
}

}  // namespace

int32_t next_token(const Run& run, Tensor logits, const Sampling& s, const std::vector<int32_t>& seen, uint64_t counter, double* logprob) {
  const Likeliest top = run.ops.likeliest(logits);
  if (!top.finite) throw Error(Status::internal, "the model produced a logit that is not a finite number; run `breastgpt verify` on the weights");
  *logprob = top.logprob;
  if (s.temperature == 0 && s.repetition_penalty == 1) return top.id;
  Arena::Scope scope(run.arena);
  Tensor z = logits;
  if (s.repetition_penalty != 1) {
    z = run.arena.tensor(1, logits.cols);
    run.ops.copy(z, logits);
    run.ops.penalise(z, seen.data(), int64_t(seen.size()), s.repetition_penalty);
  }
  const int32_t id = s.temperature == 0 ? run.ops.likeliest(z).id : sample(run.ops, z, s, uniform(s.seed, counter));
  double logit = 0;
  run.ops.read(&logit, logits.col_range(id, 1));
  *logprob += logit - top.logit;
  return id;
}

}  // namespace bg
