// Attention with the tiles of AMX: q, k, v and p in bf16, sums in float (Precision::fast). Lanes and spans as in attention.isa.cpp, in tiles of 16 × 16:
//   Sᵀ (16 keys × 16 rows) = K·Qᵀ:   A is K, a key in a line of 32 inputs; B is Qᵀ, a line of input pairs (2i, 2i + 1) for sixteen rows
//   Oᵀ (16 columns × 16 rows) += Vᵀ·Pᵀ: A is Vᵀ, a column in a line of 32 keys; B is Pᵀ, a line of key pairs for sixteen rows
// The softmax has one reference per span of keys: m = max(m, the largest scaled score of the span's first 32 keys that are not all −∞), then for all its keys
//   p_s = e^(z_s − m);  l = l + Σ p_s;  o = o + Σ_s p_s·v_s;   where Σ p_s of 32 keys is too large: m = m + k·ln 2 and p, l, o divided by 2^k (raise)
// Keys and values of a block are turned into tiles once for all rows that share them; keys, inputs and columns that do not exist are zeros there.
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

// A row goes through keys 32 at a time (soften); values are added 128 keys at a time. While e^x is taken of 32 keys, the tiles compute the scores of the next 32 and add values of
// the 128 keys before: vectors and tiles work side by side (PERFORMANCE.md).
constexpr int64_t kTileBlock = 128, kTileChunks = kTileBlock / 32;  // keys of a block
constexpr int64_t kTileZ = 16 * 32;                                 // floats: scores of 32 keys for sixteen rows
constexpr int64_t kTileP = 16 * kTileBlock / 2;                     // floats: p of a block for sixteen rows, in pairs of keys

// Sᵀ (32 keys × vectors of rows) = K·Qᵀ, in ⌈d/32⌉ steps of up to four products and one that stores.
class Scores {
 public:
  Scores() = default;
  // k (2, deep), q (vectors, deep) tiles; z (vectors, 32, 16)
  Scores(float* z, const float* k, const float* q, int64_t vectors, int64_t deep) : z_(z), k_(k), q_(q), two_(vectors == 2), deep_(deep), left_(deep + 1) {}
  int64_t left() const { return left_; }
  __attribute__((always_inline)) void step() {
    if (--left_ == 0) {
      _tile_stored(0, z_, 64);
      _tile_stored(2, z_ + kTile, 64);
      if (!two_) return;
      _tile_stored(1, z_ + kTileZ, 64);
      _tile_stored(3, z_ + kTileZ + kTile, 64);
      return;
    }
    if (left_ == deep_) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    // keys pass by once: they need not push what is used again out of the first cache
    _tile_stream_loadd(4, k_, 64);
    _tile_loadd(6, q_, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(5, k_ + deep_ * kTile, 64);
    _tile_dpbf16ps(2, 5, 6);
    if (two_) {
      _tile_loadd(7, q_ + deep_ * kTile, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    k_ += kTile;
    q_ += kTile;
  }

 private:
  float* z_;
  const float *k_, *q_;
  bool two_;
  int64_t deep_, left_ = 0;  // steps
};

// Oᵀ (columns × vectors of rows) += Vᵀ·Pᵀ of up to kTileChunks chunks of 32 keys: for two tiles of columns at a time, a step for each chunk and one that stores.
class Values {
 public:
  Values() = default;
  // o: of the first state, the second `step` floats on; v (columns, kTileChunks), p (vectors, kTileChunks) tiles
  Values(float* o, int64_t step, const float* v, const float* p, int64_t vectors, int64_t chunks, int64_t columns)
      : o_(o), step_(step), v_(v), p_(p), two_(vectors == 2), chunks_(chunks), columns_(columns), left_((columns + 1) / 2 * (chunks + 1)) {}
  int64_t left() const { return left_; }
  // Steps of the next of `shares` shares: whole columns, for their sums lie in the tiles that scores take too.
  int64_t share(int64_t shares) const { return ((columns_ + 1) / 2 + shares - 1) / shares * (chunks_ + 1); }
  __attribute__((always_inline)) void step() {
    --left_;
    const bool both = columns_ > 1;
    if (c_ == chunks_) {
      _tile_stored(0, o_, 64);
      if (both) _tile_stored(2, o_ + kTile, 64);
      if (two_) {
        _tile_stored(1, o_ + step_, 64);
        if (both) _tile_stored(3, o_ + step_ + kTile, 64);
      }
      c_ = 0;
      columns_ -= 2;
      o_ += 2 * kTile;
      v_ += 2 * kTileChunks * kTile;
      return;
    }
    if (c_ == 0) {
      _tile_loadd(0, o_, 64);
      if (both) _tile_loadd(2, o_ + kTile, 64);
      if (two_) {
        _tile_loadd(1, o_ + step_, 64);
        if (both) _tile_loadd(3, o_ + step_ + kTile, 64);
      }
    }
    const float *v = v_ + c_ * kTile, *p = p_ + c_ * kTile;
    _tile_stream_loadd(4, v, 64);
    _tile_loadd(6, p, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (two_) {
      _tile_loadd(7, p + kTileP, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (both) {
      _tile_stream_loadd(5, v + kTileChunks * kTile, 64);
      _tile_dpbf16ps(2, 5, 6);
      if (two_) _tile_dpbf16ps(3, 5, 7);
    }
    ++c_;
  }

 private:
  float* o_;
  int64_t step_;
  const float *v_, *p_;
  bool two_;
  int64_t chunks_ = 0, columns_ = 0, left_ = 0;  // left_: steps
  int64_t c_ = 0;                        // chunks that are added to these columns
};

// A block of keys and one or two vectors of rows.
struct Part {
  float* states;
  const float *k, *v, *queries;
  float* p;
  int64_t vectors, chunks;  // of 32 keys, up to the last that a row sees
  bool begins;              // the first of its span
  Sight sight;
};

constexpr float kLog2e = 1.44269504f, kLn2 = 0.693147181f;

// (even, odd) rounded to the nearest bf16, from the middle up. Both ≥ 0 or NaN. Where tiles work, floats are multiplied, compared and converted on one port only; this takes the other.
BG_INLINE I pairs_of_positive(V even, V odd) {
  const I half = splat_i(0x8000), down = _mm512_set4_epi32(0x80800f0e, 0x80800b0a, 0x80800706, 0x80800302);  // bytes 2 and 3 of each lane to 0 and 1
  return _mm512_mask_shuffle_epi8(_mm512_add_epi32(_mm512_castps_si512(odd), half), 0x3333333333333333u, _mm512_add_epi32(_mm512_castps_si512(even), half), down);
}

// Work of the tiles beside e^x: all of the scores, and `due` steps of the values, spread over `turns` turns.
class Beside {
 public:
  Scores scores;
  Values values;
  void share_out(int64_t due, int64_t turns) {
    due_ = due;
    share_ = scores.left() + due;
    turns_ = turns;
    debt_ = 0;
  }
  __attribute__((always_inline)) void turn() {
    for (debt_ += share_; debt_ >= turns_; debt_ -= turns_) step();
  }
  void finish() {
    due_ = values.left();
    while (scores.left() + due_ > 0) step();
    share_ = 0;
  }

 private:
  __attribute__((always_inline)) void step() {
    if (scores.left() > 0) return scores.step();
    values.step();
    --due_;
  }
  int64_t due_ = 0, share_ = 0, turns_ = 1, debt_ = 0;
};

// p = 2^(z·by + minus) of 32 keys, in pairs. Returns Σ p before rounding.
BG_INLINE V exponentials(I* p, const float* z, V by, V minus, Beside& beside) {
  V sum[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  for (int64_t s = 0; s < 32; s += 4) {
    V e[4];
    BG_UNROLL for (int i = 0; i < 4; ++i) {
      e[i] = exp2_short(madd(load(z + 16 * (s + i)), by, minus));
      sum[i] = add(sum[i], e[i]);
    }
    store_i(p + s / 2, pairs_of_positive(e[0], e[1]));
    store_i(p + s / 2 + 1, pairs_of_positive(e[2], e[3]));
    beside.turn();
  }
  return add(add(sum[0], sum[1]), add(sum[2], sum[3]));
}

// m of rows that see none of the keys so far is −∞: −∞ − 0 in the exponent then.
BG_INLINE V minus_largest(V m) { return where_less(splat(-INFINITY), m, mul(m, splat(-kLog2e)), splat(0.0f)); }

// The state's m is the largest score of the span's first 32 keys, not of all: p may exceed 1. Σ p below this of 32 keys leaves floats room enough.
constexpr float kTooLarge = 0x1p30f;

// Where Σ p of the 32 keys z is too large: m grows by k·ln 2, and what is summed so far is divided by 2^k: exact, but for what becomes too small for a float. Other rows: k = 0.
__attribute__((noinline)) void raise(float* state, I* p, int64_t chunk, const float* z, V by, V sum, int64_t d, Beside& beside) {
  beside.finish();  // values of the block before belong to the old m
  settle();
  const V m = load(largest_of(state, d)), minus = minus_largest(m);
  V most = splat(0.0f);
  for (int64_t s = 0; s < 32; ++s) most = max(madd(load(z + 16 * s), by, minus), most);
  const V k = where_less(sum, splat(kTooLarge), splat(0.0f), _mm512_roundscale_ps(most, _MM_FROUND_TO_POS_INF)), f = _mm512_scalef_ps(splat(1.0f), sub(splat(0.0f), k));
  for (float* o = state; o < largest_of(state, d); o += 16) store(o, mul(load(o), f));
  store(total_of(state, d), mul(load(total_of(state, d)), f));
  store(largest_of(state, d), madd(k, splat(kLn2), m));
  for (I* pair = p; pair < p + 16 * chunk; ++pair) {
    const I both = load_i(pair);
    const V even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), odd = _mm512_castsi512_ps(and_i(both, splat_i(int32_t(0xffff0000))));
    store_i(pair, pairs_of_positive(mul(even, f), mul(odd, f)));
  }
}

// Chunk c of a part: z (vectors, 32, 16) → p, and the states' l; tiles work beside it.
__attribute__((noinline)) void soften(const Part& part, int64_t c, float* z, int64_t d, float scale, Beside& beside) {
  settle();
  const V none = splat(-INFINITY), by = splat(scale * kLog2e);
  const int64_t all = within(part.sight.all - 32 * c, 32), any = within(part.sight.any - 32 * c, 32);
  for (int64_t n = 0; n < part.vectors; ++n, z += kTileZ) {
    float *state = part.states + n * attend_state(d), *l = total_of(state, d);
    const float* limits = part.sight.limits + 16 * n;
    for (int64_t s = all; s < any; ++s) store(z + 16 * s, where_less(splat(float(32 * c + s)), load(limits), load(z + 16 * s), none));
    for (int64_t s = any; s < 32; ++s) store(z + 16 * s, none);
    const V m = load(largest_of(state, d));
    const bool begins = part.begins && c == 0;
    if (begins || _mm512_cmp_ps_mask(m, none, _CMP_EQ_OQ) != 0) {  // also rows whose scores were −∞ so far; l and o are 0 then
      V most[4] = {none, none, none, none};
      for (int64_t s = 0; s < 32; s += 4) {
        BG_UNROLL for (int i = 0; i < 4; ++i) most[i] = max(load(z + 16 * (s + i)), most[i]);
      }
      const V larger = max(mul(max(max(most[0], most[1]), max(most[2], most[3])), splat(scale)), m), reference = begins ? larger : where_less(none, m, m, larger);
      store(largest_of(state, d), reference);
      store(l, mul(load(l), factor(m, reference)));
    }
    I *p = reinterpret_cast<I*>(part.p + n * kTileP), *pairs = p + 16 * c;
    V sum = exponentials(pairs, z, by, minus_largest(load(largest_of(state, d))), beside);
    if (_mm512_cmp_ps_mask(sum, splat(kTooLarge), _CMP_NLT_UQ) != 0) {
      raise(state, p, c, z, by, sum, d, beside);
      sum = exponentials(pairs, z, by, minus_largest(load(largest_of(state, d))), beside);
    }
    store(l, add(load(l), sum));
  }
  settle();
}

// Parts one after the other: each chunk's scores are computed beside e^x of the chunk before, each part's values are added beside e^x of the part after.
class Pipeline {
 public:
  Pipeline(int64_t d, float scale, float* scratch) : d_(d), scale_(scale), z_{scratch, scratch + 2 * kTileZ}, p_{scratch + 4 * kTileZ, scratch + 4 * kTileZ + 2 * kTileP} {}
  static constexpr int64_t kScratch = 4 * kTileZ + 4 * kTileP;

  // With each chunk, `lines` lines from `at` on are asked of the second cache.
  void ask(const float* at, int64_t lines) {
    ask_ = at;
    lines_ = lines;
  }

  void add(const Part& part) {
    Part& next = parts_[coming_];
    next = part;
    next.p = p_[coming_];
    const int64_t deep = (d_ + 31) / 32;
    for (int64_t c = 0; c < part.chunks; ++c) {
      for (int64_t i = 0; i < lines_; ++i, ask_ += 16) __builtin_prefetch(ask_, 0, 2);
      beside_.scores = Scores(z_[1 - full_], part.k + 2 * c * deep * kTile, part.queries, part.vectors, deep);
      go_on();
      full_ = 1 - full_;
      current_ = &next;
      chunk_ = c;
    }
    coming_ = 1 - coming_;
  }

  void finish() {
    go_on();
    settle();
    beside_.finish();
    settle();
    current_ = nullptr;
  }

 private:
  // e^x of the current chunk, if any; the scores that are set up.
  void go_on() {
    if (current_ == nullptr) {
      settle();
      beside_.finish();
      settle();
      return;
    }
    const int64_t left = current_->chunks - chunk_;  // of this part
    beside_.share_out(beside_.values.share(left), 8 * current_->vectors);
    soften(*current_, chunk_, z_[full_], d_, scale_, beside_);
    if (left == 1) beside_.values = Values(current_->states, attend_state(d_), current_->v, current_->p, current_->vectors, current_->chunks, (d_ + 15) / 16);
  }

  const int64_t d_;
  const float scale_;
  float *z_[2], *p_[2];
  int full_ = 0, coming_ = 0;  // which z holds the current chunk's scores; which part and p come next
  Part parts_[2];
  Part* current_ = nullptr;
  int64_t chunk_ = 0;
  const float* ask_ = nullptr;
  int64_t lines_ = 0;
  Beside beside_;
};

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
  // Tiles: k (keys/16, ⌈d/32⌉), then v (⌈d/16⌉, kTileChunks).
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
};

// As walk (attention_state.h), but with a span's blocks of keys inside, groups of rows outside: a group's states stay in the first cache.
// Scratch, in floats: the pipeline's, the packed queries, the states of a span, a packed span.
void walk_tiles(float* states, const AttendArgs& a, const AttendRow* rows, int64_t count, int64_t first, int64_t last, float* scratch) {
  const int64_t d = a.d, vectors = sixteens(count), step = attend_state(d), q_step = TilePath::query_floats(d), floats = TilePath::block_floats(d);
  float *queries = scratch + Pipeline::kScratch, *span = queries + vectors * q_step, *spare = span + vectors * step;
  for (int64_t n = 0; n < vectors; ++n) TilePath::pack_queries(queries + n * q_step, rows + 16 * n, least(16, count - 16 * n), d);
  int64_t most = 0;
  for (int64_t r = 0; r < count; ++r) most = rows[r].keys > most ? rows[r].keys : most;
  Pipeline pipeline(d, a.scale, scratch);
  for (int64_t i = first; i < last; ++i) {
    const int64_t begins = i * kSpanKeys, end = least(begins + kSpanKeys, most);
    float* to = i == first ? states : span;
    for (int64_t n = 0; n < vectors; ++n) begin(to + n * step, d, i == 0 ? a.zeros : 0);
    const float* keys = a.packed != nullptr ? a.packed + begins / kTileBlock * floats : spare;
    int64_t packed = a.packed != nullptr ? end : begins;  // keys so far
    if (a.packed != nullptr && i + 1 < last) {  // the next span of a packed copy, alike with every chunk of every group
      const int64_t span_floats = kSpanKeys / kTileBlock * floats, chunks = (count + TilePath::kGroup - 1) / TilePath::kGroup * (kSpanKeys / 32);
      pipeline.ask(keys + span_floats, (span_floats / 16 + chunks - 1) / chunks);
    } else {
      pipeline.ask(nullptr, 0);
    }
    for (int64_t r = 0; r < count; r += TilePath::kGroup) {
      const Group group = group_of(rows, r, least(TilePath::kGroup, count - r));
      for (int64_t s0 = begins; s0 < least(group.most, end); s0 += kTileBlock) {
        const float* k = keys + (s0 - begins) / kTileBlock * floats;
        for (; packed <= s0; packed += kTileBlock) TilePath::pack_block(spare + (packed - begins) / kTileBlock * floats, a, packed, least(kTileBlock, end - packed));
        const Sight sight = sight_of(rows, group, s0, kTileBlock);
        pipeline.add({to + r / 16 * step, k, k + TilePath::key_floats(d), queries + r / 16 * q_step, nullptr, sixteens(group.count), (sight.any + 31) / 32, s0 == begins, sight});
      }
    }
    pipeline.finish();
    if (i > first) join(states, span, d, count);
  }
}
static_assert((Pipeline::kScratch + kAttendQueries / 2 + kSpanKeys * kHeadDimMax) * sizeof(float) + kAttendStates <= kAttendScratch);

struct TileUse {
  TileUse() { _tile_loadconfig(&kAllTiles); }
  ~TileUse() { _tile_release(); }
  TileUse(const TileUse&) = delete;
  TileUse& operator=(const TileUse&) = delete;
};

}  // namespace
}  // namespace bg::cpu::BG_ISA
