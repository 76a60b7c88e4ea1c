// The token selector, MODEL.md §3: cuts every feature matrix to a fixed budget. Each level picks its own rows.
#pragma once
#include <vector>

#include "runtime/run.h"

namespace bg {

struct Kept {
  std::vector<int64_t> index;  // ascending rows of the feature matrix, at most the budget
  std::vector<double> gain;    // coverage gain of each when it was taken; empty when everything passed through
  double coverage = 0;         // Σ gain: what the choice covers
};

// CoverageTokenSelector. v (L, D) features, text (m, D) or rows == 0. L ≤ k: all rows, unchanged.
Kept select_coverage(const Run& run, Tensor v, Tensor text, int64_t k);

}  // namespace bg
