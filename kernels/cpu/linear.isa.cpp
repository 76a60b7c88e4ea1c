// Tiles of the matrix product. Each y_tn is one chain: eight lanes, lane i adding the products of j = i, i + 8, i + 16 … in ascending order,
// then one fixed tree over the lanes, then the bias. A tile holds several such chains in registers; its shape changes speed, never bits.
// With many rows, a block of weights is turned into float once per pass over kLinearDepth inputs (scratch) and used for all rows; the chains
// rest in scratch between passes. With few rows the weights are read where they lie, each once. Quantised weights take the first way for any number of
// rows, so they run through the same chains as the F32 matrix of their values.
#include "kernels/blocks.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

namespace bg::cpu::BG_ISA {
namespace {

struct Out {
  float* y;
  int64_t stride;
  const float* bias;  // of the tile's first column, or nullptr
};

// len steps of M·N chains. They start from `sums` if resume, else from 0; they go to `sums` if out == nullptr, else are finished into out.
template <int M, int N, class W>
void tile(const float* x, int64_t x_stride, const W* w, int64_t w_stride, int64_t len, float* sums, bool resume, const Out* out) {
  V acc[M][N];
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = resume ? load(sums + 8 * (m * N + n)) : splat(0.0f);
  }
  const int64_t whole = len & ~int64_t(7);
  for (int64_t j = 0; j < whole; j += 8) {
    V b[N];
    BG_UNROLL for (int n = 0; n < N; ++n) b[n] = load(w + n * w_stride + j);
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V a = load(x + m * x_stride + j);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = madd(a, b[n], acc[m][n]);
    }
  }
  if (whole < len) {
    V b[N];
    BG_UNROLL for (int n = 0; n < N; ++n) b[n] = load_first(w + n * w_stride + whole, len - whole);
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V a = load_first(x + m * x_stride + whole, len - whole);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = madd(a, b[n], acc[m][n]);
    }
  }
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) {
      if (out == nullptr) {
        store(sums + 8 * (m * N + n), acc[m][n]);
      } else {
        const float sum = sum_lanes(acc[m][n]);
        out->y[m * out->stride + n] = out->bias != nullptr ? sum + out->bias[n] : sum;
      }
    }
  }
}

template <int N, class W>
void tile_rows(int64_t rows, const float* x, int64_t x_stride, const W* w, int64_t w_stride, int64_t len, float* sums, bool resume, const Out* out) {
  switch (rows) {
    case 1: return tile<1, N>(x, x_stride, w, w_stride, len, sums, resume, out);
    case 2: return tile<2, N>(x, x_stride, w, w_stride, len, sums, resume, out);
#if BG_AVX2
    case 3: return tile<3, N>(x, x_stride, w, w_stride, len, sums, resume, out);
    default: return tile<4, N>(x, x_stride, w, w_stride, len, sums, resume, out);
#endif
  }
}

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// One pass over inputs [j0, j0 + len) for rows [t0, t1) and the `cols` weight rows at w, all tiles of the block.
template <class W>
void pass(const LinearArgs& a, int64_t t0, int64_t t1, int64_t n0, int64_t cols, const W* w, int64_t w_stride, int64_t j0, int64_t len, float* sums, bool resume,
          bool finish) {
  for (int64_t t = t0; t < t1; t += kTileRows) {
    const int64_t rows = least(kTileRows, t1 - t);
    const float* x = a.x + t * a.x_stride + j0;
    for (int64_t n = 0; n < cols;) {
      const Out out = {a.y + t * a.y_stride + n0 + n, a.y_stride, a.bias != nullptr ? a.bias + n0 + n : nullptr};
      if (cols - n >= kTileCols) {
        tile_rows<kTileCols>(rows, x, a.x_stride, w + n * w_stride, w_stride, len, sums, resume, finish ? &out : nullptr);
        n += kTileCols;
        if (sums != nullptr) sums += 8 * kTileRows * kTileCols;
      } else {
        tile_rows<1>(rows, x, a.x_stride, w + n * w_stride, w_stride, len, sums, resume, finish ? &out : nullptr);
        n += 1;
        if (sums != nullptr) sums += 8 * kTileRows;
      }
    }
  }
}

// Few rows: the whole of D in one pass, weights in place. One row alone takes four weight rows at a time: enough chains, one stream each.
template <class W>
void block_direct(const LinearArgs& a, int64_t t0, int64_t t1, int64_t n0, int64_t n1) {
  const W* w = static_cast<const W*>(a.w) + n0 * a.D;
  if (t1 - t0 == 1) {
    for (; n0 + 4 <= n1; n0 += 4, w += 4 * a.D) {
      const Out out = {a.y + t0 * a.y_stride + n0, a.y_stride, a.bias != nullptr ? a.bias + n0 : nullptr};
      tile<1, 4>(a.x + t0 * a.x_stride, a.x_stride, w, a.D, a.D, nullptr, false, &out);
    }
  }
  // Columns outermost: the weights of a tile stay in the cache while the few rows pass.
  for (; n0 < n1; n0 += kTileCols, w += kTileCols * a.D) pass(a, t0, t1, n0, least(kTileCols, n1 - n0), w, a.D, 0, a.D, nullptr, false, true);
}

// Inputs [j0, j0 + len) of weight row n as floats; j0 and, for blocks, len are whole blocks.
template <class W>
void floats_of_row(float* to, const LinearArgs& a, int64_t n, int64_t j0, int64_t len) {
  const W* from = static_cast<const W*>(a.w) + n * a.D + j0;
  int64_t j = 0;
  for (; j + 8 <= len; j += 8) store(to + j, load(from + j));
  if (j < len) store_first(to + j, load_first(from + j, len - j), len - j);
}
template <>
void floats_of_row<BlockQ8_0>(float* to, const LinearArgs& a, int64_t n, int64_t j0, int64_t len) {
  floats_of_q8_0(to, static_cast<const BlockQ8_0*>(a.w) + (n * a.D + j0) / 32, len);
}
template <>
void floats_of_row<BlockQ4_K>(float* to, const LinearArgs& a, int64_t n, int64_t j0, int64_t len) {
  floats_of_q4_k(to, static_cast<const BlockQ4_K*>(a.w) + (n * a.D + j0) / 256, len);
}
template <>
void floats_of_row<BlockQ6_K>(float* to, const LinearArgs& a, int64_t n, int64_t j0, int64_t len) {
  floats_of_q6_k(to, static_cast<const BlockQ6_K*>(a.w) + (n * a.D + j0) / 256, len);
}

template <class W>
void block_buffered(const LinearArgs& a, int64_t t0, int64_t t1, int64_t n0, int64_t n1, float* scratch) {
  float *weights = scratch, *sums = scratch + kLinearCols * kLinearDepth;
  for (int64_t j0 = 0; j0 < a.D; j0 += kLinearDepth) {
    const int64_t len = least(kLinearDepth, a.D - j0);
    for (int64_t n = n0; n < n1; ++n) floats_of_row<W>(weights + (n - n0) * kLinearDepth, a, n, j0, len);
    pass(a, t0, t1, n0, n1 - n0, weights, kLinearDepth, j0, len, sums, j0 > 0, j0 + len == a.D);
  }
}

template <class W>
void block(const LinearArgs& a, int64_t t0, int64_t t1, int64_t n0, int64_t n1, float* scratch) {
  if (t1 - t0 <= kLinearDirect) {
    block_direct<W>(a, t0, t1, n0, n1);
  } else {
    block_buffered<W>(a, t0, t1, n0, n1, scratch);
  }
}

}  // namespace

void linear_block(const LinearArgs& a, int64_t t0, int64_t t1, int64_t n0, int64_t n1, float* scratch) {
  switch (a.kind) {
    case kF32: return block<float>(a, t0, t1, n0, n1, scratch);
    case kF16: return block<F16>(a, t0, t1, n0, n1, scratch);
    case kBf16: return block<Bf16>(a, t0, t1, n0, n1, scratch);
    case kQ8_0: return block_buffered<BlockQ8_0>(a, t0, t1, n0, n1, scratch);
    case kQ4_K: return block_buffered<BlockQ4_K>(a, t0, t1, n0, n1, scratch);
    case kQ6_K: return block_buffered<BlockQ6_K>(a, t0, t1, n0, n1, scratch);
  }
}

}  // namespace bg::cpu::BG_ISA
