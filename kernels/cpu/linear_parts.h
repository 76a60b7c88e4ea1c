// What the files of the matrix product share, inside one instruction set. Included after simd.h by linear*.isa.cpp only.
#pragma once
#include "kernels/cpu/linear.h"

namespace bg::cpu {
// kernels/panels.h, without its inline functions
size_t chunk_bytes(Type t, int64_t inputs);
void chunk_of_rows(void* to, const Weight& w, int64_t panel, int64_t j0, int64_t len);
}  // namespace bg::cpu

namespace bg::cpu::BG_ISA {

constexpr int64_t kFew = 16;  // up to this many rows, a panel is read from end to end; with more, a chunk of all panels of the group, then the next chunk

BG_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Where a pass finds its weights: panels `stride` bytes apart, from the first of `len` inputs on.
struct Chunk {
  const char* at;
  size_t stride;
  int64_t len;
};

// The chunk [j0, j0 + len) of `count` panels from `panel` on: where it lies, or, of a matrix in rows, packed into scratch.
BG_INLINE Chunk chunk_of(const Weight& w, int64_t panel, int64_t count, int64_t j0, int64_t len, char* scratch) {
  if (w.layout == Layout::panels) {
    const size_t whole = chunk_bytes(w.type, w.cols);
    return {static_cast<const char*>(w.data) + size_t(panel) * whole + chunk_bytes(w.type, j0), whole, len};
  }
  const size_t bytes = chunk_bytes(w.type, len);
  for (int64_t n = 0; n < count; ++n) chunk_of_rows(scratch + size_t(n) * bytes, w, panel + n, j0, len);
  return {scratch, bytes, len};
}

// Inputs of one pass over a group, whole blocks of every type: the chunk of x that all rows read (rows × inputs) stays in the second cache.
constexpr int64_t kFloatInputs = 512, kInt8Inputs = BG_AVX512 ? 512 : 1024, kBf16Inputs = BG_AMX ? 512 : 256;

// How far ahead weights are asked for, and of which cache. Near: where the hardware follows a stream by itself (AMD's Zen 4 reads 1.1 to 1.3 times as fast where the second cache is
// asked). Far: a row alone on Zen 5, which reads 40 GB/s and waits 0.1 µs for memory; Q4_K and Q6_K of the first cache there, BF16 and Q8_0 of the second (PERFORMANCE.md).
struct Near {
  static constexpr int64_t bytes = 1024;
  static constexpr int cache = BG_DPBF16 ? 2 : 1;
};
struct Far {
  static constexpr int64_t bytes = 6912;
  static constexpr int cache = 1;
};
template <class Ahead, int cache = Ahead::cache>
BG_INLINE void ask(const char* line) { __builtin_prefetch(line + Ahead::bytes, 0, cache == 1 ? 3 : 2); }

// Panels [n, n + panels) of a group, inputs [j0, j0 + len).
struct Pass {
  int64_t n, panels, j0, len;
};

// body(now, next) for every pass over `count` panels, `together` at a time, and D inputs, `inputs` at a time. next: without panels after the last.
template <class Body>
BG_INLINE void for_passes(int64_t rows, int64_t count, int64_t together, int64_t D, int64_t inputs, const Body& body) {
  const int64_t across = (count + together - 1) / together, along = (D + inputs - 1) / inputs;
  const auto pass = [&](int64_t i) -> Pass {
    if (i == across * along) return {};
    const int64_t n = (rows <= kFew ? i / along : i % across) * together, j0 = (rows <= kFew ? i % along : i / across) * inputs;
    return {n, least(together, count - n), j0, least(inputs, D - j0)};
  };
  Pass now = pass(0);
  for (int64_t i = 1; i <= across * along; ++i) {
    const Pass next = pass(i);
    body(now, next);
    now = next;
  }
}

// The weights of the next pass, asked of the second cache alike with every tile of this one: whoever reads them first would wait for each line.
class Coming {
 public:
  // chunk: this pass's. Of sixteen rows of x, tiles have tile_rows and the last what is left.
  Coming(const Rows& x, int64_t tile_rows, const Weight& w, const Chunk& chunk, const Pass& now, const Pass& next)
      : at_(chunk.at + (next.n - now.n) * int64_t(chunk.stride) + int64_t(chunk_bytes(w.type, next.j0)) - int64_t(chunk_bytes(w.type, now.j0))), stride_(chunk.stride), panels_(next.panels),
        lines_(w.layout == Layout::panels ? int64_t(chunk_bytes(w.type, next.len) / 64) : 0) {
    const int64_t tiles = (x.count + 15) / 16 * ((15 + tile_rows) / tile_rows);
    each_ = (lines_ + tiles - 1) / tiles;
  }
  void ask() {
    for (const int64_t end = least(lines_, done_ + each_); done_ < end; ++done_) {
      for (int64_t i = 0; i < panels_; ++i) __builtin_prefetch(at_ + size_t(i) * stride_ + 64 * done_, 0, 2);
    }
  }

 private:
  const char* at_;
  size_t stride_;               // bytes from one panel to the next
  int64_t panels_, lines_;      // of each panel
  int64_t each_, done_ = 0;     // lines of each panel: with one tile; so far
};

BG_INLINE bool quantised(Type t) { return t == Type::q8_0 || t == Type::q4_k || t == Type::q6_k; }

// Inputs of a packed row, zeros after the last: whole groups of a Q8_0 panel, whole tiles.
BG_INLINE int64_t packed_inputs(int64_t D) { return (D + 63) / 64 * 64; }

#if BG_INT8
// linear_int8_avx2.h, linear_int8_tiles.h
size_t packed_row_bytes(Packing p, int64_t D);
void pack_q8(void* to, const Unpacked& x, int64_t D);
void pack_q8k(void* to, const Unpacked& x, int64_t D);
void pack_one_q8(void* to, const float* x, int64_t D);
void pack_one_q8k(void* to, const float* x, int64_t D);
void group_int8(float* sums, const Rows& x, const Weight& w, int64_t first, int64_t count, char* scratch);

// A chunk of one panel of Q4_K or Q6_K, spread: 64-byte lines of four inputs, a byte each (Q6_K: codes 0 … 63); d·s_b as floats, a line for each b; and
// of Q4_K for each 256 inputs four lines of pairs (m_2b, m_2b+1) in 16 bits and one of −dmin as floats.
constexpr size_t kSpreadCodes = size_t(kInt8Inputs) * 16;
constexpr size_t kSpreadScales = size_t(kInt8Inputs) / 16 * 64;
constexpr size_t kSpreadMins = size_t(kInt8Inputs) / 256 * 320;
constexpr size_t kSpread = kSpreadCodes + kSpreadScales + kSpreadMins;
void spread_q4_k(char* to, const char* group, int64_t len);
void spread_q6_k(char* to, const char* group, int64_t len);
#endif
#if BG_AMX || BG_DPBF16
void pack_bf16(void* to, const Unpacked& x, int64_t D);
#endif
#if BG_AMX
void group_amx(float* sums, const Rows& x, const Weight& w, int64_t first, int64_t count, char* scratch);
#endif

}  // namespace bg::cpu::BG_ISA
