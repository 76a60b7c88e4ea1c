// attention_frames and attention_causal on tensor cores (Precision::fast; float32: attention_float.cu).
//   attend_tiles  a prompt, or frames: a block is a tile of query rows against all of its keys (attention_tile.h). Grid: tiles of all units in x, heads in y,
//                 parts of v's columns in z (d > 128 only). Keys must be rows of bf16: a bf16 cache is read where it lies, others are rounded into scratch.
//   attend_span   few rows (a step): a block is 16 rows against one span of 128 keys of a cache of any type; grid: spans in x, kv heads in y, tiles and parts in z.
//                 merge_states (attention_parts.h) then folds the spans.
// Order, the same in both, so that a prompt has the same bits whole, in chunks or token by token: causal keys are cut at multiples of 128; a span sums its keys in
// blocks of 32, each against the largest score so far; spans are folded ascending. A frame is one run of such blocks.
// Shared: attend_tiles: attention_tile.h; attend_span: 75,264 bytes for d = 128.
// FLOP 4·d per query head and key. Bytes of a step: the cache, once, and (d + 2)·4 per span and head twice. Frames: 4·(2 + 2·½)·T·H·d in and out, keys rounded
// once (6 bytes each) and read once per tile of rows from the second cache. Not measured yet.
#include <cmath>

#include "kernels/cuda/attention_parts.h"
#include "kernels/cuda/attention_tile.h"

namespace bg::BG_CUDA {
namespace {

// Query tiles of 16·M rows a warp: the more, the fewer bytes ldmatrix moves for each product.
template <int D>
constexpr int kFrameTiles = D <= 72 ? 2 : 1;

template <int D, int M, bool kCausal>
__global__ void __launch_bounds__(kAttentionThreads, 2) attend_tiles(Attention a, HeadKeys x) {
  constexpr int DV = kPart<D>, kRows = 4 * 16 * M;
  SIMT_DYNAMIC_SHARED(uint16_t, shared);
  const int lane = int(threadIdx.x % 32), kv = int(blockIdx.y), part = int(blockIdx.z) * DV, tiles = divide_up(a.rows, kRows);
  const int unit = int(blockIdx.x) / tiles, in_order = int(blockIdx.x) % tiles, tile = kCausal ? tiles - 1 - in_order : in_order;  // the longest first
  const int row = tile * kRows + int(threadIdx.x / 32) * 16 * M, left = a.rows - row, rows = left < 0 ? 0 : left < 16 * M ? left : 16 * M;  // of this warp
  const int last = (tile + 1) * kRows < a.rows ? (tile + 1) * kRows - 1 : a.rows - 1, keys = a.sees(last, a.past);
  const int64_t key0 = int64_t(unit) * a.frame;

  Queries<D, M> q;
  load_queries(q, rows, a.d, [&](int i) { return a.query(unit, row + i, kv); });
  int limit[M][2];
  SIMT_UNROLL for (int m = 0; m < M; ++m) {
    SIMT_UNROLL for (int half = 0; half < 2; ++half) limit[m][half] = kCausal ? a.sees(row + 16 * m + 8 * half + lane / 4, a.past) : keys;
  }
  const int seen = rows == 0 ? 0 : a.sees(row + rows - 1, a.past);
  const RoundedKeys k{x.k.data + kv * x.k_head + key0 * x.k.stride, x.k.stride}, v{x.v.data + kv * x.v_head + key0 * x.v.stride + part, x.v.stride};

  State<DV, M> sum;
  clear(sum);
  if constexpr (kCausal) {
    State<DV, M> span;
    clear(span);
    attend_run<D>(span, q, k, v, keys, a.scale, limit, seen, shared, [&](int first) {
      if ((first + kTileKeys<D>) % kSpanKeys == 0 || first + kTileKeys<D> >= seen) fold(sum, span);
    });
  } else {
    attend_run<D>(sum, q, k, v, keys, a.scale, limit, seen, shared, [](int) {});
  }

  SIMT_UNROLL for (int m = 0; m < M; ++m) {
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      const float l = kCausal ? sum.l[m][half] : whole_sum(sum.l[m][half]), inverse = 1.0f / l;
      const int i = 16 * m + 8 * half + lane / 4;
      if (i >= rows) continue;
      float* const to = a.output(unit, row + i, kv);
      SIMT_UNROLL for (int n = 0; n < DV / 8; ++n) {
        SIMT_UNROLL for (int e = 0; e < 2; ++e) {
          const int j = part + 8 * n + 2 * (lane % 4) + e;
          if (j < a.d) to[j] = l == 0 ? 0.0f : sum.o[m][n][2 * half + e] * inverse;
        }
      }
    }
  }
}

// ---- a step -------------------------------------------------------------------------------------------------------------------------------

constexpr int kWeightPitch = kSpanKeys + 8;
template <int D>
constexpr size_t kSpanShared = (kSpanKeys * (kPitch<D> + kPitch<kPart<D>>) + 16 * kWeightPitch) * sizeof(uint16_t) + 4 * (16 + 2 * 32) * sizeof(float);

// 128 rows of keys or values, from `column` on: under way where they are rows of bf16 at multiples of 16 bytes, else here already.
template <int D>
__device__ __forceinline__ void fetch_span(uint16_t* to, const Cache& x, bool rounded, int64_t first, int64_t end, int64_t column, int count) {
  if (rounded)
    fetch<D, kSpanKeys>(to, RoundedKeys{static_cast<const uint16_t*>(x.data) + column, x.stride}, first, end);
  else
    load_rows<kSpanKeys, D>(x, first, end, column, count, [&](int row, int j, float4 four) { *reinterpret_cast<uint2*>(to + row * kPitch<D> + j) = round_4(four); });
  simt::copy_commit();
}

// Warps share the work by keys in s, by columns in o; every element is the chain that attend_tiles makes of it.
template <int D>
__global__ void __launch_bounds__(kAttentionThreads, 4) attend_span(Attention a, Cache k, Cache v, bool rounded, States states, int kv0, int row0) {
  constexpr int DV = kPart<D>, kParts = D / DV;
  SIMT_DYNAMIC_SHARED(uint16_t, keys);
  uint16_t *const values = keys + kSpanKeys * kPitch<D>, *const weights = values + kSpanKeys * kPitch<DV>;
  float *const tops = reinterpret_cast<float*>(weights + 16 * kWeightPitch), *const sums = tops + 4 * 16;
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32), g = lane / 4, p = lane % 4, span = int(blockIdx.x), kv = int(blockIdx.y);
  const int part = int(blockIdx.z) % kParts * DV, row = int(blockIdx.z) / kParts * 16, rows = states.rows - row < 16 ? states.rows - row : 16;
  const int64_t before = a.before(), first = int64_t(span) * kSpanKeys, end = a.sees(row0 + row + rows - 1, before);
  if (first >= end) return;
  fetch_span<D>(keys, k, rounded, first, end, (kv0 + kv) * k.head, a.d);
  fetch_span<DV>(values, v, rounded, first, end, (kv0 + kv) * v.head + part, a.d - part);
  Queries<D, 1> q;
  load_queries(q, rows, a.d, [&](int i) { return a.query(0, row0 + row + i, kv0 + kv); });

  // s of this warp's 32 keys, and their maxima
  simt::copy_wait<1>();
  __syncthreads();
  Scores<1> x;
  if (first + kBlockKeys * warp < end) multiply(x, q, keys + kBlockKeys * warp * kPitch<D>);  // else no row sees them, whatever they are
  SIMT_UNROLL for (int half = 0; half < 2; ++half) {
    const int64_t sees = a.sees(row0 + row + 8 * half + g, before);
    hide(x.s[0], half, kBlockKeys * warp, int((sees < end ? sees : end) - first));
    const float top = largest_of(x.s[0], half);
    if (p == 0) tops[16 * warp + 8 * half + g] = top;
  }
  __syncthreads();
  // the largest so far at each of the four blocks, what it scales the sums before by, and p
  float m[2], scaled[4][2];
  SIMT_UNROLL for (int half = 0; half < 2; ++half) {
    float base = 0;
    m[half] = -INFINITY;
    SIMT_UNROLL for (int b = 0; b < 4; ++b) {
      const float top = fmaxf(m[half], tops[16 * b + 8 * half + g] * a.scale);
      scaled[b][half] = simt::exp2_fast(m[half] - base_of(top));
      m[half] = top;
      if (b == warp) base = base_of(top);
    }
    sums[(2 * warp + half) * 32 + lane] = exponentials(x.s[0], half, a.scale, base);
    SIMT_UNROLL for (int n = 0; n < 4; ++n) {
      auto* const to = reinterpret_cast<uint32_t*>(weights + (8 * half + g) * kWeightPitch + kBlockKeys * warp + 8 * n + 2 * p);
      *to = simt::pack_bf16(x.s[0][n][2 * half], x.s[0][n][2 * half + 1]);
    }
  }
  simt::copy_wait<0>();
  __syncthreads();

  // o of this warp's columns
  uint32_t w[kSpanKeys / 16][4];
  SIMT_UNROLL for (int i = 0; i < kSpanKeys / 16; ++i) simt::ldmatrix_x4(w[i], weights + lane % 16 * kWeightPitch + 16 * i + lane / 16 * 8);
  SIMT_UNROLL for (int n0 = 0; n0 < DV / 8; n0 += 4) {
    const int n = n0 + warp;
    if (n >= DV / 8) continue;
    float o[4] = {};
    SIMT_UNROLL for (int b = 0; b < 4; ++b) {
      if (first + kBlockKeys * b >= end) break;
      uint32_t v_b[4];
      simt::ldmatrix_x4_trans(v_b, values + (kBlockKeys * b + lane) * kPitch<DV> + 8 * n);
      SIMT_UNROLL for (int e = 0; e < 4; ++e) o[e] *= scaled[b][e / 2];
      simt::mma_bf16(o, w[2 * b], {v_b[0], v_b[1]});
      simt::mma_bf16(o, w[2 * b + 1], {v_b[2], v_b[3]});
    }
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      if (8 * half + g >= rows) continue;
      float* const to = states.o + states.at(kv, row + 8 * half + g, span) * states.width + part + 8 * n + 2 * p;
      *reinterpret_cast<float2*>(to) = make_float2(o[2 * half], o[2 * half + 1]);
    }
  }
  if (warp != 0 || part != 0) return;
  SIMT_UNROLL for (int half = 0; half < 2; ++half) {
    float l = 0;
    SIMT_UNROLL for (int b = 0; b < 4; ++b) l = fmaf(l, scaled[b][half], sums[(2 * b + half) * 32 + lane]);
    l = whole_sum(l);
    if (p == 0 && 8 * half + g < rows) states.top[states.at(kv, row + 8 * half + g, span)] = make_float2(m[half], l);
  }
}

// ---- launches -----------------------------------------------------------------------------------------------------------------------------

template <int D, bool kCausal>
void launch_tiles(const Context& c, const Attention& a, const HeadKeys& x, int64_t units, int64_t heads) {
  constexpr int M = kCausal ? 1 : kFrameTiles<D>;
  const int64_t parts = divide_up(a.d, kPart<D>), tiles = divide_up(a.rows, 64 * M);
  BG_LAUNCH(c.device, (attend_tiles<D, M, kCausal>), dim3(unsigned(tiles * units), unsigned(heads), unsigned(parts)), kAttentionThreads, kTileShared<D>, a, x);
}

// As many frames and heads at a time as scratch holds the rounded keys of; at least one of each.
template <int D>
void frames_fast(const Context& c, const Attention& a, Cache k, Cache v, int64_t frames, int64_t heads) {
  const int64_t most = int64_t(kScratchBytes / rounded_bytes(a.frame, D)), each = frames < most ? frames : most;
  for (int64_t f0 = 0; f0 < frames; f0 += each) {
    const int64_t units = frames - f0 < each ? frames - f0 : each;
    by_heads(heads, most / units, [&](int64_t h0, int64_t count) {
      Attention part = a;
      part.q += a.frame * f0 * a.q_stride + h0 * a.d;
      part.o += a.frame * f0 * a.o_stride + h0 * a.d;
      launch_tiles<D, false>(c, part, rounded<D>(c, k, v, f0 * a.frame, units * a.frame, h0, count, a.d), units, count);
    });
  }
}

bool is_rounded(const Tensor& x, int d, int D) {
  return x.type == Type::bf16 && d == D && x.stride % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

template <int D>
void prompt_fast(const Context& c, const Attention& a, Tensor k, Tensor v, int64_t kv_heads, int64_t keys) {
  const Cache kc = cache_of(k, kv_heads), vc = cache_of(v, kv_heads);
  if (is_rounded(k, a.d, D) && is_rounded(v, a.d, D)) {
    const HeadKeys x{{static_cast<const uint16_t*>(k.data), k.stride}, {static_cast<const uint16_t*>(v.data), v.stride}, kc.head, vc.head};
    return launch_tiles<D, true>(c, a, x, 1, kv_heads);
  }
  by_heads(kv_heads, int64_t(kScratchBytes / rounded_bytes(keys, D)), [&](int64_t kv0, int64_t count) {
    Attention part = a;
    part.q += kv0 * a.group * a.d;
    part.o += kv0 * a.group * a.d;
    launch_tiles<D, true>(c, part, rounded<D>(c, kc, vc, 0, keys, kv0, count, a.d), 1, count);
  });
}

template <int D>
void step_fast(const Context& c, const Attention& a, Tensor k, Tensor v, int64_t kv_heads, int64_t spans) {
  const bool direct = is_rounded(k, a.d, D) && is_rounded(v, a.d, D);
  in_pieces(c, a.rows, kv_heads, spans, D, 16, [&](const States& x, int64_t kv0, int64_t heads, int row0, int rows) {
    const dim3 grid(unsigned(spans), unsigned(heads), unsigned(divide_up(rows, 16) * (D / kPart<D>)));
    BG_LAUNCH(c.device, (attend_span<D>), grid, kAttentionThreads, kSpanShared<D>, a, cache_of(k, kv_heads), cache_of(v, kv_heads), direct, x, int(kv0), row0);
    merge<true>(c, a, x, kv0, heads, row0);
  });
}

constexpr int64_t kFewRows = 32;  // of a kv head: for these the blocks are spans of keys, for more tiles of rows

}  // namespace

void attention_frames(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame) {
  if (q.rows == 0 || q.cols == 0) return;
  const int64_t d = q.cols / heads, frames = q.rows / frame;
  const double scale = 1 / std::sqrt(double(d));
  Attention a{static_cast<const float*>(q.data), static_cast<float*>(o.data), q.stride, o.stride, int(frame), 1, int(d), int(frame), 0, nullptr, float(scale)};
  // float32 lies within the bound of fast too
  if (c.precision == Precision::float32 || rounded_bytes(frame, 256) > kScratchBytes) return attend_float(c, a, side_by_side(k, heads), side_by_side(v, heads), frames, heads, 0);
  a.scale = float(scale * 1.4426950408889634);
  with_width(a.d, [&]<int D>() { frames_fast<D>(c, a, side_by_side(k, heads), side_by_side(v, heads), frames, heads); });
}

void attention_causal(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past) {
  if (q.rows == 0 || q.cols == 0) return;
  const int64_t d = q.cols / heads, group = heads / kv_heads, rows = q.rows * group;
  const int64_t keys = c.step_past != nullptr ? c.step_keys + q.rows - 1 : past + q.rows, spans = divide_up(keys, int64_t(kSpanKeys));
  const double scale = 1 / std::sqrt(double(d));
  Attention a{static_cast<const float*>(q.data), static_cast<float*>(o.data), q.stride, o.stride, int(rows), int(group), int(d), 0, past, c.step_past, float(scale)};
  const bool step = c.step_past != nullptr || rows <= kFewRows;
  if (c.precision == Precision::float32) return attend_float(c, a, cache_of(k, kv_heads), cache_of(v, kv_heads), 1, kv_heads, step ? spans : 0);
  a.scale = float(scale * 1.4426950408889634);
  with_width(a.d, [&]<int D>() {
    const bool fits = rounded_bytes(keys, D) <= kScratchBytes || (is_rounded(k, a.d, D) && is_rounded(v, a.d, D));
    if (step || !fits)
      step_fast<D>(c, a, k, v, kv_heads, spans);
    else
      prompt_fast<D>(c, a, k, v, kv_heads, keys);
  });
}

}  // namespace bg::BG_CUDA
