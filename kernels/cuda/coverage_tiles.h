// Tiles of the coverage selector on a GPU: products of unit rows, and what becomes of a tile of them. Equations: kernels/ref/coverage.cpp; the order of things:
// coverage.cu. Row i of C: text rows 0 … m−1, then the visual rows; column j is visual row m + j.
//
// A similarity S_ij is one chain of fmaf over ascending d, wherever it is computed, so S_ij = S_ji bit by bit, and a recomputed E is the stored one.
// Sums of C's terms are sums of 64-bit integers, so nothing depends on tiles, blocks or the order of atomic additions.
//
// A tile is Tile × Tile entries by 256 threads, thread (ty, tx) rows ty + 16·r and columns tx + 16·n: 128 wide (8 × 8 entries a thread), or 64 (4 × 4) where 128 would
// leave most of a GPU idle. kDepth inputs of both sides lie in shared memory twice (16-byte asynchronous copies, rows 20 floats apart: an odd number of 16-byte
// pieces, so that eight rows at one depth meet no bank twice): 40,960 or 20,480 bytes, used again for the sums of a tile.
// FLOP of a pass over all pairs: L²/2 · 2·D, plus e^x and two double products with their roundings for each two entries. Bytes: L²/2·8·D/Tile, most of them out of
// the second cache; the stored matrix is 4·L² bytes written. Not measured yet.
#pragma once
#include "kernels/cuda/cuda.h"

namespace bg::BG_CUDA {
namespace {

constexpr int kTileThreads = 256;
constexpr int kDepth = 16;          // inputs per stage; unit rows are padded with zeros to a multiple
constexpr int kPitch = kDepth + 4;
constexpr int kBatch = 256;         // the most stale columns evaluated at once
constexpr int kGroup = 16;          // rows of tiles that run side by side: they and as many columns of tiles stay in the second cache

// Where a selection stands: what the kernels of a round say to one another.
struct State {
  int64_t picked;                   // choices made: the version of `best` and of gains
  int64_t column;                   // just taken, best is to be raised by it; −1: none
  int64_t evaluations, most;        // CoverageReport's, most in units of C
  int32_t batch, changed;           // stale columns to evaluate; stored rows whose best rose
  int32_t listed[kBatch / 64];      // per tile of the batch: rows whose best rose since its oldest column was evaluated
  int32_t candidate[kBatch];        // the batch, those evaluated longest ago first
  int32_t evaluated[kBatch];        // and when: after so many choices
};

// A stored row whose best rose.
struct Change {
  int64_t row, old, now;
  double scale;
};

// One selection: sizes, units, and its parts of the scratch memory. stored: rows of C whose E is kept, either the text rows or all.
struct Selection {
  int64_t L, m, k, stored, stride;
  double sum_scale, text_scale, visual_scale;  // Z counts in 1/sum_scale; times E_ij/Z_i: C_ij in its units
  int text_shift;                   // C of text rows counts in 2^text_shift of the units
  float *e, *unit, *own;            // (stored, L); (m+L, stride); (L) E_ii of the visual rows
  double* scale;                    // (m+L): C_ij = E_ij·scale_i
  int64_t *z, *gain;                // (m+L); (L) exact, or an upper bound from an earlier step
  int32_t* evaluated;               // (L) after how many choices the gain was exact, −1: taken
  State* state;
  int64_t *index, *taken;           // (k) the choices and what they gained
  int64_t *best_stored, *best;      // (stored) now; (k, L) after each choice, of the visual rows where they are not stored
  Change* change;                   // (stored)
  int32_t* list;                    // (kBatch/64, L) visual rows

  __device__ const float* text(int64_t i) const { return unit + i * stride; }
  __device__ const float* visual(int64_t j) const { return unit + (m + j) * stride; }
  __device__ const int64_t* best_after(int64_t choices) const { return best + choices * L; }
};

// e^x for x ≤ 0 (or above by a rounding), relative error ≤ 3u; 0 below −86.5 and for NaN. The steps of kernels/cpu/simd.h, exp_negative: with the same norms and the same
// chains this makes E, and with it the choice, the same bits on every GPU, in the emulation, and on a CPU that has FMA.
__device__ inline float exponential(float x) {
  const float magic = 12582912.0f, shifted = fmaf(x, 1.44269504f, magic), n = shifted - magic;
  const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  const float e = fmaf(r * r, p, r) + 1.0f;
  return x >= -86.5f ? simt::float_of(simt::bits_of(e) + (simt::bits_of(shifted) << 23)) : 0.0f;  // times 2^n: n stands in the low bits of shifted
}
__device__ inline float visual_exponential(float s) { return exponential((s - 1.0f) * 5.0f); }

// E·scale to the nearest integer, ties to even: a double below 2^51 that is added to 1.5·2^52 is rounded so, and the bits of the sum count up from those of it.
__device__ inline int64_t units(float e, double scale) {
  constexpr double kMagic = 6755399441055744.0;
  const double sum = double(e) * scale + kMagic;
  int64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  return bits - 0x4338000000000000;
}

__device__ inline void add(int64_t* to, int64_t x) { atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(x)); }

template <int Tile>
constexpr int kTileFloats = 4 * Tile * kPitch;  // of shared memory
constexpr int kSlice = 32;                      // rows of a tile that lie in shared memory at a time, once it is computed

// In a warp 4 × 8 threads.
__device__ inline int tile_y() { return int(threadIdx.x / 64 * 4 + threadIdx.x % 32 / 8); }
__device__ inline int tile_x() { return int(threadIdx.x / 32 % 2 * 8 + threadIdx.x % 8); }

// s[r][n] = Σ_d row(ty + 16·r)[d] · column(tx + 16·n)[d], ascending d; rows from `rows` on and columns from `cols` on count as 0. width: a multiple of kDepth.
template <int Tile, class Row, class Column>
__device__ __forceinline__ void tile_products(float (&s)[Tile / 16][Tile / 16], float* shared, const Row& row, int rows, const Column& column, int cols, int width) {
  constexpr int kEach = Tile / 16, kCopies = Tile / 64, kStage = 2 * Tile * kPitch;
  const int t = int(threadIdx.x), ty = tile_y(), tx = tile_x();
  const int line = t / 4, piece = t % 4 * 4;
  const float *from_row[kCopies], *from_column[kCopies];
  SIMT_UNROLL for (int i = 0; i < kCopies; ++i) {
    const int at = line + 64 * i;
    from_row[i] = row(at < rows ? at : 0) + piece;
    from_column[i] = column(at < cols ? at : 0) + piece;
  }
  const auto load = [&](int d) {
    float* a = shared + (d / kDepth & 1) * kStage + line * kPitch + piece;
    SIMT_UNROLL for (int i = 0; i < kCopies; ++i) {
      simt::copy_async<16>(a + 64 * i * kPitch, from_row[i] + d, line + 64 * i < rows);
      simt::copy_async<16>(a + (Tile + 64 * i) * kPitch, from_column[i] + d, line + 64 * i < cols);
    }
    simt::copy_commit();
  };
  SIMT_UNROLL for (int r = 0; r < kEach; ++r) {
    SIMT_UNROLL for (int n = 0; n < kEach; ++n) s[r][n] = 0;
  }
  load(0);
  for (int d = 0; d < width; d += kDepth) {
    if (d + kDepth < width) {
      load(d + kDepth);
      simt::copy_wait<1>();
    } else {
      simt::copy_wait<0>();
    }
    __syncthreads();
    const float* a = shared + (d / kDepth & 1) * kStage + ty * kPitch;
    const float* b = shared + (d / kDepth & 1) * kStage + (Tile + tx) * kPitch;
    SIMT_UNROLL_BY(1) for (int i = 0; i < kDepth; i += 4) {  // registers for one of them only
      float4 x[kEach];
      SIMT_UNROLL for (int r = 0; r < kEach; ++r) x[r] = *reinterpret_cast<const float4*>(a + 16 * r * kPitch + i);
      SIMT_UNROLL for (int n = 0; n < kEach; ++n) {
        const float4 y = *reinterpret_cast<const float4*>(b + 16 * n * kPitch + i);
        SIMT_UNROLL for (int r = 0; r < kEach; ++r) s[r][n] = fmaf(x[r].w, y.w, fmaf(x[r].z, y.z, fmaf(x[r].y, y.y, fmaf(x[r].x, y.x, s[r][n]))));
      }
    }
    __syncthreads();
  }
}

// A tile out of the registers: use(slice, y0) with rows y0 … y0 + kSlice − 1 in shared memory, Tile + 1 floats apart, entry by entry as map(s) says.
template <int Tile, class Map, class Use>
__device__ __forceinline__ void by_slices(const float (&s)[Tile / 16][Tile / 16], float* slice, const Map& map, const Use& use) {
  static_assert(kSlice * (Tile + 1) <= kTileFloats<Tile>);
  SIMT_UNROLL for (int q = 0; q < Tile / kSlice; ++q) {
    SIMT_UNROLL for (int r = 0; r < 2; ++r) {
      SIMT_UNROLL for (int n = 0; n < Tile / 16; ++n) slice[(tile_y() + 16 * r) * (Tile + 1) + tile_x() + 16 * n] = map(s[2 * q + r][n]);
    }
    __syncthreads();
    use(static_cast<const float*>(slice), q * kSlice);
    __syncthreads();
  }
}

// entry(y, x, value) for the rows y < rows of the slice at y0: in a thread always the same column, neighbours in neighbouring threads.
template <int Tile, class Entry>
__device__ __forceinline__ void down_columns(const float* slice, int y0, int rows, const Entry& entry) {
  constexpr int kParts = kTileThreads / Tile, kEach = kSlice / kParts;
  const int x = int(threadIdx.x) % Tile, first = int(threadIdx.x) / Tile * kEach;
  SIMT_UNROLL_BY(4) for (int y = first; y < first + kEach && y0 + y < rows; ++y) entry(y0 + y, x, slice[y * (Tile + 1) + x]);
}

// entry(y, x, value) for the columns x < cols of the slice at y0: in a thread always the same row, neighbours in neighbouring threads.
template <int Tile, class Entry>
__device__ __forceinline__ void along_rows(const float* slice, int y0, int cols, const Entry& entry) {
  constexpr int kEach = Tile / (kTileThreads / kSlice);
  const int y = int(threadIdx.x) % kSlice, first = int(threadIdx.x) / kSlice * kEach;
  SIMT_UNROLL_BY(4) for (int x = first; x < first + kEach && x < cols; ++x) entry(y0 + y, x, slice[y * (Tile + 1) + x]);
}

// The largest r with r·(r + 1)/2 ≤ x.
__device__ inline int64_t triangle_row(int64_t x) {
  int64_t r = int64_t((sqrt(8.0 * double(x) + 1) - 1) / 2);
  while (r * (r + 1) / 2 > x) --r;
  while ((r + 1) * (r + 2) / 2 <= x) ++r;
  return r;
}

// Tile x of those on and below the diagonal of n × n: kGroup rows at a time, column after column.
__device__ inline void tile_of_triangle(int64_t x, int64_t n, int& a, int& b) {
  const int64_t first = triangle_row(x) / kGroup * kGroup, rows = n - first < kGroup ? n - first : kGroup;
  x -= first * (first + 1) / 2;
  if (x < rows * first) {
    a = int(first + x % rows);
    b = int(x / rows);
  } else {
    x -= rows * first;
    const int64_t r = triangle_row(x);
    a = int(first + r);
    b = int(first + x - r * (r + 1) / 2);
  }
}

// What a pass over all pairs of visual rows adds up, a tile and its mirror image at once:
//   z      z_i += Σ_j E_ij in units of 1/sum_scale; keeps E_ii
//   store  the same, and keeps E
//   first  gain_j += Σ_i C_ij
//   lost   gain_j −= Σ_i min(C_ij, best_i), best after one choice: what the first choice takes from the other gains
enum class Pass { z, store, first, lost };

template <Pass P>
__device__ __forceinline__ int64_t term(const Selection& s, float e, int64_t i) {
  if constexpr (P == Pass::z || P == Pass::store) return units(e, s.sum_scale);
  const int64_t c = units(e, s.scale[s.m + i]);
  if constexpr (P == Pass::first) return c;
  const int64_t best = s.best_after(1)[i];
  return -(c < best ? c : best);
}

// One block a tile, in x.
template <int Tile, Pass P>
__global__ void __launch_bounds__(kTileThreads, 2) pass_over_pairs(Selection s, int64_t tiles) {
  SIMT_SHARED(float, shared, kTileFloats<Tile>);
  int a, b;
  tile_of_triangle(blockIdx.x, tiles, a, b);
  const int row0 = a * Tile, column0 = b * Tile;  // below 2^24: a grid has at most 2^31 tiles
  const int rows = int(s.L - row0 < Tile ? s.L - row0 : Tile), cols = int(s.L - column0 < Tile ? s.L - column0 : Tile);
  float products[Tile / 16][Tile / 16];
  tile_products<Tile>(products, shared, [&](int r) { return s.visual(row0 + r); }, rows, [&](int n) { return s.visual(column0 + n); }, cols, int(s.stride));

  constexpr bool kSumsE = P == Pass::z || P == Pass::store;
  int64_t* const sums = kSumsE ? s.z + s.m : s.gain;
  const int column = int(threadIdx.x) % Tile;
  int64_t down = 0;
  by_slices<Tile>(products, shared, visual_exponential, [&](const float* slice, int y0) {
    if (column < cols) {
      down_columns<Tile>(slice, y0, rows, [&](int y, int x, float e) {
        down += term<P>(s, e, row0 + y);
        if (P == Pass::store) s.e[(s.m + row0 + y) * s.L + column0 + x] = e;
        if (kSumsE && a == b && x == y) s.own[row0 + y] = e;
      });
    }
    const int row = y0 + int(threadIdx.x) % kSlice;
    if (a == b || row >= rows) return;
    int64_t across = 0;  // the mirror image
    along_rows<Tile>(slice, y0, cols, [&](int y, int x, float e) {
      across += term<P>(s, e, column0 + x);
      if (P == Pass::store) s.e[(s.m + column0 + x) * s.L + row0 + y] = e;
    });
    add(sums + row0 + row, across);
  });
  if (column < cols) add(sums + column0 + column, down);
}

// e_ij = T_i·V_j for the text rows. One block a tile, in x.
template <int Tile>
__global__ void __launch_bounds__(kTileThreads, 2) text_similarities(Selection s, int64_t tiles_across) {
  SIMT_SHARED(float, shared, kTileFloats<Tile>);
  const int64_t row0 = blockIdx.x / tiles_across * Tile, column0 = blockIdx.x % tiles_across * Tile;
  const int rows = int(s.m - row0 < Tile ? s.m - row0 : Tile), cols = int(s.L - column0 < Tile ? s.L - column0 : Tile);
  float products[Tile / 16][Tile / 16];
  tile_products<Tile>(products, shared, [&](int r) { return s.text(row0 + r); }, rows, [&](int n) { return s.visual(column0 + n); }, cols, int(s.stride));
  by_slices<Tile>(products, shared, [](float x) { return x; }, [&](const float* slice, int y0) {
    if (int(threadIdx.x) % Tile >= cols) return;
    down_columns<Tile>(slice, y0, rows, [&](int y, int x, float e) { s.e[(row0 + y) * s.L + column0 + x] = e; });
  });
}

// The batch brought up to date in the visual rows listed for it: gain_j += Σ_i max(0, C_ij − now_i) − max(0, C_ij − old_i), old: best when j was last evaluated.
// Block x: tile x mod (kBatch/Tile) of the columns, x div (kBatch/Tile) of the listed rows; those after the last leave at once.
template <int Tile>
__global__ void __launch_bounds__(kTileThreads, 2) evaluate_batch(Selection s) {
  constexpr int kAcross = kBatch / Tile;
  SIMT_SHARED(float, shared, kTileFloats<Tile>);
  const State& state = *s.state;
  const int tile = int(blockIdx.x % kAcross), column0 = tile * Tile;
  const int64_t row0 = int64_t(blockIdx.x / kAcross) * Tile;
  if (column0 >= state.batch || row0 >= state.listed[tile]) return;
  const int rows = int(state.listed[tile] - row0 < Tile ? state.listed[tile] - row0 : Tile), cols = state.batch - column0 < Tile ? state.batch - column0 : Tile;
  const int32_t *list = s.list + tile * s.L + row0, *candidate = state.candidate + column0;
  float products[Tile / 16][Tile / 16];
  tile_products<Tile>(products, shared, [&](int r) { return s.visual(list[r]); }, rows, [&](int n) { return s.visual(candidate[n]); }, cols, int(s.stride));

  const int column = int(threadIdx.x) % Tile;
  const int64_t *now = s.best_after(state.picked), *old = s.best_after(column < cols ? state.evaluated[column0 + column] : 0);
  int64_t sum = 0;
  by_slices<Tile>(products, shared, visual_exponential, [&](const float* slice, int y0) {
    if (column >= cols) return;
    down_columns<Tile>(slice, y0, rows, [&](int y, int, float e) {
      const int64_t i = list[y], c = units(e, s.scale[s.m + i]);
      sum += (c > now[i] ? c - now[i] : 0) - (c > old[i] ? c - old[i] : 0);
    });
  });
  if (column < cols) add(s.gain + candidate[column], sum);
}

}  // namespace
}  // namespace bg::BG_CUDA
