// Tiles of the coverage selector. See coverage.h.
#include "kernels/cpu/coverage.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd_double.h"

namespace bg::cpu::BG_ISA {
namespace {

constexpr int64_t kTile = kCoverageTile;
#if BG_AVX512
constexpr int kRows = 8, kPanels = 3;  // 24 accumulators + 3 + 1 operands of 32 registers
#elif BG_AVX2 || BG_NEON
constexpr int kRows = 6, kPanels = 1;  // AVX2: 12 + 2 + 1 of 16
#else
constexpr int kRows = 2, kPanels = 1;
#endif
constexpr int64_t kDepth = kPanels > 1 ? 128 : 256;  // inputs per pass over a tile: packed panels of them (8 or 16 KiB each) stay in the first cache
static_assert(kTile % kRows == 0 && kTile % (16 * kPanels) == 0);

void pack(float* packed, const float* const* columns, int64_t count, int64_t D) {
  for (int64_t first = 0; first < count; first += 16, packed += 16 * D) {
    const int64_t n = count - first < 16 ? count - first : 16;
    int64_t d = 0;
#if BG_AVX512
    for (; d + 16 <= D; d += 16) {
      V line[16];
      BG_UNROLL for (int i = 0; i < 16; ++i) line[i] = i < n ? load(columns[first + i] + d) : splat(0.0f);
      transpose(line);
      BG_UNROLL for (int i = 0; i < 16; ++i) store(packed + 16 * (d + i), line[i]);
    }
#endif
    for (; d < D; ++d) {
      for (int64_t i = 0; i < n; ++i) packed[16 * d + i] = columns[first + i][d];
      for (int64_t i = n; i < 16; ++i) packed[16 * d + i] = 0;
    }
  }
}

// kRows × 16·N chains over inputs [d0, d0 + len): lanes are columns, so no sum goes across lanes. s holds the chains between calls. b: panels `stride` apart.
// Ahead: the rows' next inputs come nearer meanwhile.
template <int N, bool Ahead>
BG_INLINE void chains(float* s, const float* const* rows, const float* b, int64_t stride, int64_t d0, int64_t len) {
  V sum[kRows][N];
  const float* a[kRows];
  BG_UNROLL for (int m = 0; m < kRows; ++m) {
    a[m] = rows[m] + d0;
    BG_UNROLL for (int n = 0; n < N; ++n) sum[m][n] = d0 > 0 ? load(s + m * kTile + 16 * n) : splat(0.0f);
  }
  const auto step = [&](int64_t d) __attribute__((always_inline)) {
    V column[N];
    BG_UNROLL for (int n = 0; n < N; ++n) column[n] = load(b + n * stride + 16 * d);
    BG_UNROLL for (int m = 0; m < kRows; ++m) {
      const V x = splat(a[m][d]);
      BG_UNROLL for (int n = 0; n < N; ++n) sum[m][n] = madd(x, column[n], sum[m][n]);
    }
  };
  int64_t d = 0;
  for (; Ahead && d + 16 <= len; d += 16) {
    BG_UNROLL for (int m = 0; m < kRows; ++m) __builtin_prefetch(a[m] + d + kDepth, 0, 2);
    for (int64_t i = d; i < d + 16; ++i) step(i);
  }
  for (; d < len; ++d) step(d);
  BG_UNROLL for (int m = 0; m < kRows; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) store(s + m * kTile + 16 * n, sum[m][n]);
  }
}

void products(float* s, const float* const* rows, int64_t count, const float* packed, int64_t cols, int64_t D) {
  const int64_t depth = cols > 16 ? kDepth : D;  // with one panel nothing is read twice but that panel: rows are streams
  for (int64_t d0 = 0; d0 < D; d0 += depth) {
    const int64_t len = D - d0 < depth ? D - d0 : depth;
    for (int64_t n = 0; n < cols;) {
      const bool wide = kPanels > 1 && cols - n > 16 * (kPanels - 1);
      for (int64_t r = 0; r < count; r += kRows) {
        const float* b = packed + n * D + 16 * d0;
        if (!wide) {
          chains<1, false>(s + r * kTile + n, rows + r, b, 16 * D, d0, len);
        } else if (n == 0) {
          chains<kPanels, true>(s + r * kTile + n, rows + r, b, 16 * D, d0, len);
        } else {
          chains<kPanels, false>(s + r * kTile + n, rows + r, b, 16 * D, d0, len);
        }
      }
      n += wide ? 16 * kPanels : 16;
    }
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

// The tile is padded: lanes after the last column hold numbers, their sums are never read.
template <int Q>
void down(uint64_t* sums, const float* e, int64_t rows, int64_t cols, const double* scale, const double* const* best) {
  const W magic = splat_d(kMagic);
  for (int64_t n = 0; n < cols; n += 8) {
    U sum[Q];
    BG_UNROLL for (int q = 0; q < Q; ++q) sum[q] = load_u(sums + q * kTile + n);
    for (int64_t r = 0; r < rows; ++r) {
      const W c = add(mul(load_wide(e + r * kTile + n), splat_d(scale[r])), magic);
      BG_UNROLL for (int q = 0; q < Q; ++q) sum[q] = add_bits(sum[q], max(c, splat_d(best[q][r])));
    }
    BG_UNROLL for (int q = 0; q < Q; ++q) store_u(sums + q * kTile + n, sum[q]);
  }
}

template <int Q>
void across(uint64_t* sums, const float* e, int64_t cols, const double* scale, const double* const* best) {
  const W magic = splat_d(kMagic);
  U sum[Q];
  BG_UNROLL for (int q = 0; q < Q; ++q) sum[q] = zero_u();
  int64_t n = 0;
  for (; n + 8 <= cols; n += 8) {
    const W c = add(mul(load_wide(e + n), load_d(scale + n)), magic);
    BG_UNROLL for (int q = 0; q < Q; ++q) sum[q] = add_bits(sum[q], max(c, load_d(best[q] + n)));
  }
  for (int q = 0; q < Q; ++q) {
    sums[q] += sum_lanes(sum[q]);
    for (int64_t i = n; i < cols; ++i) {
      const double c = double(e[i]) * scale[i] + kMagic, most = c > best[q][i] ? c : best[q][i];
      uint64_t bits;
      memcpy(&bits, &most, 8);
      sums[q] += bits;
    }
  }
}

void sum_lost(uint64_t* lost, const float* e, int64_t rows, int64_t cols, const uint32_t* row, const double* scale, const double* const* old, const double* now) {
  const W magic = splat_d(kMagic);
  for (int64_t n = 0; n < cols; n += 8) {
    U sum = load_u(lost + n);
    for (int64_t r = 0; r < rows; ++r) {
      const uint32_t i = row[r];
      const W c = add(mul(load_wide(e + r * kTile + n), splat_d(scale[i])), magic);
      double before[8];
      BG_UNROLL for (int k = 0; k < 8; ++k) before[k] = old[n + k][i];
      sum = sub_bits(add_bits(sum, max(c, load_d(before))), max(c, splat_d(now[i])));
    }
    store_u(lost + n, sum);
  }
}

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
