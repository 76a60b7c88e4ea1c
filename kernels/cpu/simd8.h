// Eight floats at a time, for one instruction set: BG_ISA is avx2 (compiled with -mavx2 -mfma -mf16c) or portable (128-bit vectors that any
// compiler lowers; multiply and add round separately). Everything lies in that namespace and has internal linkage, and only C headers and
// intrinsics are included, so that the linker can never merge code of one instruction set into another's.
// Not here: what is computed with them (*.isa.cpp).
#pragma once
#include <stdint.h>
#include <string.h>

#include "kernels/half.h"

#ifndef BG_ISA
#error "compile with -DBG_ISA=avx2 or -DBG_ISA=portable"
#endif
#define BG_JOIN_(a, b) a##b
#define BG_JOIN(a, b) BG_JOIN_(a, b)
#define BG_IS_avx2 1
#define BG_IS_avx512 2
#define BG_IS_avx512bf16 3
#define BG_IS_amx 4
#define BG_AVX2 (BG_JOIN(BG_IS_, BG_ISA) >= 1)

#if BG_AVX2
#include <immintrin.h>
#endif

// Accumulator arrays stay in registers only if every loop over them is unrolled.
#if defined(__clang__)
#define BG_UNROLL _Pragma("clang loop unroll(full)")
#else
#define BG_UNROLL _Pragma("GCC unroll 16")
#endif
#define BG_INLINE static inline __attribute__((always_inline))

namespace bg::cpu::BG_ISA {

struct Bf16 { uint16_t bits; };
struct F16 { uint16_t bits; };

#if BG_AVX2
// ---- AVX2 + FMA + F16C -------------------------------------------------------------------------------------------------------------
typedef __m256 V;
constexpr int kTileRows = 4, kTileCols = 3;  // 12 accumulators + 3 + 1 operands = the 16 registers

BG_INLINE V splat(float a) { return _mm256_set1_ps(a); }
BG_INLINE V load(const float* p) { return _mm256_loadu_ps(p); }
BG_INLINE V load(const Bf16* p) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16)); }
BG_INLINE V load(const F16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
BG_INLINE void store(float* p, V a) { _mm256_storeu_ps(p, a); }
BG_INLINE V add(V a, V b) { return _mm256_add_ps(a, b); }
BG_INLINE V sub(V a, V b) { return _mm256_sub_ps(a, b); }
BG_INLINE V mul(V a, V b) { return _mm256_mul_ps(a, b); }
BG_INLINE V div(V a, V b) { return _mm256_div_ps(a, b); }
BG_INLINE V madd(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }  // a·b + c
BG_INLINE V max(V a, V b) { return _mm256_max_ps(a, b); }
BG_INLINE V where_less(V a, V b, V yes, V no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
BG_INLINE V power_of_two(V shifted) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127)), 23)); }

// The four sums of the lanes of a, b, c, d, each ((l0+l1)+(l2+l3)) + ((l4+l5)+(l6+l7)).
BG_INLINE void sum_lanes_4(float* out, V a, V b, V c, V d) {
  const V quarters = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(quarters), _mm256_extractf128_ps(quarters, 1)));
}
BG_INLINE float sum_lanes(V a) {
  const __m128 low = _mm256_castps256_ps128(a), high = _mm256_extractf128_ps(a, 1);
  const __m128 pairs = _mm_hadd_ps(low, high);      // l0+l1, l2+l3, l4+l5, l6+l7
  const __m128 halves = _mm_hadd_ps(pairs, pairs);  // (l0+l1)+(l2+l3), (l4+l5)+(l6+l7)
  return _mm_cvtss_f32(_mm_add_ss(halves, _mm_movehdup_ps(halves)));
}
#else
// ---- portable: two 128-bit vectors of the compiler ---------------------------------------------------------------------------------
typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));
struct V { F4 low, high; };
constexpr int kTileRows = 2, kTileCols = 2;

BG_INLINE V splat(float a) { return {F4{a, a, a, a}, F4{a, a, a, a}}; }
BG_INLINE V load(const float* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
BG_INLINE V load(const Bf16* p) {
  float f[8];
  BG_UNROLL for (int i = 0; i < 8; ++i) f[i] = bf16_to_float(p[i].bits);
  return load(f);
}
BG_INLINE V load(const F16* p) {
  float f[8];
  for (int i = 0; i < 8; ++i) f[i] = f16_to_float(p[i].bits);
  return load(f);
}
BG_INLINE void store(float* p, V a) { memcpy(p, &a, sizeof a); }
BG_INLINE V add(V a, V b) { return {a.low + b.low, a.high + b.high}; }
BG_INLINE V sub(V a, V b) { return {a.low - b.low, a.high - b.high}; }
BG_INLINE V mul(V a, V b) { return {a.low * b.low, a.high * b.high}; }
BG_INLINE V div(V a, V b) { return {a.low / b.low, a.high / b.high}; }
BG_INLINE V madd(V a, V b, V c) { return {a.low * b.low + c.low, a.high * b.high + c.high}; }
BG_INLINE F4 pick(I4 mask, F4 yes, F4 no) { return F4((I4(yes) & mask) | (I4(no) & ~mask)); }
BG_INLINE V where_less(V a, V b, V yes, V no) { return {pick(a.low < b.low, yes.low, no.low), pick(a.high < b.high, yes.high, no.high)}; }
BG_INLINE V max(V a, V b) { return where_less(b, a, a, b); }
BG_INLINE V power_of_two(V shifted) { return {F4((I4(shifted.low) + 127) << 23), F4((I4(shifted.high) + 127) << 23)}; }

BG_INLINE float sum_lanes(V a) { return ((a.low[0] + a.low[1]) + (a.low[2] + a.low[3])) + ((a.high[0] + a.high[1]) + (a.high[2] + a.high[3])); }
BG_INLINE void sum_lanes_4(float* out, V a, V b, V c, V d) {
  out[0] = sum_lanes(a);
  out[1] = sum_lanes(b);
  out[2] = sum_lanes(c);
  out[3] = sum_lanes(d);
}
#endif

// ---- both ---------------------------------------------------------------------------------------------------------------------------

// The first n < 8 lanes from memory, the others 0; nothing beyond is read or written.
template <class E>
BG_INLINE V load_first(const E* p, int64_t n) {
  E all[8] = {};
  memcpy(all, p, size_t(n) * sizeof(E));
  return load(all);
}
BG_INLINE void store_first(float* p, V a, int64_t n) {
  float all[8];
  store(all, a);
  memcpy(p, all, size_t(n) * sizeof(float));
}

// e^x for x ≤ 0, relative error ≤ 3u (measured by tests/test_kernels_basic.cpp); 0 below −86.5, NaN for NaN.
//   n = round(x/ln 2), r = x − n·ln 2 in two parts (n·0.693359375 is exact), e^x = 2^n·(1 + r + r²·p(r)), p of degree 5 (Cephes expf)
BG_INLINE V exp_negative(V x) {
  const V magic = splat(12582912.0f);                              // 1.5·2^23: adding it rounds to an integer, kept in the low bits
  const V bounded = max(splat(-87.0f), x);                         // the second operand comes back when either is NaN
  const V shifted = madd(bounded, splat(1.44269504f), magic);
  const V n = sub(shifted, magic);
  V r = madd(n, splat(-0.693359375f), bounded);
  r = madd(n, splat(2.12194440e-4f), r);
  V p = splat(1.9875691500e-4f);
  p = madd(p, r, splat(1.3981999507e-3f));
  p = madd(p, r, splat(8.3334519073e-3f));
  p = madd(p, r, splat(4.1665795894e-2f));
  p = madd(p, r, splat(1.6666665459e-1f));
  p = madd(p, r, splat(5.0000001201e-1f));
  const V e = add(madd(mul(r, r), p, r), splat(1.0f));
  return where_less(x, splat(-86.5f), splat(0.0f), mul(e, power_of_two(shifted)));
}

}  // namespace bg::cpu::BG_ISA
