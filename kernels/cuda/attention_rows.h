// Attention of a few query rows over spans of 128 keys on the ordinary cores, Precision::float32: what attention_float.cu and dilated.cu share.
//   z = (Σ_j q_j·k_j)·scale, one chain over j;  p = e^(z − max z of the span);  l, o = Σ p, Σ p·v over a span's keys, in its own unit;  spans folded in order
// Block: W warps of 8 query rows each; a lane is a key in the scores and 1 column of each 32 in the sums. Keys, then values come 32 at a time through one buffer.
// C = ⌈d/32⌉. Shared: (8·W + 32)·(32·C + 4) + 128·(8·W + 4) floats: 51 KB for d = 128 and W = 4, 27 KB for W = 1. FLOP 4·d a query and key; each tile of 8·W
// rows reads its keys once.
// Keys that a row must not see are not multiplied by 0 but left out: they may hold NaN. Not measured yet.
#pragma once
#include "kernels/cuda/attention_parts.h"

namespace bg::BG_CUDA {

constexpr int kRowKeys = 32, kOwnRows = 8, kFloatRows = 4 * kOwnRows;  // rows of a warp, of a block of 4
// From one row to the next in shared memory: an odd number of 16-byte pieces, so that there are no bank conflicts.
template <int W>
constexpr int kRowWeightPitch = kOwnRows * W + 4;
template <int C>
constexpr int kRowPitch = 32 * C + 4;
template <int C, int W = 4>
constexpr size_t kFloatShared = ((kOwnRows * W + kRowKeys) * kRowPitch<C> + kSpanKeys * kRowWeightPitch<W>) * sizeof(float);

__device__ __forceinline__ float over_lanes_most(float x) {
  SIMT_UNROLL for (int o = 16; o > 0; o /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, o));
  return x;
}
__device__ __forceinline__ float over_lanes_sum(float x) {
  SIMT_UNROLL for (int o = 16; o > 0; o /= 2) x += __shfl_xor_sync(0xffffffffu, x, o);
  return x;
}

// State of a warp's rows: o_r at column lane + 32·c; m and l the same on all lanes.
template <int C>
struct FloatState {
  float o[kOwnRows][C], m[kOwnRows], l[kOwnRows];
};
template <int C>
__device__ __forceinline__ void clear(FloatState<C>& x) {
  SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) {
    SIMT_UNROLL for (int j = 0; j < C; ++j) x.o[r][j] = 0;
    x.m[r] = -INFINITY;
    x.l[r] = 0;
  }
}

// total ∪= span; a span without a key changes nothing.
template <int C>
__device__ __forceinline__ void fold(FloatState<C>& total, const FloatState<C>& span) {
  SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) {
    if (span.l[r] != 0) {  // NaN too
      const float top = fmaxf(total.m[r], span.m[r]), base = top == -INFINITY ? 0.0f : top, a = expf(total.m[r] - base), b = expf(span.m[r] - base);
      total.m[r] = top;
      total.l[r] = fmaf(span.l[r], b, total.l[r] * a);
      SIMT_UNROLL for (int j = 0; j < C; ++j) total.o[r][j] = fmaf(span.o[r][j], b, total.o[r][j] * a);
    }
  }
}

// z of the lane's key against the warp's rows.
template <int C>
__device__ __forceinline__ void dots(float (&z)[kOwnRows], const float* q, const float* key, int d) {
  SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) z[r] = 0;
  for (int j = 0; j < d; j += 4) {
    const float4 k = *reinterpret_cast<const float4*>(key + j);
    SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) {
      const float4 x = *reinterpret_cast<const float4*>(q + r * kRowPitch<C> + j);
      z[r] = fmaf(x.w, k.w, fmaf(x.z, k.z, fmaf(x.y, k.y, fmaf(x.x, k.x, z[r]))));
    }
  }
}

// o += p·v over `count` keys, ascending. p: [key][row]. The r-th row sees the first limit[r] of the keys.
template <bool kHidden, int W, int C>
__device__ __forceinline__ void add_row_values(FloatState<C>& x, const float* p, const float* values, int count, const int (&limit)[kOwnRows]) {
  const int lane = int(threadIdx.x % 32);
  for (int s = 0; s < count; ++s) {
    float w[kOwnRows], v[C];
    SIMT_UNROLL for (int r = 0; r < kOwnRows; r += 4) {
      const float4 four = *reinterpret_cast<const float4*>(p + s * kRowWeightPitch<W> + r);
      w[r] = four.x, w[r + 1] = four.y, w[r + 2] = four.z, w[r + 3] = four.w;
    }
    SIMT_UNROLL for (int j = 0; j < C; ++j) v[j] = values[s * kRowPitch<C> + lane + 32 * j];
    SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) {
      if (kHidden && s >= limit[r]) continue;
      SIMT_UNROLL for (int j = 0; j < C; ++j) x.o[r][j] = fmaf(w[r], v[j], x.o[r][j]);
    }
  }
}

// total ∪= keys [first, end) of one span, rows base + … of a head of k and v. Called by all threads of the block; mine: rows of the warp, ≤ 0: none. queries: shared memory,
// the tile's rows in front. limits(limit, key0): how many keys from key0 on each of the warp's rows sees. Shared memory may be used again after a barrier.
template <int W = 4, int C, class Limits>
__device__ __forceinline__ void attend_rows_span(FloatState<C>& total, float* queries, int own, const Cache& k, const Cache& v, int64_t base, int first, int end,
                                                 int head, int d, float scale, int mine, const Limits& limits) {
  float *const tile = queries + kOwnRows * W * kRowPitch<C>, *const weights = tile + kRowKeys * kRowPitch<C>;
  const int lane = int(threadIdx.x % 32);
  float* const scores = weights + lane * kRowWeightPitch<W> + own;  // of the lane's key in each 32: z, then p
  const auto to_tile = [&](int r, int j, float4 x) { *reinterpret_cast<float4*>(tile + r * kRowPitch<C> + j) = x; };
  int limit[kOwnRows];
  float top[kOwnRows];
  SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) top[r] = -INFINITY;
  for (int key0 = first; key0 < end && key0 < first + kSpanKeys; key0 += kRowKeys) {
    __syncthreads();
    load_rows<kRowKeys, 32 * C, 32 * W>(k, base + key0, base + end, head * k.head, d, to_tile);
    __syncthreads();
    if (mine <= 0) continue;
    float z[kOwnRows];
    dots<C>(z, queries + own * kRowPitch<C>, tile + lane * kRowPitch<C>, d);
    limits(limit, key0);
    SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) {
      const float seen = lane < limit[r] ? z[r] * scale : -INFINITY;
      scores[(key0 - first) * kRowWeightPitch<W> + r] = seen;
      top[r] = fmaxf(top[r], seen);
    }
  }
  FloatState<C> span;
  clear(span);
  SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) {
    if (r >= mine) continue;
    span.m[r] = over_lanes_most(top[r]);
    const float from = span.m[r] == -INFINITY ? 0.0f : span.m[r];
    float sum = 0;
    for (int key0 = first; key0 < end && key0 < first + kSpanKeys; key0 += kRowKeys) {
      float& p = scores[(key0 - first) * kRowWeightPitch<W> + r];
      p = expf(p - from);
      sum += p;
    }
    span.l[r] = over_lanes_sum(sum);
  }
  for (int key0 = first; key0 < end && key0 < first + kSpanKeys; key0 += kRowKeys) {
    __syncthreads();
    load_rows<kRowKeys, 32 * C, 32 * W>(v, base + key0, base + end, head * v.head, d, to_tile);
    __syncthreads();
    if (mine <= 0) continue;
    limits(limit, key0);
    const float* const p = weights + (key0 - first) * kRowWeightPitch<W> + own;
    const int count = end - key0 < kRowKeys ? end - key0 : kRowKeys;
    if (limit[0] >= count)  // the first row sees least
      add_row_values<false, W>(span, p, tile, count, limit);
    else
      add_row_values<true, W>(span, p, tile, count, limit);
  }
  fold(total, span);
}

}  // namespace bg::BG_CUDA
