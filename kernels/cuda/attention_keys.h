// Keys and values as attention reads them: a cache of any type as floats, four at a time, or rounded once into packed rows of bf16, which copy_async and ldmatrix
// take (attention_tile.h). Included by attention*.cu and dilated.cu.
#pragma once
#include "kernels/cuda/cuda.h"

namespace bg::BG_CUDA {

constexpr int kAttentionThreads = 128;

// Rows of f32, bf16 or q8_0, of heads side by side or one after the other.
struct Cache {
  const void* data;
  Type type;
  int64_t stride, head;  // values from one row to the next, from one head to the next
};
inline Cache side_by_side(const Tensor& t, int64_t heads) { return {t.data, t.type, t.stride, t.cols / heads}; }
inline Cache cache_of(const Tensor& t, int64_t kv_heads) { return {t.data, t.type, t.stride, t.rows / kv_heads * t.stride}; }

// Values column … column + 3 of a row, counted from head 0; zeros from the count-th on. q8_0: all four lie in one block.
__device__ inline float4 load_4(const Cache& x, int64_t row, int64_t column, int count) {
  float v[4] = {};
  if (x.type == Type::q8_0) {
    const auto* block = reinterpret_cast<const uint16_t*>(static_cast<const unsigned char*>(x.data) + (row * x.stride + column) / 32 * 34);
    const int i = int(column % 32) / 2;
    const float d = simt::f16_to_float(block[0]);
    const uint32_t codes = uint32_t(block[1 + i]) | uint32_t(block[2 + i]) << 16;
    SIMT_UNROLL for (int e = 0; e < 4; ++e) v[e] = d * float(static_cast<signed char>(codes >> (8 * e)));
  } else if (x.type == Type::bf16) {
    const auto* from = static_cast<const uint16_t*>(x.data) + row * x.stride + column;
    if (count >= 4 && reinterpret_cast<uintptr_t>(from) % 8 == 0) {
      const uint2 two = *reinterpret_cast<const uint2*>(from);
      return {simt::bf16_low(two.x), simt::bf16_high(two.x), simt::bf16_low(two.y), simt::bf16_high(two.y)};
    }
    SIMT_UNROLL for (int e = 0; e < 4; ++e) v[e] = e < count ? simt::bf16_low(from[e]) : 0.0f;
  } else {
    const auto* from = static_cast<const float*>(x.data) + row * x.stride + column;
    if (count >= 4 && reinterpret_cast<uintptr_t>(from) % 16 == 0) return *reinterpret_cast<const float4*>(from);
    SIMT_UNROLL for (int e = 0; e < 4; ++e) v[e] = e < count ? from[e] : 0.0f;
  }
  return {v[0], v[1], v[2], v[3]};
}

// Rows [first, first + kRows) of one head, columns [column, column + kColumns) of which the first `count` exist, through `store(row, j, float4)`; zeros for rows
// from `end` on and for columns that do not exist. Up to eight loads under way in a thread.
template <int kRows, int kColumns, int kThreads = kAttentionThreads, class Store>
__device__ __forceinline__ void load_rows(const Cache& x, int64_t first, int64_t end, int64_t column, int count, const Store& store) {
  constexpr int kQuads = kColumns / 4, kAll = kRows * kQuads, kBatch = kAll < 8 * kThreads ? 4 : 8;
  for (int start = int(threadIdx.x); start < kAll; start += kBatch * kThreads) {
    float4 v[kBatch];
    SIMT_UNROLL for (int b = 0; b < kBatch; ++b) {
      const int i = start + b * kThreads, row = i / kQuads, j = 4 * (i % kQuads);
      v[b] = i < kAll && first + row < end && j < count ? load_4(x, first + row, column + j, count - j) : float4{0, 0, 0, 0};
    }
    SIMT_UNROLL for (int b = 0; b < kBatch; ++b) {
      const int i = start + b * kThreads;
      if (i < kAll) store(i / kQuads, 4 * (i % kQuads), v[b]);
    }
  }
}

__device__ inline uint2 round_4(float4 v) { return make_uint2(simt::pack_bf16(v.x, v.y), simt::pack_bf16(v.z, v.w)); }

// to[h][row][D] = the d columns of head head0 + h, row row0 + row, to the nearest bf16, zeros from d on. Grid: rows in x; y: keys, values.
template <int D>
__global__ void __launch_bounds__(kAttentionThreads) round_rows(uint16_t* keys, uint16_t* values, Cache k, Cache v, int64_t row0, int head0, int heads, int d) {
  uint16_t* const to = blockIdx.y == 0 ? keys : values;
  const Cache from = blockIdx.y == 0 ? k : v;
  const int64_t row = blockIdx.x, rows = gridDim.x;
  for (int i = int(threadIdx.x); i < heads * (D / 4); i += kAttentionThreads) {
    const int h = i / (D / 4), j = 4 * (i % (D / 4));
    const float4 x = j < d ? load_4(from, row0 + row, (head0 + h) * from.head + j, d - j) : float4{0, 0, 0, 0};
    *reinterpret_cast<uint2*>(to + (h * rows + row) * D + j) = round_4(x);
  }
}

// Rows [row0, row0 + rows) of heads [head0, head0 + heads) of both, each (heads, rows, D) bf16.
template <int D>
void round_keys(const Context& c, uint16_t* keys, uint16_t* values, Cache k, Cache v, int64_t row0, int64_t rows, int64_t head0, int64_t heads, int64_t d) {
  BG_LAUNCH(c.device, (round_rows<D>), dim3(unsigned(rows), 2), kAttentionThreads, 0, keys, values, k, v, row0, int(head0), int(heads), int(d));
}

}  // namespace bg::BG_CUDA
