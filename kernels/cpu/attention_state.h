// What the float and the tile version of attention.isa.cpp share: the state of sixteen rows, groups of rows, and the walk over spans and blocks of keys.
// Included by attention.isa.cpp only.
#pragma once
#include <math.h>

#include "kernels/blocks.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/simd.h"

namespace bg::cpu::BG_ISA {
namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t within(int64_t a, int64_t most) { return a < 0 ? 0 : a < most ? a : most; }
int64_t sixteens(int64_t rows) { return (rows + 15) / 16; }

constexpr int64_t kBlockKeys = 64;  // of the online softmax in float

// f(Count<count>) where 0 < count ≤ most: what is left of keys or columns, by tiles of just that size.
template <int n>
struct Count {
  static constexpr int value = n;
};
template <int most, class F>
BG_INLINE void with_count(int64_t count, const F& f) {
  if constexpr (most > 0) {
    if (count == most) return f(Count<most>{});
    with_count<most - 1>(count, f);
  }
}

// Rows that go through a block of keys together.
struct Group {
  int64_t row, count, fewest, most;  // the fewest and the most keys that one of them sees
};
constexpr int64_t kMostGroupRows = 48;

// How much of a key block the rows of a group see: keys [0, all) all of them, keys [all, any) those whose limit is above.
struct Sight {
  int64_t all, any;
  float limits[kMostGroupRows];
};

Group group_of(const AttendRow* rows, int64_t row, int64_t count) {
  Group g = {row, count, rows[row].keys, rows[row].keys};
  for (int64_t r = row; r < row + count; ++r) {
    if (rows[r].keys < g.fewest) g.fewest = rows[r].keys;
    if (rows[r].keys > g.most) g.most = rows[r].keys;
  }
  return g;
}

Sight sight_of(const AttendRow* rows, const Group& g, int64_t s0, int64_t block) {
  Sight sight;
  sight.all = within(g.fewest - s0, block);
  sight.any = within(g.most - s0, block);
  if (sight.all < sight.any) {
    for (int64_t r = 0; r < kMostGroupRows; ++r) sight.limits[r] = r < g.count ? float(within(rows[g.row + r].keys - s0, block)) : 0.0f;
  }
  return sight;
}

// The first `lines` of sixteen lines of 16 floats change places with their columns; what the others hold goes anywhere.
#if BG_AVX512
BG_INLINE void transpose(I* r) {
  I t[16];
  BG_UNROLL for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  BG_UNROLL for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  BG_UNROLL for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
  BG_UNROLL for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

void transpose(float* x, int64_t lines) {
  I r[16];
  BG_UNROLL for (int i = 0; i < 16; ++i) r[i] = i < lines ? load_i(x + 16 * i) : zero_i();
  transpose(r);
  BG_UNROLL for (int i = 0; i < 16; ++i) store_i(x + 16 * i, r[i]);
}
#elif BG_AVX2
// to[16·i + s] = float i of row(s), i, s < 8.
template <class Row>
BG_INLINE void eight_columns(float* to, const Row& row) {
  __m256 a[8], b[4];
  BG_UNROLL for (int r = 0; r < 4; ++r) {  // rows r and r + 4 side by side, so that nothing crosses the halves later
    a[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row(r))), _mm_loadu_ps(row(r + 4)), 1);
    a[r + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row(r) + 4)), _mm_loadu_ps(row(r + 4) + 4), 1);
  }
  BG_UNROLL for (int r = 0; r < 8; r += 4) {
    b[0] = _mm256_unpacklo_ps(a[r], a[r + 1]);
    b[1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
    b[2] = _mm256_unpacklo_ps(a[r + 2], a[r + 3]);
    b[3] = _mm256_unpackhi_ps(a[r + 2], a[r + 3]);
    _mm256_storeu_ps(to + 16 * r, _mm256_shuffle_ps(b[0], b[2], 0x44));
    _mm256_storeu_ps(to + 16 * (r + 1), _mm256_shuffle_ps(b[0], b[2], 0xee));
    _mm256_storeu_ps(to + 16 * (r + 2), _mm256_shuffle_ps(b[1], b[3], 0x44));
    _mm256_storeu_ps(to + 16 * (r + 3), _mm256_shuffle_ps(b[1], b[3], 0xee));
  }
}
void transpose(float* x, int64_t lines) {
  alignas(64) float y[16 * 16];
  for (int64_t i = lines; i < 16; ++i) store(x + 16 * i, splat(0.0f));
  BG_UNROLL for (int s = 0; s < 16; s += 8) {
    BG_UNROLL for (int i = 0; i < 16; i += 8) eight_columns(y + 16 * i + s, [&](int r) { return x + 16 * (s + r) + i; });
  }
  memcpy(x, y, sizeof y);
}
#else
void transpose(float* x, int64_t lines) {
  float y[16 * 16] = {};
  for (int64_t i = 0; i < lines; ++i) {
    for (int64_t j = 0; j < 16; ++j) y[16 * j + i] = x[16 * i + j];
  }
  memcpy(x, y, sizeof y);
}
#endif

// ---- a state ----------------------------------------------------------------------------------------------------------------------------

// Its m and l.
float* largest_of(float* state, int64_t d) { return state + attend_state(d) - 32; }
float* total_of(float* state, int64_t d) { return state + attend_state(d) - 16; }
const float* largest_of(const float* state, int64_t d) { return state + attend_state(d) - 32; }
const float* total_of(const float* state, int64_t d) { return state + attend_state(d) - 16; }

void begin(float* state, int64_t d, int64_t zeros) {
  for (float* o = state; o < largest_of(state, d); o += 16) store(o, splat(0.0f));
  store(largest_of(state, d), splat(zeros > 0 ? 0.0f : -INFINITY));
  store(total_of(state, d), splat(float(zeros)));
}

// e^(m − larger); 1 where nothing changed, also from −∞ to −∞.
V factor(V m, V larger) { return where_less(m, larger, exp_negative(sub(m, larger)), splat(1.0f)); }

void join_one(float* state, const float* span, int64_t d) {
  const V m = load(largest_of(state, d)), n = load(largest_of(span, d)), l = load(total_of(span, d));
  const V larger = max(n, m), f = factor(m, larger), g = factor(n, larger);
  const V half = splat(0.5f);  // l is at least 1 where the row sees a key of the span, or NaN
  const auto both = [&](float* a, const float* b) {
    const V old = load(a);
    store(a, where_less(l, half, old, madd(load(b), g, mul(old, f))));
  };
  for (int64_t j = 0; j < d; ++j) both(state + 16 * j, span + 16 * j);
  both(total_of(state, d), total_of(span, d));
  store(largest_of(state, d), larger);
}

void join(float* states, const float* span, int64_t d, int64_t count) {
  for (int64_t n = 0; n < sixteens(count); ++n) join_one(states + n * attend_state(d), span + n * attend_state(d), d);
}

void finish(const AttendRow* rows, const float* states, int64_t d, int64_t count) {
  for (int64_t r = 0; r < count; r += 16, states += attend_state(d)) {
    const int64_t here = least(16, count - r);
    const V total = load(total_of(states, d));
    for (int64_t j = 0; j < d; j += 16) {
      const int64_t columns = least(16, d - j);
      float o[16 * 16];
      for (int64_t i = 0; i < columns; ++i) store(o + 16 * i, div(load(states + 16 * (j + i)), total));
      transpose(o, columns);
      for (int64_t i = 0; i < here; ++i) {
        if (columns == 16) {
          store(rows[r + i].o + j, load(o + 16 * i));
        } else {
          store_first(rows[r + i].o + j, load(o + 16 * i), columns);
        }
      }
    }
    for (int64_t i = 0; i < here; ++i) {
      if (rows[r + i].log_sum != nullptr) *rows[r + i].log_sum = largest_of(states, d)[i] + logf(total_of(states, d)[i]);
    }
  }
}

// Asks for row s of keys or values, which will be read soon: rows are short and lie far apart, so nothing else fetches them in time. Memory behind the last row
// may be asked for too.
BG_INLINE void fetch(const void* rows, size_t stride, int64_t s, Type type, int64_t d) {
  const char* row = static_cast<const char*>(rows) + size_t(s) * stride;
  const int64_t bytes = type == Type::f32 ? 4 * d : type == Type::bf16 ? 2 * d : d / 32 * 34;
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i);
}
constexpr int64_t kAhead = 32;  // rows

// A row of keys or values as floats.
void floats_of(float* to, Type type, const char* from, int64_t d) {
  int64_t j = 0;
  if (type == Type::q8_0) {
    for (const auto* b = reinterpret_cast<const BlockQ8_0*>(from); j < d; j += 32, ++b) {
      const V scale = splat(F16{b->d});
      store(to + j, mul(scale, load(b->q)));
      store(to + j + 16, mul(scale, load(b->q + 16)));
    }
  } else if (type == Type::f32) {
    const auto* x = reinterpret_cast<const float*>(from);
    for (; j + 16 <= d; j += 16) store(to + j, load(x + j));
    for (; j < d; ++j) to[j] = x[j];
  } else {
    const auto* x = reinterpret_cast<const Bf16*>(from);
    for (; j + 16 <= d; j += 16) store(to + j, load(x + j));
    for (; j < d; ++j) to[j] = bf16_to_float(x[j].bits);
  }
}

// ---- the walk -----------------------------------------------------------------------------------------------------------------------------

// Path: kBlock keys of a block, kGroup rows of a group; query_floats(d) of sixteen packed rows, pack_queries; block_floats(d) of a packed block, pack_block;
// keys_of: where a block lies, packed into `spare` if it must be; block: one group.
template <class Path>
void pack_span(float* to, const AttendArgs& a, int64_t span, int64_t keys) {
  const int64_t end = least((span + 1) * kSpanKeys, keys);
  for (int64_t s0 = span * kSpanKeys; s0 < end; s0 += Path::kBlock, to += Path::block_floats(a.d)) Path::pack_block(to, a, s0, least(Path::kBlock, end - s0));
}

// Scratch, in floats: Path::kScratch, the packed queries, the states of a span, a packed block.
template <class Path>
void walk(float* states, const AttendArgs& a, const AttendRow* rows, int64_t count, int64_t first, int64_t last, float* scratch) {
  const int64_t d = a.d, vectors = sixteens(count), step = attend_state(d), q_step = Path::query_floats(d);
  float *queries = scratch + Path::kScratch, *span = queries + vectors * q_step, *spare = span + vectors * step;
  for (int64_t n = 0; n < vectors; ++n) Path::pack_queries(queries + n * q_step, rows + 16 * n, least(16, count - 16 * n), d);
  Group groups[kAttendRows / 16];
  int64_t n_groups = 0, most = 0;
  for (int64_t r = 0; r < count; r += Path::kGroup) {
    groups[n_groups] = group_of(rows, r, least(Path::kGroup, count - r));
    if (groups[n_groups].most > most) most = groups[n_groups].most;
    ++n_groups;
  }
  for (int64_t i = first; i < last; ++i) {
    const int64_t end = least((i + 1) * kSpanKeys, most);
    float* to = i == first ? states : span;
    for (int64_t n = 0; n < vectors; ++n) begin(to + n * step, d, i == 0 ? a.zeros : 0);
    for (int64_t s0 = i * kSpanKeys; s0 < end; s0 += Path::kBlock) {
      const auto keys = Path::keys_of(a, s0, least(Path::kBlock, end - s0), n_groups > 1, spare);
      const int64_t floats = Path::block_floats(d);
      const float* next = a.packed != nullptr ? a.packed + (s0 / Path::kBlock + 1) * floats : nullptr;
      for (int64_t g = 0; g < n_groups; ++g) {
        const int64_t n = groups[g].row / 16;
        if (next != nullptr) {  // each group asks for its share of the next block
          for (int64_t i = floats * g / n_groups; i < floats * (g + 1) / n_groups; i += 16) __builtin_prefetch(next + i, 0, 2);
        }
        if (groups[g].most <= s0) continue;
        const Sight sight = sight_of(rows, groups[g], s0, Path::kBlock);
        Path::block(to + n * step, a, queries + n * q_step, groups[g].count, keys, sight, scratch);
      }
    }
    if (i > first) join(states, span, d, count);
  }
}

}  // namespace
}  // namespace bg::cpu::BG_ISA
