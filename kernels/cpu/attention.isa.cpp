// Softmax attention of up to kAttendRows query rows over one head's keys, by an online softmax over fixed key blocks from key 0:
//   for each block:  z_s = q·k_s·scale;  m' = max(m, max_s z_s);  f = e^(m − m');  p_s = e^(z_s − m');
//                    l = l·f + Σ p_s;  o = o·f + Σ_s p_s·v_s (ascending s);  m = m'
//   at the end       o/l, and m + ln l where it is asked for
// n keys of score 0 and value 0 come first and cost nothing: they are the start m = 0, l = n, o = 0.
// Nothing in a row's arithmetic depends on the other rows: they only share the loads. A row that ends inside a block stops there, so keys
// it may not see are never multiplied, not even by 0 (0·∞ would be NaN).
#include <math.h>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd8.h"

namespace bg::cpu::BG_ISA {
namespace {

constexpr int kGroup = 4;                   // rows that share the loads of v
constexpr int kPair = 2;                    // rows that share the loads of k: 2×4 chains of eight lanes
constexpr int64_t kWidth = kHeadDimMax;

struct State {                              // of one query row
  float o[kWidth];                          // Σ p·v so far, padded to whole vectors
  float largest, total;                     // m, l
};

// z_ms = q_m·k_s for M rows and N keys; out rows lie kAttendKeys apart. One chain of eight lanes over d each, as in linear.
template <int M, int N>
void scores(float* out, const AttendRow* rows, const float* k, int64_t k_stride, int64_t d) {
  V acc[M][N];
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = splat(0.0f);
  }
  const int64_t whole = d & ~int64_t(7);
  for (int64_t j = 0; j < whole; j += 8) {
    V b[N];
    BG_UNROLL for (int n = 0; n < N; ++n) b[n] = load(k + n * k_stride + j);
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V a = load(rows[m].q + j);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = madd(a, b[n], acc[m][n]);
    }
  }
  if (whole < d) {
    V b[N];
    BG_UNROLL for (int n = 0; n < N; ++n) b[n] = load_first(k + n * k_stride + whole, d - whole);
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V a = load_first(rows[m].q + whole, d - whole);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = madd(a, b[n], acc[m][n]);
    }
  }
  BG_UNROLL for (int m = 0; m < M; ++m) {
    if constexpr (N == 4) {
      sum_lanes_4(out + m * kAttendKeys, acc[m][0], acc[m][1], acc[m][2], acc[m][3]);
    } else {
      BG_UNROLL for (int n = 0; n < N; ++n) out[m * kAttendKeys + n] = sum_lanes(acc[m][n]);
    }
  }
}

template <int M>
void all_scores(float* out, const AttendRow* rows, const float* k, int64_t k_stride, int64_t d, int64_t keys) {
  int64_t s = 0;
  for (; s + 4 <= keys; s += 4) scores<M, 4>(out + s, rows, k + s * k_stride, k_stride, d);
  for (; s < keys; ++s) scores<M, 1>(out + s, rows, k + s * k_stride, k_stride, d);
}

// scores z (keys) of one row → p in place; scales the row's sums to the new maximum.
void soften(State& row, float* z, int64_t keys, int64_t d, float scale) {
  for (int64_t s = keys; s % 8 != 0; ++s) z[s] = -INFINITY;  // p = 0 there
  V most = splat(row.largest);
  for (int64_t s = 0; s < keys; s += 8) {
    const V scaled = mul(load(z + s), splat(scale));
    store(z + s, scaled);
    most = max(scaled, most);
  }
  float lanes[8];
  store(lanes, most);
  float largest = lanes[0];
  for (int i = 1; i < 8; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  V sum = splat(0.0f);
  for (int64_t s = 0; s < keys; s += 8) {
    const V p = exp_negative(sub(load(z + s), splat(largest)));
    store(z + s, p);
    sum = add(sum, p);
  }
  store(lanes, exp_negative(splat(row.largest - largest)));
  const float factor = lanes[0];
  row.total = row.total * factor + sum_lanes(sum);
  row.largest = largest;
  for (int64_t j = 0; j < d; j += 8) store(row.o + j, mul(load(row.o + j), splat(factor)));
}

// o_m += Σ_s p_ms·v_s for M rows and C vectors of columns. Part: only `part` lanes of the vector (C is 1) exist. It is a template parameter so
// that the usual loop holds no call, which would force the sums out of the registers.
template <int M, int C, bool Part>
void add_values(State* rows, const float* p, const float* v, int64_t v_stride, int64_t column, int64_t keys, int64_t part) {
  V acc[M][C];
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int c = 0; c < C; ++c) acc[m][c] = load(rows[m].o + column + 8 * c);
  }
  for (int64_t s = 0; s < keys; ++s) {
    const float* from = v + s * v_stride + column;
    V b[C];
    if constexpr (Part) {
      b[0] = load_first(from, part);
    } else {
      BG_UNROLL for (int c = 0; c < C; ++c) b[c] = load(from + 8 * c);
    }
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V a = splat(p[m * kAttendKeys + s]);
      BG_UNROLL for (int c = 0; c < C; ++c) acc[m][c] = madd(a, b[c], acc[m][c]);
    }
  }
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int c = 0; c < C; ++c) store(rows[m].o + column + 8 * c, acc[m][c]);
  }
}

template <int M>
void all_values(State* rows, const float* p, const float* v, int64_t v_stride, int64_t d, int64_t keys) {
  int64_t j = 0;
  if (d % 16 >= 8 && d >= 24) {  // d = 72: one step of three vectors, so that none is left with too few chains
    add_values<M, 3, false>(rows, p, v, v_stride, 0, keys, 8);
    j = 24;
  }
  for (; j + 16 <= d; j += 16) add_values<M, 2, false>(rows, p, v, v_stride, j, keys, 8);
  if (j + 8 <= d) {
    add_values<M, 1, false>(rows, p, v, v_stride, j, keys, 8);
    j += 8;
  }
  if (j < d) add_values<M, 1, true>(rows, p, v, v_stride, j, keys, d - j);
}

// One key block for `count` ≤ kGroup rows that all see `keys` of its keys.
void group(const AttendArgs& a, const AttendRow* rows, State* states, int64_t count, const float* k, const float* v, int64_t keys) {
  float p[kGroup * kAttendKeys];
  int64_t r = 0;
  for (; r + kPair <= count; r += kPair) all_scores<kPair>(p + r * kAttendKeys, rows + r, k, a.k_stride, a.d, keys);
  if (r < count) all_scores<1>(p + r * kAttendKeys, rows + r, k, a.k_stride, a.d, keys);
  for (r = 0; r < count; ++r) soften(states[r], p + r * kAttendKeys, keys, a.d, a.scale);
  switch (count) {
    case 1: return all_values<1>(states, p, v, a.v_stride, a.d, keys);
    case 2: return all_values<2>(states, p, v, a.v_stride, a.d, keys);
    case 3: return all_values<3>(states, p, v, a.v_stride, a.d, keys);
    default: return all_values<4>(states, p, v, a.v_stride, a.d, keys);
  }
}

int64_t keys_in_block(const AttendRow& row, int64_t s0) {
  const int64_t left = row.keys - s0;
  return left > kAttendKeys ? kAttendKeys : left;
}

void attend(const AttendArgs& a, const AttendRow* rows, int64_t count) {
  State states[kAttendRows];
  int64_t last = 0;
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t j = 0; j < a.d; j += 8) store(states[r].o + j, splat(0.0f));
    states[r].largest = a.zeros > 0 ? 0.0f : -INFINITY;
    states[r].total = float(a.zeros);
    if (rows[r].keys > last) last = rows[r].keys;
  }
  for (int64_t s0 = 0; s0 < last; s0 += kAttendKeys) {
    for (int64_t r = 0; r < count;) {
      const int64_t keys = keys_in_block(rows[r], s0);
      int64_t same = 1;
      while (same < kGroup && r + same < count && keys_in_block(rows[r + same], s0) == keys) ++same;
      if (keys > 0) group(a, rows + r, states + r, same, a.k + s0 * a.k_stride, a.v + s0 * a.v_stride, keys);
      r += same;
    }
  }
  for (int64_t r = 0; r < count; ++r) {
    if (rows[r].log_sum != 0) *rows[r].log_sum = states[r].largest + logf(states[r].total);
    for (int64_t j = 0; j < a.d; j += 8) {
      const V o = div(load(states[r].o + j), splat(states[r].total));
      if (a.d - j < 8) {
        store_first(rows[r].o + j, o, a.d - j);
      } else {
        store(rows[r].o + j, o);
      }
    }
  }
}

}  // namespace

const AttentionIsa attention = {attend};

}  // namespace bg::cpu::BG_ISA
