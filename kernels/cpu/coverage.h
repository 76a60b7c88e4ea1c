// Inner loops of the coverage selector, once per instruction set. A tile is up to kCoverageTile × kCoverageTile entries of E (kernels/ref/coverage.cpp
// has the definition), row-major with kCoverageTile floats from one row to the next; in its columns lie 96 columns of the similarity, packed by 16.
// A sum of C's terms is an integer: a double c ≥ 0 that is added to kMagic is rounded to an integer n (to even), and the bits of the result are
// those of kMagic plus n. So bits of max(E·scale + kMagic, best) are added up as 64-bit integers, whose order cannot matter.
// Not here: which tiles, threads (coverage.cpp).
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace bg::cpu {

constexpr int64_t kCoverageTile = 96;    // a multiple of 16, and of the rows that a register tile has (8, 6 or 2), and of 16·3
constexpr double kMagic = 6755399441055744.0;  // 1.5·2^52: n < 2^51 can be added exactly
constexpr int kCoverageBest = 5;         // the most vectors `best` in one call

struct CoverageIsa {
  // packed[panel][d][16] = columns[16·panel + lane][d], lanes after `count` are 0. packed: ⌈count/16⌉·16·D floats.
  void (*pack)(float* packed, const float* const* columns, int64_t count, int64_t D);
  // s_rn = Σ_d rows[r][d]·column n[d], one chain over ascending d for each, so s is symmetric in its factors, bit by bit.
  // rows: kCoverageTile pointers, those after `count` valid too (their results are of no use).
  void (*products)(float* s, const float* const* rows, int64_t count, const float* packed, int64_t cols, int64_t D);
  // s_rn → e^((s_rn − top_r)·factor), NaN → 0; top == nullptr: 1
  void (*exponentials)(float* s, int64_t rows, int64_t cols, const float* top, float factor);
  // sums[q·kCoverageTile + n] += Σ_r bits(max(E_rn·scale_r + kMagic, best[q][r])), q < count_best
  void (*sum_down)(uint64_t* sums, const float* e, int64_t rows, int64_t cols, const double* scale, const double* const* best, int count_best);
  // sums[q] += Σ_n bits(max(e_n·scale_n + kMagic, best[q][n])), one row of E
  void (*sum_across)(uint64_t* sums, const float* e, int64_t cols, const double* scale, const double* const* best, int count_best);
  // lost[n] += Σ_r bits(max(c, old[n][row[r]])) − bits(max(c, now[row[r]])), c = E_rn·scale[row[r]] + kMagic
  void (*sum_lost)(uint64_t* lost, const float* e, int64_t rows, int64_t cols, const uint32_t* row, const double* scale, const double* const* old, const double* now);
};

}  // namespace bg::cpu
