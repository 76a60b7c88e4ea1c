// Products of quantised weights with int8 activations. Integer sums are exact; what is done in float has one order, the same on every instruction set:
//   Q8_0   for each 32 inputs b:   y = fma(S_b, d_w·d_x, y),  S_b = Σ q·a
//   Q4_K   for each 256 inputs:    t = −dmin·Σ_b m_b·A_b;  t = fma(S_b, d·s_b, t) for b = 0 … 7;   y = fma(t, d_x, y),  A_b = Σ a, both over 32 inputs
//   Q6_K   for each 256 inputs:    t = 0;                  t = fma(S_b, d·s_b, t) for b = 0 … 15;  y = fma(t, d_x, y),  S_b over 16 inputs
// d_x·a_j is x_j to the nearest multiple of d_x = max|x|/127 (of 32 inputs, or of 256). Error: ops.h, linear.
// One row takes the codes straight from the panel. For several rows they are spread to bytes in scratch that stays in the first cache; the rest is another matter where
// an instruction sums four products of bytes (linear_int8_tiles.h) and where it does not (linear_int8_avx2.h).
#include <math.h>

#include "kernels/cpu/simd.h"

#if BG_INT8
#include "kernels/cpu/linear_parts.h"

namespace bg::cpu::BG_ISA {
namespace {

// ---- activations ------------------------------------------------------------------------------------------------------------------------

constexpr int kBlocks = 16;  // that are quantised together, so that nothing goes across the lanes of one vector

BG_INLINE V larger_of(V x, V y) { return max(x, y); }
BG_INLINE V sum_of(V x, V y) { return add(x, y); }
BG_INLINE V magnitude(V x) { return max(x, sub(splat(0.0f), x)); }
// To the nearest integer, ties to even, |x| < 2^22: adding 1.5·2^23 rounds.
BG_INLINE V nearest(V x) { return sub(add(x, splat(12582912.0f)), splat(12582912.0f)); }
// 1/d_x; 0 where all inputs are so small that it would not be finite.
BG_INLINE V inverse_of(V most) { return where_less(most, splat(7.5e-37f), splat(0.0f), div(splat(127.0f), most)); }
// d_x of inputs whose codes have this sum. A NaN or an infinity among them makes a code NaN, and so d_x and all outputs that they reach.
BG_INLINE V scale_of(V most, V sum) { return add(where_less(most, splat(7.5e-37f), splat(0.0f), div(most, splat(127.0f))), sub(sum, sum)); }

// Codes, d_x and Σ codes of `blocks` ≤ kBlocks blocks of 32 inputs.
BG_INLINE void quantise_32(int8_t* to, float* d, float* sums, const float* x, int64_t blocks) {
  V part[kBlocks];
  for (int i = 0; i < kBlocks; ++i) part[i] = i < blocks ? max(magnitude(load(x + 32 * i)), magnitude(load(x + 32 * i + 16))) : splat(0.0f);
  const V most = across(part, larger_of);
  alignas(64) float inverse[kBlocks];
  store(inverse, inverse_of(most));
  for (int i = 0; i < blocks; ++i) {
    const V first = nearest(mul(load(x + 32 * i), splat(inverse[i]))), second = nearest(mul(load(x + 32 * i + 16), splat(inverse[i])));
    store_bytes(to + 32 * i, first);
    store_bytes(to + 32 * i + 16, second);
    part[i] = add(first, second);
  }
  const V sum = across(part, sum_of);
  store(sums, sum);
  store(d, scale_of(most, sum));
  for (int i = 0; i < blocks; ++i) {
    if (sums[i] != sums[i]) memset(to + 32 * i, 0, 32), sums[i] = 0;
  }
}

// Two sums as 16-bit numbers.
BG_INLINE int32_t pair_of(float low, float high) { return int32_t((uint32_t(int32_t(low)) & 0xffff) | uint32_t(int32_t(high)) << 16); }

// Codes of 256 inputs and Σ codes of each 16; returns d_x.
BG_INLINE float quantise_256(int8_t* to, float* sums, const float* x) {
  V part[16], most = splat(0.0f);
  for (int i = 0; i < 16; ++i) most = max(magnitude(load(x + 16 * i)), most);
  for (int i = 0; i < 16; ++i) part[i] = i == 0 ? most : splat(0.0f);
  alignas(64) float lanes[16];
  store(lanes, across(part, larger_of));
  most = splat(lanes[0]);
  const V inverse = inverse_of(most);
  for (int i = 0; i < 16; ++i) {
    part[i] = nearest(mul(load(x + 16 * i), inverse));
    store_bytes(to + 16 * i, part[i]);
  }
  const V sum = across(part, sum_of);
  store(sums, sum);
  store(lanes, scale_of(most, sum));
  for (int i = 0; i < 16; ++i) {
    if (sums[i] == sums[i]) continue;
    memset(to, 0, 256);
    memset(sums, 0, 64);
    return lanes[i];
  }
  return lanes[0];
}

// A row alone lies close together: of sixteen side by side it would have one number in each line.
struct OneRow {
  int8_t* codes;   // D, −127 … 127
  float* d;        // [b]: d_x, b = 32 inputs (Q8) or 256 (Q8K)
  int32_t* sums;   // Q8, [b]: −128·Σ codes of 32 inputs; Q8K, [16·b + i]: of 16 inputs what products of codes less 32 begin with
  int32_t* pairs;  // Q8K, [4·b + i]: Σ codes of 32 inputs and of the next 32, two 16-bit numbers in one

  // Where it lies, from input j on, a multiple of 256.
  static OneRow at(const void* packed, Packing p, int64_t D, int64_t j) {
    const int64_t inputs = packed_inputs(D), block = p == kPackQ8 ? 32 : 256, part = p == kPackQ8 ? 32 : 16;
    auto* codes = static_cast<int8_t*>(const_cast<void*>(packed));
    auto* d = reinterpret_cast<float*>(codes + inputs);
    auto* sums = reinterpret_cast<int32_t*>(d + inputs / block);
    return {codes + j, d + j / block, sums + j / part, sums + inputs / part + j / 64};
  }
};

// ---- weights of a chunk -----------------------------------------------------------------------------------------------------------------

BG_INLINE float* scales_of(char* spread) { return reinterpret_cast<float*>(spread + kSpreadCodes); }
BG_INLINE char* mins_of(char* spread) { return spread + kSpreadCodes + kSpreadScales; }

// Unpacking Q6_K takes its codes from two places of a group by turns, and the prefetchers of AMD's cores do not follow that (half of the bandwidth is lost): there every line is
// first loaded in the order of memory.
constexpr int kLinesQ6K = 53;
BG_INLINE void touch_q6_k([[maybe_unused]] const char* line) {
#if BG_DPBF16
  asm volatile("movl %0, %%eax" : : "m"(*line) : "eax");
#endif
}

// s_b and m_b of Q4_K: blocks.h, q4_k_scale, on sixteen rows at once.
template <int b>
BG_INLINE void q4_k_scales(I z0, I z1, I z2, V d, float* scales, I* mins) {
  const I low6 = splat_i(63), low4 = splat_i(15), high2 = splat_i(0x30);
  I s, m;
  if constexpr (b < 4) {
    s = and_i(shr<8 * b>(z0), low6);
    m = and_i(shr<8 * b>(z1), low6);
  } else {
    constexpr int i = b - 4;
    s = or_i(and_i(shr<8 * i>(z2), low4), and_i(shr<8 * i + 2>(z0), high2));
    m = or_i(and_i(shr<8 * i + 4>(z2), low4), and_i(shr<8 * i + 2>(z1), high2));
  }
  store(scales + 16 * b, mul(d, to_float(s)));
  mins[b / 2] = b % 2 == 0 ? m : or_i(mins[b / 2], shl<16>(m));
}

BG_INLINE void q4_k_all_scales(I z0, I z1, I z2, V d, float* scales, I* mins) {
  q4_k_scales<0>(z0, z1, z2, d, scales, mins);
  q4_k_scales<1>(z0, z1, z2, d, scales, mins);
  q4_k_scales<2>(z0, z1, z2, d, scales, mins);
  q4_k_scales<3>(z0, z1, z2, d, scales, mins);
  q4_k_scales<4>(z0, z1, z2, d, scales, mins);
  q4_k_scales<5>(z0, z1, z2, d, scales, mins);
  q4_k_scales<6>(z0, z1, z2, d, scales, mins);
  q4_k_scales<7>(z0, z1, z2, d, scales, mins);
}

}  // namespace

void spread_q4_k(char* to, const char* group, int64_t len) {
  const I low4 = splat_i(0x0f0f0f0f);
  float* scales = scales_of(to);
  char *codes = to, *pairs = mins_of(to);
  for (int64_t j = 0; j < len; j += 256, group += 2304, codes += 4096, scales += 8 * 16, pairs += 5 * 64) {
    for (int i = 0; i < 4; ++i) ask<Near>(group + 64 * i);
    const V d = load(reinterpret_cast<const F16*>(group)), dmin = load(reinterpret_cast<const F16*>(group) + 16);
    const I z0 = load_i(group + 64), z1 = load_i(group + 128), z2 = load_i(group + 192);
    I mins[4];
    q4_k_all_scales(z0, z1, z2, d, scales, mins);
    BG_UNROLL for (int i = 0; i < 4; ++i) store_i(pairs + 64 * i, mins[i]);
    store(reinterpret_cast<float*>(pairs + 256), sub(splat(0.0f), dmin));
    for (int c = 0; c < 4; ++c) {
      BG_UNROLL for (int i = 0; i < 8; ++i) {
        const char* line = group + 256 + 64 * (8 * c + i);
        ask<Near>(line);
        const I q = load_i(line);
        store_i(codes + 64 * (16 * c + i), and_i(q, low4));
        store_i(codes + 64 * (16 * c + 8 + i), and_i(shr<4>(q), low4));
      }
    }
  }
}

void spread_q6_k(char* to, const char* group, int64_t len) {
  const I low4 = splat_i(0x0f0f0f0f), high2 = splat_i(0x30303030);
  float* scales = scales_of(to);
  char* codes = to;
  for (int64_t j = 0; j < len; j += 256, group += 3392, codes += 4096, scales += 16 * 16) {
    BG_UNROLL for (int i = 0; i < kLinesQ6K; ++i) touch_q6_k(group + 64 * i);
    if (!BG_DPBF16) for (int i = 0; i < 5; ++i) ask<Near>(group + 64 * i);
    const V d = load(reinterpret_cast<const F16*>(group));
    BG_UNROLL for (int i = 0; i < 4; ++i) {
      const I s = load_i(group + 64 + 64 * i);
      store(scales + 16 * (4 * i), mul(d, to_float(shr_signed<24>(shl<24>(s)))));
      store(scales + 16 * (4 * i + 1), mul(d, to_float(shr_signed<24>(shl<16>(s)))));
      store(scales + 16 * (4 * i + 2), mul(d, to_float(shr_signed<24>(shl<8>(s)))));
      store(scales + 16 * (4 * i + 3), mul(d, to_float(shr_signed<24>(s))));
    }
    const char *low = group + 320, *high = low + 2048;
    for (int h = 0; h < 2; ++h) {
      BG_UNROLL for (int i = 0; i < 8; ++i) {
        const char *l0 = low + 64 * (16 * h + i), *l1 = l0 + 512, *hi = high + 64 * (8 * h + i);
        if (!BG_DPBF16) ask<Near>(l0), ask<Near>(l1), ask<Near>(hi);
        const I a = load_i(l0), b = load_i(l1), c = load_i(hi);
        char* line = codes + 64 * (32 * h + i);
        store_i(line, or_i(and_i(a, low4), and_i(shl<4>(c), high2)));
        store_i(line + 512, or_i(and_i(shr<4>(a), low4), and_i(shl<2>(c), high2)));
        store_i(line + 1024, or_i(and_i(b, low4), and_i(c, high2)));
        store_i(line + 1536, or_i(and_i(shr<4>(b), low4), and_i(shr<2>(c), high2)));
      }
    }
  }
}

namespace {

BG_INLINE I broadcast(const char* codes) {
  int32_t four;
  memcpy(&four, codes, 4);
  return splat_i(four);
}

// ---- one row ----------------------------------------------------------------------------------------------------------------------------
// The codes go from the panels, one behind the other in memory, into the products without a stop, so that reading never waits for work. The same numbers in the same order as
// in tiles. sums: sixteen of each panel.

// A long row falls out of the first cache while a panel passes: asked for one group before its turn. (Q8_0, with twice the weights for each byte of x, gains nothing by it.)
BG_INLINE void ask_x(const void* at) { __builtin_prefetch(at); }

template <class Ahead>
void row_q8_0(float* sums, const OneRow& x, const char* group, int64_t inputs, bool resume, int64_t panels) {
  for (float* end = sums + 16 * panels; sums < end; sums += 16) {
    V sum = resume ? load(sums) : splat(0.0f);
    for (int64_t b = 0; 32 * b < inputs; b += 2, group += 1088) {
      const char* codes = reinterpret_cast<const char*>(x.codes) + 32 * b;
      const int64_t blocks = least(2, inputs / 32 - b);
      I s[2] = {zero_i(), zero_i()};
      BG_UNROLL for (int half = 0; half < 2; ++half) {
        if (half == blocks) break;
        s[half] = start_biased(x.sums[b + half]);
        BG_UNROLL for (int i = 8 * half; i < 8 * half + 8; ++i) {
          ask<Ahead, Near::cache>(group + 64 * i);
          s[half] = dot4_biased(s[half], load_i(group + 64 * i), broadcast(codes + 4 * i));
        }
      }
      ask<Ahead, Near::cache>(group + 1024);
      BG_UNROLL for (int half = 0; half < 2; ++half) {
        if (half == blocks) break;
        sum = madd(to_float(s[half]), mul(load(reinterpret_cast<const F16*>(group + 1024) + 16 * half), splat(x.d[b + half])), sum);
      }
    }
    store(sums, sum);
  }
}

template <class Ahead>
void row_q4_k(float* sums, const OneRow& x, const char* group, int64_t inputs, bool resume, int64_t panels) {
  const I low4 = splat_i(0x0f0f0f0f);
  for (float* end = sums + 16 * panels; sums < end; sums += 16) {
    V sum = resume ? load(sums) : splat(0.0f);
    for (int64_t g = 0; 256 * g < inputs; ++g, group += 2304) {
      BG_UNROLL for (int i = 0; i < 4; ++i) ask<Ahead>(group + 64 * i);
      const V d = load(reinterpret_cast<const F16*>(group)), dmin = load(reinterpret_cast<const F16*>(group) + 16);
      const I z0 = load_i(group + 64), z1 = load_i(group + 128), z2 = load_i(group + 192);
      alignas(64) float scales[8 * 16];
      I mins[4];
      q4_k_all_scales(z0, z1, z2, d, scales, mins);
      I s = zero_i();
      BG_UNROLL for (int i = 0; i < 4; ++i) s = dot2(s, mins[i], splat_i(x.pairs[4 * g + i]));
      V part = mul(sub(splat(0.0f), dmin), to_float(s));
      BG_UNROLL for (int c = 0; c < 4; ++c) {
        const char* codes = reinterpret_cast<const char*>(x.codes) + 256 * g + 64 * c;
        ask_x(codes + 256);
        I even = zero_i(), odd = zero_i();
        BG_UNROLL for (int i = 0; i < 8; ++i) {
          const char* line = group + 256 + 64 * (8 * c + i);
          ask<Ahead>(line);
          const I q = load_i(line);
          even = dot4_part(even, and_i(q, low4), codes + 4 * i);
          odd = dot4_part(odd, high_codes(q), codes + 32 + 4 * i);
        }
        part = madd(to_float(dot4_whole(even)), load(scales + 16 * (2 * c)), part);
        part = madd(to_float(dot4_whole(odd)), mul(load(scales + 16 * (2 * c + 1)), splat(kHighUnit)), part);
      }
      sum = madd(part, splat(x.d[g]), sum);
    }
    store(sums, sum);
  }
}

// part + what sub-block b gives: `s` is the sum of its products, `z` the line with its scale.
template <int b>
BG_INLINE V q6_k_add(V part, I s, I z, V d) {
  return madd(to_float(dot4_whole(s)), mul(d, to_float(shr_signed<24>(shl<24 - 8 * (b % 4)>(z)))), part);
}

// What a group gives. starts: what its sixteen sums begin with.
// Low and high bits are multiplied apart, S_b = Σ (q & 15)·a + Σ (q & 48)·a, so that every line is read once, in the order of memory: the hardware does not follow two places that are
// read by turns.
template <class Ahead>
BG_INLINE V q6_k_group(const char* group, const char* codes, const int32_t* starts) {
  const I low4 = splat_i(0x0f0f0f0f), high2 = splat_i(0x30303030);
  BG_UNROLL for (int i = 0; i < 5; ++i) ask<Ahead>(group + 64 * i);
  const V d = load(reinterpret_cast<const F16*>(group));
  const I z0 = load_i(group + 64), z1 = load_i(group + 128), z2 = load_i(group + 192), z3 = load_i(group + 256);
  I s[16];
  ask_x(starts + 16);
  BG_UNROLL for (int b = 0; b < 16; ++b) s[b] = splat_i(starts[b]);
  BG_UNROLL for (int n = 0; n < 32; ++n) {
    const char *line = group + 320 + 64 * n, *a = codes + 64 * (n / 8) + 4 * (n % 8);
    I* sum = s + 4 * (n / 8) + n % 8 / 4;
    ask<Ahead>(line);
    if (n % 8 == 0) ask_x(a + 256);
    const I q = load_i(line);
    sum[0] = dot4_part(sum[0], and_i(q, low4), a);
    sum[2] = dot4_part(sum[2], and_i(shr<4>(q), low4), a + 32);
  }
  BG_UNROLL for (int n = 0; n < 16; ++n) {
    const char *line = group + 320 + 2048 + 64 * n, *a = codes + 128 * (n / 8) + 4 * (n % 8);
    I* sum = s + 8 * (n / 8) + n % 8 / 4;
    ask<Ahead>(line);
    const I q = load_i(line);
    sum[0] = dot4_part(sum[0], and_i(shl<4>(q), high2), a);
    sum[2] = dot4_part(sum[2], and_i(shl<2>(q), high2), a + 32);
    sum[4] = dot4_part(sum[4], and_i(q, high2), a + 64);
    sum[6] = dot4_part(sum[6], and_i(shr<2>(q), high2), a + 96);
  }
  V part = q6_k_add<1>(q6_k_add<0>(splat(0.0f), s[0], z0, d), s[1], z0, d);
  part = q6_k_add<3>(q6_k_add<2>(part, s[2], z0, d), s[3], z0, d);
  part = q6_k_add<5>(q6_k_add<4>(part, s[4], z1, d), s[5], z1, d);
  part = q6_k_add<7>(q6_k_add<6>(part, s[6], z1, d), s[7], z1, d);
  part = q6_k_add<9>(q6_k_add<8>(part, s[8], z2, d), s[9], z2, d);
  part = q6_k_add<11>(q6_k_add<10>(part, s[10], z2, d), s[11], z2, d);
  part = q6_k_add<13>(q6_k_add<12>(part, s[12], z3, d), s[13], z3, d);
  return q6_k_add<15>(q6_k_add<14>(part, s[14], z3, d), s[15], z3, d);
}

template <class Ahead>
void row_q6_k(float* sums, const OneRow& x, const char* group, int64_t inputs, bool resume, int64_t panels) {
  for (float* end = sums + 16 * panels; sums < end; sums += 16) {
    V sum = resume ? load(sums) : splat(0.0f);
    for (int64_t g = 0; 256 * g < inputs; ++g, group += 3392)
      sum = madd(q6_k_group<Ahead>(group, reinterpret_cast<const char*>(x.codes) + 256 * g, x.sums + 16 * g), splat(x.d[g]), sum);
    store(sums, sum);
  }
}

template <class Ahead>
auto row_of(Type t) {
  return t == Type::q8_0 ? row_q8_0<Ahead> : t == Type::q4_k ? row_q4_k<Ahead> : row_q6_k<Ahead>;
}

}  // namespace
}  // namespace bg::cpu::BG_ISA

#if BG_AVX2
#include "kernels/cpu/linear_int8_avx2.h"
#else
#include "kernels/cpu/linear_int8_tiles.h"
#endif

namespace bg::cpu::BG_ISA {

void pack_one_q8(void* to, const float* x, int64_t D) {
  const OneRow row = OneRow::at(to, kPackQ8, D, 0);
  for (int64_t b = 0; 32 * b < D; b += kBlocks) {
    const int64_t blocks = least(kBlocks, D / 32 - b);
    alignas(64) float scale[kBlocks], sum[kBlocks];
    quantise_32(row.codes + 32 * b, scale, sum, x + 32 * b, blocks);
    for (int64_t i = 0; i < blocks; ++i) row.d[b + i] = scale[i], row.sums[b + i] = -128 * int32_t(sum[i]);
  }
}

void pack_one_q8k(void* to, const float* x, int64_t D) {
  const OneRow row = OneRow::at(to, kPackQ8K, D, 0);
  for (int64_t b = 0; 256 * b < D; ++b) {
    alignas(64) float sum[16];
    row.d[b] = quantise_256(row.codes + 256 * b, sum, x + 256 * b);
    sums_of_one(row.sums + 16 * b, row.codes + 256 * b, sum);
    for (int64_t i = 0; i < 4; ++i) row.pairs[4 * b + i] = pair_of(sum[4 * i] + sum[4 * i + 1], sum[4 * i + 2] + sum[4 * i + 3]);
  }
}

void group_int8(float* sums, const Rows& x, const Weight& w, int64_t first, int64_t count, char* scratch) {
  if (x.count > 1) return group_rows(sums, x, w, first, count, scratch);
  const Packing p = w.type == Type::q8_0 ? kPackQ8 : kPackQ8K;
  const bool in_panels = w.layout == Layout::panels, far = BG_DPBF16 && asks_far_ahead();
  const auto row = far ? row_of<Far>(w.type) : row_of<Near>(w.type);
  const int64_t together = in_panels ? count : 1, most = in_panels ? x.D : kInt8Inputs;
  for (int64_t n = 0; n < count; n += together) {
    for (int64_t j0 = 0, len; j0 < x.D; j0 += len) {
      len = least(most, x.D - j0);
      row(sums + 16 * n, OneRow::at(x.data, p, x.D, j0), chunk_of(w, first + n, together, j0, len, scratch).at, len, j0 > 0, together);
    }
  }
}

}  // namespace bg::cpu::BG_ISA
#endif
