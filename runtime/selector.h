// The token selector, MODEL.md §3: cuts every feature matrix to a fixed budget. Each level picks its own rows.
#pragma once
#include <vector>

#include "runtime/run.h"
#include "runtime/weights.h"

namespace bg {

struct Kept {
  std::vector<int64_t> index;  // ascending rows of the feature matrix, at most the budget
  // What speaks for each: its coverage gain when it was taken, or, of the ConceptSelector, its share of the concepts' attention (e^score).
  std::vector<double> gain;    // empty when everything passed through
  double coverage = 0;         // Σ gain: what the choice covers
  double whole = 0;            // what all rows together would cover; coverage/whole is the share reached
};

// CoverageTokenSelector. v (L, D) features, text (m, D) or rows == 0. L ≤ k: all rows, unchanged.
// memory_allowed: bytes up to which the whole similarity matrix may be kept (faster); it never changes the result.
constexpr size_t kCoverageMemory = size_t(512) << 20;  // a matrix of some 11,000 rows; sessions on a GPU may give more (SelectorChoice)
Kept select_coverage(const Run& run, Tensor v, Tensor text, int64_t k, size_t memory_allowed = kCoverageMemory);

// ConceptSelector (learned). v and L ≤ k as above; text (m, D), not normalised. Throws Error{invalid_argument} when it is needed and has no rows.
Kept select_concept(const Run& run, const ConceptWeights& w, Tensor v, Tensor text, int64_t k);
// The same for a slide, whose features are v = P·state + c: made block by block, never whole.
Kept select_concept(const Run& run, const ConceptWeights& w, const Linear& projector, Tensor states, Tensor text, int64_t k);

}  // namespace bg
