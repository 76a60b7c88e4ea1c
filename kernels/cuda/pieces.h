// A few neighbouring inputs of one row of a panel (kernels/panels.h): their words into registers, early, and later their floats, those of kernels/blocks.h.
// Sixteen threads that hold the sixteen rows of a panel read its 64-byte lines whole. Included by linear_float.cu and linear_cublas.cu.
#pragma once
#include "kernels/cuda/cuda.h"
#include "kernels/panels.h"

namespace bg::BG_CUDA {

__device__ __forceinline__ uint32_t word_at(const unsigned char* p) { return *reinterpret_cast<const uint32_t*>(p); }
__device__ __forceinline__ uint16_t aligned_half_at(const unsigned char* p) { return *reinterpret_cast<const uint16_t*>(p); }

// load: inputs j … j + I − 1 of row r, j a multiple of I; those from D on are 0. values: what they are. I = 8, 16 or 32.
template <Type T, int I>
struct Piece;

template <int I>
struct Piece<Type::f32, I> {
  float w[I];
  __device__ __forceinline__ void load(const unsigned char* panel, int r, int64_t j, int64_t D) {
    const unsigned char* line = panel + 64 * j + 4 * r;
    SIMT_UNROLL
    for (int i = 0; i < I; ++i) w[i] = j + i < D ? simt::float_of(word_at(line + 64 * i)) : 0.0f;
  }
  __device__ __forceinline__ void values(float (&v)[I], int64_t) const {
    SIMT_UNROLL
    for (int i = 0; i < I; ++i) v[i] = w[i];
  }
};

template <int I>
struct Piece<Type::f16, I> {
  uint16_t w[I];
  __device__ __forceinline__ void load(const unsigned char* panel, int r, int64_t j, int64_t D) {
    const unsigned char* half_line = panel + 32 * j + 2 * r;
    SIMT_UNROLL
    for (int i = 0; i < I; ++i) w[i] = j + i < D ? aligned_half_at(half_line + 32 * i) : uint16_t(0);
  }
  __device__ __forceinline__ void values(float (&v)[I], int64_t) const {
    SIMT_UNROLL
    for (int i = 0; i < I; ++i) v[i] = simt::f16_to_float(w[i]);
  }
};

template <int I>
struct Piece<Type::bf16, I> {
  uint32_t pair[I / 2];
  __device__ __forceinline__ void load(const unsigned char* panel, int r, int64_t j, int64_t) {  // zeros up to a multiple of 32
    const unsigned char* line = panel + 32 * j + 4 * r;
    SIMT_UNROLL
    for (int i = 0; i < I / 2; ++i) pair[i] = word_at(line + 64 * i);
  }
  __device__ __forceinline__ void values(float (&v)[I], int64_t) const {
    SIMT_UNROLL
    for (int i = 0; i < I / 2; ++i) v[2 * i] = simt::bf16_low(pair[i]), v[2 * i + 1] = simt::bf16_high(pair[i]);
  }
};

// d·q
template <int I>
struct Piece<Type::q8_0, I> {
  uint32_t q[I / 4];
  uint16_t d;
  __device__ __forceinline__ void load(const unsigned char* panel, int r, int64_t j, int64_t) {
    const unsigned char* group = panel + j / 64 * 1088;
    const int e = int(j % 64);
    SIMT_UNROLL
    for (int i = 0; i < I / 4; ++i) q[i] = word_at(group + 16 * e + 64 * i + 4 * r);
    d = aligned_half_at(group + 1024 + e / 32 * 32 + 2 * r);
  }
  __device__ __forceinline__ void values(float (&v)[I], int64_t) const {
    const float scale = simt::f16_to_float(d);
    SIMT_UNROLL
    for (int i = 0; i < I; ++i) v[i] = scale * float(int(q[i / 4] >> (8 * (i % 4)) & 255) - 128);
  }
};

// d·s_b·q − dmin·m_b: d·s_b·q is exact, so that a fused multiply-add rounds as the difference does
template <int I>
struct Piece<Type::q4_k, I> {
  uint32_t q[I / 4], scales[3];
  uint16_t d, dmin;
  __device__ __forceinline__ void load(const unsigned char* panel, int r, int64_t j, int64_t) {
    const unsigned char* group = panel + j / 256 * 2304;
    const int e = int(j % 256);
    SIMT_UNROLL
    for (int i = 0; i < I / 4; ++i) q[i] = word_at(group + 256 + 64 * (8 * (e / 64) + e % 32 / 4 + i) + 4 * r);
    SIMT_UNROLL
    for (int i = 0; i < 3; ++i) scales[i] = word_at(group + 64 + 64 * i + 4 * r);
    d = aligned_half_at(group + 2 * r);
    dmin = aligned_half_at(group + 32 + 2 * r);
  }
  __device__ __forceinline__ void values(float (&v)[I], int64_t j) const {
    const int b = int(j % 256 / 32), at = 8 * (b % 4);
    const uint32_t first = scales[0] >> at, second = scales[1] >> at, third = scales[2] >> at;
    const uint32_t s = b < 4 ? first & 63 : (third & 15) | (first >> 6 & 3) << 4, m = b < 4 ? second & 63 : (third >> 4 & 15) | (second >> 6 & 3) << 4;
    const float scale = simt::f16_to_float(d) * float(s), min = simt::f16_to_float(dmin) * float(m);
    const int shift = b % 2 * 4;
    SIMT_UNROLL
    for (int i = 0; i < I; ++i) v[i] = fmaf(scale, float(q[i / 4] >> (8 * (i % 4) + shift) & 15), -min);
  }
};

// d·s_b·(q − 32)
template <int I>
struct Piece<Type::q6_k, I> {
  uint32_t low[I / 4], high[I / 4], scales;
  uint16_t d;
  __device__ __forceinline__ void load(const unsigned char* panel, int r, int64_t j, int64_t) {
    const unsigned char* group = panel + j / 256 * 3392 + 4 * r;
    const int e = int(j % 256);
    SIMT_UNROLL
    for (int i = 0; i < I / 4; ++i) {
      low[i] = word_at(group + 320 + 64 * (8 * (e / 64) + e % 32 / 4 + i));
      high[i] = word_at(group + 2368 + 64 * (8 * (e / 128) + e % 32 / 4 + i));
    }
    scales = word_at(group + 64 + 64 * (e / 64));
    d = aligned_half_at(panel + j / 256 * 3392 + 2 * r);
  }
  __device__ __forceinline__ void values(float (&v)[I], int64_t j) const {
    const int e = int(j % 256), low_shift = e / 32 % 2 * 4, high_shift = e / 32 % 4 * 2;
    const float scale = simt::f16_to_float(d);
    SIMT_UNROLL
    for (int i = 0; i < I; ++i) {
      const float s = scale * float(static_cast<signed char>(scales >> (8 * (e / 16 % 4 + i / 16)) & 255));
      const uint32_t code = (low[i / 4] >> (8 * (i % 4) + low_shift) & 15) | (high[i / 4] >> (8 * (i % 4) + high_shift) & 3) << 4;
      v[i] = s * float(int(code) - 32);
    }
  }
};

}  // namespace bg::BG_CUDA
