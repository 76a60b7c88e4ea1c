// Sums of a block of rows with a group of panels. See linear.h.
//   y_tn = Σ_j x_tj·w_nj: lane r of a vector is output n = 16·panel + r, j ascends, one multiply-add after the other.
// A pass takes a chunk of the inputs of a few panels and all rows; the sums rest in memory between passes. With more than a few rows the weights of a pass are
// turned into floats once (scratch) and used for all rows; the values, and so the sums, are the same.
// Not here: int8 products (linear_int8.isa.cpp), AMX tiles (linear_amx.isa.cpp).
#include "kernels/cpu/isa.h"
#include "kernels/cpu/simd.h"

#include "kernels/cpu/linear_parts.h"

namespace bg::cpu::BG_ISA {
namespace {

#if BG_AVX512
constexpr int kTileRows = 6, kTilePanels = 4;  // 24 accumulators + 4 + 1 operands of 32 registers
#elif BG_AVX2
constexpr int kTileRows = 6, kTilePanels = 1;  // 12 + 2 + 1 of 16
#elif BG_NEON
constexpr int kTileRows = 6, kTilePanels = 1;  // 24 + 4 + 1 of 32
#else
constexpr int kTileRows = 2, kTilePanels = 1;
#endif

// Lines of weights of one, or of two, inputs.
struct F32Lines {
  static constexpr int inputs = 1;
  static V first(const char* line) { return load(reinterpret_cast<const float*>(line)); }
  static V second(const char* line) { return first(line); }
};
struct Bf16Lines {
  static constexpr int inputs = 2;
  static V first(const char* line) { return low_halves(reinterpret_cast<const uint32_t*>(line)); }
  static V second(const char* line) { return high_halves(reinterpret_cast<const uint32_t*>(line)); }
};
struct F16Lines {
  static constexpr int inputs = 2;
  static V first(const char* line) { return load(reinterpret_cast<const F16*>(line)); }
  static V second(const char* line) { return load(reinterpret_cast<const F16*>(line) + 16); }
};

// M rows × N panels. x: the first of the pass's inputs in the first row.
template <int M, int N, class Lines>
void tile(float* sums, const float* x, size_t x_stride, const Chunk& w, bool resume) {
  V acc[M][N];
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = resume ? load(sums + m * kSumsStride + 16 * n) : splat(0.0f);
  }
  const char* line = w.at;
  const auto step = [&](int64_t j, bool second) __attribute__((always_inline)) {
    V b[N];
    BG_UNROLL for (int n = 0; n < N; ++n) b[n] = second ? Lines::second(line + size_t(n) * w.stride) : Lines::first(line + size_t(n) * w.stride);
    BG_UNROLL for (int m = 0; m < M; ++m) {
      const V a = splat(x[size_t(m) * x_stride + size_t(j)]);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = madd(a, b[n], acc[m][n]);
    }
  };
  int64_t j = 0;
  for (; j + Lines::inputs <= w.len; j += Lines::inputs, line += 64) {
    step(j, false);
    if constexpr (Lines::inputs == 2) step(j + 1, true);
  }
  if (j < w.len) step(j, false);
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) store(sums + m * kSumsStride + 16 * n, acc[m][n]);
  }
}

template <int N, class Lines>
void tile_rows(int64_t rows, float* sums, const float* x, size_t x_stride, const Chunk& w, bool resume) {
  switch (rows) {
    case 1: return tile<1, N, Lines>(sums, x, x_stride, w, resume);
#if BG_LEVEL > 0
    case 2: return tile<2, N, Lines>(sums, x, x_stride, w, resume);
    case 3: return tile<3, N, Lines>(sums, x, x_stride, w, resume);
    case 4: return tile<4, N, Lines>(sums, x, x_stride, w, resume);
    case 5: return tile<5, N, Lines>(sums, x, x_stride, w, resume);
#endif
    default: return tile<kTileRows, N, Lines>(sums, x, x_stride, w, resume);
  }
}

// All rows × up to kTilePanels panels.
template <class Lines>
void pass(float* sums, const Rows& x, int64_t j0, const Chunk& w, int64_t panels, bool resume) {
  const size_t stride = x.stride / sizeof(float);
  const float* from = static_cast<const float*>(x.data) + j0;
  for (int64_t t = 0; t < x.count; t += kTileRows) {
    const int64_t rows = least(kTileRows, x.count - t);
    float* to = sums + t * kSumsStride;
    if (panels == kTilePanels) {
      tile_rows<kTilePanels, Lines>(rows, to, from + size_t(t) * stride, stride, w, resume);
    } else {
      for (int64_t n = 0; n < panels; ++n)
        tile_rows<1, Lines>(rows, to + 16 * n, from + size_t(t) * stride, stride, {w.at + size_t(n) * w.stride, w.stride, w.len}, resume);
    }
  }
}

// ---- weights of a pass as floats: to[16·j + r] ------------------------------------------------------------------------------------------

template <class Lines>
void floats_of_lines(float* to, const char* line, int64_t len) {
  for (int64_t j = 0; j < len; ++j) {
    const bool second = Lines::inputs == 2 && j % 2 == 1;
    store(to + 16 * j, second ? Lines::second(line) : Lines::first(line));
    if (Lines::inputs == 1 || second) line += 64;
  }
}

// The equations are those of kernels/blocks.h; every product is exact.
void floats_of_q8_0(float* to, const char* group, int64_t len) {
  for (int64_t j = 0; j < len; ++j) {
    const int64_t in = j % 64;
    const char* scales = group + 1024 + 32 * (in / 32);
    const auto* q = reinterpret_cast<const uint8_t*>(group) + 64 * (in / 4) + in % 4;
    float codes[16];
    for (int r = 0; r < 16; ++r) codes[r] = float(int(q[4 * r]) - 128);
    store(to + 16 * j, mul(load(reinterpret_cast<const F16*>(scales)), load(codes)));
    if (in == 63) group += 1088;
  }
}

void floats_of_q4_k(float* to, const char* group, int64_t len) {
  for (int64_t j = 0; j < len; j += 256, group += 2304) {
    const V d = load(reinterpret_cast<const F16*>(group)), dmin = load(reinterpret_cast<const F16*>(group) + 16);
    for (int b = 0; b < 8; ++b) {
      float s[16], m[16];
      for (int r = 0; r < 16; ++r) {
        const auto byte = [&](int i) { return int(uint8_t(group[64 + 64 * (i / 4) + 4 * r + i % 4])); };
        s[r] = float(b < 4 ? byte(b) & 63 : (byte(b + 4) & 15) | (byte(b - 4) >> 6) << 4);
        m[r] = float(b < 4 ? byte(b + 4) & 63 : byte(b + 4) >> 4 | (byte(b) >> 6) << 4);
      }
      const V scale = mul(d, load(s)), min = mul(dmin, load(m));
      for (int i = 0; i < 32; ++i) {
        const auto* q = reinterpret_cast<const uint8_t*>(group) + 256 + 64 * (8 * (b / 2) + i / 4) + i % 4;
        float codes[16];
        for (int r = 0; r < 16; ++r) codes[r] = float(b % 2 == 0 ? q[4 * r] & 15 : q[4 * r] >> 4);
        store(to + 16 * (j + 32 * b + i), sub(mul(scale, load(codes)), min));
      }
    }
  }
}

void floats_of_q6_k(float* to, const char* group, int64_t len) {
  for (int64_t j = 0; j < len; j += 256, group += 3392) {
    const V d = load(reinterpret_cast<const F16*>(group));
    for (int e = 0; e < 256; ++e) {
      const int byte = e % 32, b = e / 16;
      const auto* s = reinterpret_cast<const int8_t*>(group) + 64 + 64 * (b / 4) + b % 4;
      const auto* low = reinterpret_cast<const uint8_t*>(group) + 320 + 64 * (8 * (e / 64) + byte / 4) + byte % 4;
      const auto* high = reinterpret_cast<const uint8_t*>(group) + 320 + 2048 + 64 * (8 * (e / 128) + byte / 4) + byte % 4;
      float scales[16], codes[16];
      for (int r = 0; r < 16; ++r) {
        scales[r] = float(s[4 * r]);
        codes[r] = float(((low[4 * r] >> (e / 32 % 2 * 4) & 15) | (high[4 * r] >> (e / 32 % 4 * 2) & 3) << 4) - 32);
      }
      store(to + 16 * (j + e), mul(mul(d, load(scales)), load(codes)));
    }
  }
}

void floats_of(float* to, Type type, const char* from, int64_t len) {
  switch (type) {
    case Type::f16: return floats_of_lines<F16Lines>(to, from, len);
    case Type::bf16: return floats_of_lines<Bf16Lines>(to, from, len);
    case Type::q8_0: return floats_of_q8_0(to, from, len);
    case Type::q4_k: return floats_of_q4_k(to, from, len);
    case Type::q6_k: return floats_of_q6_k(to, from, len);
    default: return floats_of_lines<F32Lines>(to, from, len);
  }
}

// ---- a group ----------------------------------------------------------------------------------------------------------------------------

constexpr size_t kFloatChunk = size_t(kFloatInputs) * 16 * sizeof(float);  // of one panel
static_assert(2 * kTilePanels * kFloatChunk <= kLinearScratch);

void group_float(float* sums, const Rows& x, const Weight& w, int64_t first, int64_t count, char* scratch) {
  const bool floats = w.type != Type::f32 && (quantised(w.type) || x.count > kFew);
  for_passes(x.count, count, kTilePanels, x.D, kFloatInputs, [&](const Pass& now, const Pass&) {
    const auto [n, panels, j0, len] = now;
    Chunk chunk = chunk_of(w, first + n, panels, j0, len, scratch + kTilePanels * kFloatChunk);
    float* to = sums + 16 * n;
    if (floats) {
      for (int64_t i = 0; i < panels; ++i) floats_of(reinterpret_cast<float*>(scratch + size_t(i) * kFloatChunk), w.type, chunk.at + size_t(i) * chunk.stride, len);
      chunk = {scratch, kFloatChunk, len};
    }
    if (floats || w.type == Type::f32)
      pass<F32Lines>(to, x, j0, chunk, panels, j0 > 0);
    else if (w.type == Type::bf16)
      pass<Bf16Lines>(to, x, j0, chunk, panels, j0 > 0);
    else
      pass<F16Lines>(to, x, j0, chunk, panels, j0 > 0);
  });
}

}  // namespace

#if BG_AMX || BG_DPBF16
// 32 inputs from j on.
BG_INLINE void pack_bf16_32(char* to, const float* x, int64_t j, int64_t D) { store_i(to, first_bf16(x + j, D - j)); }

void pack_bf16(void* to, const Unpacked& x, int64_t D) {
  const int64_t inputs = packed_inputs(D);
  for (int64_t m = 0; m < x.count; ++m) {
    char* at = static_cast<char*>(to) + size_t(x.first / 16 * inputs) * 32 + size_t(x.first % 16 + m) * 64;
    for (int64_t j = 0; j < inputs; j += 32, at += 1024) pack_bf16_32(at, x.row(m), j, D);
  }
}
#endif

namespace {

#if BG_DPBF16
// ---- BF16 by vdpbf16ps: each lane adds the product of the odd input, then that of the even one, both fused; subnormals count as 0 ------------------------

template <int M, int N>
void tile_bf16(float* sums, const char* x, const Chunk& w, bool resume) {
  V acc[M][N];
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = resume ? load(sums + m * kSumsStride + 16 * n) : splat(0.0f);
  }
  for (int64_t j = 0; j < w.len; j += 2) {
    const char *line = w.at + 32 * j, *at = x + 1024 * (j / 32) + 2 * (j % 32);
    I b[N];
    BG_UNROLL for (int n = 0; n < N; ++n) b[n] = load_i(line + size_t(n) * w.stride);
    BG_UNROLL for (int m = 0; m < M; ++m) {
      int32_t pair;
      memcpy(&pair, at + 64 * m, 4);
      const I a = splat_i(pair);
      BG_UNROLL for (int n = 0; n < N; ++n) acc[m][n] = dot2_bf16(acc[m][n], b[n], a);
    }
  }
  BG_UNROLL for (int m = 0; m < M; ++m) {
    BG_UNROLL for (int n = 0; n < N; ++n) store(sums + m * kSumsStride + 16 * n, acc[m][n]);
  }
}

template <int N>
void tile_rows_bf16(int64_t rows, float* sums, const char* x, const Chunk& w, bool resume) {
  switch (rows) {
    case 1: return tile_bf16<1, N>(sums, x, w, resume);
    case 2: return tile_bf16<2, N>(sums, x, w, resume);
    case 3: return tile_bf16<3, N>(sums, x, w, resume);
    case 4: return tile_bf16<4, N>(sums, x, w, resume);
    case 5: return tile_bf16<5, N>(sums, x, w, resume);
    default: return tile_bf16<6, N>(sums, x, w, resume);
  }
}

// A row alone, its bf16 one behind the other: the weights of a panel in the order of memory, asked for before they are wanted.
template <class Ahead>
void row_bf16(float* sums, const char* x, const char* lines, int64_t inputs, bool resume) {
  V sum = resume ? load(sums) : splat(0.0f);
  for (int64_t j = 0; j < inputs; j += 2, lines += 64) {
    ask<Ahead, 2>(lines);
    int32_t pair;
    memcpy(&pair, x + 2 * j, 4);
    sum = dot2_bf16(sum, load_i(lines), splat_i(pair));
  }
  store(sums, sum);
}

void group_one_bf16(float* sums, const Rows& x, const Weight& w, int64_t first, int64_t count, char* scratch) {
  const int64_t most = w.layout == Layout::panels ? x.D : kBf16Inputs;
  const auto row = asks_far_ahead() ? row_bf16<Far> : row_bf16<Near>;
  for (int64_t n = 0; n < count; ++n, sums += 16) {
    for (int64_t j0 = 0; j0 < x.D; j0 += most) {
      const Chunk chunk = chunk_of(w, first + n, 1, j0, least(most, x.D - j0), scratch);
      row(sums, static_cast<const char*>(x.data) + 2 * j0, chunk.at, chunk.len, j0 > 0);
    }
  }
}

void group_bf16(float* sums, const Rows& x, const Weight& w, int64_t first, int64_t count, char* scratch) {
  if (x.count == 1) return group_one_bf16(sums, x, w, first, count, scratch);
  const size_t block = size_t(packed_inputs(x.D)) * 32;  // bytes of sixteen packed rows
  for_passes(x.count, count, kTilePanels, x.D, kBf16Inputs, [&](const Pass& now, const Pass& next) {
    const auto [n, panels, j0, len] = now;
    const Chunk chunk = chunk_of(w, first + n, panels, j0, len, scratch);
    Coming coming(x, kTileRows, w, chunk, now, next);
    for (int64_t t = 0, rows = 0; t < x.count; t += rows) {
      rows = least(least(kTileRows, x.count - t), 16 - t % 16);
      if (x.count > kFew) coming.ask();  // of few tiles each would ask for more than is taken up at once
      const char* from = static_cast<const char*>(x.data) + size_t(t / 16) * block + 32 * j0 + 64 * (t % 16);
      float* to = sums + t * kSumsStride + 16 * n;
      if (panels == kTilePanels) {
        tile_rows_bf16<kTilePanels>(rows, to, from, chunk, j0 > 0);
      } else {
        for (int64_t i = 0; i < panels; ++i) tile_rows_bf16<1>(rows, to + 16 * i, from, {chunk.at + size_t(i) * chunk.stride, chunk.stride, len}, j0 > 0);
      }
    }
  });
}
#endif

Packing packing(Type weights, Precision precision, Phase phase) {
  if (precision == Precision::float32) return kPackNone;
  if (BG_DPBF16 && weights == Type::bf16) return kPackBf16;
  if (BG_AMX && (weights == Type::bf16 || (quantised(weights) && phase == Phase::prompt))) return kPackBf16;
  if (BG_INT8 && weights == Type::q8_0) return kPackQ8;
  if (BG_INT8 && (weights == Type::q4_k || weights == Type::q6_k)) return kPackQ8K;
  return kPackNone;
}

size_t packed_stride(Packing p, int64_t D) {
  if (p == kPackBf16) return size_t(packed_inputs(D)) * 2;
#if BG_INT8
  if (p != kPackNone) return packed_row_bytes(p, D);
#endif
  return 0;
}

void pack(Packing p, void* to, const Unpacked& x, int64_t D) {
#if BG_INT8
  if (p == kPackQ8) return pack_q8(to, x, D);
  if (p == kPackQ8K) return pack_q8k(to, x, D);
#endif
#if BG_AMX || BG_DPBF16
  if (p == kPackBf16) return pack_bf16(to, x, D);
#endif
  (void)p, (void)to, (void)x, (void)D;  // kPackNone: nothing to do
}

void pack_one(Packing p, void* to, const float* x, int64_t D) {
#if BG_INT8
  if (p == kPackQ8) return pack_one_q8(to, x, D);
  if (p == kPackQ8K) return pack_one_q8k(to, x, D);
#endif
#if BG_DPBF16
  if (p == kPackBf16) {
    for (int64_t j = 0; j < packed_inputs(D); j += 32) pack_bf16_32(static_cast<char*>(to) + 2 * j, x, j, D);
    return;
  }
#endif
  pack(p, to, {x, D, 0, 1}, D);
}

void group(float* sums, const Rows& x, Packing p, const Weight& w, int64_t first, int64_t count, char* scratch) {
#if BG_AMX
  if (p == kPackBf16) return group_amx(sums, x, w, first, count, scratch);
#endif
#if BG_DPBF16
  if (p == kPackBf16) return group_bf16(sums, x, w, first, count, scratch);
#endif
#if BG_INT8
  if (p != kPackNone) return group_int8(sums, x, w, first, count, scratch);
#endif
  (void)p;
  group_float(sums, x, w, first, count, scratch);
}

}  // namespace

const LinearIsa linear = {packing, packed_stride, pack, pack_one, group};

}  // namespace bg::cpu::BG_ISA
