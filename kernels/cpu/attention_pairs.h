// Attention with vdpbf16ps: q, k, v and p in bf16, sums in float (Precision::fast). The scheme is that of attention.isa.cpp, two numbers at a time:
//   Sᵀ = K·Qᵀ: a line holds the inputs (2i, 2i + 1) of sixteen rows; a key's pair of inputs is the same for all of them
//   Oᵀ = Vᵀ·Pᵀ: a line holds p of the keys (2s, 2s + 1) for sixteen rows; a column's pair of values likewise
// dot2_bf16 adds the product of the second of a pair, then that of the first. Sums of p: sixteen, of every sixteenth key, then halves joined (sum_of_sixteen).
// One token has lanes of its own, for the reason given in attention_few.h, and the same bits.
// Included by attention.isa.cpp only.
#pragma once
#include "kernels/cpu/attention_bf16.h"
#include "kernels/cpu/attention_few.h"

namespace bg::cpu::BG_ISA {
namespace {

constexpr int64_t kPairBlock = 128;  // keys of a block
constexpr float kLog2e = 1.44269504f;

// z of M keys × N vectors of rows, before scaling: z[n·z_step + 16·key] = Σ_i pairs of k and q, ascending i. q (N, pairs, 16), k (keys, pairs).
template <int M, int N>
__attribute__((noinline)) void pair_dots(float* z, int64_t z_step, const uint32_t* q, const uint32_t* k, int64_t pairs) {
  V acc[M][N];
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = splat(0.0f);
  }
  for (int64_t i = 0; i < pairs; ++i) {
    I b[N];
    BG_UNROLL for (int n = 0; n < N; ++n) b[n] = load_i(q + 16 * (n * pairs + i));
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const I a = splat_i(int32_t(k[m * pairs + i]));
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = dot2_bf16(acc[m][n], b[n], a);
    }
  }
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) store(z + n * z_step + 16 * m, acc[m][n]);
  }
}

// o of M columns × N vectors of rows: o = o·f + Σ_s pairs of p and v. o: M lines of 16 of the first state; p (N, kPairBlock/2, 16); v: the first of the columns of
// (keys/2, d). Rows that end inside the block: a pair's second key counts only where the row sees it, whatever its value.
template <int M, int N>
__attribute__((noinline)) void pair_values(float* o, int64_t o_step, const uint32_t* p, const V* f, const uint32_t* v, int64_t d, const Sight& sight) {
  V acc[M][N];
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = mul(load(o + n * o_step + 16 * m), f[n]);
  }
  int64_t s = 0;
  for (; 2 * s + 2 <= sight.all; ++s, v += d) {
    I b[N];
    BG_UNROLL for (int n = 0; n < N; ++n) b[n] = load_i(p + 16 * (n * kPairBlock / 2 + s));
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const I a = splat_i(int32_t(v[m]));
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = dot2_bf16(acc[m][n], b[n], a);
    }
  }
  for (; 2 * s < sight.any; ++s, v += d) {
    const V first = splat(float(2 * s)), second = splat(float(2 * s + 1));
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const I both = splat_i(int32_t(v[m])), one = splat_i(int32_t(v[m] & 0xffff));
      BG_UNROLL for (int n = 0; n < N; ++n) {
        const I b = load_i(p + 16 * (n * kPairBlock / 2 + s));
        const V limit = sight.all < sight.any ? load(sight.limits + 16 * n) : splat(float(sight.any));
        const V sum = where_less(first, limit, dot2_bf16(acc[m][n], b, one), acc[m][n]);
        acc[m][n] = where_less(second, limit, dot2_bf16(acc[m][n], b, both), sum);
      }
    }
  }
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) store(o + n * o_step + 16 * m, acc[m][n]);
  }
}

// m' = max(m, largest z · scale), stored in the state; p = 2^(z·by + minus); factor = e^(m − m').
struct Softening {
  V by, minus, factor;
};
BG_INLINE Softening soften_from(float* state, int64_t d, V most, float scale) {
  const V m = load(largest_of(state, d)), larger = max(mul(most, splat(scale)), m);
  store(largest_of(state, d), larger);
  const V minus = where_less(splat(-INFINITY), larger, mul(larger, splat(-kLog2e)), splat(0.0f));  // rows that see none of the keys: −∞ − 0
  return {splat(scale * kLog2e), minus, factor(m, larger)};
}

BG_INLINE V sum_of_sixteen(V (&sum)[16]) {
  BG_UNROLL for (int half = 8; half > 0; half /= 2) {
    BG_UNROLL for (int i = 0; i < half; ++i) sum[i] = add(sum[i], sum[i + half]);
  }
  return sum[0];
}

// z (keys, 16) of one vector of rows → p in pairs of keys; the state's m and l; returns what its sums are to be multiplied by.
__attribute__((noinline)) V pair_soften(float* z, uint32_t* p, float* state, int64_t d, float scale, const Sight& sight, const float* limits) {
  const V none = splat(-INFINITY);
  const int64_t whole = (sight.any + 15) / 16 * 16;
  for (int64_t s = sight.all; s < sight.any; ++s) store(z + 16 * s, where_less(splat(float(s)), load(limits), load(z + 16 * s), none));
  for (int64_t s = sight.any; s < whole; ++s) store(z + 16 * s, none);
  V most[4] = {none, none, none, none};
  for (int64_t s = 0; s < whole; s += 4) {
    BG_UNROLL for (int i = 0; i < 4; ++i) most[i] = max(load(z + 16 * (s + i)), most[i]);
  }
  const Softening to = soften_from(state, d, max(max(most[0], most[1]), max(most[2], most[3])), scale);
  V sum[16];
  BG_UNROLL for (int i = 0; i < 16; ++i) sum[i] = splat(0.0f);
  for (int64_t s = 0; s < whole; s += 16) {
    BG_UNROLL for (int i = 0; i < 16; i += 2) {
      const V first = exp2_short(madd(load(z + 16 * (s + i)), to.by, to.minus)), second = exp2_short(madd(load(z + 16 * (s + i + 1)), to.by, to.minus));
      sum[i] = add(sum[i], first);
      sum[i + 1] = add(sum[i + 1], second);
      store_i(p + 8 * (s + i), to_pairs(first, second));
    }
  }
  float* l = total_of(state, d);
  store(l, madd(load(l), to.factor, sum_of_sixteen(sum)));
  return to.factor;
}

// Row s of `from` as floats: where it lies, or in `spare`.
BG_INLINE const float* row_of(float* spare, Type type, const void* from, size_t stride, int64_t s, int64_t d) {
  const char* row = static_cast<const char*>(from) + size_t(s) * stride;
  if (type == Type::f32) return reinterpret_cast<const float*>(row);
  floats_of(spare, type, row, d);
  return spare;
}

struct PairPath {
  static constexpr int kVectors = 3, kTile = 8;  // 24 accumulators + 3 + 1 operands of 32 registers
  static constexpr int64_t kBlock = kPairBlock, kGroup = 16 * kVectors;
  static constexpr int64_t kScratch = kGroup * kBlock / 2 * 3;  // z, p

  struct Keys {
    const uint32_t *k, *v;  // k (keys, pairs of inputs), v (pairs of keys, d)
  };

  static int64_t pairs(int64_t d) { return (d + 1) / 2; }
  static int64_t query_floats(int64_t d) { return 16 * pairs(d); }

  // (pairs, 16); lanes without a row are 0.
  static void pack_queries(float* to, const AttendRow* rows, int64_t count, int64_t d) {
    for (int64_t j = 0; j < d; j += 32) {
      I r[16];
      BG_UNROLL for (int i = 0; i < 16; ++i) r[i] = i < count ? first_bf16(rows[i].q + j, d - j) : zero_i();
      transpose(r);
      const int64_t lines = least(16, pairs(d - j));
      BG_UNROLL for (int i = 0; i < 16; ++i) {
        if (i < lines) store_i(to + 16 * (j / 2 + i), r[i]);
      }
    }
  }

  static int64_t block_floats(int64_t d) { return (kBlock * pairs(d) + kBlock / 2 * d + 15) / 16 * 16; }

  static void write(float* to, I line, int64_t count) {
    if (count >= 16)
      store_i(to, line);
    else
      store_first(to, V(line), count);
  }
  static void pack_block(float* to, const AttendArgs& a, int64_t s0, int64_t count) {
    const int64_t d = a.d;
    float spare[2 * kHeadDimMax];
    for (int64_t s = s0; s < s0 + count; ++s, to += pairs(d)) {
      fetch(a.k, a.k_stride, s + kAhead, a.type, d);
      const float* from = row_of(spare, a.type, a.k, a.k_stride, s, d);
      for (int64_t j = 0; j < d; j += 32) write(to + j / 2, first_bf16(from + j, d - j), pairs(d - j));
    }
    to += (kBlock - count) * pairs(d);
    for (int64_t s = s0; s < s0 + count; s += 2, to += d) {
      fetch(a.v, a.v_stride, s + kAhead, a.type, d);
      fetch(a.v, a.v_stride, s + kAhead + 1, a.type, d);
      const float *first = row_of(spare, a.type, a.v, a.v_stride, s, d), *second = s + 1 < s0 + count ? row_of(spare + kHeadDimMax, a.type, a.v, a.v_stride, s + 1, d) : nullptr;
      for (int64_t j = 0; j < d; j += 16) write(to + j, to_pairs(some(first + j, d - j), second != nullptr ? some(second + j, d - j) : splat(0.0f)), d - j);
    }
  }

  static Keys keys_of(const AttendArgs& a, int64_t s0, int64_t count, bool, float* spare) {
    if (a.packed == nullptr) pack_block(spare, a, s0, count);
    const auto* at = reinterpret_cast<const uint32_t*>(a.packed != nullptr ? a.packed + s0 / kBlock * block_floats(a.d) : spare);
    return {at, at + kBlock * pairs(a.d)};
  }

  static void block(float* states, const AttendArgs& a, const float* queries, int64_t count, const Keys& keys, const Sight& sight, float* scratch) {
    if (count <= 16) return vectors<1>(states, a, queries, keys, sight, scratch);
    if (count <= 32) return vectors<2>(states, a, queries, keys, sight, scratch);
    vectors<3>(states, a, queries, keys, sight, scratch);
  }

  template <int N>
  static void vectors(float* states, const AttendArgs& a, const float* queries, const Keys& keys, const Sight& sight, float* z) {
    const int64_t d = a.d, step = attend_state(d), deep = pairs(d), z_step = 16 * kBlock;
    const auto* q = reinterpret_cast<const uint32_t*>(queries);
    auto* p = reinterpret_cast<uint32_t*>(z + kGroup * kBlock);
    int64_t s = 0;
    for (; s + kTile <= sight.any; s += kTile) pair_dots<kTile, N>(z + 16 * s, z_step, q, keys.k + s * deep, deep);
    with_count<kTile - 1>(sight.any - s, [&](auto n) { pair_dots<n.value, N>(z + 16 * s, z_step, q, keys.k + s * deep, deep); });
    V f[N];
    for (int n = 0; n < N; ++n) f[n] = pair_soften(z + n * z_step, p + n * 8 * kBlock, states + n * step, d, a.scale, sight, sight.limits + 16 * n);
    int64_t j = 0;
    for (; j + kTile <= d; j += kTile) pair_values<kTile, N>(states + 16 * j, step, p, f, keys.v + j, d, sight);
    with_count<kTile - 1>(d - j, [&](auto n) { pair_values<n.value, N>(states + 16 * j, step, p, f, keys.v + j, d, sight); });
  }
};
static_assert((PairPath::kScratch + kAttendQueries + PairPath::kBlock * kHeadDimMax) * sizeof(float) + kAttendStates <= kAttendScratch);

// ---- one token: lanes are keys, then columns ------------------------------------------------------------------------------------------------

// Columns j … j + 31 (or + 15, the others 0) of a row in bf16.
BG_INLINE I some_bf16(const Bf16* row, bool all) { return all ? load_i(row) : _mm512_maskz_loadu_epi32(0xff, row); }
BG_INLINE I some_bf16(const float* row, bool all) { return to_bf16(load(row), all ? load(row + 16) : splat(0.0f)); }

// k[i]: pair i of a line of 64 bytes, from column j on, of sixteen rows of keys. Whole lines: each is read once.
// Of bf16, a line may be half a line.
BG_INLINE void pairs_of_lines(I (&k)[16], HeadRows<Bf16> rows, int64_t j, bool whole) {
  BG_UNROLL for (int s = 0; s < 16; ++s) k[s] = some_bf16(rows[s] + j, whole);
  transpose(k);
}
BG_INLINE void pairs_of_lines(I (&k)[8], HeadRows<float> rows, int64_t j, bool) {
  const auto half = [&](int s) { return _mm512_castsi512_si256(to_bf16(load(rows[s] + j), splat(0.0f))); };
  I a[8], b[8];
  BG_UNROLL for (int i = 0; i < 8; ++i) {  // rows 0 … 3 beside 4 … 7, 8 … 11 beside 12 … 15
    const int s = i + i / 4 * 4;
    a[i] = _mm512_inserti64x4(_mm512_castsi256_si512(half(s)), half(s + 4), 1);
  }
  BG_UNROLL for (int i = 0; i < 8; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  BG_UNROLL for (int i = 0; i < 8; i += 4) {  // a[i + k]: pairs k and 4 + k of four rows, and of four more
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  BG_UNROLL for (int i = 0; i < 4; ++i) {
    k[i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88);
    k[4 + i] = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xdd);
  }
}

// z_rs of 32 keys. z: rows kPairBlock apart; q (R, d/2) pairs.
template <int R, class T>
__attribute__((noinline)) void pair_few_dots(float* z, const uint32_t* q, HeadRows<T> keys, int64_t d, Ahead& ahead) {
  constexpr int kLine = 32 / sizeof(T);
  const int64_t pairs = d / 2;
  V acc[R][2];
  BG_UNROLL for (int r = 0; r < R; ++r) BG_UNROLL for (int n = 0; n < 2; ++n) acc[r][n] = splat(0.0f);
  for (int64_t i = 0; i < pairs; i += kLine) {
    const bool whole = pairs - i >= kLine;
    BG_UNROLL for (int n = 0; n < 2; ++n) {
      ahead.ask(16);
      I k[kLine];
      pairs_of_lines(k, keys.from(16 * n), 2 * i, whole);
      const auto add_pair = [&](int e) __attribute__((always_inline)) {
        BG_UNROLL for (int r = 0; r < R; ++r) acc[r][n] = dot2_bf16(acc[r][n], splat_i(int32_t(q[r * pairs + i + e])), k[e]);
      };
      BG_UNROLL for (int e = 0; e < 8; ++e) add_pair(e);
      if (kLine > 8 && whole) BG_UNROLL for (int e = 8; e < kLine; ++e) add_pair(e);
    }
  }
  BG_UNROLL for (int r = 0; r < R; ++r) BG_UNROLL for (int n = 0; n < 2; ++n) store(z + r * kPairBlock + 16 * n, acc[r][n]);
}

// x[n]: sixteen pairs (a_j, b_j) of two rows, from column j + 16·n on; without b: (a_j, 0).
template <int N>
BG_INLINE void pairs_of_rows(I (&x)[N], const float* a, const float* b, int64_t j) {
  BG_UNROLL for (int n = 0; n < N; ++n) x[n] = to_pairs(load(a + j + 16 * n), b != nullptr ? load(b + j + 16 * n) : splat(0.0f));
}
template <int N>
BG_INLINE void pairs_of_rows(I (&x)[N], const Bf16* a, const Bf16* b, int64_t j) {
  const I low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const I high = _mm512_set_epi16(63, 31, 62, 30, 61, 29, 60, 28, 59, 27, 58, 26, 57, 25, 56, 24, 55, 23, 54, 22, 53, 21, 52, 20, 51, 19, 50, 18, 49, 17, 48, 16);
  BG_UNROLL for (int n = 0; n < N; n += 2) {
    const I first = some_bf16(a + j + 16 * n, N > 1), second = b != nullptr ? some_bf16(b + j + 16 * n, N > 1) : zero_i();
    x[n] = _mm512_permutex2var_epi16(first, low, second);
    if (n + 1 < N) x[n + 1] = _mm512_permutex2var_epi16(first, high, second);
  }
}

// o_r = o_r·f_r + Σ_s pairs of p and v of `count` keys. o: rows d apart; p: rows kPairBlock/2 apart.
template <int R, int N, class T>
BG_INLINE void pair_few_columns(float* o, const uint32_t* p, const float* f, HeadRows<T> v, int64_t count, int64_t d, int64_t j, Ahead& ahead) {
  V acc[R][N];
  BG_UNROLL for (int r = 0; r < R; ++r) BG_UNROLL for (int n = 0; n < N; ++n) acc[r][n] = mul(load(o + r * d + j + 16 * n), splat(f[r]));
  const auto step = [&](int64_t s, const T* first, const T* second) __attribute__((always_inline)) {
    ahead.ask(N);
    I x[N];
    pairs_of_rows(x, first, second, j);
    BG_UNROLL for (int r = 0; r < R; ++r) {
      const I a = splat_i(int32_t(p[r * kPairBlock / 2 + s]));
      BG_UNROLL for (int n = 0; n < N; ++n) acc[r][n] = dot2_bf16(acc[r][n], a, x[n]);
    }
  };
  for (int64_t s = 0; s < count / 2; ++s) step(s, v[2 * s], v[2 * s + 1]);
  if (count % 2 == 1) step(count / 2, v[count - 1], nullptr);
  BG_UNROLL for (int r = 0; r < R; ++r) BG_UNROLL for (int n = 0; n < N; ++n) store(o + r * d + j + 16 * n, acc[r][n]);
}
template <int R, class T>
__attribute__((noinline)) void pair_few_values(float* o, const uint32_t* p, const float* f, HeadRows<T> v, int64_t count, int64_t d, Ahead& ahead) {
  int64_t j = 0;
  if constexpr (R <= 2) for (; j + 128 <= d; j += 128) pair_few_columns<R, 8>(o, p, f, v, count, d, j, ahead);  // whole rows, in the order of memory
  for (; j + 64 <= d; j += 64) pair_few_columns<R, 4>(o, p, f, v, count, d, j, ahead);
  for (; j + 32 <= d; j += 32) pair_few_columns<R, 2>(o, p, f, v, count, d, j, ahead);
  if (j < d) pair_few_columns<R, 1>(o, p, f, v, count, d, j, ahead);
}

// z (R, kPairBlock) → p; m and l of the state (a row per lane), and f.
template <int R>
void pair_few_soften(float* z, uint32_t* p, float* state, int64_t d, float scale, int64_t count, float* f) {
  alignas(64) float minus[16], sum[16] = {};
  const Softening to = soften_from(state, d, largest_of_rows<R>(z, kPairBlock, count), scale);
  store(f, to.factor);
  store(minus, to.minus);
  for (int r = 0; r < R; ++r) {
    V total = splat(0.0f);
    for (int64_t s = 0; s < count; s += 16) {
      const V e = exp2_short(madd(load(z + r * kPairBlock + s), to.by, splat(minus[r])));
      total = add(total, e);
      store_first(reinterpret_cast<float*>(p) + r * kPairBlock / 2 + s / 2, V(to_bf16(e, e)), 8);
    }
    float lane[16];
    store(lane, total);
    for (int half = 8; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    sum[r] = lane[0];
  }
  store(total_of(state, d), madd(load(total_of(state, d)), to.factor, load(sum)));
}

// Scratch, in floats: z, p, o and q, rows of floats.
constexpr int64_t kPairFewScratch = kFewRows * (kPairBlock / 2 * 3 + kHeadDimMax / 2 * 3) + 32 * kHeadDimMax;
static_assert(kPairFewScratch * sizeof(float) <= kAttendScratch);

template <int R, class T>
struct PairFew {
  static constexpr int64_t kBlock = kPairBlock, kKeys = 32;
  const AttendArgs& a;
  float *o, *z, *spare, f[16];
  uint32_t *p, *q;

  PairFew(const AttendArgs& args, const AttendRow* rows, int64_t count, float* scratch) : a(args) {
    const int64_t d = a.d;
    o = scratch, z = o + R * d;
    p = reinterpret_cast<uint32_t*>(z + R * kBlock), q = p + R * kBlock / 2;
    spare = reinterpret_cast<float*>(q + R * d / 2);
    memset(o, 0, size_t(R * d) * sizeof(float));
    for (int64_t r = 0; r < R; ++r) {
      const float* from = rows[least(r, count - 1)].q;
      for (int64_t j = 0; j < d; j += 32) PairPath::write(reinterpret_cast<float*>(q + (r * d + j) / 2), some_bf16(from + j, d - j >= 32), (d - j) / 2);
    }
  }
  void widen(T* to, const char* row) const {
    const auto* b = reinterpret_cast<const BlockQ8_0*>(row);
    for (int64_t j = 0; j < a.d; j += 32, ++b) {
      const V scale = splat(F16{b->d});
      store_i(to + j, to_bf16(mul(scale, load(b->q)), mul(scale, load(b->q + 16))));
    }
  }
  void dots(int64_t s, HeadRows<T> keys, Ahead& ahead) { pair_few_dots<R>(z + s, q, keys, a.d, ahead); }
  void soften(float* state, int64_t keys) { pair_few_soften<R>(z, p, state, a.d, a.scale, keys, f); }
  void values(int64_t s, HeadRows<T> values, int64_t keys, Ahead& ahead) {
    if (s > 0) for (float& lane : f) lane = 1;
    pair_few_values<R>(o, p + s / 2, f, values, keys, a.d, ahead);
  }
};

}  // namespace
}  // namespace bg::cpu::BG_ISA
