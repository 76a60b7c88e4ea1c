// Logits → the next token, MODEL.md §6. Greedy: arg max, lowest id on a tie. Sampling: repetition penalty, temperature, top-k, top-p in that order,
// with a counter-based generator, so that a seed gives the same text whatever ran before. The backend finds the largest logits and the sum over all; the host draws.
#pragma once
#include <cstdint>
#include <vector>

#include "runtime/run.h"

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

// The token after logits (1, V), which the backend keeps; they stay as they are. seen: ids of the sequence so far, each once. counter: how many tokens were sampled before.
// logprob: natural logarithm of softmax(logits)[token], of the model's own distribution. With a repetition penalty run.arena holds (1, V) more for the time.
// Throws Error{internal} when a logit is not finite.
int32_t next_token(const Run& run, Tensor logits, const Sampling& s, const std::vector<int32_t>& seen, uint64_t counter, double* logprob);

}  // namespace bg
