// Attention of a tile of query rows over one run of keys on tensor cores, Precision::fast: what attention_frames, attention_causal and attention_dilated share.
//   s = q·kᵀ (q, k rounded to bf16), p = 2^(s·c − m) with c = log₂e/√d and m the running maximum of s·c, l = Σ p, o = Σ p·v (p, v rounded to bf16)
// A block is 4 warps, a warp has M·16 query rows, keys come in tiles through two buffers in shared memory and are taken 32 at a time: s and p stay in
// registers, the accumulators of s being laid out as the first operand of p·v. A run of keys leaves a state (m, l, o); states are folded in ascending order.
// D: columns of a key as multiplied, a multiple of 8 (zeros behind d); DV: columns of v that this block sums, D or, where D is too wide for the registers, a part.
// Shared memory: 36,864 bytes for D = 72 (tiles of 64 keys), 26,624 for 96, 34,816 for 128 (of 32): two blocks fit where there are 99 KB. Rows are an odd number of
// 16-byte pieces long, so that ldmatrix has no conflicts.
// FLOP 4·D a query and key. Bytes: each query tile reads its keys once, from the second cache.
// Registers: attention.cu. Not measured yet.
#pragma once
#include "kernels/cuda/attention_keys.h"

namespace bg::BG_CUDA {

constexpr int kBlockKeys = 32;
template <int D>
constexpr int kTileKeys = D <= 72 ? 64 : 32;

template <int D>
constexpr int kPitch = D / 8 % 2 == 1 ? D : D + 8;  // values from one row to the next in shared memory
template <int D>
constexpr int kPart = D > 128 ? 64 : D;  // DV

// Rows of bf16, each at a multiple of 16 bytes.
struct RoundedKeys {
  const uint16_t* data;
  int64_t stride;  // values
};

// ---- queries ------------------------------------------------------------------------------------------------------------------------------

template <int D, int M>
struct Queries {
  uint32_t a[M][D / 16][4];
  uint32_t tail[M][2];  // the last 8 columns of 72
};

// row(i): the d floats of the warp's row i, i < count; zeros behind both ends.
template <int D, int M, class Row>
__device__ __forceinline__ void load_queries(Queries<D, M>& q, int count, int d, const Row& row) {
  const int lane = int(threadIdx.x % 32), g = lane / 4, p = lane % 4;
  SIMT_UNROLL for (int m = 0; m < M; ++m) {
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      const int i = 16 * m + 8 * half + g;
      const float* const from = i < count ? row(i) : nullptr;
      const auto pair = [&](int j) {
        return from == nullptr ? 0u : simt::pack_bf16(j < d ? from[j] : 0.0f, j + 1 < d ? from[j + 1] : 0.0f);
      };
      SIMT_UNROLL for (int k = 0; k < D / 16; ++k) {
        q.a[m][k][half] = pair(16 * k + 2 * p);
        q.a[m][k][2 + half] = pair(16 * k + 8 + 2 * p);
      }
      q.tail[m][half] = D % 16 == 0 ? 0 : pair(D / 16 * 16 + 2 * p);
    }
  }
}

// ---- a state ------------------------------------------------------------------------------------------------------------------------------

// Of M·16 rows: a lane has rows g and g + 8 of each 16 (g = lane/4), columns 8n + 2·(lane%4) and the next of o, and its part of l.
template <int DV, int M>
struct State {
  float o[M][DV / 8][4];
  float m[M][2], l[M][2];
};

template <int DV, int M>
__device__ __forceinline__ void clear(State<DV, M>& x) {
  SIMT_UNROLL for (int m = 0; m < M; ++m) {
    SIMT_UNROLL for (int n = 0; n < DV / 8; ++n) SIMT_UNROLL for (int e = 0; e < 4; ++e) x.o[m][n][e] = 0;
    SIMT_UNROLL for (int half = 0; half < 2; ++half) x.m[m][half] = -INFINITY, x.l[m][half] = 0;
  }
}

// What is subtracted from scores whose maximum is m: never −∞, so that a row without keys has p = 0.
__device__ __forceinline__ float base_of(float m) { return m == -INFINITY ? 0.0f : m; }

// l of the whole row, on each of its four lanes.
__device__ __forceinline__ float whole_sum(float l) {
  l += __shfl_xor_sync(0xffffffffu, l, 1);
  return l + __shfl_xor_sync(0xffffffffu, l, 2);
}

// total ∪= span, whose l becomes whole; span is cleared. A span without a key (l = 0) changes nothing: x·1 + 0·(−0) is x, −0 too.
template <int DV, int M>
__device__ __forceinline__ void fold(State<DV, M>& total, State<DV, M>& span) {
  SIMT_UNROLL for (int m = 0; m < M; ++m) {
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      const float l = whole_sum(span.l[m][half]), top = fmaxf(total.m[m][half], span.m[m][half]), base = base_of(top);
      const float a = l == 0 ? 1.0f : simt::exp2_fast(total.m[m][half] - base), b = l == 0 ? -0.0f : simt::exp2_fast(span.m[m][half] - base);
      total.m[m][half] = top;
      total.l[m][half] = fmaf(l, b, total.l[m][half] * a);
      SIMT_UNROLL for (int n = 0; n < DV / 8; ++n) {
        SIMT_UNROLL for (int e = 2 * half; e < 2 * half + 2; ++e) total.o[m][n][e] = fmaf(span.o[m][n][e], b, total.o[m][n][e] * a);
      }
    }
  }
  clear(span);
}

// ---- a tile of keys -----------------------------------------------------------------------------------------------------------------------

// 16-byte pieces kFrom … of kRows rows on their way into a buffer, zeros for rows from `there` on. As many threads side by side in a row as are a power of two,
// so that a thread's addresses differ by a constant: 72 columns are 8 pieces and 1.
template <int D, int kRows, int kFrom = 0>
__device__ __forceinline__ void fetch_pieces(uint16_t* to, const uint16_t* from, int64_t stride, int there) {
  constexpr int kLeft = D / 8 - kFrom, kWide = kLeft >= 32 ? 32 : kLeft >= 16 ? 16 : kLeft >= 8 ? 8 : kLeft >= 4 ? 4 : kLeft >= 2 ? 2 : 1;
  constexpr int kDown = kAttentionThreads / kWide;
  const int piece = kFrom + int(threadIdx.x) % kWide, row = int(threadIdx.x) / kWide;
  const uint16_t* at = from + row * stride + 8 * piece;
  SIMT_UNROLL for (int down = 0; down < kRows; down += kDown, at += kDown * stride) {
    if (kDown <= kRows || row < kRows) simt::copy_async<16>(to + (row + down) * kPitch<D> + 8 * piece, at, row + down < there);
  }
  if constexpr (kLeft > kWide) fetch_pieces<D, kRows, kFrom + kWide>(to, from, stride, there);
}

// Rows first … of keys or values.
template <int D, int kRows>
__device__ __forceinline__ void fetch(uint16_t* to, const RoundedKeys& x, int64_t first, int64_t end) {
  fetch_pieces<D, kRows>(to, x.data + first * x.stride, x.stride, end - first < kRows ? int(end - first) : kRows);
}

// The lane's elements of s or p: rows g and g + 8 of each 16, keys 8n + 2·(lane%4) and the next.
template <int M>
struct Scores {
  float s[M][kBlockKeys / 8][4];
};

// s = q·kᵀ over 32 keys in shared memory; each element is one chain over the columns, 16 by 16, ascending.
template <int D, int M>
__device__ __forceinline__ void multiply(Scores<M>& x, const Queries<D, M>& q, const uint16_t* keys) {
  const int lane = int(threadIdx.x % 32);
  const uint16_t* const at = keys + (lane % 8 + lane / 16 * 8) * kPitch<D> + lane / 8 % 2 * 8;
  SIMT_UNROLL for (int m = 0; m < M; ++m) SIMT_UNROLL for (int n = 0; n < 4; ++n) SIMT_UNROLL for (int e = 0; e < 4; ++e) x.s[m][n][e] = 0;
  SIMT_UNROLL for (int k = 0; k < D / 16; ++k) {
    SIMT_UNROLL for (int n = 0; n < 4; n += 2) {
      uint32_t b[4];
      simt::ldmatrix_x4(b, at + 8 * n * kPitch<D> + 16 * k);
      SIMT_UNROLL for (int m = 0; m < M; ++m) {
        simt::mma_bf16(x.s[m][n], q.a[m][k], {b[0], b[1]});
        simt::mma_bf16(x.s[m][n + 1], q.a[m][k], {b[2], b[3]});
      }
    }
  }
  if constexpr (D % 16 != 0) {
    uint32_t b[4];
    simt::ldmatrix_x4(b, keys + lane * kPitch<D> + D / 16 * 16);
    SIMT_UNROLL for (int n = 0; n < 4; ++n) SIMT_UNROLL for (int m = 0; m < M; ++m) simt::mma_bf16_k8(x.s[m][n], q.tail[m], b[n]);
  }
}

// For one half of a lane's elements (row g or g + 8) of s over keys first, first + 1, …: keys from `limit` on are not seen.
__device__ __forceinline__ void hide(float (&s)[4][4], int half, int first, int limit) {
  if (first + kBlockKeys <= limit) return;
  const int p = int(threadIdx.x % 4);
  SIMT_UNROLL for (int n = 0; n < 4; ++n) {
    SIMT_UNROLL for (int e = 0; e < 2; ++e)
      if (first + 8 * n + 2 * p + e >= limit) s[n][2 * half + e] = -INFINITY;
  }
}
// The row's largest.
__device__ __forceinline__ float largest_of(const float (&s)[4][4], int half) {
  float top = fmaxf(s[0][2 * half], s[0][2 * half + 1]);
  SIMT_UNROLL for (int n = 1; n < 4; ++n) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
  top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
  return fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
}
// s becomes p; its sum on this lane.
__device__ __forceinline__ float exponentials(float (&s)[4][4], int half, float c, float base) {
  float sum = 0;
  SIMT_UNROLL for (int n = 0; n < 4; ++n) {
    SIMT_UNROLL for (int e = 2 * half; e < 2 * half + 2; ++e) {
      s[n][e] = simt::exp2_fast(fmaf(s[n][e], c, -base));
      sum += s[n][e];
    }
  }
  return sum;
}

// s becomes p against the maximum so far; what the state has already is scaled down to it.
template <int DV, int M>
__device__ __forceinline__ void weigh(Scores<M>& x, State<DV, M>& sum, float c, int first, const int (&limit)[M][2]) {
  SIMT_UNROLL for (int m = 0; m < M; ++m) {
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      hide(x.s[m], half, first, limit[m][half]);
      const float top = fmaxf(sum.m[m][half], largest_of(x.s[m], half) * c), base = base_of(top), a = simt::exp2_fast(sum.m[m][half] - base);
      sum.m[m][half] = top;
      sum.l[m][half] = fmaf(sum.l[m][half], a, exponentials(x.s[m], half, c, base));
      SIMT_UNROLL for (int n = 0; n < DV / 8; ++n) SIMT_UNROLL for (int e = 2 * half; e < 2 * half + 2; ++e) sum.o[m][n][e] *= a;
    }
  }
}

// o += p·v over 32 keys in shared memory: each element is one chain over the keys, 16 by 16, ascending.
template <int DV, int M>
__device__ __forceinline__ void add_values(State<DV, M>& sum, const Scores<M>& x, const uint16_t* values) {
  const int lane = int(threadIdx.x % 32);
  const uint16_t* const at = values + lane % 16 * kPitch<DV> + lane / 16 * 8;
  SIMT_UNROLL for (int k = 0; k < kBlockKeys / 16; ++k) {
    uint32_t a[M][4];
    SIMT_UNROLL for (int m = 0; m < M; ++m) {
      SIMT_UNROLL for (int i = 0; i < 4; ++i) a[m][i] = simt::pack_bf16(x.s[m][2 * k + i / 2][i % 2 * 2], x.s[m][2 * k + i / 2][i % 2 * 2 + 1]);
    }
    SIMT_UNROLL for (int n = 0; n + 1 < DV / 8; n += 2) {
      uint32_t b[4];
      simt::ldmatrix_x4_trans(b, at + 16 * k * kPitch<DV> + 8 * n);
      SIMT_UNROLL for (int m = 0; m < M; ++m) {
        simt::mma_bf16(sum.o[m][n], a[m], {b[0], b[1]});
        simt::mma_bf16(sum.o[m][n + 1], a[m], {b[2], b[3]});
      }
    }
    if constexpr (DV / 8 % 2 == 1) {
      uint32_t b[2];
      simt::ldmatrix_x2_trans(b, values + (16 * k + lane % 16) * kPitch<DV> + DV - 8);
      SIMT_UNROLL for (int m = 0; m < M; ++m) simt::mma_bf16(sum.o[m][DV / 8 - 1], a[m], b);
    }
  }
}

// ---- a run of keys ------------------------------------------------------------------------------------------------------------------------

template <int D>
constexpr size_t kTileShared = 2 * kTileKeys<D> * (kPitch<D> + kPitch<kPart<D>>) * sizeof(uint16_t);  // bytes, dynamic

// sum ∪= keys [0, keys) of k and the same rows of v (the DV columns that v.data points at). Called by all threads of the block. limit: how many keys each of
// the lane's rows sees; seen: the most that any row of the warp sees, 0 for a warp without rows. after(first): behind the tile of keys first, first + 1, ….
// Then sum.l is this lane's part (whole_sum). Shared memory may be used again after a barrier.
template <int D, int DV, int M, class After>
__device__ __forceinline__ void attend_run(State<DV, M>& sum, const Queries<D, M>& q, const RoundedKeys& k, const RoundedKeys& v, int keys, float c,
                                           const int (&limit)[M][2], int seen, uint16_t* shared, const After& after) {
  constexpr int kTile = kTileKeys<D>, kKeys = kTile * kPitch<D>, kBoth = kKeys + kTile * kPitch<DV>;
  const auto fetch_tile = [&](int first, int buffer) {
    fetch<D, kTile>(shared + buffer * kBoth, k, first, keys);
    fetch<DV, kTile>(shared + buffer * kBoth + kKeys, v, first, keys);
    simt::copy_commit();
  };
  fetch_tile(0, 0);
  for (int first = 0, buffer = 0; first < keys; first += kTile, buffer ^= 1) {
    simt::copy_wait<0>();
    __syncthreads();  // this tile is there for all, and all are done with the other buffer
    if (first + kTile < keys) fetch_tile(first + kTile, buffer ^ 1);
    if (first >= seen) continue;
    for (int key = 0; key < kTile && first + key < seen; key += kBlockKeys) {
      Scores<M> x;
      multiply(x, q, shared + buffer * kBoth + key * kPitch<D>);
      weigh(x, sum, c, first + key, limit);
      add_values(sum, x, shared + buffer * kBoth + kKeys + key * kPitch<DV>);
    }
    after(first);
  }
}

// ---- launches -----------------------------------------------------------------------------------------------------------------------------

// body.operator()<D>(): D the narrowest width of ours that holds d.
template <class Body>
void with_width(int d, const Body& body) {
  if (d <= 32) return body.template operator()<32>();
  if (d <= 64) return body.template operator()<64>();
  if (d <= 72) return body.template operator()<72>();
  if (d <= 96) return body.template operator()<96>();
  if (d <= 128) return body.template operator()<128>();
  return body.template operator()<256>();
}

// All heads' rounded keys and values.
struct HeadKeys {
  RoundedKeys k, v;
  int64_t k_head, v_head;  // values from one head to the next
};

constexpr size_t rounded_bytes(int64_t rows, int D) { return 2 * size_t(rows) * size_t(D) * sizeof(uint16_t); }  // keys and values of one head

// Keys [row0, row0 + rows) of heads [kv0, kv0 + heads), rounded into scratch.
template <int D>
HeadKeys rounded(const Context& c, Cache k, Cache v, int64_t row0, int64_t rows, int64_t kv0, int64_t heads, int d) {
  auto* const keys = reinterpret_cast<uint16_t*>(c.scratch);
  uint16_t* const values = keys + heads * rows * D;
  round_keys<D>(c, keys, values, k, v, row0, rows, kv0, heads, d);
  return {{keys, D}, {values, D}, rows * D, rows * D};
}

// heads at a time, as many as fit, in pieces of about one size
template <class Launch>
void by_heads(int64_t heads, int64_t most, const Launch& launch) {
  const int64_t each = divide_up(heads, divide_up(heads, most < heads ? most : heads));
  for (int64_t first = 0; first < heads; first += each) launch(first, heads - first < each ? heads - first : each);
}

}  // namespace bg::BG_CUDA
