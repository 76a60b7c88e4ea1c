// Attention with the tiles of AMX: q, k, v and p in bf16, sums in float (Precision::fast). The scheme is that of attention.isa.cpp, in tiles of 16 × 16:
//   Sᵀ (16 keys × 16 rows) = K·Qᵀ:   A is K, a key in a line of 32 inputs; B is Qᵀ, a line of input pairs (2i, 2i + 1) for sixteen rows
//   Oᵀ (16 columns × 16 rows) += Vᵀ·Pᵀ: A is Vᵀ, a column in a line of 32 keys; B is Pᵀ, a line of key pairs for sixteen rows
// Keys and values of a block are turned into tiles once for all rows of a call; keys, inputs and columns that do not exist are zeros there.
// Included by attention.isa.cpp only.
#pragma once
#include "kernels/cpu/attention_bf16.h"

namespace bg::cpu::BG_ISA {
namespace {

constexpr int64_t kTile = 256;  // floats, or pairs of bf16, of a tile: 16 lines of 64 bytes

// Tile instructions read and write memory behind the compiler's back: nothing may be moved across.
BG_INLINE void settle() { asm volatile("" ::: "memory"); }

struct alignas(64) TileConfig {
  uint8_t palette, start_row, unused[14];
  uint16_t line_bytes[16];
  uint8_t lines[16];
};
const TileConfig kAllTiles = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// z of 32 keys × N vectors of rows: tiles (N, key/16) of z, `z_step` floats from one vector to the next. k (2, depth), q (N, depth) tiles.
template <int N>
__attribute__((noinline)) void tile_dots(float* z, int64_t z_step, const float* k, const float* q, int64_t depth) {
  settle();
  _tile_zero(0);
  _tile_zero(2);
  if constexpr (N == 2) {
    _tile_zero(1);
    _tile_zero(3);
  }
  for (int64_t c = 0; c < depth; ++c) {
    _tile_loadd(4, k + c * kTile, 64);
    _tile_loadd(6, q + c * kTile, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, k + (depth + c) * kTile, 64);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (N == 2) {
      _tile_loadd(7, q + (depth + c) * kTile, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, z, 64);
  _tile_stored(2, z + kTile, 64);
  if constexpr (N == 2) {
    _tile_stored(1, z + z_step, 64);
    _tile_stored(3, z + z_step + kTile, 64);
  }
  settle();
}

// o of M·16 columns × N vectors of rows += Vᵀ·Pᵀ over `chunks` of 32 keys. v (M, kTileChunks), p (N, kTileChunks) tiles.
constexpr int64_t kTileBlock = 128, kTileChunks = kTileBlock / 32;  // keys of a block
template <int M, int N>
__attribute__((noinline)) void tile_values(float* o, int64_t o_step, const float* v, const float* p, int64_t chunks) {
  settle();
  _tile_loadd(0, o, 64);
  if constexpr (M == 2) _tile_loadd(2, o + kTile, 64);
  if constexpr (N == 2) _tile_loadd(1, o + o_step, 64);
  if constexpr (M == 2 && N == 2) _tile_loadd(3, o + o_step + kTile, 64);
  for (int64_t c = 0; c < chunks; ++c) {
    _tile_loadd(4, v + c * kTile, 64);
    _tile_loadd(6, p + c * kTile, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (N == 2) {
      _tile_loadd(7, p + (kTileChunks + c) * kTile, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (M == 2) {
      _tile_loadd(5, v + (kTileChunks + c) * kTile, 64);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (N == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, o, 64);
  if constexpr (M == 2) _tile_stored(2, o + kTile, 64);
  if constexpr (N == 2) _tile_stored(1, o + o_step, 64);
  if constexpr (M == 2 && N == 2) _tile_stored(3, o + o_step + kTile, 64);
  settle();
}

// z (kTileBlock, 16) of one vector of rows → p in pairs of keys, for `chunks` of 32 keys; the state's m and l, and its sums times e^(m − m').
__attribute__((noinline)) void tile_soften(float* z, I* p, float* state, int64_t d, float scale, const Sight& sight, const float* limits, int64_t chunks) {
  const V none = splat(-INFINITY);
  for (int64_t s = sight.all; s < sight.any; ++s) store(z + 16 * s, where_less(splat(float(s)), load(limits), load(z + 16 * s), none));
  for (int64_t s = sight.any; s < 32 * chunks; ++s) store(z + 16 * s, none);
  V most[4] = {none, none, none, none};
  for (int64_t s = 0; s < 32 * chunks; s += 4) {
    BG_UNROLL for (int i = 0; i < 4; ++i) most[i] = max(load(z + 16 * (s + i)), most[i]);
  }
  const V m = load(largest_of(state, d));
  const V larger = max(mul(max(max(most[0], most[1]), max(most[2], most[3])), splat(scale)), m), f = factor(m, larger);
  store(largest_of(state, d), larger);
  constexpr float kLog2e = 1.44269504f;
  const V by = splat(scale * kLog2e), minus = where_less(none, larger, mul(larger, splat(-kLog2e)), splat(0.0f));  // rows that see none of the keys: −∞ − 0
  V sum[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  for (int64_t s = 0; s < 32 * chunks; s += 4) {
    V e[4];
    BG_UNROLL for (int i = 0; i < 4; ++i) {
      e[i] = exp2_short(madd(load(z + 16 * (s + i)), by, minus));
      sum[i] = add(sum[i], e[i]);
    }
    store_i(p + s / 2, to_pairs(e[0], e[1]));
    store_i(p + s / 2 + 1, to_pairs(e[2], e[3]));
  }
  float* l = total_of(state, d);
  store(l, madd(load(l), f, add(add(sum[0], sum[1]), add(sum[2], sum[3]))));
  if (_mm512_cmp_ps_mask(f, splat(1.0f), _CMP_NEQ_UQ) == 0) return;
  for (float* o = state; o < largest_of(state, d); o += 16) store(o, mul(load(o), f));
}

// 32 columns of a row of keys or values as bf16, of which `left` are there, zeros behind them. The same columns of the row kAhead on, `far` bytes away, are asked for.
BG_INLINE I line_of(const float* x, int64_t left, size_t far) {
  const char* later = reinterpret_cast<const char*>(x) + far;
  __builtin_prefetch(later);
  __builtin_prefetch(later + 64);
  return first_bf16(x, left);
}
BG_INLINE I line_of(const Bf16* x, int64_t left, size_t far) {
  __builtin_prefetch(reinterpret_cast<const char*>(x) + far);
  return left >= 32 ? load_i(x) : _mm512_maskz_loadu_epi16(__mmask32((uint64_t(1) << left) - 1), x);
}
BG_INLINE I line_of(const BlockQ8_0* x, int64_t, size_t far) {
  __builtin_prefetch(reinterpret_cast<const char*>(x) + far);
  const V scale = splat(F16{x->d});
  return to_bf16(mul(scale, load(x->q)), mul(scale, load(x->q + 16)));
}

struct TilePath {
  static constexpr int64_t kBlock = kTileBlock, kGroup = 32;
  static constexpr int64_t kZ = kGroup * kBlock, kScratch = kZ + kZ / 2;  // scores, weights in bf16

  struct Keys {
    const float *k, *v;  // tiles: k (keys/16, ⌈d/32⌉), v (⌈d/16⌉, kTileChunks)
  };

  static int64_t depth(int64_t d) { return (d + 31) / 32; }
  static int64_t query_floats(int64_t d) { return depth(d) * kTile; }

  // ⌈d/32⌉ tiles.
  static void pack_queries(float* to, const AttendRow* rows, int64_t count, int64_t d) {
    for (int64_t j = 0; j < d; j += 32, to += kTile) {
      I r[16];
      BG_UNROLL for (int i = 0; i < 16; ++i) r[i] = i < count ? first_bf16(rows[i].q + j, d - j) : zero_i();
      transpose(r);
      BG_UNROLL for (int i = 0; i < 16; ++i) store_i(to + 16 * i, r[i]);
    }
  }

  static int64_t key_floats(int64_t d) { return kBlock / 16 * depth(d) * kTile; }
  static int64_t block_floats(int64_t d) { return key_floats(d) + (d + 15) / 16 * kTileChunks * kTile; }

  // Block: what rows consist of, and how many columns it holds. kWhole: count and d are multiples of 32.
  template <class Block, int64_t kColumns, bool kWhole>
  static void pack_rows(float* k, const AttendArgs& a, int64_t s0, int64_t count) {
    const int64_t d = a.d, deep = depth(d), wide = (d + 15) / 16 * 16;
    const auto line = [&](const char* rows, size_t stride, int64_t s, int64_t j) __attribute__((always_inline)) {
      if (!kWhole && s >= count) return zero_i();
      return line_of(reinterpret_cast<const Block*>(rows + size_t(s) * stride) + j / kColumns, kWhole ? 32 : d - j, kAhead * stride);
    };
    const char *keys = static_cast<const char*>(a.k) + size_t(s0) * a.k_stride, *values = static_cast<const char*>(a.v) + size_t(s0) * a.v_stride;
    float* v = k + key_floats(d);
    for (int64_t s = 0; s < (count + 31) / 32 * 32; ++s) {
      float* to = k + s / 16 * deep * kTile + s % 16 * 16;
      for (int64_t j = 0; j < d; j += 32, to += kTile) store_i(to, line(keys, a.k_stride, s, j));
    }
    // Pairs of keys. unpacklo has columns 0 … 3, 8 … 11, 16 … 19, 24 … 27 of 32, unpackhi the others.
    for (int64_t s = 0; s < count; s += 32) {
      for (int64_t j = 0; j < d; j += 32) {
        float* to = v + (j / 16 * kTileChunks + s / 32) * kTile;
        const auto put = [&](const I (&pairs)[16], int64_t from) __attribute__((always_inline)) {
          BG_UNROLL for (int i = 0; i < 16; ++i) {
            const int64_t column = i / 4 * 8 + i % 4 + from;
            if (kWhole || j + column < wide) store_i(to + column / 16 * kTileChunks * kTile + column % 16 * 16, pairs[i]);
          }
        };
        I low[16], high[16];
        BG_UNROLL for (int i = 0; i < 16; ++i) {
          const I first = line(values, a.v_stride, s + 2 * i, j), second = line(values, a.v_stride, s + 2 * i + 1, j);
          low[i] = _mm512_unpacklo_epi16(first, second);
          high[i] = _mm512_unpackhi_epi16(first, second);
        }
        transpose(low);
        put(low, 0);
        transpose(high);
        put(high, 4);
      }
    }
  }
  template <class Block, int64_t kColumns>
  static void pack_block(float* k, const AttendArgs& a, int64_t s0, int64_t count) {
    count % 32 == 0 && a.d % 32 == 0 ? pack_rows<Block, kColumns, true>(k, a, s0, count) : pack_rows<Block, kColumns, false>(k, a, s0, count);
  }
  static void pack_block(float* k, const AttendArgs& a, int64_t s0, int64_t count) {
    if (a.type == Type::f32) return pack_block<float, 1>(k, a, s0, count);
    if (a.type == Type::bf16) return pack_block<Bf16, 1>(k, a, s0, count);
    pack_block<BlockQ8_0, 32>(k, a, s0, count);
  }

  static Keys keys_of(const AttendArgs& a, int64_t s0, int64_t count, bool, float* spare) {
    if (a.packed == nullptr) pack_block(spare, a, s0, count);
    const float* at = a.packed != nullptr ? a.packed + s0 / kBlock * block_floats(a.d) : spare;
    return {at, at + key_floats(a.d)};
  }

  static void block(float* states, const AttendArgs& a, const float* queries, int64_t count, const Keys& keys, const Sight& sight, float* scratch) {
    if (count <= 16) return vectors<1>(states, a, queries, keys, sight, scratch);
    vectors<2>(states, a, queries, keys, sight, scratch);
  }

  template <int N>
  static void vectors(float* states, const AttendArgs& a, const float* queries, const Keys& keys, const Sight& sight, float* z) {
    const int64_t d = a.d, step = attend_state(d), deep = depth(d), chunks = (sight.any + 31) / 32;
    float* p = z + kZ;
    for (int64_t c = 0; c < chunks; ++c) tile_dots<N>(z + 2 * c * kTile, 16 * kBlock, keys.k + 2 * c * deep * kTile, queries, deep);
    for (int n = 0; n < N; ++n)
      tile_soften(z + n * 16 * kBlock, reinterpret_cast<I*>(p + n * 8 * kBlock), states + n * step, d, a.scale, sight, sight.limits + 16 * n, chunks);
    int64_t j = 0;
    for (; j + 16 < d; j += 32) tile_values<2, N>(states + 16 * j, step, keys.v + j / 16 * kTileChunks * kTile, p, chunks);
    if (j < d) tile_values<1, N>(states + 16 * j, step, keys.v + j / 16 * kTileChunks * kTile, p, chunks);
  }
};
static_assert((TilePath::kScratch + kAttendQueries / 2 + TilePath::kBlock * kHeadDimMax) * sizeof(float) + kAttendStates <= kAttendScratch);

struct TileUse {
  TileUse() { _tile_loadconfig(&kAllTiles); }
  ~TileUse() { _tile_release(); }
  TileUse(const TileUse&) = delete;
  TileUse& operator=(const TileUse&) = delete;
};

}  // namespace
}  // namespace bg::cpu::BG_ISA
