// Logits → the next token, MODEL.md §6. Greedy: arg max, lowest id on a tie. Sampling: repetition penalty, temperature, top-k, top-p in that order,
// with a counter-based generator, so that a seed gives the same text whatever ran before.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace bg {

struct Sampling {
  double temperature = 0;         // 0: greedy
  int64_t top_k = 0;              // 0: all
  double top_p = 1;               // (0, 1]
  double repetition_penalty = 1;  // > 0; 1: none; divides positive and multiplies negative logits of tokens already in the sequence
  uint64_t seed = 0;
};

void check_sampling(const Sampling& s);  // throws Error{invalid_argument}

// Uniform in [0, 1): the 53 top bits of a mix of seed and counter.
double uniform(uint64_t seed, uint64_t counter);

// The token of temperature 0. Throws Error{internal} when a logit was not finite.
int32_t greedy_token(const Likeliest& found, double* logprob);

// logits: (V), may be changed (penalty). seen: ids of the sequence so far. counter: how many tokens were sampled before.
// logprob: natural logarithm of softmax(logits)[token] of the untouched logits.
int32_t sample(std::vector<double>& logits, const Sampling& s, const std::vector<int32_t>& seen, uint64_t counter, double* logprob);

}  // namespace bg
