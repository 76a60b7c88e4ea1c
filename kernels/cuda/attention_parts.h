// What both precisions of attention share: which rows belong together, and states of spans on their way through scratch. Included by attention*.cu.
#pragma once
#include "kernels/cuda/attention_keys.h"

namespace bg::BG_CUDA {

constexpr int kSpanKeys = 128;  // a span of this many keys, at a multiple of it, has a state of its own

// Query rows in units: the rows that share keys. In attention_frames a unit is one frame of one head, row i its row i. In attention_causal it is the query heads
// of one kv head: row i is token i / group, head i % group of them, so that a tile of rows reads its keys once for all heads.
struct Attention {
  const float* q;
  float* o;
  int64_t q_stride, o_stride;
  int rows, group, d;        // rows of a unit
  int frame;                 // keys of a unit; 0: causal
  int64_t past;              // causal: tokens before row 0, unless step_past says it
  const int64_t* step_past;
  float scale;               // 1/√d; fast: log₂e/√d

  __device__ int64_t before() const { return step_past != nullptr ? *step_past : past; }
  __device__ int64_t offset(int64_t stride, int64_t unit, int i, int kv) const { return (unit * frame + i / group) * stride + int64_t(kv * group + i % group) * d; }
  __device__ const float* query(int64_t unit, int i, int kv) const { return q + offset(q_stride, unit, i, kv); }
  __device__ float* output(int64_t unit, int i, int kv) const { return o + offset(o_stride, unit, i, kv); }
  // How many keys row i sees. before: before() of a causal call, else what the unit has.
  __device__ int sees(int i, int64_t before) const { return frame != 0 ? frame : int(before) + i / group + 1; }
};

// States of rows [row0, row0 + rows) of units, one for each span of keys: (kv heads, rows, spans) of m and l, and of `width` sums each.
struct States {
  float2* top;
  float* o;
  int rows, spans, width;

  __device__ int64_t at(int kv, int i, int span) const { return (int64_t(kv) * rows + i) * spans + span; }
};

// Calls launch(States, kv0, heads, row0, rows) for pieces of the rows and heads whose states fit into scratch. Heads are cut first, rows by `tile`.
template <class Launch>
void in_pieces(const Context& c, int rows, int64_t kv_heads, int64_t spans, int64_t width, int tile, const Launch& launch) {
  const size_t row_bytes = size_t(spans) * (size_t(width) * sizeof(float) + sizeof(float2)), most = kScratchBytes / row_bytes;  // rows of one head
  if (most < size_t(tile))
    throw DeviceError("attention of " + std::to_string(rows) + " rows over " + std::to_string(spans) +
                      " spans of keys does not fit the device's scratch; use a shorter context");
  const int each = size_t(rows) <= most ? rows : int(most) / tile * tile;
  for (int row0 = 0; row0 < rows; row0 += each) {
    const int n = rows - row0 < each ? rows - row0 : each;
    const int64_t heads = int64_t(most) / n < kv_heads ? int64_t(most) / n : kv_heads;
    for (int64_t kv0 = 0; kv0 < kv_heads; kv0 += heads) {
      const int64_t count = kv_heads - kv0 < heads ? kv_heads - kv0 : heads;
      auto* const top = reinterpret_cast<float2*>(c.scratch);
      launch(States{top, reinterpret_cast<float*>(top + count * n * spans), n, int(spans), int(width)}, kv0, count, row0, n);
    }
  }
}

// e^x of a state's unit: 2^x in Precision::fast, whose scores carry log₂e.
template <bool kFast>
__device__ __forceinline__ float state_exp(float x) {
  if constexpr (kFast) return simt::exp2_fast(x);
  return expf(x);
}

// o = Σ over spans, ascending, as `fold` does it (attention_tile.h, attention_rows.h). Grid: rows of the piece, kv heads; a thread a column.
// The factors of as many spans as there are threads are computed side by side: the running maximum is the same in any order.
template <bool kFast>
__global__ void __launch_bounds__(256) merge_states(Attention a, States x, int row0, int kv0) {
  constexpr int kBatch = 32;  // loads under way
  SIMT_SHARED(float2, state, 256);
  SIMT_SHARED(float2, factor, 256);
  const int i = int(blockIdx.x), kv = int(blockIdx.y), me = int(threadIdx.x), threads = int(blockDim.x);
  const int spans = divide_up(a.sees(row0 + i, a.before()), kSpanKeys);
  const float* const from = x.o + x.at(kv, i, 0) * x.width + me;
  float m = -INFINITY, l = 0, o = 0;
  for (int first = 0; first < spans; first += threads) {
    const int count = spans - first < threads ? spans - first : threads;
    if (me < count) state[me] = x.top[x.at(kv, i, first + me)];
    __syncthreads();
    float before = m;
    for (int s = 0; s < me && s < count; ++s) before = fmaxf(before, state[s].x);
    if (me < count) {
      const float top = fmaxf(before, state[me].x), base = top == -INFINITY ? 0.0f : top;
      factor[me] = make_float2(state_exp<kFast>(before - base), state_exp<kFast>(state[me].x - base));
    }
    __syncthreads();
    for (int s0 = 0; s0 < count; s0 += kBatch) {
      float v[kBatch];
      SIMT_UNROLL for (int s = 0; s < kBatch; ++s) v[s] = s0 + s < count && me < a.d ? from[int64_t(first + s0 + s) * x.width] : 0.0f;
      SIMT_UNROLL for (int s = 0; s < kBatch; ++s) {
        if (s0 + s >= count) break;
        m = fmaxf(m, state[s0 + s].x);
        l = fmaf(state[s0 + s].y, factor[s0 + s].y, l * factor[s0 + s].x);
        o = fmaf(v[s], factor[s0 + s].y, o * factor[s0 + s].x);
      }
    }
    __syncthreads();
  }
  if (me < a.d) a.output(0, row0 + i, kv0 + kv)[me] = l == 0 ? 0.0f : kFast ? o * (1.0f / l) : o / l;
}

template <bool kFast>
void merge(const Context& c, const Attention& a, const States& x, int64_t kv0, int64_t heads, int row0) {
  BG_LAUNCH(c.device, (merge_states<kFast>), dim3(unsigned(x.rows), unsigned(heads)), unsigned(divide_up(a.d, 32) * 32), 0, a, x, row0, int(kv0));
}

// Precision::float32 (attention_float.cu), of `units` units of each of `kv_heads` heads. spans: 0, or, for few rows, how many spans any of them may see: then each
// is summed by a block of its own.
void attend_float(const Context& c, const Attention& a, Cache k, Cache v, int64_t units, int64_t kv_heads, int64_t spans);

}  // namespace bg::BG_CUDA
