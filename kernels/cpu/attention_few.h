// Attention of one token, whose query heads share a kv head: at most four rows that see the same keys. Sixteen lanes of rows would be mostly empty, so lanes are
// keys in the scores and columns in the sums. A score is still one chain over j, a column of o one chain over the keys, Σ p one over the keys, in the order of
// attention.isa.cpp: the same bits, so that a prompt may be cut into single tokens.
// Included by attention.isa.cpp only.
#pragma once
#include "kernels/cpu/attention_state.h"

namespace bg::cpu::BG_ISA {
namespace {

// Vectors of keys, or of columns, side by side, for R rows: 8 accumulators hide the latency.
template <int R>
constexpr int kFewVectors = BG_AVX512 || (BG_AVX2 && R <= 2) ? 2 : 1;
template <int R>
constexpr int64_t kFewKeys = 16 * kFewVectors<R>;  // that are taken at a time
constexpr int64_t kMostFewKeys = 32;
static_assert(kBlockKeys % kMostFewKeys == 0);

// Rows of keys or values of one head.
template <class T>
struct HeadRows {
  const T* at;
  int64_t stride;  // T from one to the next
  const T* operator[](int64_t i) const { return at + i * stride; }
  HeadRows from(int64_t i) const { return {at + i * stride, stride}; }
};

// The next rows of a cache lie a multiple of 4 KiB behind those that are read. AMD's Zen 4 reads keys up to a quarter faster where what is asked for lies half a page further on
// (measured, not explained: PERFORMANCE.md). In bytes.
BG_INLINE int64_t further_ahead() { return BG_DPBF16 && !asks_far_ahead() ? 2048 : 0; }

// Rows that will be wanted next, asked of the second cache a few lines at a time, between products.
struct Ahead {
  const char *at, *end;

  void ask(int lines) {
    for (int i = 0; i < lines && at < end; ++i, at += 64) __builtin_prefetch(at, 0, 2);
  }
  void rest() {
    while (at < end) ask(16);
  }
};

// to[16·i + s] = row_s[i], s, i < 16.
#if BG_AVX512
template <class T>
BG_INLINE void columns_of(float* to, HeadRows<T> row, int64_t j) {
  V a[16];
  BG_UNROLL for (int s = 0; s < 16; ++s) a[s] = load(row[s] + j);
  BG_ISA::transpose(a);
  BG_UNROLL for (int i = 0; i < 16; ++i) store(to + 16 * i, a[i]);
}
#elif BG_AVX2
BG_INLINE void columns_of(float* to, HeadRows<float> row, int64_t j) {
  BG_UNROLL for (int s = 0; s < 16; s += 8) {
    BG_UNROLL for (int i = 0; i < 16; i += 8) eight_columns(to + 16 * i + s, [&](int r) { return row[s + r] + j + i; });
  }
}
// bf16 move in pairs.
BG_INLINE void columns_of(float* to, HeadRows<Bf16> row, int64_t j) {
  alignas(64) float pairs[8 * 16];
  BG_UNROLL for (int s = 0; s < 16; s += 8) eight_columns(pairs + s, [&](int r) { return reinterpret_cast<const float*>(row[s + r] + j); });
  BG_UNROLL for (int i = 0; i < 8; ++i) {
    const auto* pair = reinterpret_cast<const uint32_t*>(pairs + 16 * i);
    store(to + 32 * i, low_halves(pair));
    store(to + 32 * i + 16, high_halves(pair));
  }
}
#else
template <class T>
BG_INLINE void columns_of(float* to, HeadRows<T> row, int64_t j) {
  for (int64_t s = 0; s < 16; ++s) {
    float x[16];
    store(x, load(row[s] + j));
    for (int64_t i = 0; i < 16; ++i) to[16 * i + s] = x[i];
  }
}
#endif

// z_rs = Σ_j k_sj·q_rj, ascending j. z: rows kBlockKeys apart; panel: kFewKeys<R> · d floats.
template <int R, class T>
__attribute__((noinline)) void few_dots(float* z, const float* const* q, HeadRows<T> keys, int64_t d, float* panel, Ahead& ahead) {
  constexpr int N = kFewVectors<R>;
  for (int n = 0; n < N; ++n) {
    for (int64_t j = 0; j < d; j += 16) {
      ahead.ask(4 * sizeof(T));
      columns_of(panel + 16 * (n * d + j), keys.from(16 * n), j);
    }
  }
  V acc[R][N];
  BG_UNROLL for (int r = 0; r < R; ++r) BG_UNROLL for (int n = 0; n < N; ++n) acc[r][n] = splat(0.0f);
  for (int64_t j = 0; j < d; ++j) {
    V k[N];
    BG_UNROLL for (int n = 0; n < N; ++n) k[n] = load(panel + 16 * (n * d + j));
    BG_UNROLL for (int r = 0; r < R; ++r) {
      const V a = splat(q[r][j]);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[r][n] = madd(k[n], a, acc[r][n]);
    }
  }
  BG_UNROLL for (int r = 0; r < R; ++r) BG_UNROLL for (int n = 0; n < N; ++n) store(z + r * kBlockKeys + 16 * n, acc[r][n]);
}

// o_r = o_r·f_r + Σ_s p_rs·v_s, ascending s. o: rows d apart.
template <int R, int N, class T>
BG_INLINE void few_columns(float* o, const float* p, const float* f, HeadRows<T> v, int64_t count, int64_t d, int64_t j, Ahead& ahead) {
  V acc[R][N];
  BG_UNROLL for (int r = 0; r < R; ++r) BG_UNROLL for (int n = 0; n < N; ++n) acc[r][n] = mul(load(o + r * d + j + 16 * n), splat(f[r]));
  for (int64_t s = 0; s < count; ++s) {
    ahead.ask(int(N * sizeof(T) + 3) / 4);
    V x[N];
    BG_UNROLL for (int n = 0; n < N; ++n) x[n] = load(v[s] + j + 16 * n);
    BG_UNROLL for (int r = 0; r < R; ++r) {
      const V a = splat(p[r * kBlockKeys + s]);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[r][n] = madd(x[n], a, acc[r][n]);
    }
  }
  BG_UNROLL for (int r = 0; r < R; ++r) BG_UNROLL for (int n = 0; n < N; ++n) store(o + r * d + j + 16 * n, acc[r][n]);
}
template <int R, class T>
__attribute__((noinline)) void few_values(float* o, const float* p, const float* f, HeadRows<T> v, int64_t count, int64_t d, Ahead& ahead) {
  constexpr int N = kFewVectors<R>;
  int64_t j = 0;
  for (; j + 16 * N <= d; j += 16 * N) few_columns<R, N>(o, p, f, v, count, d, j, ahead);
  for (; j < d; j += 16) few_columns<R, 1>(o, p, f, v, count, d, j, ahead);
}

// The largest of `keys` numbers of each of R rows, `stride` apart, a row per lane; −∞ in the others, and in the rows up to a whole vector.
template <int R>
BG_INLINE V largest_of_rows(float* z, int64_t stride, int64_t keys) {
  float largest[16];
  store(largest, splat(-INFINITY));
  for (int r = 0; r < R; ++r) {
    float* row = z + r * stride;
    for (int64_t s = keys; s % 16 != 0; ++s) row[s] = -INFINITY;
    V most = splat(-INFINITY);
    for (int64_t s = 0; s < keys; s += 16) most = max(load(row + s), most);
    float lane[16];
    store(lane, most);
    for (const float x : lane) largest[r] = x > largest[r] ? x : largest[r];
  }
  return load(largest);
}

// z → p in place; m and l of the state (a row per lane), and f, what the sums are to be multiplied by.
template <int R>
void few_soften(float* z, float* state, int64_t d, float scale, int64_t count, float* f) {
  float minus[16], sum[16] = {};
  const V largest = largest_of_rows<R>(z, kBlockKeys, count);
  const V by = splat(scale), m = load(largest_of(state, d)), larger = max(mul(largest, by), m), factors = factor(m, larger);
  store(f, factors);
  store(minus, sub(splat(0.0f), larger));
  store(largest_of(state, d), larger);
  for (int r = 0; r < R; ++r) {
    float* row = z + r * kBlockKeys;
    for (int64_t s = 0; s < count; s += 16) store(row + s, exp_negative(madd(load(row + s), by, splat(minus[r]))));
  }
  for (int64_t s = 0; s < count; ++s) {
    BG_UNROLL for (int r = 0; r < R; ++r) sum[r] += z[r * kBlockKeys + s];
  }
  store(total_of(state, d), madd(load(total_of(state, d)), factors, load(sum)));
}

// Rows of keys or values.
struct FewRows {
  const char* at;
  size_t stride;  // from one row to the next
  int64_t further = further_ahead();

  const char* row(int64_t s) const { return at + size_t(s) * stride; }
  Ahead ahead(int64_t s, int64_t count) const { return {row(s) + further, row(s + count) + further}; }
};

// Scratch, in floats: z and o, a panel, kMostFewKeys rows of floats.
constexpr int64_t kFewScratch = kFewRows * (kBlockKeys + kHeadDimMax) + 2 * kMostFewKeys * kHeadDimMax;

template <int R, class T>
struct FloatFew {
  static constexpr int64_t kBlock = kBlockKeys, kKeys = kFewKeys<R>;
  const AttendArgs& a;
  const AttendRow* rows;
  const int64_t count;
  float *o, *z, *panel, *spare, f[16];

  FloatFew(const AttendArgs& args, const AttendRow* of, int64_t n, float* scratch) : a(args), rows(of), count(n) {
    o = scratch, z = o + R * a.d, panel = z + R * kBlock, spare = panel + kKeys * a.d;
    memset(o, 0, size_t(R * a.d) * sizeof(float));
  }
  void widen(T* to, const char* row) const { floats_of(reinterpret_cast<float*>(to), a.type, row, a.d); }
  void dots(int64_t s, HeadRows<T> keys, Ahead& ahead) {
    const float* q[R];
    for (int64_t r = 0; r < R; ++r) q[r] = rows[least(r, count - 1)].q;
    few_dots<R>(z + s, q, keys, a.d, panel, ahead);
  }
  void soften(float* state, int64_t keys) { few_soften<R>(z, state, a.d, a.scale, keys, f); }
  void values(int64_t s, HeadRows<T> values, int64_t keys, Ahead& ahead) {
    if (s > 0) for (float& lane : f) lane = 1;
    few_values<R>(o, z + s, f, values, keys, a.d, ahead);
  }
};

// `keys` rows that Few can read, of which `count` are there; those behind them are the last again. In its room where they cannot stay where they lie.
template <class T, class Few>
BG_INLINE HeadRows<T> rows_at(const Few& few, int64_t keys, const char* at, size_t stride, int64_t count) {
  const Type type = few.a.type;
  if (type != Type::q8_0 && count == keys) return {reinterpret_cast<const T*>(at), int64_t(stride / sizeof(T))};
  const int64_t d = few.a.d;
  T* to = reinterpret_cast<T*>(few.spare);
  for (int64_t i = 0; i < keys; ++i) {
    const char* row = at + size_t(least(i, count - 1)) * stride;
    if (type == Type::q8_0)
      few.widen(to + i * d, row);
    else
      memcpy(to + i * d, row, size_t(d) * sizeof(T));
  }
  return {to, d};
}

// Few: the arithmetic of R ≥ count rows, FloatFew or PairFew (attention_pairs.h). kBlock keys of a block, of which kKeys are taken at a time; widen: a row of Q8_0
// as T; dots and values of the keys from s on, of a block, and soften between them; o: their sums, a row every d.
template <class Few, class T>
void sums_of_few(float* state, const AttendArgs& a, const AttendRow* rows, int64_t count, int64_t span, float* scratch) {
  constexpr int64_t K = Few::kKeys;
  const int64_t d = a.d, end = least((span + 1) * kSpanKeys, rows[0].keys);
  const FewRows keys{static_cast<const char*>(a.k), a.k_stride}, values{static_cast<const char*>(a.v), a.v_stride};
  Few few(a, rows, count, scratch);
  begin(state, d, span == 0 ? a.zeros : 0);
  for (int64_t s0 = span * kSpanKeys; s0 < end; s0 += Few::kBlock) {
    const int64_t block = least(Few::kBlock, end - s0);
    for (int64_t s = 0; s < block; s += K) {
      Ahead ahead = s + K < block ? keys.ahead(s0 + s + K, K) : values.ahead(s0, K);
      few.dots(s, rows_at<T>(few, K, keys.row(s0 + s), keys.stride, least(K, block - s)), ahead);
      ahead.rest();
    }
    few.soften(state, block);
    for (int64_t s = 0; s < block; s += K) {
      const int64_t here = least(K, block - s);
      Ahead ahead = s + K < block ? values.ahead(s0 + s + K, K) : keys.ahead(s0 + Few::kBlock, K);
      few.values(s, rows_at<T>(few, here, values.row(s0 + s), values.stride, here), here, ahead);
      ahead.rest();
    }
  }
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t j = 0; j < d; ++j) state[16 * j + r] = few.o[r * d + j];
  }
}

}  // namespace
}  // namespace bg::cpu::BG_ISA
