// Weights in panels (kernels/panels.h) as the A operand of tensor-core products, rounded rows as B, and the order in which they are added: the arithmetic of linear.h
// in one place. Lane (g = lane/4, p = lane%4) of a warp; rows g and g + 8 of the product are rows 2g and 2g + 1 of the panel, so that a lane's two rows lie side by
// side: eight bytes of each 64-byte line of a panel, and a warp reads four whole lines at a time.
// Which inputs of a step of 16 the k's of an mma are (p = 0 … 3):
//   k            2p    2p+1    2p+8    2p+9
//   BF16         2p    2p+1    2p+8    2p+9    (lines hold pairs: line p and line 4 + p of the step)
//   quantised    4p    4p+2    4p+1    4p+3    (lines hold quads: line p, whose even and odd bytes come apart without a permutation)
// Included by linear.cu and linear_large.cu.
#pragma once
#include "kernels/cuda/linear.h"

namespace bg::BG_CUDA {

// ---- B

// Of 32 inputs, the i-th of the eight that lane p holds.
template <bool kPairs>
__device__ constexpr int input_of(int p, int i) { return kPairs ? 8 * (i / 2) + 2 * p + i % 2 : 16 * (i / 4) + 4 * p + i % 4; }

// They, rounded: b0, b1 of the first 16 inputs, then of the second.
template <bool kPairs>
__device__ __forceinline__ uint4 round_eight(const float (&x)[8]) {
  if constexpr (kPairs)
    return make_uint4(simt::pack_bf16(x[0], x[1]), simt::pack_bf16(x[2], x[3]), simt::pack_bf16(x[4], x[5]), simt::pack_bf16(x[6], x[7]));
  else
    return make_uint4(simt::pack_bf16(x[0], x[2]), simt::pack_bf16(x[1], x[3]), simt::pack_bf16(x[4], x[6]), simt::pack_bf16(x[5], x[7]));
}

// Of 32 rounded inputs that four neighbouring lanes hold: each lane's own in this order, then lanes p + (p^1), then both pairs.
__device__ __forceinline__ float sum_of_32(const uint4& b) {
  float sum = simt::bf16_low(b.x) + simt::bf16_high(b.x);
  sum = (sum + simt::bf16_low(b.y)) + simt::bf16_high(b.y);
  sum = (sum + simt::bf16_low(b.z)) + simt::bf16_high(b.z);
  sum = (sum + simt::bf16_low(b.w)) + simt::bf16_high(b.w);
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  return sum + __shfl_xor_sync(0xffffffffu, sum, 2);
}
// That of block b of 256 inputs, into B of the product with the minima: k = 2p, 2p + 1 are the sums of blocks 2p, 2p + 1 rounded, k + 8 what is left of them.
// row: the 32 bytes of lanes 4g … 4g + 3.
__device__ __forceinline__ void store_sum(uint2* row, int b, float sum) {
  auto* const at = reinterpret_cast<uint16_t*>(row + b / 2) + b % 2;
  const uint32_t high = simt::pack_bf16(sum, 0);
  at[0] = uint16_t(high);
  at[2] = uint16_t(simt::pack_bf16(sum - simt::bf16_low(high), 0));
}

// ---- A

struct PanelBytes {  // of a panel in device memory
  const unsigned char* panel;
  __device__ __forceinline__ uint32_t four(size_t at) const { return simt::load_once_4(panel + at); }
  __device__ __forceinline__ uint2 eight(size_t at) const { return simt::load_once_8(panel + at); }
};

__device__ __forceinline__ float2 two_halves(uint32_t pair) { return make_float2(simt::f16_to_float(uint16_t(pair)), simt::f16_to_float(uint16_t(pair >> 16))); }

// Codes in bytes 0 and 2 of a word as bf16: 128 + code is 0x4300 | code.
__device__ __forceinline__ uint32_t codes_less(uint32_t codes, uint32_t offset) { return simt::sub_bf16x2(codes | 0x43004300u, offset); }
__device__ __forceinline__ uint32_t signed_codes(uint32_t v) {  // code + 128 in eight bits: 128 + its low seven, less 256 or 128
  return simt::sub_bf16x2((v & 0x007f007fu) | 0x43004300u, (~v & 0x00800080u) | 0x43004300u);
}

// A group of a panel in the registers of a warp. load: byte `at` of `from` is its first. fragments: A of the two steps of 16 in block b of 32.
// scale: of rows 2g and 2g + 1 in that block (Q6_K: in that step of it).
template <Type T>
struct Group;

template <>
struct Group<Type::bf16> {
  static constexpr int kInputs = 32, kBytes = 1024;
  uint2 line[4];

  template <class Bytes>
  __device__ __forceinline__ void load(const Bytes& from, size_t at, int lane) {
    at += size_t(64 * (lane % 4) + 8 * (lane / 4));
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) line[i] = from.eight(at + size_t(256 * i));
  }
  __device__ __forceinline__ void fragments(uint32_t (&a)[2][4], int) const {
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) a[i][0] = line[2 * i].x, a[i][1] = line[2 * i].y, a[i][2] = line[2 * i + 1].x, a[i][3] = line[2 * i + 1].y;
  }
};

template <>
struct Group<Type::q8_0> {
  static constexpr int kInputs = 64, kBytes = 1088;
  uint2 line[4];
  uint32_t d[2];

  template <class Bytes>
  __device__ __forceinline__ void load(const Bytes& from, size_t at, int lane) {
    const size_t codes = at + size_t(64 * (lane % 4) + 8 * (lane / 4)), scales = at + size_t(1024 + lane / 4 * 4);
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) line[i] = from.eight(codes + size_t(256 * i));
    SIMT_UNROLL
    for (int b = 0; b < 2; ++b) d[b] = from.four(scales + size_t(32 * b));
  }
  __device__ __forceinline__ void fragments(uint32_t (&a)[2][4], int b) const {
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const uint2 v = line[2 * b + i];
      a[i][0] = signed_codes(v.x), a[i][1] = signed_codes(v.y), a[i][2] = signed_codes(v.x >> 8), a[i][3] = signed_codes(v.y >> 8);
    }
  }
  __device__ __forceinline__ float2 scale(int b, int) const { return two_halves(d[b]); }
};

template <>
struct Group<Type::q4_k> {
  static constexpr int kInputs = 256, kBytes = 2304;
  uint2 line[8], scales[3];
  uint32_t d, dmin;

  template <class Bytes>
  __device__ __forceinline__ void load(const Bytes& from, size_t at, int lane) {
    const size_t row = size_t(lane / 4), codes = at + 256 + size_t(64 * (lane % 4)) + 8 * row;
    SIMT_UNROLL
    for (int i = 0; i < 8; ++i) line[i] = from.eight(codes + size_t(256 * i));
    d = from.four(at + 4 * row);
    dmin = from.four(at + 32 + 4 * row);
    SIMT_UNROLL
    for (int i = 0; i < 3; ++i) scales[i] = from.eight(at + size_t(64 + 64 * i) + 8 * row);
  }
  __device__ __forceinline__ void fragments(uint32_t (&a)[2][4], int b) const {
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const uint2 v = line[b / 2 * 2 + i];
      const int shift = b % 2 * 4;
      constexpr uint32_t mask = 0x000f000f, zero = 0x43004300;
      a[i][0] = codes_less(v.x >> shift & mask, zero), a[i][1] = codes_less(v.y >> shift & mask, zero);
      a[i][2] = codes_less(v.x >> (shift + 8) & mask, zero), a[i][3] = codes_less(v.y >> (shift + 8) & mask, zero);
    }
  }
  // Four of the eight s, or m, of a row, each in a byte: q4_k_scale of kernels/blocks.h, on bytes 0 … 3, 4 … 7, 8 … 11 of its `scales`.
  static __device__ __forceinline__ uint32_t factors(bool later, uint32_t first, uint32_t third) {
    return later ? (third & 0x0f0f0f0fu) | (first >> 2 & 0x30303030u) : first & 0x3f3f3f3fu;
  }
  // d·s, exact: (2^23 + s)·d − 2^23·d, rounded once.
  static __device__ __forceinline__ float times(float d, uint32_t s) { return fmaf(simt::float_of(0x4b000000u | s), d, -8388608.0f * d); }
  __device__ __forceinline__ float2 scale(int b, int) const {
    const float2 of = two_halves(d);
    const int shift = b % 4 * 8;
    return make_float2(times(of.x, factors(b >= 4, scales[0].x, scales[2].x) >> shift & 255), times(of.y, factors(b >= 4, scales[0].y, scales[2].y) >> shift & 255));
  }
  // A of the product with the sums: m of blocks 2p, 2p + 1, twice.
  __device__ __forceinline__ void minima(uint32_t (&a)[4], int lane) const {
    const int p = lane % 4, shift = p % 2 * 16;
    const uint32_t x = factors(p >= 2, scales[1].x, scales[2].x >> 4) >> shift, y = factors(p >= 2, scales[1].y, scales[2].y >> 4) >> shift;
    a[0] = a[2] = codes_less((x & 63) | (x << 8 & 0x003f0000u), 0x43004300u);
    a[1] = a[3] = codes_less((y & 63) | (y << 8 & 0x003f0000u), 0x43004300u);
  }
};

template <>
struct Group<Type::q6_k> {
  static constexpr int kInputs = 256, kBytes = 3392;
  uint2 low[8], high[4], scales[4];
  uint32_t d;

  template <class Bytes>
  __device__ __forceinline__ void load(const Bytes& from, size_t at, int lane) {
    const size_t row = size_t(lane / 4), line = size_t(64 * (lane % 4)) + 8 * row;
    SIMT_UNROLL
    for (int i = 0; i < 8; ++i) low[i] = from.eight(at + 320 + line + size_t(256 * i));
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) high[i] = from.eight(at + 2368 + line + size_t(256 * i));
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) scales[i] = from.eight(at + size_t(64 + 64 * i) + 8 * row);
    d = from.four(at + 4 * row);
  }
  // Bytes `odd`, `odd` + 2 of the words with the low four and the high two bits; k: which two.
  static __device__ __forceinline__ uint32_t codes(uint32_t low, uint32_t high, int nibble, int k, int odd) {
    const int down = 2 * k - 4 + 8 * odd;  // to bits 4 and 5
    return codes_less((low >> (4 * nibble + 8 * odd) & 0x000f000fu) | ((down < 0 ? high << -down : high >> down) & 0x00300030u), 0x43204320u);
  }
  __device__ __forceinline__ void fragments(uint32_t (&a)[2][4], int b) const {
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const uint2 l = low[b / 2 * 2 + i], h = high[b / 4 * 2 + i];
      SIMT_UNROLL
      for (int odd = 0; odd < 2; ++odd) a[i][2 * odd] = codes(l.x, h.x, b % 2, b % 4, odd), a[i][2 * odd + 1] = codes(l.y, h.y, b % 2, b % 4, odd);
    }
  }
  // d·s, exact; 2^23 + 128 + s is a float.
  static __device__ __forceinline__ float times(float d, uint32_t s) { return (simt::float_of(0x4b000000u | (s ^ 128)) - 8388736.0f) * d; }
  __device__ __forceinline__ float2 scale(int b, int step) const {
    const float2 of = two_halves(d);
    const uint2 four = scales[(2 * b + step) / 4];
    const int shift = (2 * b + step) % 4 * 8;
    return make_float2(times(of.x, four.x >> shift & 255), times(of.y, four.y >> shift & 255));
  }
};

// c += z·s, rows 2g and 2g + 1
__device__ __forceinline__ void fold(float (&c)[4], const float (&z)[4], float2 s) {
  c[0] = fmaf(z[0], s.x, c[0]), c[1] = fmaf(z[1], s.x, c[1]);
  c[2] = fmaf(z[2], s.y, c[2]), c[3] = fmaf(z[3], s.y, c[3]);
}

// c[q][i] += group w[q] of panel q times the same inputs of eight rows i, as linear.h says. x(b, i): the lane's eight values of block b of the group; x.sums(i): of
// the sums of its 256 inputs.
template <Type T, int kPanels, int kTiles, class X>
__device__ __forceinline__ void accumulate(float (&c)[kPanels][kTiles][4], const Group<T> (&w)[kPanels], const X& x, int lane) {
  SIMT_UNROLL
  for (int b = 0; b < Group<T>::kInputs / 32; ++b) {
    uint32_t a[kPanels][2][4];
    SIMT_UNROLL
    for (int q = 0; q < kPanels; ++q) w[q].fragments(a[q], b);
    SIMT_UNROLL
    for (int i = 0; i < kTiles; ++i) {
      const uint4 v = x(b, i);
      const uint32_t inputs[2][2] = {{v.x, v.y}, {v.z, v.w}};
      SIMT_UNROLL
      for (int q = 0; q < kPanels; ++q) {
        if constexpr (T == Type::bf16) {
          simt::mma_bf16(c[q][i], a[q][0], inputs[0]);
          simt::mma_bf16(c[q][i], a[q][1], inputs[1]);
        } else if constexpr (T == Type::q6_k) {
          SIMT_UNROLL
          for (int step = 0; step < 2; ++step) {
            float z[4] = {};
            simt::mma_bf16(z, a[q][step], inputs[step]);
            fold(c[q][i], z, w[q].scale(b, step));
          }
        } else {
          float z[4] = {};
          simt::mma_bf16(z, a[q][0], inputs[0]);
          simt::mma_bf16(z, a[q][1], inputs[1]);
          fold(c[q][i], z, w[q].scale(b, 0));
        }
      }
    }
  }
  if constexpr (T == Type::q4_k) {
    SIMT_UNROLL
    for (int q = 0; q < kPanels; ++q) {
      uint32_t m[4];
      w[q].minima(m, lane);
      const float2 dmin = two_halves(w[q].dmin);
      SIMT_UNROLL
      for (int i = 0; i < kTiles; ++i) {
        const uint2 v = x.sums(i);
        const uint32_t sums[2] = {v.x, v.y};
        float z[4] = {};
        simt::mma_bf16(z, m, sums);
        fold(c[q][i], z, make_float2(-dmin.x, -dmin.y));
      }
    }
  }
}

}  // namespace bg::BG_CUDA
