// Dilated attention (LongNet): q, k, v (T, H·d) in, o out, in one launch, without scratch but for rounded keys.
//   o_t = Σ_p w_p·o_tp with w_p = e^(s_p) / Σ e^s is the quotient of Σ_p Σ_i e^(z_i)·v_i and Σ_p Σ_i e^(z_i): one softmax over the keys of all pairs. So a block takes
//   the pairs one after the other into one state (m, l, o), as attention takes its keys. Zero keys are a number, part of the first l, with the maximum 0.
// Tiles: rows lie in one segment of every pair if no boundary is between them: in cells of gcd(g) rows over the g below T. Of a cell a tile takes every lcm(r)-th row:
// a group keeps all rows of a tile or none. The model: cells of 512, every 4th row; 64 rows (float32: 32) a block of 4 warps; a block has 1 to 3 pairs, 1.75 on average.
// Grid: tiles in x, heads in y, parts of v's columns in z (d > 128 only). Shared: attention_tile.h 53,248 bytes for d = 96, attention_rows.h 44,032.
// FLOP 4·d a query and key; the model has 1.75·512 keys a query and head: 2.75 MFLOP a row of 8 heads of 96, 3.5 ns at 790 TFLOP/s. Bytes of a row: 4·4·H·d in and
// out, 2·2·H·d written rounded (15 KB, 5 ns at 3 TB/s), and each tile's keys from the second cache. Not measured yet.
// A row's bits depend on its pairs' segments only: neither on T nor on what else is in the call.
#include <cmath>
#include <numeric>

#include "kernels/cuda/attention_rows.h"
#include "kernels/cuda/attention_tile.h"

namespace bg::BG_CUDA {
namespace {

constexpr float kMissing = -1e8f;  // s of a pair that does not hold the row

// Of one pair and one head, the rows of a tile's segment that are keys.
struct Segment {
  bool here;          // the head's group keeps the tile's rows
  int64_t first;      // first, first + dilation, …
  int keys;           // so many; then
  int64_t zeros;      // so many of padding
};

struct Tile {
  int64_t first, step;  // rows first, first + step, …
  int count;            // ≤ 0: none
  __device__ int64_t row(int i) const { return first + i * step; }
};

struct Dilated {
  Rows q, k, v, o;
  int heads, d, n;
  float scale;  // 1/√d; fast: log₂e/√d
  Dilation pairs[kMostDilations];
  int64_t cell, step;  // see above; step ≤ cell

  __device__ Tile tile(int64_t index, int rows) const {
    const int64_t tiles = divide_up(divide_up(cell, step), int64_t(rows)), of_cell = index / tiles, start = of_cell / step * cell;
    const int64_t first = start + of_cell % step + index % tiles * rows * step, end = start + cell < q.rows ? start + cell : q.rows;
    const int64_t left = first < end ? divide_up(end - first, step) : 0;
    return {first, step, left < rows ? int(left) : rows};
  }
  __device__ Segment segment(int p, int h, int64_t t) const {
    const int64_t g = pairs[p].segment, r = pairs[p].dilation, start = t / g * g, group = h / divide_up(int64_t(heads), r);
    const int64_t rows = q.rows - start < g ? q.rows - start : g, keys = rows > group ? divide_up(rows - group, r) : 0;
    return {(t - start) % r == group, start + group, int(keys), divide_up(g, r) - keys};
  }
  // z = 0 of a row that is its group's only key: s = 0 exactly. (Where more keys give an s of 0, it is by rounding.)
  __device__ bool counts_as_missing(const Segment& x, int h, int64_t t) const {
    if (x.keys + x.zeros > 1) return false;
    float z = 0;
    for (int j = 0; j < d; ++j) z = fmaf(q.data[t * q.stride + h * d + j], k.data[t * k.stride + h * d + j], z);
    return z == 0;
  }
};
int64_t tiles_of(const Dilated& a, int rows) { return divide_up(a.q.rows, a.cell) * a.step * divide_up(divide_up(a.cell, a.step), int64_t(rows)); }

// What a tile's state is before its keys: o = own·v_t, the pairs without a key to weigh and those of zero keys. A pair whose row is its only key is alone in
// its tile too (g ≤ r, so step = cell): the first row speaks for all.
struct Start {
  float m, l, own;
  unsigned pairs;  // bit p: has keys to be added
};
__device__ __forceinline__ Start start_of(const Dilated& a, int h, int64_t t) {
  unsigned pairs = 0;
  int missing = 0, own = 0;
  int64_t zeros = 0;
  for (int p = 0; p < a.n; ++p) {
    const Segment x = a.segment(p, h, t);
    const bool silent = x.here && a.counts_as_missing(x, h, t);
    missing += !x.here || silent;
    own += silent;
    if (!x.here || silent) continue;
    pairs |= 1u << p;
    zeros += x.zeros;
  }
  if (zeros > 0) return {0, float(zeros), 0, pairs};
  return {kMissing, float(missing), float(own), pairs};
}

// ---- fast ---------------------------------------------------------------------------------------------------------------------------------

template <int D>
__global__ void __launch_bounds__(kAttentionThreads, 2) dilated_tiles(Dilated a, HeadKeys x, int head0) {
  constexpr int DV = kPart<D>;
  SIMT_DYNAMIC_SHARED(uint16_t, shared);
  const Tile tile = a.tile(blockIdx.x, 64);
  if (tile.count <= 0) return;
  const int lane = int(threadIdx.x % 32), first = int(threadIdx.x / 32) * 16, head = int(blockIdx.y), h = head0 + head, part = int(blockIdx.z) * DV;
  const int left = tile.count - first, rows = left < 0 ? 0 : left < 16 ? left : 16;  // of this warp
  const Start start = start_of(a, h, tile.first);
  Queries<D, 1> q;
  load_queries(q, rows, a.d, [&](int i) { return a.q.data + tile.row(first + i) * a.q.stride + h * a.d; });

  State<DV, 1> sum;
  clear(sum);
  SIMT_UNROLL for (int half = 0; half < 2; ++half) sum.m[0][half] = start.m, sum.l[0][half] = lane % 4 == 0 ? start.l : 0.0f;
  for (int p = 0; p < a.n; ++p) {
    if ((start.pairs >> p & 1) == 0) continue;
    const Segment s = a.segment(p, h, tile.first);
    const int64_t r = a.pairs[p].dilation;
    const RoundedKeys k{x.k.data + head * x.k_head + s.first * x.k.stride, r * x.k.stride}, v{x.v.data + head * x.v_head + s.first * x.v.stride + part, r * x.v.stride};
    const int limit[1][2] = {{s.keys, s.keys}};
    attend_run<D>(sum, q, k, v, s.keys, a.scale, limit, rows == 0 ? 0 : s.keys, shared, [](int) {});
    __syncthreads();
  }

  SIMT_UNROLL for (int half = 0; half < 2; ++half) {
    const float inverse = 1.0f / whole_sum(sum.l[0][half]);
    const int i = 8 * half + lane / 4;
    if (i >= rows) continue;
    const int64_t t = tile.row(first + i);
    const float* const own = a.v.data + t * a.v.stride + h * a.d;
    float* const to = a.o.data + t * a.o.stride + h * a.d;
    SIMT_UNROLL for (int n = 0; n < DV / 8; ++n) {
      SIMT_UNROLL for (int e = 0; e < 2; ++e) {
        const int j = part + 8 * n + 2 * (lane % 4) + e;
        if (j >= a.d) continue;
        const float o = sum.o[0][n][2 * half + e];
        to[j] = (start.own > 0 && start.pairs == 0 ? start.own * own[j] : o) * inverse;
      }
    }
  }
}

// False where scratch has no room for one head's keys.
template <int D>
bool attend_fast(const Context& c, const Dilated& a, Cache k, Cache v) {
  const int64_t T = a.q.rows, most = int64_t(kScratchBytes / rounded_bytes(T, D));
  if (most == 0) return false;
  by_heads(a.heads, most, [&](int64_t head0, int64_t heads) {
    const HeadKeys x = rounded<D>(c, k, v, 0, T, head0, heads, a.d);
    const dim3 grid(unsigned(tiles_of(a, 64)), unsigned(heads), unsigned(divide_up(a.d, kPart<D>)));
    BG_LAUNCH(c.device, (dilated_tiles<D>), grid, kAttentionThreads, kTileShared<D>, a, x, int(head0));
  });
  return true;
}

// ---- float32 ------------------------------------------------------------------------------------------------------------------------------

template <int C, int W>
__global__ void __launch_bounds__(32 * W, 1) dilated_rows(Dilated a) {
  SIMT_DYNAMIC_SHARED(float, queries);
  const Tile tile = a.tile(blockIdx.x, kOwnRows * W);
  if (tile.count <= 0) return;
  const int lane = int(threadIdx.x % 32), own = int(threadIdx.x / 32) * kOwnRows, h = int(blockIdx.y);
  const Start start = start_of(a, h, tile.first);
  for (int i = int(threadIdx.x); i < kOwnRows * W * 32 * C; i += 32 * W) {
    const int r = i / (32 * C), j = i % (32 * C);
    queries[r * kRowPitch<C> + j] = r < tile.count && j < a.d ? a.q.data[tile.row(r) * a.q.stride + h * a.d + j] : 0.0f;
  }
  FloatState<C> total;
  clear(total);
  SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) total.m[r] = start.m, total.l[r] = start.l;
  for (int p = 0; p < a.n; ++p) {
    if ((start.pairs >> p & 1) == 0) continue;
    const Segment s = a.segment(p, h, tile.first);
    const int64_t r = a.pairs[p].dilation;
    const Cache k{a.k.data + s.first * a.k.stride, Type::f32, r * a.k.stride, a.d}, v{a.v.data + s.first * a.v.stride, Type::f32, r * a.v.stride, a.d};
    for (int first = 0; first < s.keys; first += kSpanKeys) {
      attend_rows_span<W>(total, queries, own, k, v, 0, first, s.keys, h, a.d, a.scale, tile.count - own, [&](int (&limit)[kOwnRows], int key0) {
        SIMT_UNROLL for (int i = 0; i < kOwnRows; ++i) limit[i] = s.keys - key0;
      });
    }
  }
  SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) {
    if (own + r >= tile.count) continue;
    const int64_t t = tile.row(own + r);
    SIMT_UNROLL for (int c = 0; c < C; ++c) {
      const int j = lane + 32 * c;
      if (j >= a.d) continue;
      const float o = start.own > 0 && start.pairs == 0 ? start.own * a.v.data[t * a.v.stride + h * a.d + j] : total.o[r][c];
      a.o.data[t * a.o.stride + h * a.d + j] = o / total.l[r];
    }
  }
}

// A warp a block where a cell has no rows for four.
template <int C>
void launch_rows(const Context& c, const Dilated& a) {
  if (divide_up(a.cell, a.step) > kOwnRows) {
    BG_LAUNCH(c.device, (dilated_rows<C, 4>), dim3(unsigned(tiles_of(a, 4 * kOwnRows)), unsigned(a.heads)), 4 * 32, (kFloatShared<C, 4>), a);
  } else {
    BG_LAUNCH(c.device, (dilated_rows<C, 1>), dim3(unsigned(tiles_of(a, kOwnRows)), unsigned(a.heads)), 32, (kFloatShared<C, 1>), a);
  }
}

void attend_exactly(const Context& c, const Dilated& a) {
  switch (divide_up(a.d, 32)) {
    case 1: return launch_rows<1>(c, a);
    case 2: return launch_rows<2>(c, a);
    case 3: return launch_rows<3>(c, a);
    case 4: return launch_rows<4>(c, a);
    default: return launch_rows<8>(c, a);
  }
}

}  // namespace

void attention_dilated(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n) {
  if (q.rows == 0 || q.cols == 0) return;
  const int64_t T = q.rows, d = q.cols / heads;
  Dilated a{rows_of(q), rows_of(k), rows_of(v), rows_of(o), int(heads), int(d), int(n), float(1 / std::sqrt(double(d))), {}, 0, 1};
  for (int64_t p = 0; p < n; ++p) {
    a.pairs[p] = pairs[p];
    if (pairs[p].segment < T) a.cell = std::gcd(a.cell, pairs[p].segment);
  }
  if (a.cell == 0) a.cell = T;
  for (int64_t p = 0; p < n && a.step < a.cell; ++p) {
    const int64_t r = pairs[p].dilation < a.cell ? pairs[p].dilation : a.cell;  // no more than one row of a cell
    a.step = r == a.cell ? a.cell : std::lcm(a.step, r);
  }
  if (a.step > a.cell) a.step = a.cell;
  if (c.precision == Precision::fast) {
    Dilated fast = a;
    fast.scale = float(1.4426950408889634 / std::sqrt(double(d)));
    bool done = false;
    with_width(a.d, [&]<int D>() { done = attend_fast<D>(c, fast, side_by_side(k, heads), side_by_side(v, heads)); });
    if (done) return;
  }
  attend_exactly(c, a);  // float32 lies within the bound of fast too
}

}  // namespace bg::BG_CUDA
