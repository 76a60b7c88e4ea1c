// Several rows of x where an instruction sums four products of bytes (AVX-512 VNNI, NEON). A tile is some rows × up to three panels, its sums in registers; Q8_0 is read
// where it lies, the others are spread to bytes, a chunk of these panels at a time, in scratch that stays in the first cache.
// Included by linear_int8.isa.cpp only.
#pragma once

namespace bg::cpu::BG_ISA {
namespace {

#if BG_AVX512
constexpr int kTileRows = 4, kTilePanels = 3;  // 12 integer + 12 float accumulators + 3 + 1 operands of 32 registers; sixteen rows are four tiles
#elif BG_I8MM
constexpr int kTileRows = 4, kTilePanels = 1;  // pairs of rows
#elif BG_NEON
constexpr int kTileRows = 3, kTilePanels = 1;  // 12 + 12 + 4 + 1 of 32
#endif

// Sixteen packed rows m of int8 (linear.h), side by side so that one line of 64 bytes has a number of each. D inputs, for Q8 rounded up to 64.
struct PackedRows {
  const char* codes;      // 64 inputs of row 0, of row 1, …; then the next 64
  const float* d;         // d_x of row m: [16·b + m], b = 32 inputs (Q8) or 256 (Q8K)
  const int32_t* sums;    // [16·b + m]: Q8: −128·Σ codes of 32 inputs; Q8K: −32·Σ codes of 16
  const int32_t* pairs;   // Q8K: [16·b + m]: Σ codes of 32 inputs and of the next 32, two 16-bit numbers in one
};
BG_INLINE PackedRows packed_rows(const Rows& x, Type weights, int64_t block) {
  const int64_t D = packed_inputs(x.D);
  const char* codes = static_cast<const char*>(x.data) + size_t(block) * 16 * x.stride;
  const auto* d = reinterpret_cast<const float*>(codes + 16 * D);
  if (weights == Type::q8_0) return {codes, d, reinterpret_cast<const int32_t*>(d + D / 2), nullptr};
  const auto* pairs = reinterpret_cast<const int32_t*>(d + D / 16);
  return {codes, d, pairs + D / 4, pairs};
}

}  // namespace

size_t packed_row_bytes(Packing p, int64_t D) {
  const auto inputs = size_t(packed_inputs(D));
  return p == kPackQ8 ? inputs / 4 * 5 : inputs / 64 * 85;
}

void pack_q8(void* to, const Unpacked& x, int64_t D) {
  const int64_t inputs = packed_inputs(D), m0 = x.first % 16;
  auto* codes = static_cast<int8_t*>(to) + size_t(x.first / 16) * 16 * packed_row_bytes(kPackQ8, D);
  auto* d = reinterpret_cast<float*>(codes + 16 * inputs);
  auto* sums = reinterpret_cast<int32_t*>(d + inputs / 2);
  for (int64_t b = 0; 32 * b < inputs; b += kBlocks) {
    const int64_t blocks = least(kBlocks, inputs / 32 - b);
    for (int64_t m = m0; m < m0 + x.count; ++m) {
      alignas(64) int8_t part[32 * kBlocks] = {};
      alignas(64) float scale[kBlocks], sum[kBlocks];
      quantise_32(part, scale, sum, x.row(m - m0) + 32 * b, least(blocks, D / 32 - b));
      for (int64_t i = 0; i < blocks; ++i) {
        d[16 * (b + i) + m] = scale[i];
        sums[16 * (b + i) + m] = -128 * int32_t(sum[i]);
      }
      for (int64_t i = 0; i < blocks / 2; ++i) memcpy(codes + 1024 * (b / 2 + i) + 64 * m, part + 64 * i, 64);
    }
  }
}

void pack_q8k(void* to, const Unpacked& x, int64_t D) {
  const int64_t m0 = x.first % 16;
  auto* codes = static_cast<int8_t*>(to) + size_t(x.first / 16) * 16 * packed_row_bytes(kPackQ8K, D);
  auto* d = reinterpret_cast<float*>(codes + 16 * D);
  auto* pairs = reinterpret_cast<int32_t*>(d + D / 16);
  auto* sums = pairs + D / 4;
  for (int64_t b = 0; 256 * b < D; ++b) {
    for (int64_t m = m0; m < m0 + x.count; ++m) {
      alignas(64) int8_t part[256];
      alignas(64) float sum[16];
      d[16 * b + m] = quantise_256(part, sum, x.row(m - m0) + 256 * b);
      for (int64_t i = 0; i < 4; ++i) {
        const float* s = sum + 4 * i;
        for (int k = 0; k < 4; ++k) sums[16 * (16 * b + 4 * i + k) + m] = -32 * int32_t(s[k]);
        pairs[16 * (4 * b + i) + m] = pair_of(s[0] + s[1], s[2] + s[3]);
        memcpy(codes + 1024 * (4 * b + i) + 64 * m, part + 64 * i, 64);
      }
    }
  }
}

namespace {

// Of 16 blocks of 16 codes, as OneRow has them.
BG_INLINE void sums_of_one(int32_t* to, const int8_t*, const float* sums) {
  for (int64_t i = 0; i < 16; ++i) to[i] = -32 * int32_t(sums[i]);
}

// ---- tiles ------------------------------------------------------------------------------------------------------------------------------

// What codes of weights are: plus 128, at most 63, at most 15.
enum Codes { kBiased, kSixBits, kNibbles };

// s += the byte products of `count` lines of N panels and M rows of codes (64 bytes from one row to the next), count even; dot4_part: 8 lines, s = 0 before.
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
    case 2: return tile<2, N>(type, sums, x, m0, j0, w, resume);
#if BG_AVX512 || BG_I8MM
    case 3: return tile<3, N>(type, sums, x, m0, j0, w, resume);
#endif
    default: return tile<kTileRows, N>(type, sums, x, m0, j0, w, resume);
  }
}

void tile_panels(int64_t panels, int64_t rows, Type type, float* sums, const PackedRows& x, int64_t m0, int64_t j0, const Chunk& w, bool resume) {
#if BG_AVX512
  if (panels == 2) return tile_rows<2>(rows, type, sums, x, m0, j0, w, resume);
  if (panels == 3) return tile_rows<3>(rows, type, sums, x, m0, j0, w, resume);
#endif
  (void)panels;
  tile_rows<1>(rows, type, sums, x, m0, j0, w, resume);
}

static_assert(kTilePanels * (kSpread + size_t(kInt8Inputs) / 256 * 3392) <= kLinearScratch);

void group_rows(float* sums, const Rows& x, const Weight& w, int64_t first, int64_t count, char* scratch) {
  for_passes(x.count, count, kTilePanels, x.D, kInt8Inputs, [&](const Pass& now, const Pass& next) {
    const auto [n, panels, j0, len] = now;
    Chunk chunk = chunk_of(w, first + n, panels, j0, len, scratch + kTilePanels * kSpread);
    Coming coming(x, kTileRows, w, chunk, now, next);
    if (w.type != Type::q8_0) {
      for (int64_t i = 0; i < panels; ++i)
        (w.type == Type::q4_k ? spread_q4_k : spread_q6_k)(scratch + size_t(i) * kSpread, chunk.at + size_t(i) * chunk.stride, len);
      chunk = {scratch, kSpread, len};
    }
    for (int64_t t = 0, rows = 0; t < x.count; t += rows) {
      rows = least(least(kTileRows, x.count - t), 16 - t % 16);
      coming.ask();
      tile_panels(panels, rows, w.type, sums + t * kSumsStride + 16 * n, packed_rows(x, w.type, t / 16), t % 16, j0, chunk, j0 > 0);
    }
  });
}

}  // namespace
}  // namespace bg::cpu::BG_ISA
