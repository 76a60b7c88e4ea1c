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

#include "kernels/blocks.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

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
constexpr int64_t kBlockKeys = 64;  // of the online softmax
static_assert(kSpanKeys % kBlockKeys == 0 && kAttendRows % (16 * kVectors) == 0);

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t within(int64_t a, int64_t most) { return a < 0 ? 0 : a < most ? a : most; }
int64_t sixteens(int64_t rows) { return (rows + 15) / 16; }
int64_t state_floats(int64_t d) { return 16 * (d + 2); }  // of sixteen rows

// How much of a key block the rows of a group see: keys [0, all) all of them, keys [all, any) those whose limit is above.
struct Sight {
  int64_t all, any;
  float limits[16 * kVectors];
};

// ---- a state ----------------------------------------------------------------------------------------------------------------------------

void begin(float* state, int64_t d, int64_t zeros) {
  for (int64_t j = 0; j < d; ++j) store(state + 16 * j, splat(0.0f));
  store(state + 16 * d, splat(zeros > 0 ? 0.0f : -INFINITY));
  store(state + 16 * (d + 1), splat(float(zeros)));
}

// e^(m − larger); 1 where nothing changed, also from −∞ to −∞.
V factor(V m, V larger) { return where_less(m, larger, exp_negative(sub(m, larger)), splat(1.0f)); }

void join_one(float* state, const float* span, int64_t d) {
  const V m = load(state + 16 * d), n = load(span + 16 * d), l = load(span + 16 * (d + 1));
  const V larger = max(n, m), f = factor(m, larger), g = factor(n, larger);
  const V half = splat(0.5f);  // l is at least 1 where the row sees a key of the span, or NaN
  for (int64_t j = 0; j <= d + 1; ++j) {
    if (j == d) continue;
    const V old = load(state + 16 * j);
    store(state + 16 * j, where_less(l, half, old, madd(load(span + 16 * j), g, mul(old, f))));
  }
  store(state + 16 * d, larger);
}

void join(float* states, const float* span, int64_t d, int64_t count) {
  for (int64_t n = 0; n < sixteens(count); ++n) join_one(states + n * state_floats(d), span + n * state_floats(d), d);
}

void finish(const AttendRow* rows, const float* states, int64_t d, int64_t count) {
  for (int64_t r = 0; r < count; r += 16, states += state_floats(d)) {
    const int64_t here = least(16, count - r);
    float o[16 * kHeadDimMax];
    const V total = load(states + 16 * (d + 1));
    for (int64_t j = 0; j < d; ++j) store(o + 16 * j, div(load(states + 16 * j), total));
    for (int64_t i = 0; i < here; ++i) {
      const AttendRow& row = rows[r + i];
      for (int64_t j = 0; j < d; ++j) row.o[j] = o[16 * j + i];
      if (row.log_sum != nullptr) *row.log_sum = states[16 * d + i] + logf(states[16 * (d + 1) + i]);
    }
  }
}

// ---- float --------------------------------------------------------------------------------------------------------------------------------

// z of M keys × N vectors of rows, before scaling: s[16·(key·N + n)] = Σ_j k_j·q_nj, ascending j. qt (N, d, 16).
template <int M, int N>
void dots(float* s, const float* qt, const float* k, int64_t k_stride, int64_t d) {
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
void values(float* o, int64_t o_step, const float* p, const V* f, const float* v, int64_t v_stride, const Sight& sight) {
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

// The last `count` < M + 1 keys, or columns.
template <int M, int N>
void some_dots(int64_t count, float* s, const float* qt, const float* k, int64_t k_stride, int64_t d) {
  if constexpr (M > 0) {
    if (count == M) return dots<M, N>(s, qt, k, k_stride, d);
    some_dots<M - 1, N>(count, s, qt, k, k_stride, d);
  }
}
template <int M, int N>
void some_values(int64_t count, float* o, int64_t o_step, const float* p, const V* f, const float* v, int64_t v_stride, const Sight& sight) {
  if constexpr (M > 0) {
    if (count == M) return values<M, N>(o, o_step, p, f, v, v_stride, sight);
    some_values<M - 1, N>(count, o, o_step, p, f, v, v_stride, sight);
  }
}

// z (keys, N, 16) → p in place; the states' m and l, and what their sums are to be multiplied by.
template <int N>
void soften(float* z, float* states, int64_t d, float scale, const Sight& sight, V* f) {
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
    float* state = states + n * state_floats(d) + 16 * d;
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
    float* total = states + n * state_floats(d) + 16 * (d + 1);
    store(total, madd(load(total), f[n], sum[n]));
  }
}

// `count` rows from `from` on, as floats: where they lie, or converted into `to` (count, d). stride: in bytes, then in floats.
const float* floats_of(float* to, Type type, const char* from, int64_t* stride, int64_t count, int64_t d) {
  const int64_t bytes = *stride;
  if (type == Type::f32) {
    *stride = bytes / int64_t(sizeof(float));
    return reinterpret_cast<const float*>(from);
  }
  for (int64_t s = 0; s < count; ++s, from += bytes) {
    float* y = to + s * d;
    if (type == Type::q8_0) {
      floats_of_q8_0(y, reinterpret_cast<const BlockQ8_0*>(from), d);
      continue;
    }
    const auto* x = reinterpret_cast<const Bf16*>(from);
    int64_t j = 0;
    for (; j + 16 <= d; j += 16) store(y + j, load(x + j));
    for (; j < d; ++j) y[j] = bf16_to_float(x[j].bits);
  }
  *stride = d;
  return to;
}

// One key block for N vectors of rows.
template <int N>
void block(float* states, const AttendArgs& a, const float* qt, int64_t s0, const Sight& sight, float* scratch) {
  const int64_t d = a.d, step = state_floats(d);
  float *z = scratch, *spare = z + 16 * N * kBlockKeys;
  auto k_stride = int64_t(a.k_stride), v_stride = int64_t(a.v_stride);
  const float* k = floats_of(spare, a.type, static_cast<const char*>(a.k) + s0 * k_stride, &k_stride, sight.any, d);
  int64_t s = 0;
  for (; s + kTileKeys <= sight.any; s += kTileKeys) dots<kTileKeys, N>(z + 16 * N * s, qt, k + s * k_stride, k_stride, d);
  some_dots<kTileKeys - 1, N>(sight.any - s, z + 16 * N * s, qt, k + s * k_stride, k_stride, d);
  V f[N];
  soften<N>(z, states, d, a.scale, sight, f);
  const float* v = floats_of(spare, a.type, static_cast<const char*>(a.v) + s0 * v_stride, &v_stride, sight.any, d);
  int64_t j = 0;
  for (; j + kTileKeys <= d; j += kTileKeys) values<kTileKeys, N>(states + 16 * j, step, z, f, v + j, v_stride, sight);
  some_values<kTileKeys - 1, N>(d - j, states + 16 * j, step, z, f, v + j, v_stride, sight);
}

Sight sight_of(const AttendRow* rows, int64_t count, int64_t fewest, int64_t most, int64_t s0) {
  Sight sight;
  sight.all = within(fewest - s0, kBlockKeys);
  sight.any = within(most - s0, kBlockKeys);
  if (sight.all < sight.any) {
    for (int64_t r = 0; r < 16 * kVectors; ++r) sight.limits[r] = r < count ? float(within(rows[r].keys - s0, kBlockKeys)) : 0.0f;
  }
  return sight;
}

// N vectors of rows over spans [first, last).
template <int N>
void group(float* states, const AttendArgs& a, const AttendRow* rows, int64_t count, int64_t first, int64_t last, float* scratch) {
  const int64_t d = a.d, step = state_floats(d);
  float *qt = scratch, *span = qt + 16 * N * d, *rest = span + N * step;
  for (int64_t r = 0; r < 16 * N; ++r) {
    float* to = qt + 16 * d * (r / 16) + r % 16;
    for (int64_t j = 0; j < d; ++j) to[16 * j] = r < count ? rows[r].q[j] : 0.0f;
  }
  int64_t fewest = rows[0].keys, most = fewest;
  for (int64_t r = 1; r < count; ++r) {
    if (rows[r].keys < fewest) fewest = rows[r].keys;
    if (rows[r].keys > most) most = rows[r].keys;
  }
  for (int64_t i = first; i < last; ++i) {
    const int64_t end = least((i + 1) * kSpanKeys, most);
    if (i > first && end <= i * kSpanKeys) break;
    float* to = i == first ? states : span;
    for (int64_t n = 0; n < N; ++n) begin(to + n * step, d, i == 0 ? a.zeros : 0);
    for (int64_t s0 = i * kSpanKeys; s0 < end; s0 += kBlockKeys) block<N>(to, a, qt, s0, sight_of(rows, count, fewest, most, s0), rest);
    if (i > first) join(states, span, d, count);
  }
}

static_assert((16 * kVectors * (kHeadDimMax + kHeadDimMax + 2 + kBlockKeys) + kBlockKeys * kHeadDimMax) * sizeof(float) <= kAttendScratch);

void sums(float* states, const AttendArgs& a, const AttendRow* rows, int64_t count, int64_t first, int64_t last, char* scratch) {
  auto* floats = reinterpret_cast<float*>(scratch);
  for (int64_t r = 0; r < count; r += 16 * kVectors, states += kVectors * state_floats(a.d)) {
    const int64_t here = least(16 * kVectors, count - r);
#if BG_AVX512
    if (here <= 16) return group<1>(states, a, rows + r, here, first, last, floats);
    if (here <= 32) return group<2>(states, a, rows + r, here, first, last, floats);
#endif
    group<kVectors>(states, a, rows + r, here, first, last, floats);
  }
}

}  // namespace

const AttentionIsa attention = {sums, join, finish};

}  // namespace bg::cpu::BG_ISA
