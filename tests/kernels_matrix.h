// A weight matrix in both layouts, and its values: for tests of products.
#pragma once
#include <vector>

#include "kernels/blocks.h"
#include "kernels/panels.h"
#include "tests/kernels_support.h"
#include "weights_convert/elements.h"
#include "weights_convert/quantise.h"

namespace kernels_test {

struct Matrix {
  Type type;
  int64_t rows, cols;
  std::vector<uint16_t> room;  // the matrix lies at an address that is a multiple of 2 and of nothing more
  std::vector<char> panels;
  std::vector<float> values;

  // Random values, rounded to the type.
  Matrix(Type type_, int64_t rows_, int64_t cols_) : Matrix(type_, rows_, cols_, [](Matrix& m) {
    std::vector<float> x(size_t(m.rows * m.cols));
    for (float& v : x) v = normal();
    if (bg::is_quantised(m.type))
      bg::quantise(m.bytes(), m.type, x.data(), m.rows * m.cols);
    else
      bg::convert_elements(m.bytes(), m.type, x.data(), Type::f32, m.rows * m.cols);
  }) {}

  Matrix(Matrix&&) = default;  // a copy's panels would lie at another alignment

  // Blocks of any codes, and scales that are numbers around 2^−10.
  static Matrix of_any_codes(Type type, int64_t rows, int64_t cols) {
    return Matrix(type, rows, cols, [](Matrix& m) {
      for (uint16_t& b : m.room) b = uint16_t(rng()());
      const size_t block = bg::block_bytes(m.type) / 2;
      for (size_t at = 0; at + block < m.room.size(); at += block) {
        uint16_t* const d = m.bytes() + at + (m.type == Type::q6_k ? block - 1 : 0);
        d[0] = uint16_t(0x1400 + rng()() % 1024);
        if (m.type == Type::q4_k) d[1] = uint16_t(0x1400 + rng()() % 1024);
      }
    });
  }

  // Every code the same, `code` as a stored byte, and scales of 1 (times 127 or 63).
  static Matrix of_code(Type type, int64_t rows, int64_t cols, unsigned char code) {
    return Matrix(type, rows, cols, [code](Matrix& m) {
      auto* const byte = reinterpret_cast<unsigned char*>(m.bytes());
      const size_t all = bg::stored_bytes(m.type, m.rows * m.cols);
      std::fill(byte, byte + all, code);
      const uint16_t one = 0x3c00;
      for (unsigned char* b = byte; b < byte + all; b += bg::block_bytes(m.type)) {
        if (m.type == Type::q6_k) std::fill(b + 192, b + 208, static_cast<unsigned char>(127));
        if (m.type == Type::q4_k) std::fill(b + 4, b + 16, static_cast<unsigned char>(255));
        std::memcpy(m.type == Type::q6_k ? b + 208 : b, &one, 2);
        if (m.type == Type::q4_k) std::memcpy(b + 2, &one, 2);
      }
    });
  }

  uint16_t* bytes() { return room.data() + 1; }
  const uint16_t* bytes() const { return room.data() + 1; }
  char* aligned() { return panels.data() + (64 - reinterpret_cast<uintptr_t>(panels.data()) % 64) % 64; }
  Weight in_rows() const { return {bytes(), type, rows, cols}; }
  Weight in_panels() { return of_panels(0, rows); }
  // Outputs [first, first + count), first a multiple of 16.
  Weight of_panels(int64_t first, int64_t count) { return {aligned() + size_t(first / bg::kPanelRows) * bg::panel_bytes(type, cols), type, count, cols, Layout::panels}; }
  double value(int64_t n, int64_t j) const { return values[size_t(n * cols + j)]; }
  Mat<float> wide() const {
    Mat<float> w(rows, cols, 0);
    for (int64_t n = 0; n < rows; ++n) std::copy_n(values.data() + n * cols, cols, &w.at(n, 0));
    return w;
  }
  // Values and panels of what bytes() are now.
  void pack() {
    for (int64_t n = 0; n < rows; ++n) bg::read_row(values.data() + n * cols, in_rows(), n);
    bg::pack_panels(aligned(), in_rows(), 0, bg::panels_of(rows));
  }
  // |w| as the bound of Q4_K counts it: both terms of the difference.
  double terms(int64_t n, int64_t j) const {
    if (type != Type::q4_k) return std::fabs(value(n, j));
    const auto* block = reinterpret_cast<const bg::BlockQ4_K*>(bytes()) + (n * cols + j) / 256;
    int s, m;
    bg::q4_k_scale(block->scales, int(j % 256 / 32), &s, &m);
    const double min = bg::f16_to_float(block->dmin) * double(m);
    return std::fabs(value(n, j) + min) + std::fabs(min);
  }

 private:
  using Layout = bg::Layout;
  template <class Fill>
  Matrix(Type type_, int64_t rows_, int64_t cols_, const Fill& fill)
      : type(type_), rows(rows_), cols(cols_), room(bg::stored_bytes(type, rows * cols) / 2 + 1), panels(bg::weight_bytes(type, rows, cols, Layout::panels) + 64),
        values(size_t(rows * cols)) {
    fill(*this);
    pack();
  }
};

}  // namespace kernels_test
