// Products on AMX tiles of 16 rows × 16 outputs.
//   BF16     one tdpbf16ps takes 32 inputs: for each output the products of even inputs make one chain, those of odd inputs another, both from 0 by fused
//            multiply-adds; their sum is added to y. Always 32 inputs from a multiple of 32 on: nothing depends on tiles, chunks or the number of rows.
//   Q8_0, Q4_K, Q6_K: their values to the nearest bf16, a chunk of two panels at a time in scratch, then the same. Integer tiles were slower: the sums of each
//            32 inputs must leave the tile to be scaled (PERFORMANCE.md).
// Tiles of two row blocks and two panels share their loads: four products for four loads. Rows are loaded past the first cache, which keeps the panels' chunk.
#include "kernels/cpu/simd.h"

#if BG_AMX
#include "kernels/cpu/linear_parts.h"

namespace bg::cpu::BG_ISA {
namespace {

struct __attribute__((packed)) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};  // of a row
  uint8_t rows[16] = {};
};

BG_INLINE void configure(const TileConfig& c) {
  asm volatile("" : : "r"(&c) : "memory");  // gcc 12 takes the stores into c for dead
  _tile_loadconfig(&c);
}

// ---- BF16 -------------------------------------------------------------------------------------------------------------------------------

constexpr int64_t kInputs = 32;  // of one tile
constexpr size_t kSumsBytesStride = size_t(kSumsStride) * sizeof(float);

// What will be wanted next, brought into the second cache a few lines a step.
struct Ahead {
  const char* at;
  int lines;  // a step
};

// Tiles 0 … 3: sums of (row block 0, 1) × (panel 0, 1); 4, 5: rows; 6, 7: panels. rows, panels ≤ 2.
template <int rows, int panels>
BG_INLINE void tiles(float* sums, const char* x, size_t x_below, const Chunk& w, bool resume, Ahead ahead) {
  const int64_t below = 16 * kSumsStride;
  if (resume) {
    _tile_loadd(0, sums, kSumsBytesStride);
    if (panels > 1) _tile_loadd(1, sums + 16, kSumsBytesStride);
    if (rows > 1) _tile_loadd(2, sums + below, kSumsBytesStride);
    if (rows > 1 && panels > 1) _tile_loadd(3, sums + below + 16, kSumsBytesStride);
  } else {
    _tile_zero(0);
    if (panels > 1) _tile_zero(1);
    if (rows > 1) _tile_zero(2);
    if (rows > 1 && panels > 1) _tile_zero(3);
  }
  const int64_t steps = (w.len + kInputs - 1) / kInputs;
  for (int64_t i = 0; i < steps; ++i) {
    _tile_stream_loadd(4, x + 1024 * i, 64);
    _tile_loadd(6, w.at + 1024 * i, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (panels > 1) {
      _tile_loadd(7, w.at + w.stride + 1024 * i, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (rows > 1) {
      _tile_stream_loadd(5, x + x_below + 1024 * i, 64);
      _tile_dpbf16ps(2, 5, 6);
      if (panels > 1) _tile_dpbf16ps(3, 5, 7);
    }
    for (int l = 0; l < ahead.lines; ++l, ahead.at += 64) _mm_prefetch(ahead.at, _MM_HINT_T1);
  }
  _tile_stored(0, sums, kSumsBytesStride);
  if (panels > 1) _tile_stored(1, sums + 16, kSumsBytesStride);
  if (rows > 1) _tile_stored(2, sums + below, kSumsBytesStride);
  if (rows > 1 && panels > 1) _tile_stored(3, sums + below + 16, kSumsBytesStride);
}

}  // namespace

namespace {

constexpr size_t kBf16Chunk = size_t(kBf16Inputs) * 32;  // of one panel
static_assert(2 * kBf16Chunk + kSpread + 2 * size_t(kBf16Inputs) / 256 * 16 * 1024 <= kLinearScratch);

// Lines of pairs from two vectors of floats.
BG_INLINE void store_pairs(char* line, V even, V odd) {
  alignas(64) static const uint16_t kOrder[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512bh halves = _mm512_cvtne2ps_pbh(odd, even);
  I bits;
  memcpy(&bits, &halves, 64);
  store_i(line, _mm512_permutexvar_epi16(load_i(kOrder), bits));
}

// w = scale·code + offset for the four inputs of each byte of 64-byte lines; fused, so that it rounds once, as blocks.h does.
BG_INLINE void bf16_of_codes(char* to, const char* codes, int lines, V scale, V offset) {
  const I byte = splat_i(255);
  for (int i = 0; i < lines; ++i) {
    const I q = load_i(codes + 64 * i);
    store_pairs(to + 128 * i, madd(scale, to_float(and_i(q, byte)), offset), madd(scale, to_float(and_i(shr<8>(q), byte)), offset));
    store_pairs(to + 128 * i + 64, madd(scale, to_float(and_i(shr<16>(q), byte)), offset), madd(scale, to_float(shr<24>(q)), offset));
  }
}

// A chunk of one panel. spread: kSpread bytes.
void bf16_of(char* to, char* spread, Type type, const char* from, int64_t len) {
  const auto* scales = reinterpret_cast<const float*>(spread + kSpreadCodes);
  if (type == Type::q8_0) {
    memset(to + 32 * len, 0, size_t(len % 64) * 32);  // half a group at the end of a row: the tiles take all of it
    for (int64_t b = 0; 32 * b < len; ++b) {
      const V scale = load(reinterpret_cast<const F16*>(from + 1088 * (b / 2) + 1024 + 32 * (b % 2)));
      bf16_of_codes(to + 1024 * b, from + 1088 * (b / 2) + 512 * (b % 2), 8, scale, mul(scale, splat(-128.0f)));
    }
  } else if (type == Type::q4_k) {
    spread_q4_k(spread, from, len);
    for (int64_t b = 0; 32 * b < len; ++b) {
      const char* mins = spread + kSpreadCodes + kSpreadScales + 320 * (b / 8);
      const I pair = load_i(mins + 64 * (b % 8 / 2)), m = b % 2 == 0 ? and_i(pair, splat_i(0xffff)) : shr<16>(pair);
      bf16_of_codes(to + 1024 * b, spread + 512 * b, 8, load(scales + 16 * b), mul(load(reinterpret_cast<const float*>(mins + 256)), to_float(m)));
    }
  } else {
    spread_q6_k(spread, from, len);
    for (int64_t b = 0; 16 * b < len; ++b) {
      const V scale = load(scales + 16 * b);
      bf16_of_codes(to + 512 * b, spread + 256 * b, 4, scale, mul(scale, splat(-32.0f)));
    }
  }
}

}  // namespace

void group_amx(float* sums, const Rows& x, const Weight& w, int64_t first, int64_t count, char* scratch) {
  TileConfig config;
  const auto of_x = uint8_t(least(16, x.count));
  for (int i = 0; i < 8; ++i) config.bytes[i] = 64, config.rows[i] = i < 6 ? of_x : 16;
  configure(config);
  const size_t block = size_t(packed_inputs(x.D)) * 32;  // bytes of sixteen packed rows
  const int64_t pairs = (x.count + 31) / 32;
  const bool few = x.count <= kFew;  // one panel after the other then, as they lie in memory
  for_passes(x.count, count, few ? 1 : 2, x.D, kBf16Inputs, [&](const Pass& now, const Pass&) {
    const auto [n, panels, j0, len] = now;
    Chunk chunk = chunk_of(w, first + n, panels, j0, len, scratch + 2 * kBf16Chunk + kSpread);
    const Chunk stored = chunk;
    if (w.type != Type::bf16) {
      for (int64_t i = 0; i < panels; ++i) bf16_of(scratch + size_t(i) * kBf16Chunk, scratch + 2 * kBf16Chunk, w.type, chunk.at + size_t(i) * chunk.stride, len);
      chunk = {scratch, kBf16Chunk, len};
    }
    const char* from = static_cast<const char*>(x.data) + 32 * j0;
    // Comes next: the chunk of the next panels, or of the first panels the next inputs. Each pair of row blocks fetches its part of it.
    const bool fetch = w.layout == Layout::panels && !few;
    const size_t bytes = chunk_bytes(w.type, len);
    const char* next = n + 2 < count ? stored.at + 2 * stored.stride : stored.at - size_t(n) * stored.stride + bytes;
    const int64_t steps = (len + kInputs - 1) / kInputs, of_panel = int64_t(bytes / 64);
    Ahead ahead = {next, fetch ? int((2 * of_panel + pairs * steps - 1) / (pairs * steps)) : 0};
    if (few) {  // what is read 1 KiB on
      tiles<1, 1>(sums + 16 * n, from, block, chunk, j0 > 0, {chunk.at + 1024, w.type == Type::bf16 ? 16 : 0});
      return;
    }
    for (int64_t t = 0; t < x.count; t += 32) {
      float* to = sums + t * kSumsStride + 16 * n;
      const char* rows = from + size_t(t / 16) * block;
      const int64_t done = t / 32 * ahead.lines * steps;
      ahead.at = done < of_panel ? next + 64 * done : next + stored.stride + 64 * (done - of_panel);
      if (x.count - t > 16) {
        if (panels == 2)
          tiles<2, 2>(to, rows, block, chunk, j0 > 0, ahead);
        else
          tiles<2, 1>(to, rows, block, chunk, j0 > 0, ahead);
      } else {
        if (panels == 2)
          tiles<1, 2>(to, rows, block, chunk, j0 > 0, ahead);
        else
          tiles<1, 1>(to, rows, block, chunk, j0 > 0, ahead);
      }
    }
  });
  _tile_release();
}

}  // namespace bg::cpu::BG_ISA
#endif
