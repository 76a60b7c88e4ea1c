// See panels.h. Plain loops over moves of four bytes: some GB/s on one thread.
#include "kernels/panels.h"

#include <algorithm>
#include <cstring>

#include "kernels/blocks.h"

namespace bg {
namespace {

// Where value (or byte) things of row lane r lie. Each function moves one row of a panel in or out: Move(panel bytes, row bytes, count).
enum class Way { in, out };

template <Way way>
void move(char* panel, char* row, size_t n) {
  if constexpr (way == Way::in)
    std::memcpy(panel, row, n);
  else
    std::memcpy(row, panel, n);
}

uint32_t four(const char* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
void put_four(char* p, uint32_t v) { std::memcpy(p, &v, 4); }

// element e of a row ↔ its place in the panel
template <Way way>
void move_row(char* panel, char* row, Type type, int64_t D, int64_t r) {
  switch (type) {
    case Type::f32:
      for (int64_t j = 0; j < D; ++j) move<way>(panel + 64 * j + 4 * r, row + 4 * j, 4);
      return;
    case Type::f16:
      for (int64_t j = 0; j < D; ++j) move<way>(panel + 32 * j + 2 * r, row + 2 * j, 2);
      return;
    case Type::bf16:
      for (int64_t j = 0; j + 2 <= D; j += 2) move<way>(panel + 32 * j + 4 * r, row + 2 * j, 4);
      if (D % 2 == 1) move<way>(panel + 32 * (D - 1) + 4 * r, row + 2 * (D - 1), 2);
      return;
    case Type::q8_0:
      for (int64_t b = 0; b < D / 32; ++b) {
        char *group = panel + 1088 * (b / 2), *block = row + 34 * b;
        move<way>(group + 1024 + 32 * (b % 2) + 2 * r, block, 2);
        for (int64_t i = 0; i < 8; ++i) {
          char *at = group + 64 * (8 * (b % 2) + i) + 4 * r, *q = block + 2 + 4 * i;
          if constexpr (way == Way::in)
            put_four(at, four(q) ^ 0x80808080);
          else
            put_four(q, four(at) ^ 0x80808080);
        }
      }
      return;
    case Type::q4_k:
      for (int64_t b = 0; b < D / 256; ++b) {
        char *group = panel + 2304 * b, *block = row + 144 * b;
        move<way>(group + 2 * r, block, 2);
        move<way>(group + 32 + 2 * r, block + 2, 2);
        for (int64_t i = 0; i < 3; ++i) move<way>(group + 64 + 64 * i + 4 * r, block + 4 + 4 * i, 4);
        for (int64_t i = 0; i < 32; ++i) move<way>(group + 256 + 64 * i + 4 * r, block + 16 + 4 * i, 4);
      }
      return;
    case Type::q6_k:
      for (int64_t b = 0; b < D / 256; ++b) {
        char *group = panel + 3392 * b, *low = group + 320, *high = low + 2048;
        auto* block = reinterpret_cast<uint8_t*>(row + 210 * b);
        move<way>(group + 2 * r, reinterpret_cast<char*>(block) + 208, 2);
        for (int64_t i = 0; i < 4; ++i) move<way>(group + 64 + 64 * i + 4 * r, reinterpret_cast<char*>(block) + 192 + 4 * i, 4);
        // The two high bits lie as in a block. The low ones: there a nibble pair is the inputs 64 apart, here 32.
        constexpr uint32_t lower = 0x0f0f0f0f, upper = 0xf0f0f0f0;
        for (int64_t i = 0; i < 16; ++i) move<way>(high + 64 * i + 4 * r, reinterpret_cast<char*>(block) + 128 + 4 * i, 4);
        for (int64_t half = 0; half < 2; ++half) {
          for (int64_t i = 0; i < 8; ++i) {
            char *even = low + 64 * (16 * half + i) + 4 * r, *odd = even + 64 * 8;
            char *first = reinterpret_cast<char*>(block) + 64 * half + 4 * i, *second = first + 32;
            if constexpr (way == Way::in) {
              const uint32_t f = four(first), s = four(second);
              put_four(even, (f & lower) | (s & lower) << 4);
              put_four(odd, (f >> 4 & lower) | (s & upper));
            } else {
              const uint32_t e = four(even), o = four(odd);
              put_four(first, (e & lower) | (o & lower) << 4);
              put_four(second, (e >> 4 & lower) | (o & upper));
            }
          }
        }
      }
      return;
    default: return;
  }
}

}  // namespace

void pack_piece(void* to, const Weight& w, int64_t panel, int64_t j0, int64_t len) {
  const size_t bytes = panel_bytes(w.type, len), row = stored_bytes(w.type, w.cols);
  char* at = static_cast<char*>(to);
  const int64_t first = panel * kPanelRows, rows = std::min(kPanelRows, w.rows - first);
  if (rows < kPanelRows || len % 64 != 0) {
    std::memset(at, 0, bytes);
    if (w.type == Type::q8_0)  // q + 128 of a q of 0
      for (size_t group = 0; group < bytes; group += 1088) std::memset(at + group, 0x80, 1024);
  }
  if (w.type == Type::q6_k)  // the unused bytes
    for (size_t group = 0; group < bytes; group += 3392) std::memset(at + group + 32, 0, 32);
  char* from = const_cast<char*>(static_cast<const char*>(w.data)) + size_t(first) * row + stored_bytes(w.type, j0);
  // Some inputs of all rows at a time: what they become stays in the nearest cache until every lane is filled.
  constexpr int64_t kStep = 256;  // whole blocks and groups of every type
  const size_t step = stored_bytes(w.type, kStep);
  for (int64_t j = 0; j < len; j += kStep) {
    for (int64_t r = 0; r < rows; ++r) {
      char* here = from + size_t(r) * row + stored_bytes(w.type, j);
      for (size_t b = 0; b < step; b += 64) __builtin_prefetch(here + step + b);  // sixteen short streams are too many for the machine to foresee
      move_row<Way::in>(at + panel_offset(w.type, j), here, w.type, std::min(kStep, len - j), r);
    }
  }
}

void pack_panels(void* to, const Weight& w, int64_t first, int64_t last) {
  for (int64_t p = first; p < last; ++p) pack_piece(static_cast<char*>(to) + size_t(p - first) * panel_bytes(w.type, w.cols), w, p, 0, w.cols);
}

void unpack_row(void* to, const Weight& w, int64_t n) {
  char* panel = const_cast<char*>(static_cast<const char*>(w.data)) + size_t(n / kPanelRows) * panel_bytes(w.type, w.cols);
  move_row<Way::out>(panel, static_cast<char*>(to), w.type, w.cols, n % kPanelRows);
}

void read_row(float* y, const Weight& w, int64_t n) {
  const size_t bytes = stored_bytes(w.type, w.cols);
  const char* row = static_cast<const char*>(w.data) + size_t(n) * bytes;
  // A panel's row comes out a piece at a time: whole blocks of every type.
  constexpr int64_t kPiece = 256;
  alignas(8) char piece[kPiece * 4];
  for (int64_t j = 0; j < w.cols; j += kPiece) {
    const int64_t len = std::min(kPiece, w.cols - j);
    const char* from = row + stored_bytes(w.type, j);
    if (w.layout == Layout::panels) {
      char* panel = const_cast<char*>(static_cast<const char*>(w.data)) + size_t(n / kPanelRows) * panel_bytes(w.type, w.cols) + panel_offset(w.type, j);
      move_row<Way::out>(panel, piece, w.type, len, n % kPanelRows);
      from = piece;
    }
    switch (w.type) {
      case Type::f32: std::memcpy(y + j, from, size_t(len) * 4); break;
      case Type::f16:
      case Type::bf16:
        for (int64_t i = 0; i < len; ++i) {
          uint16_t h;
          std::memcpy(&h, from + 2 * i, 2);
          y[j + i] = w.type == Type::bf16 ? bf16_to_float(h) : f16_to_float(h);
        }
        break;
      case Type::q8_0: floats_of_q8_0(y + j, reinterpret_cast<const BlockQ8_0*>(from), len); break;
      case Type::q4_k: floats_of_q4_k(y + j, reinterpret_cast<const BlockQ4_K*>(from), len); break;
      case Type::q6_k: floats_of_q6_k(y + j, reinterpret_cast<const BlockQ6_K*>(from), len); break;
      default: break;
    }
  }
}

}  // namespace bg
