// Tiles of the coverage selector. See coverage.h.
#include "kernels/cpu/coverage.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

namespace bg::cpu::BG_ISA {
namespace {

constexpr int64_t kTile = kCoverageTile;
constexpr int64_t kDepth = 256;  // inputs per pass over a tile: a packed panel of them (16 KiB) stays in the first cache
#if BG_AVX512
constexpr int kRows = 12;
#elif BG_AVX2 || BG_NEON
constexpr int kRows = 6;  // AVX2: 12 accumulators + 2 + 1 operands
#else
constexpr int kRows = 2;
#endif
static_assert(kTile % kRows == 0 && kTile % 16 == 0);

void pack(float* packed, const float* const* columns, int64_t count, int64_t D) {
  for (int64_t first = 0; first < count; first += 16, packed += 16 * D) {
    const int64_t n = count - first < 16 ? count - first : 16;
    for (int64_t d = 0; d < D; ++d) {
      for (int64_t i = 0; i < n; ++i) packed[16 * d + i] = columns[first + i][d];
      for (int64_t i = n; i < 16; ++i) packed[16 * d + i] = 0;
    }
  }
}

// kRows × 16 chains over inputs [d0, d0 + len): lanes are columns, so no sum goes across lanes. s holds the chains between calls.
BG_INLINE void chains(float* s, const float* const* rows, const float* b, int64_t d0, int64_t len) {
  V sum[kRows];
  const float* a[kRows];
  BG_UNROLL for (int m = 0; m < kRows; ++m) {
    a[m] = rows[m] + d0;
    sum[m] = d0 > 0 ? load(s + m * kTile) : splat(0.0f);
  }
  for (int64_t d = 0; d < len; ++d) {
    const V column = load(b + 16 * d);
    BG_UNROLL for (int m = 0; m < kRows; ++m) sum[m] = madd(splat(a[m][d]), column, sum[m]);
  }
  BG_UNROLL for (int m = 0; m < kRows; ++m) store(s + m * kTile, sum[m]);
}

void products(float* s, const float* const* rows, int64_t count, const float* packed, int64_t cols, int64_t D) {
  for (int64_t d0 = 0; d0 < D; d0 += kDepth) {
    const int64_t len = D - d0 < kDepth ? D - d0 : kDepth;
    for (int64_t n = 0; n < cols; n += 16)
      for (int64_t r = 0; r < count; r += kRows) chains(s + r * kTile + n, rows + r, packed + n * D + 16 * d0, d0, len);
  }
}

void exponentials(float* s, int64_t rows, int64_t cols, const float* top, float factor) {
  const V f = splat(factor), zero = splat(0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    const V minus = splat(top != nullptr ? top[r] : 1.0f);
    float* e = s + r * kTile;
    for (int64_t n = 0; n < cols; n += kLanes) store(e + n, max(exp_negative(mul(sub(load(e + n), minus), f)), zero));  // max: NaN → its second operand
  }
}

BG_INLINE uint64_t bits(double x) {
  uint64_t b;
  memcpy(&b, &x, 8);
  return b;
}
BG_INLINE double larger(double a, double b) { return a > b ? a : b; }

#if BG_AVX2 || BG_AVX512
typedef __m256d W;
BG_INLINE W shifted(__m128 e, W scale) { return _mm256_add_pd(_mm256_mul_pd(_mm256_cvtps_pd(e), scale), _mm256_set1_pd(kMagic)); }
BG_INLINE __m256i add_bits(__m256i sum, W x) { return _mm256_add_epi64(sum, _mm256_castpd_si256(x)); }
BG_INLINE uint64_t add_lanes(__m256i a) {
  uint64_t l[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(l), a);
  return l[0] + l[1] + l[2] + l[3];
}

template <int Q>
void down(uint64_t* sums, const float* e, int64_t rows, int64_t cols, const double* scale, const double* const* best) {
  for (int64_t n = 0; n < cols; n += 8) {  // the tile is padded: lanes after the last column hold numbers, their sums are never read
    __m256i sum[Q][2];
    BG_UNROLL for (int q = 0; q < Q; ++q) {
      BG_UNROLL for (int h = 0; h < 2; ++h) sum[q][h] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + q * kTile + n + 4 * h));
    }
    for (int64_t r = 0; r < rows; ++r) {
      const W s = _mm256_set1_pd(scale[r]);
      const W c0 = shifted(_mm_loadu_ps(e + r * kTile + n), s), c1 = shifted(_mm_loadu_ps(e + r * kTile + n + 4), s);
      BG_UNROLL for (int q = 0; q < Q; ++q) {
        const W b = _mm256_set1_pd(best[q][r]);
        sum[q][0] = add_bits(sum[q][0], _mm256_max_pd(c0, b));
        sum[q][1] = add_bits(sum[q][1], _mm256_max_pd(c1, b));
      }
    }
    BG_UNROLL for (int q = 0; q < Q; ++q) {
      BG_UNROLL for (int h = 0; h < 2; ++h) _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + q * kTile + n + 4 * h), sum[q][h]);
    }
  }
}

template <int Q>
void across(uint64_t* sums, const float* e, int64_t cols, const double* scale, const double* const* best) {
  __m256i sum[Q];
  BG_UNROLL for (int q = 0; q < Q; ++q) sum[q] = _mm256_setzero_si256();
  int64_t n = 0;
  for (; n + 4 <= cols; n += 4) {
    const W c = shifted(_mm_loadu_ps(e + n), _mm256_loadu_pd(scale + n));
    BG_UNROLL for (int q = 0; q < Q; ++q) sum[q] = add_bits(sum[q], _mm256_max_pd(c, _mm256_loadu_pd(best[q] + n)));
  }
  for (int q = 0; q < Q; ++q) {
    sums[q] += add_lanes(sum[q]);
    for (int64_t i = n; i < cols; ++i) sums[q] += bits(larger(double(e[i]) * scale[i] + kMagic, best[q][i]));
  }
}

void sum_lost(uint64_t* lost, const float* e, int64_t rows, int64_t cols, const uint32_t* row, const double* scale, const double* const* old, const double* now) {
  for (int64_t n = 0; n < cols; n += 4) {
    __m256i sum = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lost + n));
    const double *o0 = old[n], *o1 = old[n + 1], *o2 = old[n + 2], *o3 = old[n + 3];
    for (int64_t r = 0; r < rows; ++r) {
      const uint32_t i = row[r];
      const W c = shifted(_mm_loadu_ps(e + r * kTile + n), _mm256_set1_pd(scale[i]));
      const W before = _mm256_max_pd(c, _mm256_set_pd(o3[i], o2[i], o1[i], o0[i])), after = _mm256_max_pd(c, _mm256_set1_pd(now[i]));
      sum = _mm256_add_epi64(sum, _mm256_sub_epi64(_mm256_castpd_si256(before), _mm256_castpd_si256(after)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lost + n), sum);
  }
}
#else
template <int Q>
void down(uint64_t* sums, const float* e, int64_t rows, int64_t cols, const double* scale, const double* const* best) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < cols; ++n) {
      const double c = double(e[r * kTile + n]) * scale[r] + kMagic;
      BG_UNROLL for (int q = 0; q < Q; ++q) sums[q * kTile + n] += bits(larger(c, best[q][r]));
    }
  }
}

template <int Q>
void across(uint64_t* sums, const float* e, int64_t cols, const double* scale, const double* const* best) {
  for (int64_t n = 0; n < cols; ++n) {
    const double c = double(e[n]) * scale[n] + kMagic;
    BG_UNROLL for (int q = 0; q < Q; ++q) sums[q] += bits(larger(c, best[q][n]));
  }
}

void sum_lost(uint64_t* lost, const float* e, int64_t rows, int64_t cols, const uint32_t* row, const double* scale, const double* const* old, const double* now) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint32_t i = row[r];
    for (int64_t n = 0; n < cols; ++n) {
      const double c = double(e[r * kTile + n]) * scale[i] + kMagic;
      lost[n] += bits(larger(c, old[n][i])) - bits(larger(c, now[i]));
    }
  }
}
#endif

void sum_down(uint64_t* sums, const float* e, int64_t rows, int64_t cols, const double* scale, const double* const* best, int count_best) {
  switch (count_best) {
    case 1: return down<1>(sums, e, rows, cols, scale, best);
    case 2: return down<2>(sums, e, rows, cols, scale, best);
    case 3: return down<3>(sums, e, rows, cols, scale, best);
    case 4: return down<4>(sums, e, rows, cols, scale, best);
    default: return down<kCoverageBest>(sums, e, rows, cols, scale, best);
  }
}

void sum_across(uint64_t* sums, const float* e, int64_t cols, const double* scale, const double* const* best, int count_best) {
  switch (count_best) {
    case 1: return across<1>(sums, e, cols, scale, best);
    case 2: return across<2>(sums, e, cols, scale, best);
    case 3: return across<3>(sums, e, cols, scale, best);
    case 4: return across<4>(sums, e, cols, scale, best);
    default: return across<kCoverageBest>(sums, e, cols, scale, best);
  }
}

}  // namespace

const CoverageIsa coverage = {pack, products, exponentials, sum_down, sum_across, sum_lost};

}  // namespace bg::cpu::BG_ISA
