// Weights in panels: the order in which the CPU kernels read a matrix (N, D). Sixteen rows ("lanes" r) side by side are one panel; in it the inputs j follow
// one another, so a kernel that keeps sixteen outputs in a vector reads straight ahead. Rows after the last and inputs after the last are zeros.
// The numbers are those of the public block layouts (kernels/blocks.h), moved: nothing is rounded, and nearly nothing is added.
//
//   type   bytes of a panel     content, in 64-byte lines
//   F32    D·64                 line j: w_rj
//   F16    ⌈D/2⌉·64             line j/2: sixteen halves of input j, then sixteen of j + 1
//   BF16   ⌈D/32⌉·1024          line j/2: lane r is the pair (w_r,j, w_r,j+1)         (a tile of AMX is 16 such lines)
//   Q8_0   ⌈D/64⌉·1088          per 64 inputs: lines i = 0 … 15: lane r is q + 128 of inputs 4i … 4i + 3; one line: 16 scales d (f16) of inputs 0 … 31, 16 of 32 … 63
//   Q4_K   D/256·2304           per 256 inputs: one line: 16 d, 16 dmin (f16); three lines: lane r is bytes 0 … 3, 4 … 7, 8 … 11 of `scales`;
//                               lines 8c + i: lane r is bytes 4i … 4i + 3 of 32-byte chunk c of q
//   Q6_K   D/256·3392           per 256 inputs: one line: 16 d (f16), 32 bytes unused; four lines: lane r is s_4i … s_4i+3;
//                               lines 8c + i, c = 0 … 3: low half of a byte: low four bits of q of input 64c + 4i + byte, high half: of 64c + 32 + 4i + byte;
//                               lines 8h + i, h = 0, 1: bits 2k, 2k + 1 of a byte: high two bits of q of input 128h + 32k + 4i + byte
// Not here: the kernels (kernels/cpu/linear.isa.cpp).
#pragma once
#include "kernels/ops.h"

namespace bg {

constexpr int64_t kPanelRows = 16;

constexpr size_t panel_bytes(Type t, int64_t cols) {
  const size_t D = size_t(cols);
  switch (t) {
    case Type::f32: return D * 64;
    case Type::f16: return (D + 1) / 2 * 64;
    case Type::bf16: return (D + 31) / 32 * 1024;
    case Type::q8_0: return (D + 63) / 64 * 1088;
    case Type::q4_k: return D / 256 * 2304;
    case Type::q6_k: return D / 256 * 3392;
    default: return 0;
  }
}
constexpr int64_t panels_of(int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }
// Where input j0 of a panel begins, j0 a multiple of 256.
constexpr size_t panel_offset(Type t, int64_t j0) { return panel_bytes(t, j0); }
// Bytes of a matrix as it is stored.
constexpr size_t weight_bytes(Type t, int64_t rows, int64_t cols, Layout layout) {
  return layout == Layout::panels ? size_t(panels_of(rows)) * panel_bytes(t, cols) : size_t(rows) * stored_bytes(t, cols);
}

// Panels [first, last) of the matrix w, which is in rows; `to` is where panel `first` goes, 64-byte aligned.
void pack_panels(void* to, const Weight& w, int64_t first, int64_t last);
// Inputs [j0, j0 + len) of one panel of a matrix in rows, panel_bytes(type, len) bytes: j0 a multiple of 256, len too where more inputs follow.
void pack_piece(void* to, const Weight& w, int64_t panel, int64_t j0, int64_t len);
// The way back: row n of a matrix in panels as the public layout has it, stored_bytes(type, cols) bytes.
void unpack_row(void* to, const Weight& w, int64_t n);
// y_j = w_nj as float, in either layout.
void read_row(float* y, const Weight& w, int64_t n);

}  // namespace bg
