// Products of quantised weights with int8 activations. Integer sums are exact; what is done in float has one order, the same on every instruction set:
//   Q8_0   for each 32 inputs b:   y = fma(S_b, d_w·d_x, y),  S_b = Σ q·a
//   Q4_K   for each 256 inputs:    t = −dmin·Σ_b m_b·A_b;  t = fma(S_b, d·s_b, t) for b = 0 … 7;   y = fma(t, d_x, y),  A_b = Σ a, both over 32 inputs
//   Q6_K   for each 256 inputs:    t = 0;                  t = fma(S_b, d·s_b, t) for b = 0 … 15;  y = fma(t, d_x, y),  S_b over 16 inputs
// d_x·a_j is x_j to the nearest multiple of d_x = max|x|/127 (of 32 inputs, or of 256). Error: ops.h, linear.
// Q8_0 is read where it lies; for several rows the codes of Q4_K and Q6_K are spread to bytes, a chunk of two panels at a time, in scratch that stays in the first
// cache. One row takes them straight from the panel.
#include <math.h>

#include "kernels/cpu/simd.h"

#if BG_INT8
#include "kernels/cpu/linear_parts.h"

namespace bg::cpu::BG_ISA {
namespace {

#if BG_AVX512
constexpr int kTileRows = 6, kTilePanels = 2;  // 12 integer + 12 float accumulators + 2 + 1 operands of 32 registers
#elif BG_AVX2
constexpr int kTileRows = 3, kTilePanels = 1;  // 6 + 6 + 2 + 2 of 16
#elif BG_I8MM
constexpr int kTileRows = 4, kTilePanels = 1;  // pairs of rows
#else
constexpr int kTileRows = 3, kTilePanels = 1;  // 12 + 12 + 4 + 1 of 32
#endif

// ---- activations ------------------------------------------------------------------------------------------------------------------------

// Codes of n = 32 or 256 inputs; returns d_x. A block that holds a NaN or an infinity has d_x = NaN: so have all outputs that it reaches.
template <int n>
BG_INLINE float quantise(int8_t* to, const float* x) {
  V most = splat(0.0f), wrong = splat(0.0f);
  BG_UNROLL for (int i = 0; i < n; i += 16) {
    const V a = load(x + i);
    most = max(max(a, sub(splat(0.0f), a)), most);
    wrong = add(wrong, sub(a, a));  // 0, or NaN
  }
  alignas(64) float lanes[16], check[16];
  store(lanes, most);
  store(check, wrong);
  BG_UNROLL for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) {
      lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
      check[i] += check[i + half];
    }
  }
  if (!(check[0] == 0) || lanes[0] < 7.5e-37f) {
    memset(to, 0, n);
    return check[0] == 0 ? 0.0f : NAN;
  }
  const V inverse = splat(127 / lanes[0]), magic = splat(12582912.0f);  // 1.5·2^23: adding it rounds to the nearest integer, ties to even
  for (int i = 0; i < n; i += 16) {
    alignas(64) float codes[16];
    store(codes, sub(add(mul(load(x + i), inverse), magic), magic));
    for (int k = 0; k < 16; ++k) to[i + k] = int8_t(int32_t(codes[k]));
  }
  return lanes[0] / 127;
}

BG_INLINE int32_t sum_of(const int8_t* codes, int n) {
  int32_t sum = 0;
  for (int i = 0; i < n; ++i) sum += codes[i];
  return sum;
}

}  // namespace

void pack_q8(void* to, const float* x, int64_t D, int64_t row) {
  const int64_t inputs = packed_inputs(D), m = row % 16;
  auto* codes = static_cast<int8_t*>(to) + size_t(row / 16) * 16 * packed_row_bytes(kPackQ8, D);
  auto* d = reinterpret_cast<float*>(codes + 16 * inputs);
  auto* sums = reinterpret_cast<int32_t*>(d + inputs / 2);
  codes += 64 * m;
  for (int64_t b = 0; b < inputs / 32; ++b) {
    int8_t part[32] = {};
    d[16 * b + m] = 32 * b < D ? quantise<32>(part, x + 32 * b) : 0.0f;
    sums[16 * b + m] = -128 * sum_of(part, 32);
    memcpy(codes + 1024 * (b / 2) + 32 * (b % 2), part, 32);
  }
}

void pack_q8k(void* to, const float* x, int64_t D, int64_t row) {
  const int64_t m = row % 16;
  auto* codes = static_cast<int8_t*>(to) + size_t(row / 16) * 16 * packed_row_bytes(kPackQ8K, D);
  auto* d = reinterpret_cast<float*>(codes + 16 * D);
  auto* pairs = reinterpret_cast<int32_t*>(d + D / 16);
  auto* sums = pairs + D / 4;
  codes += 64 * m;
  for (int64_t b = 0; b < D / 256; ++b) {
    int8_t part[256];
    d[16 * b + m] = quantise<256>(part, x + 256 * b);
    for (int64_t i = 0; i < 4; ++i) {
      int32_t sum[4];
      for (int k = 0; k < 4; ++k) {
        sum[k] = sum_of(part + 64 * i + 16 * k, 16);
        sums[16 * (16 * b + 4 * i + k) + m] = -32 * sum[k];
      }
      pairs[16 * (4 * b + i) + m] = int32_t(uint32_t(sum[0] + sum[1]) & 0xffff) | (sum[2] + sum[3]) << 16;
      memcpy(codes + 1024 * (4 * b + i), part + 64 * i, 64);
    }
  }
}

namespace {

// ---- weights of a chunk -----------------------------------------------------------------------------------------------------------------

static_assert(2 * kSpread + 2 * size_t(kInt8Inputs) / 256 * 3392 <= kLinearScratch);

BG_INLINE float* scales_of(char* spread) { return reinterpret_cast<float*>(spread + kSpreadCodes); }
BG_INLINE char* mins_of(char* spread) { return spread + kSpreadCodes + kSpreadScales; }

constexpr int64_t kAhead = 1024;  // bytes that unpacking fetches ahead: far enough for the first cache, near enough that the second has them (PERFORMANCE.md)

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
    for (int i = 0; i < 4; ++i) __builtin_prefetch(group + kAhead + 64 * i);
    const V d = load(reinterpret_cast<const F16*>(group)), dmin = load(reinterpret_cast<const F16*>(group) + 16);
    const I z0 = load_i(group + 64), z1 = load_i(group + 128), z2 = load_i(group + 192);
    I mins[4];
    q4_k_all_scales(z0, z1, z2, d, scales, mins);
    BG_UNROLL for (int i = 0; i < 4; ++i) store_i(pairs + 64 * i, mins[i]);
    store(reinterpret_cast<float*>(pairs + 256), sub(splat(0.0f), dmin));
    for (int c = 0; c < 4; ++c) {
      BG_UNROLL for (int i = 0; i < 8; ++i) {
        const char* line = group + 256 + 64 * (8 * c + i);
        __builtin_prefetch(line + kAhead);
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
    for (int i = 0; i < 5; ++i) __builtin_prefetch(group + kAhead + 64 * i);
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
        __builtin_prefetch(l0 + kAhead);
        __builtin_prefetch(l1 + kAhead);
        __builtin_prefetch(hi + kAhead);
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

// ---- tiles ------------------------------------------------------------------------------------------------------------------------------

BG_INLINE I broadcast(const char* codes) {
  int32_t four;
  memcpy(&four, codes, 4);
  return splat_i(four);
}

// What codes of weights are: plus 128, at most 63, at most 15.
enum Codes { kBiased, kSixBits, kNibbles };

// s += the byte products of `count` lines of N panels and M rows of codes (64 bytes from one row to the next), count even; nibbles: 8 lines, s = 0 before.
template <int M, int N, Codes kind>
BG_INLINE void dots(I (&s)[M][N], const char* lines, size_t stride, const char* codes, int count) {
#if BG_I8MM
  if constexpr (M % 2 == 0) {
    // smmla multiplies 2 × 8 codes by 8 × 2 weights: two lines are zipped into eight inputs of two outputs, and what comes out is two rows' sums of those.
    BG_UNROLL for (int m = 0; m < M; m += 2) {
      int32x4_t sum[8];  // [2·i + half]: rows m, m + 1 × outputs 4i + 2·half, + 1
      const auto gather = [](int32x4_t x, int32x4_t y, int half) { return half == 0 ? vcombine_s32(vget_low_s32(x), vget_low_s32(y)) : vcombine_s32(vget_high_s32(x), vget_high_s32(y)); };
      const int32x4_t x[4] = {s[m][0].a, s[m][0].b, s[m][0].c, s[m][0].d}, y[4] = {s[m + 1][0].a, s[m + 1][0].b, s[m + 1][0].c, s[m + 1][0].d};
      BG_UNROLL for (int i = 0; i < 8; ++i) sum[i] = gather(x[i / 2], y[i / 2], i % 2);
      for (int k = 0; k < count; k += 2) {
        const int8x16_t a = vcombine_s8(vld1_s8(reinterpret_cast<const int8_t*>(codes + 64 * m + 4 * k)), vld1_s8(reinterpret_cast<const int8_t*>(codes + 64 * m + 64 + 4 * k)));
        BG_UNROLL for (int i = 0; i < 4; ++i) {
          int32x4_t first = int_at(lines + 64 * k + 16 * i), second = int_at(lines + 64 * k + 64 + 16 * i);
          if (kind == kBiased) first = unbias(first), second = unbias(second);
          sum[2 * i] = vmmlaq_s32(sum[2 * i], a, vreinterpretq_s8_s32(vzip1q_s32(first, second)));
          sum[2 * i + 1] = vmmlaq_s32(sum[2 * i + 1], a, vreinterpretq_s8_s32(vzip2q_s32(first, second)));
        }
      }
      s[m][0] = {gather(sum[0], sum[1], 0), gather(sum[2], sum[3], 0), gather(sum[4], sum[5], 0), gather(sum[6], sum[7], 0)};
      s[m + 1][0] = {gather(sum[0], sum[1], 1), gather(sum[2], sum[3], 1), gather(sum[4], sum[5], 1), gather(sum[6], sum[7], 1)};
    }
    return;
  }
#endif
#if BG_AVX2
  if constexpr (kind != kBiased) {  // 16 bits hold two products of six bits, or eight of nibbles
    constexpr int kStep = kind == kSixBits ? 2 : 1;
    BG_UNROLL for (int i = 0; i < count; i += kStep) {
      BG_UNROLL for (int n = 0; n < N; ++n) {
        const char* line = lines + size_t(n) * stride + 64 * i;
        const I q = load_i(line), next = load_i(line + 64 * (kStep - 1));
        BG_UNROLL for (int m = 0; m < M; ++m) {
          const char* a = codes + 64 * m + 4 * i;
          s[m][n] = kind == kNibbles ? nibbles(s[m][n], q, a) : dot4_pair(s[m][n], q, next, a);
        }
      }
    }
    if constexpr (kind == kNibbles) {
      BG_UNROLL for (int m = 0; m < M; ++m) BG_UNROLL for (int n = 0; n < N; ++n) s[m][n] = sum_nibbles(s[m][n]);
    }
    return;
  }
#endif
  BG_UNROLL for (int i = 0; i < count; ++i) {
    I q[N];
    BG_UNROLL for (int n = 0; n < N; ++n) q[n] = load_i(lines + size_t(n) * stride + 64 * i);
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const I a = broadcast(codes + 64 * m + 4 * i);
      BG_UNROLL for (int n = 0; n < N; ++n) s[m][n] = kind == kBiased ? dot4_biased(s[m][n], q[n], a) : dot4_small(s[m][n], q[n], a);
    }
  }
}

// x: sixteen rows, of which M from row m0 on take part.
template <int M, int N>
void tile_q8_0(float* sums, const PackedRows& x, int64_t m0, int64_t j0, const Chunk& w, bool resume) {
  V acc[M][N];
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = resume ? load(sums + m * kSumsStride + 16 * n) : splat(0.0f);
  }
  for (int64_t b = 0; 32 * b < w.len; ++b) {
    const int64_t at = j0 / 32 + b;
    const char* codes = x.codes + 1024 * (at / 2) + 32 * (at % 2) + 64 * m0;
    const char *lines = w.at + 1088 * (b / 2) + 512 * (b % 2), *scales = w.at + 1088 * (b / 2) + 1024 + 32 * (b % 2);
    I s[M][N];
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const I start = start_biased(x.sums[16 * at + m0 + m]);
      BG_UNROLL for (int n = 0; n < N; ++n) s[m][n] = start;
    }
    dots<M, N, kBiased>(s, lines, w.stride, codes, 8);
    V d[N];
    BG_UNROLL for (int n = 0; n < N; ++n) d[n] = load(reinterpret_cast<const F16*>(scales + size_t(n) * w.stride));
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V dx = splat(x.d[16 * at + m0 + m]);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = madd(to_float(s[m][n]), mul(d[n], dx), acc[m][n]);
    }
  }
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) store(sums + m * kSumsStride + 16 * n, acc[m][n]);
  }
}

// Q4_K (inputs of a scale: 32, with mins) and Q6_K (16, codes less 32). w: spread.
template <int M, int N, bool q4>
void tile_k(float* sums, const PackedRows& x, int64_t m0, int64_t j0, const Chunk& w, bool resume) {
  constexpr int kInputs = q4 ? 32 : 16, kScales = 256 / kInputs;
  for (int64_t g = 0; 256 * g < w.len; ++g) {
    const int64_t at = j0 / 256 + g;
    const char *activations = x.codes + 4096 * at + 64 * m0, *codes = w.at + 4096 * g, *mins = w.at + kSpreadCodes + kSpreadScales + 320 * g;
    const auto* scales = reinterpret_cast<const float*>(w.at + kSpreadCodes) + 16 * kScales * g;
    V part[M][N];
    if constexpr (q4) {
      I s[M][N];
      BG_UNROLL for (int m = 0; m < M; ++m) {
        BG_UNROLL for (int n = 0; n < N; ++n) s[m][n] = zero_i();
      }
      BG_UNROLL for (int i = 0; i < 4; ++i) {
        I pair[N];
        BG_UNROLL for (int n = 0; n < N; ++n) pair[n] = load_i(mins + size_t(n) * w.stride + 64 * i);
        BG_UNROLL for (int m = 0; m < M; ++m) {
          const I a = splat_i(x.pairs[16 * (4 * at + i) + m0 + m]);
          BG_UNROLL for (int n = 0; n < N; ++n) s[m][n] = dot2(s[m][n], pair[n], a);
        }
      }
      BG_UNROLL for (int n = 0; n < N; ++n) {
        const V dmin = load(reinterpret_cast<const float*>(mins + size_t(n) * w.stride + 256));
        BG_UNROLL for (int m = 0; m < M; ++m) part[m][n] = mul(dmin, to_float(s[m][n]));
      }
    } else {
      BG_UNROLL for (int m = 0; m < M; ++m) {
        BG_UNROLL for (int n = 0; n < N; ++n) part[m][n] = splat(0.0f);
      }
    }
    for (int b = 0; b < kScales; ++b) {
      I s[M][N];
      BG_UNROLL for (int m = 0; m < M; ++m) {
        const I start = q4 ? zero_i() : splat_i(x.sums[16 * (kScales * at + b) + m0 + m]);
        BG_UNROLL for (int n = 0; n < N; ++n) s[m][n] = start;
      }
      dots<M, N, q4 ? kNibbles : kSixBits>(s, codes + 16 * kInputs * b, w.stride, activations + 1024 * (b * kInputs / 64) + b * kInputs % 64, kInputs / 4);
      BG_UNROLL for (int n = 0; n < N; ++n) {
        const V scale = load(reinterpret_cast<const float*>(reinterpret_cast<const char*>(scales) + size_t(n) * w.stride) + 16 * b);
        BG_UNROLL for (int m = 0; m < M; ++m) part[m][n] = madd(to_float(s[m][n]), scale, part[m][n]);
      }
    }
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V dx = splat(x.d[16 * at + m0 + m]);
      BG_UNROLL for (int n = 0; n < N; ++n) {
        float* to = sums + m * kSumsStride + 16 * n;
        store(to, madd(part[m][n], dx, resume || g > 0 ? load(to) : splat(0.0f)));
      }
    }
  }
}

// ---- one row ----------------------------------------------------------------------------------------------------------------------------
// The codes go from the panel into the products without a stop, so that reading never waits for work. The same numbers in the same order as in tiles.

// The row alone, so that it lies close together: of the sixteen side by side it has one number in each line.
struct OneRow {
  const char* codes;            // D
  const float* d;               // [b]
  const int32_t *sums, *pairs;  // [b] or [16·b + …]; [4·b + …]
};

// In `room`, of kLinearScratch bytes: false where it does not fit.
bool one_row(OneRow& row, const Rows& x, Type type, char* room) {
  const PackedRows from = packed_rows(x, type, 0);
  const int64_t D = packed_inputs(x.D), scales = type == Type::q8_0 ? D / 32 : D / 256, sums = type == Type::q8_0 ? D / 32 : D / 16, pairs = type == Type::q8_0 ? 0 : D / 64;
  if (size_t(D + 4 * (scales + sums + pairs)) > kLinearScratch) return false;
  auto* d = reinterpret_cast<float*>(room + D);
  auto* to_sums = reinterpret_cast<int32_t*>(d + scales);
  int32_t* to_pairs = to_sums + sums;
  for (int64_t i = 0; i < D / 64; ++i) memcpy(room + 64 * i, from.codes + 1024 * i, 64);
  for (int64_t i = 0; i < scales; ++i) d[i] = from.d[16 * i];
  for (int64_t i = 0; i < sums; ++i) to_sums[i] = from.sums[16 * i];
  for (int64_t i = 0; i < pairs; ++i) to_pairs[i] = from.pairs[16 * i];
  row = {room, d, to_sums, to_pairs};
  return true;
}

void row_q8_0(float* sums, const OneRow& x, const char* group, int64_t inputs) {
  V sum = splat(0.0f);
  for (int64_t b = 0; 32 * b < inputs; b += 2, group += 1088) {
    __builtin_prefetch(group + kAhead + 1024);
    BG_UNROLL for (int half = 0; half < 2; ++half) {
      if (32 * (b + half) >= inputs) break;
      I s = start_biased(x.sums[b + half]);
      BG_UNROLL for (int i = 0; i < 8; ++i) {
        const char* line = group + 512 * half + 64 * i;
        __builtin_prefetch(line + kAhead);
        s = dot4_biased(s, load_i(line), broadcast(x.codes + 32 * (b + half) + 4 * i));
      }
      sum = madd(to_float(s), mul(load(reinterpret_cast<const F16*>(group + 1024) + 16 * half), splat(x.d[b + half])), sum);
    }
  }
  store(sums, sum);
}

void row_q4_k(float* sums, const OneRow& x, const char* group, int64_t inputs) {
  const I low4 = splat_i(0x0f0f0f0f);
  V sum = splat(0.0f);
  for (int64_t g = 0; 256 * g < inputs; ++g, group += 2304) {
    BG_UNROLL for (int i = 0; i < 4; ++i) __builtin_prefetch(group + kAhead + 64 * i);
    const V d = load(reinterpret_cast<const F16*>(group)), dmin = load(reinterpret_cast<const F16*>(group) + 16);
    const I z0 = load_i(group + 64), z1 = load_i(group + 128), z2 = load_i(group + 192);
    alignas(64) float scales[8 * 16];
    I mins[4];
    q4_k_all_scales(z0, z1, z2, d, scales, mins);
    I s = zero_i();
    BG_UNROLL for (int i = 0; i < 4; ++i) s = dot2(s, mins[i], splat_i(x.pairs[4 * g + i]));
    V part = mul(sub(splat(0.0f), dmin), to_float(s));
    BG_UNROLL for (int c = 0; c < 4; ++c) {
      const char* codes = x.codes + 256 * g + 64 * c;
      I even = zero_i(), odd = zero_i();
      BG_UNROLL for (int i = 0; i < 8; ++i) {
        const char* line = group + 256 + 64 * (8 * c + i);
        __builtin_prefetch(line + kAhead);
        const I q = load_i(line);
        even = nibbles(even, and_i(q, low4), codes + 4 * i);
        odd = nibbles(odd, high_codes(q), codes + 32 + 4 * i);
      }
      part = madd(to_float(sum_nibbles(even)), load(scales + 16 * (2 * c)), part);
      part = madd(to_float(sum_nibbles(odd)), mul(load(scales + 16 * (2 * c + 1)), splat(kHighUnit)), part);
    }
    sum = madd(part, splat(x.d[g]), sum);
  }
  store(sums, sum);
}

// Codes of four inputs in quarter p of 128: low four bits from `low`, high two from `high`.
template <int p>
BG_INLINE I q6_k_codes(const char* low, const char* high) {
  const I a = load_i(low), c = load_i(high), low4 = splat_i(0x0f0f0f0f), high2 = splat_i(0x30303030);
  const I up = p == 0 ? shl<4>(c) : p == 1 ? shl<2>(c) : p == 2 ? c : shr<2>(c);
  return or_i(and_i(p % 2 == 0 ? a : shr<4>(a), low4), and_i(up, high2));
}

// part += what sub-blocks 2p and 2p + 1 of half a group give. One after the other: sums of all eight would not fit the registers of AVX2.
template <int p>
BG_INLINE V q6_k_quarter(V part, const char* low, const char* high, const char* codes, const int32_t* starts, V d, const char* scales) {
  BG_UNROLL for (int k = 0; k < 2; ++k) {
    I s = splat_i(starts[2 * p + k]);
    BG_UNROLL for (int i = 4 * k; i < 4 * k + 4; i += 2) {
      const char *l = low + 512 * (p / 2) + 64 * i, *h = high + 64 * i;
      s = dot4_pair(s, q6_k_codes<p>(l, h), q6_k_codes<p>(l + 64, h + 64), codes + 32 * p + 4 * i);
    }
    constexpr int first = 2 * p % 4;
    const I z = load_i(scales + 64 * (p / 2)), scale = shr_signed<24>(k == 0 ? shl<24 - 8 * first>(z) : shl<16 - 8 * first>(z));
    part = madd(to_float(s), mul(d, to_float(scale)), part);
  }
  return part;
}

void row_q6_k(float* sums, const OneRow& x, const char* group, int64_t inputs) {
  V sum = splat(0.0f);
  for (int64_t g = 0; 256 * g < inputs; ++g, group += 3392) {
    BG_UNROLL for (int i = 0; i < 5; ++i) __builtin_prefetch(group + kAhead + 64 * i);
    const V d = load(reinterpret_cast<const F16*>(group));
    V part = splat(0.0f);
    BG_UNROLL for (int h = 0; h < 2; ++h) {
      const char *low = group + 320 + 1024 * h, *high = group + 320 + 2048 + 512 * h, *codes = x.codes + 256 * g + 128 * h, *scales = group + 64 + 128 * h;
      for (int i = 0; i < 24; ++i) __builtin_prefetch(group + 320 + kAhead + 64 * (24 * h + i));
      const int32_t* starts = x.sums + 16 * g + 8 * h;
      part = q6_k_quarter<0>(part, low, high, codes, starts, d, scales);
      part = q6_k_quarter<1>(part, low, high, codes, starts, d, scales);
      part = q6_k_quarter<2>(part, low, high, codes, starts, d, scales);
      part = q6_k_quarter<3>(part, low, high, codes, starts, d, scales);
    }
    sum = madd(part, splat(x.d[g]), sum);
  }
  store(sums, sum);
}

template <int M, int N>
void tile(Type type, float* sums, const PackedRows& x, int64_t m0, int64_t j0, const Chunk& w, bool resume) {
  if (type == Type::q8_0)
    tile_q8_0<M, N>(sums, x, m0, j0, w, resume);
  else if (type == Type::q4_k)
    tile_k<M, N, true>(sums, x, m0, j0, w, resume);
  else
    tile_k<M, N, false>(sums, x, m0, j0, w, resume);
}

template <int N>
void tile_rows(int64_t rows, Type type, float* sums, const PackedRows& x, int64_t m0, int64_t j0, const Chunk& w, bool resume) {
  switch (rows) {
    case 1: return tile<1, N>(type, sums, x, m0, j0, w, resume);
#if BG_AVX512
    case 2: return tile<2, N>(type, sums, x, m0, j0, w, resume);
    case 3: return tile<3, N>(type, sums, x, m0, j0, w, resume);
    case 4: return tile<4, N>(type, sums, x, m0, j0, w, resume);
    case 5: return tile<5, N>(type, sums, x, m0, j0, w, resume);
#elif BG_I8MM
    case 2: return tile<2, N>(type, sums, x, m0, j0, w, resume);
    case 3: return tile<3, N>(type, sums, x, m0, j0, w, resume);
#else
    case 2: return tile<2, N>(type, sums, x, m0, j0, w, resume);
#endif
    default: return tile<kTileRows, N>(type, sums, x, m0, j0, w, resume);
  }
}

}  // namespace

void group_int8(float* sums, const Rows& x, const Weight& w, int64_t first, int64_t count, char* scratch) {
  OneRow row;
  if (x.count == 1 && w.layout == Layout::panels && one_row(row, x, w.type, scratch)) {
    const auto product = w.type == Type::q8_0 ? row_q8_0 : w.type == Type::q4_k ? row_q4_k : row_q6_k;
    for (int64_t n = 0; n < count; ++n) product(sums + 16 * n, row, static_cast<const char*>(w.data) + size_t(first + n) * chunk_bytes(w.type, x.D), x.D);
    return;
  }
  for_passes(x.count, count, kTilePanels, x.D, kInt8Inputs, [&](int64_t n, int64_t panels, int64_t j0, int64_t len) {
    Chunk chunk = chunk_of(w, first + n, panels, j0, len, scratch + 2 * kSpread);
    if (w.type != Type::q8_0) {
      for (int64_t i = 0; i < panels; ++i)
        (w.type == Type::q4_k ? spread_q4_k : spread_q6_k)(scratch + size_t(i) * kSpread, chunk.at + size_t(i) * chunk.stride, len);
      chunk = {scratch, kSpread, len};
    }
    for (int64_t t = 0, rows = 0; t < x.count; t += rows) {
      rows = least(least(kTileRows, x.count - t), 16 - t % 16);
      const PackedRows packed = packed_rows(x, w.type, t / 16);
      float* to = sums + t * kSumsStride + 16 * n;
      if (panels == kTilePanels)
        tile_rows<kTilePanels>(rows, w.type, to, packed, t % 16, j0, chunk, j0 > 0);
      else
        tile_rows<1>(rows, w.type, to, packed, t % 16, j0, chunk, j0 > 0);
    }
  });
}

}  // namespace bg::cpu::BG_ISA
#endif
