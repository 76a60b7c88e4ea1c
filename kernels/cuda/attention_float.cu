// Attention in float32 on the ordinary cores: Precision::float32, and frames that Precision::fast has no room for. In: queries, keys and values of any type; out: o.
// Spans of 128 keys, folded in order (attention_rows.h: equations, block, shared memory). Grid: row tiles of all units in x, heads in y, spans in z where a block
// sums only one: for few rows, then merge_states (attention_parts.h). Blocks of 32 rows, 8 for a step of up to 8. FLOP 4·d a query and key. Bytes: a tile of rows
// reads its keys once. Not measured yet.
#include "kernels/cuda/attention_rows.h"

namespace bg::BG_CUDA {
namespace {

// How many keys of a tile that begins at `first` the warp's rows see.
__device__ __forceinline__ void limits(int (&limit)[kOwnRows], const Attention& a, int row, int64_t before, int keys, int first) {
  SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) {
    const int sees = a.sees(row + r, before);
    limit[r] = (sees < keys ? sees : keys) - first;
  }
}

template <int C, int W>
__global__ void __launch_bounds__(32 * W, W == 1 ? 8 : 2) attend_rows(Attention a, Cache k, Cache v, States states, int kv0, int row0, int row_end) {
  constexpr int kRows = kOwnRows * W;
  SIMT_DYNAMIC_SHARED(float, queries);
  const bool one = states.top != nullptr;  // a block sums one span
  const int lane = int(threadIdx.x % 32), own = int(threadIdx.x / 32) * kOwnRows, kv = int(blockIdx.y);
  const int tiles = divide_up(row_end - row0, kRows), unit = int(blockIdx.x) / tiles, row = row0 + int(blockIdx.x) % tiles * kRows;
  const int rows = row_end - row < kRows ? row_end - row : kRows;
  const int64_t before = a.before(), base = int64_t(unit) * a.frame;
  const int keys = a.sees(row + rows - 1, before);
  const int begin = one ? int(blockIdx.z) * kSpanKeys : 0, end = one && begin + kSpanKeys < keys ? begin + kSpanKeys : keys;
  if (begin >= keys) return;

  for (int i = int(threadIdx.x); i < kRows * 32 * C; i += 32 * W) {
    const int r = i / (32 * C), j = i % (32 * C);
    queries[r * kRowPitch<C> + j] = r < rows && j < a.d ? a.query(unit, row + r, kv0 + kv)[j] : 0.0f;
  }
  FloatState<C> total;
  clear(total);
  for (int first = begin; first < end; first += kSpanKeys) {
    attend_rows_span<W>(total, queries, own, k, v, base, first, end, kv0 + kv, a.d, a.scale, rows - own,
                     [&](int (&limit)[kOwnRows], int key0) { limits(limit, a, row + own, before, keys, key0); });
  }
  SIMT_UNROLL for (int r = 0; r < kOwnRows; ++r) {
    if (own + r >= rows) continue;
    const int64_t at = one ? states.at(kv, row - row0 + own + r, int(blockIdx.z)) : 0;
    float* const to = one ? states.o + at * states.width : a.output(unit, row + own + r, kv0 + kv);
    SIMT_UNROLL for (int j = 0; j < C; ++j) {
      const int column_j = lane + 32 * j;
      if (column_j < a.d) to[column_j] = one ? total.o[r][j] : total.l[r] == 0 ? 0.0f : total.o[r][j] / total.l[r];
    }
    if (one && lane == 0) states.top[at] = make_float2(total.m[r], total.l[r]);
  }
}

template <int C>
void attend_whole(const Context& c, const Attention& a, Cache k, Cache v, int64_t units, int64_t kv_heads) {
  const dim3 grid(unsigned(divide_up(a.rows, kFloatRows) * units), unsigned(kv_heads));
  BG_LAUNCH(c.device, (attend_rows<C, 4>), grid, 4 * 32, (kFloatShared<C, 4>), a, k, v, States{}, 0, 0, a.rows);
}

template <int C, int W>
void attend_spans(const Context& c, const Attention& a, Cache k, Cache v, int64_t kv_heads, int64_t spans) {
  constexpr int kRows = kOwnRows * W;
  in_pieces(c, a.rows, kv_heads, spans, a.d, kRows, [&](const States& x, int64_t kv0, int64_t heads, int row0, int rows) {
    const dim3 grid(unsigned(divide_up(rows, kRows)), unsigned(heads), unsigned(spans));
    BG_LAUNCH(c.device, (attend_rows<C, W>), grid, W * 32, (kFloatShared<C, W>), a, k, v, x, int(kv0), row0, row0 + rows);
    merge<false>(c, a, x, kv0, heads, row0);
  });
}

template <int C>
void attend(const Context& c, const Attention& a, Cache k, Cache v, int64_t units, int64_t kv_heads, int64_t spans) {
  if (spans == 0) return attend_whole<C>(c, a, k, v, units, kv_heads);
  if (a.rows <= kOwnRows) return attend_spans<C, 1>(c, a, k, v, kv_heads, spans);
  attend_spans<C, 4>(c, a, k, v, kv_heads, spans);
}

}  // namespace

void attend_float(const Context& c, const Attention& a, Cache k, Cache v, int64_t units, int64_t kv_heads, int64_t spans) {
  const int columns = divide_up(a.d, 32);
  if (columns == 1) return attend<1>(c, a, k, v, units, kv_heads, spans);
  if (columns == 2) return attend<2>(c, a, k, v, units, kv_heads, spans);
  if (columns == 3) return attend<3>(c, a, k, v, units, kv_heads, spans);
  if (columns == 4) return attend<4>(c, a, k, v, units, kv_heads, spans);
  return attend<8>(c, a, k, v, units, kv_heads, spans);
}

}  // namespace bg::BG_CUDA
