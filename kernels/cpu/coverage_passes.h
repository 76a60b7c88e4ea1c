// One selection of the coverage selector on the CPU: its scratch memory and the passes over E (equations: kernels/ref/coverage.cpp; tiles: coverage.h).
// Row i of C: text rows 0 … m−1, then the visual rows; column j is visual row m + j.
// Not here: the order in which columns are taken (coverage.cpp).
#pragma once
#include "kernels/cpu/coverage.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

namespace bg::cpu {

constexpr int64_t kCoverageBatch = 4 * kCoverageTile;  // the most stale columns evaluated at once

struct Candidate {
  int64_t gain;    // in units of C, at the time it was last evaluated
  int64_t column;
  int64_t step;    // when that was
};

class Coverage {
 public:
  Coverage(const Context& c, int64_t L, int64_t D, int64_t m, int64_t k, bool stored);  // layout only
  size_t bytes() const { return end_; }
  int64_t rows() const { return m + L; }

  // Unit rows, E where it is stored, Z and scales, best 0.
  void begin(void* scratch, Tensor v, Tensor t);
  // Σ_i max_j C_ij: the largest E of a row is 1 (its own similarity, or the text row's largest), so max_j C_ij = scale_i
  double most() const;
  // to[n]_i = max(from_i, C_i,column[n]), n < count ≤ 16
  void raise(const int64_t* column, int count, const double* from, double* const* to);
  // The columns that are likely to be first, by the first gains over a sample of the rows; returns how many.
  int guess_first(int64_t* guess);
  // sums[q·L + j] = gain of column j above best[q], q < count
  void gains(const double* const* best, int count);
  // Stale candidates brought to `step`: from the stored matrix above best_at(0); by what changed since they were evaluated.
  void sum_stored(Candidate* list, int64_t count, int64_t step);
  void carry_on(Candidate* list, int64_t count, int64_t step);
  // Once for each best_at(step) that carry_on meets.
  void add_up_best(int64_t step);

  // best of each row after `step` choices, as kMagic + units; with the stored matrix only one is kept.
  double* best_at(int64_t step) const { return best_ + step * rows(); }
  double* guess_best(int64_t g) const { return guess_ + g * rows(); }

  const int64_t L, D, m;
  const ref::CoverageUnits units;
  float* ct = nullptr;       // (L, m+L) or none
  uint64_t* sums = nullptr;  // (kCoverageBest, L)
  Candidate* heap = nullptr; // (L)
  int64_t evaluations = 0;   // gains of columns computed

 private:
  template <class Row> void tile(float* e, const Row& row_of, int64_t count, const float* packed, int64_t cols, bool exponential) const;
  template <class Body> void pass_text(bool exponential, const Body& body);
  void pass_visual(const double* const* best, int count);
  void pack(float* packed, int64_t first, int64_t count) const;
  void store(const float* e, int64_t row, int64_t count, int64_t first, int64_t cols, bool mirrored);
  void text_sums();
  void gains_of_text(const double* const* best, int count);
  float* tile_of(int thread) const { return tiles_ + thread * kCoverageTile * kCoverageTile; }
  float* packed_of(int thread) const { return packed_ + thread * kCoverageTile * D; }

  const Context& c_;
  const CoverageIsa& isa_;
  const int64_t stride_;                                         // of unit rows: an odd number of 64-byte lines, so that rows do not meet in one set of a cache
  bool stored_ = false;
  size_t end_ = 0, at_[14] = {};
  float *unit_ = nullptr, *top_ = nullptr;                       // (m+L, stride_); (m) the largest similarity of each text row
  double *scale_ = nullptr, *best_ = nullptr, *guess_ = nullptr; // (m+L): C_ij = E_ij·scale_i; (k or 1, m+L); (kCoverageBest − 1, m+L)
  uint64_t *text_z_ = nullptr, *total_best_ = nullptr;           // (m); (k) Σ_i bits of best after each step
  float *tiles_ = nullptr, *packed_ = nullptr, *batch_ = nullptr;  // per thread a tile of E and its packed columns; packed columns of a batch
  uint32_t* lists_ = nullptr;                                    // (batch/tile, m+L) rows
};

}  // namespace bg::cpu
