// Softmax attention of up to kAttendRows query rows over one head's keys. Lanes are sixteen query rows: Sᵀ = K·Qᵀ and Oᵀ = Vᵀ·Pᵀ, so the largest score,
// e^x and every sum go lane by lane, never across. An online softmax over fixed key blocks from key 0:
//   for each block:  m' = max(m, max_s z_s);  f = e^(m − m');  p_s = e^(z_s − m');  l = l·f + Σ p_s;  o = o·f + Σ_s p_s·v_s (ascending s);  m = m'
//   for each span of kSpanKeys keys, begun at m = −∞, l = 0, o = 0 (join): m' = max(m, m_span) and both sides times e^(m − m')
//   at the end       o/l, and m + ln l where it is asked for
// n keys of score 0 and value 0 come first and cost nothing: they are the first span's start m = 0, l = n, o = 0.
// Nothing in a row's arithmetic depends on the other rows: they only share the loads. Where rows end inside a block, the keys behind the shortest are taken
// lane by lane: a key that a row may not see changes none of its bits, whatever its values (0·∞ would be NaN).
#include "kernels/cpu/attention.h"

#include <math.h>

#include "kernels/cpu/attention_few.h"
#include "kernels/cpu/attention_state.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"
#if BG_AMX
#include "kernels/cpu/attention_tiles.h"
#elif BG_DPBF16
#include "kernels/cpu/attention_pairs.h"
#endif

namespace bg::cpu::BG_ISA {
namespace {

#if BG_AVX512
constexpr int kVectors = 3, kTileKeys = 8;  // 24 accumulators + 3 + 1 operands of 32 registers
#elif BG_AVX2
constexpr int kVectors = 1, kTileKeys = 6;  // 12 + 2 + 1 of 16
#elif BG_NEON
constexpr int kVectors = 1, kTileKeys = 6;  // 24 + 4 + 1 of 32
#else
constexpr int kVectors = 1, kTileKeys = 2;
#endif
static_assert(kSpanKeys % kBlockKeys == 0 && kAttendRows % (16 * kVectors) == 0 && 16 * kVectors <= kMostGroupRows);

// ---- float --------------------------------------------------------------------------------------------------------------------------------

// z of M keys × N vectors of rows, before scaling: s[16·(key·N + n)] = Σ_j k_j·q_nj, ascending j. qt (N, d, 16).
template <int M, int N>
__attribute__((noinline)) void dots(float* s, const float* qt, const float* k, int64_t k_stride, int64_t d) {
  V acc[M][N];
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = splat(0.0f);
  }
  for (int64_t j = 0; j < d; ++j) {
    V q[N];
    BG_UNROLL for (int n = 0; n < N; ++n) q[n] = load(qt + 16 * (n * d + j));
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V a = splat(k[m * k_stride + j]);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = madd(a, q[n], acc[m][n]);
    }
  }
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) store(s + 16 * (m * N + n), acc[m][n]);
  }
}

// o of M columns × N vectors of rows: o = o·f + Σ_s p_s·v_s. o: M lines of 16 of the first state; p (keys, N, 16); v: the first of the columns.
template <int M, int N>
__attribute__((noinline)) void values(float* o, int64_t o_step, const float* p, const V* f, const float* v, int64_t v_stride, const Sight& sight) {
  V acc[M][N];
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = mul(load(o + n * o_step + 16 * m), f[n]);
  }
  for (int64_t s = 0; s < sight.all; ++s, v += v_stride, p += 16 * N) {
    V b[N];
    BG_UNROLL for (int n = 0; n < N; ++n) b[n] = load(p + 16 * n);
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V a = splat(v[m]);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = madd(a, b[n], acc[m][n]);
    }
  }
  for (int64_t s = sight.all; s < sight.any; ++s, v += v_stride, p += 16 * N) {
    const V index = splat(float(s));
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V a = splat(v[m]);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = where_less(index, load(sight.limits + 16 * n), madd(a, load(p + 16 * n), acc[m][n]), acc[m][n]);
    }
  }
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) store(o + n * o_step + 16 * m, acc[m][n]);
  }
}

// z (keys, N, 16) → p in place; the states' m and l, and what their sums are to be multiplied by.
template <int N>
__attribute__((noinline)) void soften(float* z, float* states, int64_t d, float scale, const Sight& sight, V* f) {
  const V by = splat(scale), none = splat(-INFINITY);
  V most[N], sum[N], minus[N];
  BG_UNROLL for (int n = 0; n < N; ++n) most[n] = none;
  for (int64_t s = 0; s < sight.all; ++s) {
    BG_UNROLL for (int n = 0; n < N; ++n) most[n] = max(load(z + 16 * (s * N + n)), most[n]);
  }
  for (int64_t s = sight.all; s < sight.any; ++s) {
    const V index = splat(float(s));
    BG_UNROLL for (int n = 0; n < N; ++n) most[n] = max(where_less(index, load(sight.limits + 16 * n), load(z + 16 * (s * N + n)), none), most[n]);
  }
  BG_UNROLL for (int n = 0; n < N; ++n) {
    float* state = largest_of(states + n * attend_state(d), d);
    const V m = load(state), larger = max(mul(most[n], by), m);
    f[n] = factor(m, larger);
    minus[n] = sub(splat(0.0f), larger);
    sum[n] = splat(0.0f);
    store(state, larger);
  }
  for (int64_t s = 0; s < sight.all; ++s) {
    BG_UNROLL for (int n = 0; n < N; ++n) {
      float* at = z + 16 * (s * N + n);
      const V p = exp_negative(madd(load(at), by, minus[n]));
      store(at, p);
      sum[n] = add(sum[n], p);
    }
  }
  for (int64_t s = sight.all; s < sight.any; ++s) {
    const V index = splat(float(s));
    BG_UNROLL for (int n = 0; n < N; ++n) {
      float* at = z + 16 * (s * N + n);
      const V p = where_less(index, load(sight.limits + 16 * n), exp_negative(madd(load(at), by, minus[n])), splat(0.0f));
      store(at, p);
      sum[n] = add(sum[n], p);
    }
  }
  BG_UNROLL for (int n = 0; n < N; ++n) {
    float* total = total_of(states + n * attend_state(d), d);
    store(total, madd(load(total), f[n], sum[n]));
  }
}

struct FloatPath {
  static constexpr int64_t kBlock = kBlockKeys, kGroup = 16 * kVectors;
  static constexpr int64_t kScratch = kGroup * kBlock;  // z

  // `count` keys and their values, as floats. Those of frames lie far apart in memory, often a page each, so rows that share them take a copy.
  struct Keys {
    const float *k, *v;
    int64_t k_stride, v_stride;  // floats
  };

  static int64_t query_floats(int64_t d) { return 16 * d; }

  // (d, 16); lanes without a row are 0.
  static void pack_queries(float* to, const AttendRow* rows, int64_t count, int64_t d) {
    for (int64_t j = 0; j < d; j += 16) {
      const int64_t columns = least(16, d - j);
      float q[16 * 16];
      for (int64_t i = 0; i < 16; ++i) store(q + 16 * i, i >= count ? splat(0.0f) : columns == 16 ? load(rows[i].q + j) : load_first(rows[i].q + j, columns));
      transpose(q, 16);
      for (int64_t i = 0; i < columns; ++i) store(to + 16 * (j + i), load(q + 16 * i));
    }
  }

  // Keys, then values.
  static int64_t block_floats(int64_t d) { return 2 * kBlock * d; }
  static void pack_block(float* k, const AttendArgs& a, int64_t s0, int64_t count) {
    float* v = k + kBlock * a.d;
    for (int64_t s = s0; s < s0 + count; ++s, k += a.d, v += a.d) {
      fetch(a.k, a.k_stride, s + kAhead, a.type, a.d);
      fetch(a.v, a.v_stride, s + kAhead, a.type, a.d);
      floats_of(k, a.type, static_cast<const char*>(a.k) + size_t(s) * a.k_stride, a.d);
      floats_of(v, a.type, static_cast<const char*>(a.v) + size_t(s) * a.v_stride, a.d);
    }
  }

  static Keys keys_of(const AttendArgs& a, int64_t s0, int64_t count, bool shared, float* spare) {
    const float* at = spare;
    if (a.packed != nullptr) {
      at = a.packed + s0 / kBlock * block_floats(a.d);
    } else if (a.type == Type::f32 && !shared) {
      const auto k_stride = int64_t(a.k_stride / sizeof(float)), v_stride = int64_t(a.v_stride / sizeof(float));
      return {static_cast<const float*>(a.k) + s0 * k_stride, static_cast<const float*>(a.v) + s0 * v_stride, k_stride, v_stride};
    } else {
      pack_block(spare, a, s0, count);
    }
    return {at, at + kBlock * a.d, a.d, a.d};
  }

  static void block(float* states, const AttendArgs& a, const float* queries, [[maybe_unused]] int64_t count, const Keys& keys, const Sight& sight, float* z) {
#if BG_AVX512
    if (count <= 16) return vectors<1>(states, a, queries, keys, sight, z);
    if (count <= 32) return vectors<2>(states, a, queries, keys, sight, z);
#endif
    vectors<kVectors>(states, a, queries, keys, sight, z);
  }

  template <int N>
  static void vectors(float* states, const AttendArgs& a, const float* queries, const Keys& keys, const Sight& sight, float* z) {
    const int64_t d = a.d, step = attend_state(d);
    int64_t s = 0;
    for (; s + kTileKeys <= sight.any; s += kTileKeys) {
      if (keys.k_stride != d) {  // no copies
        for (int64_t i = s; i < s + kTileKeys; ++i) {
          fetch(keys.k, size_t(keys.k_stride) * sizeof(float), i + 2 * kTileKeys, Type::f32, d);
          fetch(keys.v, size_t(keys.v_stride) * sizeof(float), i, Type::f32, d);
        }
      }
      dots<kTileKeys, N>(z + 16 * N * s, queries, keys.k + s * keys.k_stride, keys.k_stride, d);
    }
    with_count<kTileKeys - 1>(sight.any - s, [&](auto n) { dots<n.value, N>(z + 16 * N * s, queries, keys.k + s * keys.k_stride, keys.k_stride, d); });
    V f[N];
    soften<N>(z, states, d, a.scale, sight, f);
    int64_t j = 0;
    for (; j + kTileKeys <= d; j += kTileKeys) values<kTileKeys, N>(states + 16 * j, step, z, f, keys.v + j, keys.v_stride, sight);
    with_count<kTileKeys - 1>(d - j, [&](auto n) { values<n.value, N>(states + 16 * j, step, z, f, keys.v + j, keys.v_stride, sight); });
  }
};
static_assert(kFewScratch * sizeof(float) <= kAttendScratch);
static_assert((FloatPath::kScratch + kAttendQueries + 2 * FloatPath::kBlock * kHeadDimMax) * sizeof(float) + kAttendStates <= kAttendScratch);

#if BG_AMX
using FastPath = TilePath;
#elif BG_DPBF16
using FastPath = PairPath;
#else
using FastPath = FloatPath;
#endif
bool fast(const AttendArgs& a) { return a.precision == Precision::fast; }

template <class Path>
int64_t packed_span(int64_t d) { return kSpanKeys / Path::kBlock * Path::block_floats(d); }
int64_t packed_floats(const AttendArgs& a) { return fast(a) ? packed_span<FastPath>(a.d) : packed_span<FloatPath>(a.d); }

void pack(float* to, const AttendArgs& a, int64_t span, int64_t keys) { fast(a) ? pack_span<FastPath>(to, a, span, keys) : pack_span<FloatPath>(to, a, span, keys); }

void sums(float* states, const AttendArgs& a, const AttendRow* rows, int64_t count, int64_t first, int64_t last, char* scratch) {
  auto* floats = reinterpret_cast<float*>(scratch);
  if (!fast(a)) return walk<FloatPath>(states, a, rows, count, first, last, floats);
#if BG_AMX
  const TileUse tiles;
  walk_tiles(states, a, rows, count, first, last, floats);
#else
  walk<FastPath>(states, a, rows, count, first, last, floats);
#endif
}

// ---- one token ------------------------------------------------------------------------------------------------------------------------------

template <int R, class T>
void sums_of(float* state, const AttendArgs& a, const AttendRow* rows, int64_t count, int64_t span, float* scratch) {
#if BG_DPBF16
  if (fast(a)) return sums_of_few<PairFew<R, T>, T>(state, a, rows, count, span, scratch);
#endif
  sums_of_few<FloatFew<R, T>, T>(state, a, rows, count, span, scratch);
}

void sums_few(float* state, const AttendArgs& a, const AttendRow* rows, int64_t count, int64_t span, char* scratch) {
  const auto with = [&](auto as) {
    using T = decltype(as);
    auto* floats = reinterpret_cast<float*>(scratch);
    if (count == 1) return sums_of<1, T>(state, a, rows, count, span, floats);
    if (count == 2) return sums_of<2, T>(state, a, rows, count, span, floats);
    sums_of<kFewRows, T>(state, a, rows, count, span, floats);
  };
  if (a.type == Type::bf16 || (BG_DPBF16 && fast(a) && a.type == Type::q8_0)) return with(Bf16{});
  with(float{});
}

bool are_few(const AttendArgs& a, int64_t count) {
  if (BG_AMX && fast(a)) return false;  // its tiles have bits of their own
  return count <= kFewRows && a.d % 16 == 0;
}

}  // namespace

const AttentionIsa attention = {packed_floats, pack, sums, are_few, sums_few, join, finish};

}  // namespace bg::cpu::BG_ISA
