// Sixteen floats at a time, for one instruction set: BG_ISA is one of
//   portable    128-bit vectors that any compiler lowers; multiply and add round separately
//   avx2        AVX2, FMA, F16C
//   avx512      AVX-512 F, BW, DQ, VL, VNNI
//   avx512bf16  the same and vdpbf16ps; amx: the same and AMX tiles (BF16, int8)
//   neon        AArch64 with the dot product; neon_i8mm: the same and the int8 matrix product
// One V is one 512-bit, two 256-bit or four 128-bit registers, so a kernel written with V does the same sixteen chains on all of them. All but portable
// fuse multiply and add, and use the same formulas: their results are the same bits.
// Everything lies in that namespace and has internal linkage, and only C headers and intrinsics are included, so that the linker can never merge code of
// one instruction set into another's.
// Not here: what is computed with them (*.isa.cpp).
#pragma once
#include <stdint.h>
#include <string.h>

#include "kernels/half.h"

#ifndef BG_ISA
#error "compile with -DBG_ISA=portable, avx2, avx512, avx512bf16, amx, neon or neon_i8mm"
#endif
#define BG_JOIN_(a, b) a##b
#define BG_JOIN(a, b) BG_JOIN_(a, b)
#define BG_IS_portable 0
#define BG_IS_avx2 1
#define BG_IS_avx512 2
#define BG_IS_avx512bf16 3
#define BG_IS_amx 4
#define BG_IS_neon 5
#define BG_IS_neon_i8mm 6
#define BG_LEVEL BG_JOIN(BG_IS_, BG_ISA)
#define BG_AVX2 (BG_LEVEL == 1)
#define BG_AVX512 (BG_LEVEL >= 2 && BG_LEVEL <= 4)
#define BG_DPBF16 (BG_LEVEL == 3)
#define BG_AMX (BG_LEVEL == 4)
#define BG_NEON (BG_LEVEL == 5 || BG_LEVEL == 6)
#define BG_I8MM (BG_LEVEL == 6)
#define BG_INT8 (BG_LEVEL >= 1)  // has integer dot products worth using

#if BG_AVX512 && BG_AVX512_EMULATED
#include "tests/avx512_emulated.h"  // make avx512
#elif BG_AVX2 || BG_AVX512
#include <immintrin.h>
#elif BG_NEON
#include <arm_neon.h>
#endif

// Accumulator arrays stay in registers only if every loop over them is unrolled.
#if defined(__clang__)
#define BG_UNROLL _Pragma("clang loop unroll(full)")
#else
#define BG_UNROLL _Pragma("GCC unroll 32")
#endif
#define BG_INLINE static inline __attribute__((always_inline))

namespace bg::cpu::BG_ISA {

struct Bf16 { uint16_t bits; };
struct F16 { uint16_t bits; };

constexpr int kLanes = 16;

#if BG_AVX512
// ---- AVX-512: V is one register, 32 of them ------------------------------------------------------------------------------------------
typedef __m512 V;
typedef __m512i I;  // sixteen int32, or 64 bytes

BG_INLINE V splat(float a) { return _mm512_set1_ps(a); }
BG_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
BG_INLINE V load(const Bf16* p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16)); }
BG_INLINE V load(const F16* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
BG_INLINE V load(const int8_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))); }
BG_INLINE V splat(F16 a) { return _mm512_set1_ps(_cvtsh_ss(a.bits)); }
BG_INLINE void store(float* p, V a) { _mm512_storeu_ps(p, a); }
BG_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
BG_INLINE V sub(V a, V b) { return _mm512_sub_ps(a, b); }
BG_INLINE V mul(V a, V b) { return _mm512_mul_ps(a, b); }
BG_INLINE V div(V a, V b) { return _mm512_div_ps(a, b); }
BG_INLINE V madd(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }  // a·b + c
BG_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }             // b when either is NaN
BG_INLINE V where_less(V a, V b, V yes, V no) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes); }
BG_INLINE V power_of_two(V shifted) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127)), 23)); }
BG_INLINE V times_power(V a, V, V n) { return _mm512_scalef_ps(a, n); }  // a·2^n, normal; shifted = n + 1.5·2^23
BG_INLINE V minus_abs(V a) { return _mm512_or_ps(a, _mm512_set1_ps(-0.0f)); }
// Dwords of two bf16: the low and the high one of each as floats.
BG_INLINE V low_halves(const uint32_t* p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16)); }
BG_INLINE V high_halves(const uint32_t* p) { return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(int(0xffff0000)))); }
BG_INLINE V load_first(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p); }
BG_INLINE void store_first(float* p, V a, int64_t n) { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), a); }
// a[i][j] ↔ a[j][i]
BG_INLINE void transpose(V (&a)[16]) {
  V b[16];
  BG_UNROLL for (int i = 0; i < 16; i += 2) {  // pairs of rows
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
  BG_UNROLL for (int i = 0; i < 16; i += 4) {  // a[4g + k]: columns k, 4 + k, 8 + k, 12 + k of rows 4g … 4g + 3
    const __m512d l0 = _mm512_castps_pd(b[i]), h0 = _mm512_castps_pd(b[i + 1]), l1 = _mm512_castps_pd(b[i + 2]), h1 = _mm512_castps_pd(b[i + 3]);
    a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(l0, l1));
    a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(l0, l1));
    a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(h0, h1));
    a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(h0, h1));
  }
  BG_UNROLL for (int k = 0; k < 4; ++k) {
    const V even0 = _mm512_shuffle_f32x4(a[k], a[4 + k], 0x88), odd0 = _mm512_shuffle_f32x4(a[k], a[4 + k], 0xdd);
    const V even1 = _mm512_shuffle_f32x4(a[8 + k], a[12 + k], 0x88), odd1 = _mm512_shuffle_f32x4(a[8 + k], a[12 + k], 0xdd);
    b[k] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    b[8 + k] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    b[4 + k] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    b[12 + k] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
  BG_UNROLL for (int i = 0; i < 16; ++i) a[i] = b[i];
}

// Lane i: op of all lanes of a[i], two by two.
template <class Op>
BG_INLINE V across(const V (&a)[16], const Op& op) {
  const auto pairs = [&](V x, V y) { return op(_mm512_shuffle_ps(x, y, 0x88), _mm512_shuffle_ps(x, y, 0xdd)); };
  const auto quarters = [&](V x, V y) { return op(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd)); };
  V b[4];
  BG_UNROLL for (int i = 0; i < 4; ++i) b[i] = pairs(pairs(a[4 * i], a[4 * i + 1]), pairs(a[4 * i + 2], a[4 * i + 3]));
  return quarters(quarters(b[0], b[1]), quarters(b[2], b[3]));
}

BG_INLINE I zero_i() { return _mm512_setzero_si512(); }
BG_INLINE I splat_i(int32_t a) { return _mm512_set1_epi32(a); }
BG_INLINE I load_i(const void* p) { return _mm512_loadu_si512(p); }
BG_INLINE void store_i(void* p, I a) { _mm512_storeu_si512(p, a); }
BG_INLINE V to_float(I a) { return _mm512_cvtepi32_ps(a); }
// Sixteen integers within ±127 as bytes.
BG_INLINE void store_bytes(int8_t* p, V a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a))); }
BG_INLINE I and_i(I a, I b) { return _mm512_and_si512(a, b); }
BG_INLINE I or_i(I a, I b) { return _mm512_or_si512(a, b); }
template <int n> BG_INLINE I shl(I a) { return _mm512_slli_epi32(a, n); }
template <int n> BG_INLINE I shr(I a) { return _mm512_srli_epi32(a, n); }          // zeros come in
template <int n> BG_INLINE I shr_signed(I a) { return _mm512_srai_epi32(a, n); }
#if BG_AVX512_EMULATED
using emulated::vpdpbusd;
using emulated::vpdpwssd;
BG_INLINE I vpdpbusd_at(I sum, I w, const int32_t* a) {
  int32_t four;
  memcpy(&four, a, 4);
  return vpdpbusd(sum, w, splat_i(four));
}
#else
// Inline assembly: with the intrinsics clang 14 spills, and gcc may not fold the broadcast.
BG_INLINE I vpdpbusd(I sum, I w, I a) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(a));
  return sum;
}
BG_INLINE I vpdpbusd_at(I sum, I w, const int32_t* a) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*a));
  return sum;
}
BG_INLINE I vpdpwssd(I sum, I a, I b) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}
#endif
// sum + Σ of two products of bf16: that of the high halves, then that of the low ones, both fused; subnormal numbers, also sums, count as 0.
#if BG_DPBF16 && BG_AVX512_EMULATED
using emulated::dot2_bf16;
#elif BG_DPBF16
BG_INLINE V dot2_bf16(V sum, I a, I b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}
#endif
BG_INLINE I dot4_small(I sum, I w, I a) { return vpdpbusd(sum, w, a); }
BG_INLINE I dot4_biased(I sum, I w, I a) { return vpdpbusd(sum, w, a); }
// The four activations at `a` for all lanes, as part of the instruction.
BG_INLINE I dot4_small_at(I sum, I w, const char* a) { return vpdpbusd_at(sum, w, reinterpret_cast<const int32_t*>(a)); }
// High halves of bytes, left where they are: sixteen times the codes, which the scale takes back exactly.
constexpr float kHighUnit = 0.0625f;
BG_INLINE I high_codes(I q) { return _mm512_and_si512(q, _mm512_set1_epi32(int(0xf0f0f0f0))); }
BG_INLINE I start_biased(int32_t correction) { return splat_i(correction); }
BG_INLINE I dot2(I sum, I a, I b) { return vpdpwssd(sum, a, b); }

#if BG_DPBF16 || BG_AMX
// Sixteen floats and the sixteen after them as 32 bf16: the nearest, ties to even; infinities stay, NaN stays NaN, subnormals become 0, as what multiplies them takes them.
BG_INLINE I to_bf16(V first, V second) { return I(_mm512_cvtne2ps_pbh(second, first)); }
// At most sixteen numbers, zeros behind n.
BG_INLINE V some(const float* p, int64_t n) { return n >= 16 ? load(p) : n > 0 ? load_first(p, n) : splat(0.0f); }
// At most 32 numbers as bf16, zeros behind n.
BG_INLINE I first_bf16(const float* p, int64_t n) { return to_bf16(some(p, n), some(p + 16, n - 16)); }
#endif

#elif BG_AVX2
// ---- AVX2 + FMA + F16C: V is two of 16 registers --------------------------------------------------------------------------------------
struct V { __m256 a, b; };
struct I { __m256i a, b; };

BG_INLINE V splat(float a) { return {_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
BG_INLINE V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
BG_INLINE __m256 widen(const Bf16* p) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16)); }
BG_INLINE V load(const Bf16* p) { return {widen(p), widen(p + 8)}; }
BG_INLINE V load(const F16* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
BG_INLINE __m256 widen(const int8_t* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))); }
BG_INLINE V load(const int8_t* p) { return {widen(p), widen(p + 8)}; }
BG_INLINE V splat(F16 a) { return splat(_cvtsh_ss(a.bits)); }
BG_INLINE void store(float* p, V a) { _mm256_storeu_ps(p, a.a), _mm256_storeu_ps(p + 8, a.b); }
BG_INLINE V add(V a, V b) { return {_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b)}; }
BG_INLINE V sub(V a, V b) { return {_mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b)}; }
BG_INLINE V mul(V a, V b) { return {_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)}; }
BG_INLINE V div(V a, V b) { return {_mm256_div_ps(a.a, b.a), _mm256_div_ps(a.b, b.b)}; }
BG_INLINE V madd(V a, V b, V c) { return {_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)}; }
BG_INLINE V max(V a, V b) { return {_mm256_max_ps(a.a, b.a), _mm256_max_ps(a.b, b.b)}; }
BG_INLINE V where_less(V a, V b, V yes, V no) {
  return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(a.a, b.a, _CMP_LT_OQ)), _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(a.b, b.b, _CMP_LT_OQ))};
}
BG_INLINE __m256 power_of_two(__m256 s) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(s), _mm256_set1_epi32(127)), 23)); }
BG_INLINE V power_of_two(V s) { return {power_of_two(s.a), power_of_two(s.b)}; }
BG_INLINE V minus_abs(V a) { return {_mm256_or_ps(a.a, _mm256_set1_ps(-0.0f)), _mm256_or_ps(a.b, _mm256_set1_ps(-0.0f))}; }
BG_INLINE __m256i bytes_at(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
BG_INLINE V low_halves(const uint32_t* p) { return {_mm256_castsi256_ps(_mm256_slli_epi32(bytes_at(p), 16)), _mm256_castsi256_ps(_mm256_slli_epi32(bytes_at(p + 8), 16))}; }
BG_INLINE V high_halves(const uint32_t* p) {
  const __m256i mask = _mm256_set1_epi32(int(0xffff0000));
  return {_mm256_castsi256_ps(_mm256_and_si256(bytes_at(p), mask)), _mm256_castsi256_ps(_mm256_and_si256(bytes_at(p + 8), mask))};
}

template <class Op>
BG_INLINE V across(const V (&a)[16], const Op& op) {
  const auto pairs = [&](V x, V y) {
    return op(V{_mm256_shuffle_ps(x.a, y.a, 0x88), _mm256_shuffle_ps(x.b, y.b, 0x88)}, V{_mm256_shuffle_ps(x.a, y.a, 0xdd), _mm256_shuffle_ps(x.b, y.b, 0xdd)});
  };
  V b[4];
  BG_UNROLL for (int i = 0; i < 4; ++i) b[i] = pairs(pairs(a[4 * i], a[4 * i + 1]), pairs(a[4 * i + 2], a[4 * i + 3]));
  const V u = op(V{b[0].a, b[1].a}, V{b[0].b, b[1].b}), v = op(V{b[2].a, b[3].a}, V{b[2].b, b[3].b});
  return op(V{_mm256_permute2f128_ps(u.a, u.b, 0x20), _mm256_permute2f128_ps(v.a, v.b, 0x20)}, V{_mm256_permute2f128_ps(u.a, u.b, 0x31), _mm256_permute2f128_ps(v.a, v.b, 0x31)});
}

BG_INLINE I zero_i() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
BG_INLINE I splat_i(int32_t a) { return {_mm256_set1_epi32(a), _mm256_set1_epi32(a)}; }
BG_INLINE I load_i(const void* p) { return {bytes_at(p), bytes_at(static_cast<const char*>(p) + 32)}; }
BG_INLINE void store_i(void* p, I a) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), a.a);
  _mm256_storeu_si256(static_cast<__m256i*>(p) + 1, a.b);
}
BG_INLINE V to_float(I a) { return {_mm256_cvtepi32_ps(a.a), _mm256_cvtepi32_ps(a.b)}; }
BG_INLINE void store_bytes(int8_t* p, V a) {
  const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_cvtps_epi32(a.a), _mm256_cvtps_epi32(a.b)), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
}
BG_INLINE I and_i(I a, I b) { return {_mm256_and_si256(a.a, b.a), _mm256_and_si256(a.b, b.b)}; }
BG_INLINE I or_i(I a, I b) { return {_mm256_or_si256(a.a, b.a), _mm256_or_si256(a.b, b.b)}; }
template <int n> BG_INLINE I shl(I a) { return {_mm256_slli_epi32(a.a, n), _mm256_slli_epi32(a.b, n)}; }
template <int n> BG_INLINE I shr(I a) { return {_mm256_srli_epi32(a.a, n), _mm256_srli_epi32(a.b, n)}; }
template <int n> BG_INLINE I shr_signed(I a) { return {_mm256_srai_epi32(a.a, n), _mm256_srai_epi32(a.b, n)}; }
// Inline assembly keeps a chain of sums a chain: gcc makes a tree of it, whose parts do not fit the registers.
BG_INLINE __m256i plus_32(__m256i sum, __m256i a) {
  asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(a));
  return sum;
}
BG_INLINE __m256i plus_16(__m256i sum, __m256i a) {
  asm("vpaddw %1, %0, %0" : "+x"(sum) : "x"(a));
  return sum;
}
// Pairs of byte products fit into 16 bits: 2·63·127 for small codes, 2·128·127 for |w| of signed ones.
BG_INLINE __m256i add_pairs(__m256i sum, __m256i pairs) { return plus_32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))); }
BG_INLINE __m256i dot4_signed(__m256i sum, __m256i w, __m256i a) { return add_pairs(sum, _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w))); }
BG_INLINE I dot4_small(I sum, I w, I a) { return {add_pairs(sum.a, _mm256_maddubs_epi16(w.a, a.a)), add_pairs(sum.b, _mm256_maddubs_epi16(w.b, a.b))}; }
BG_INLINE I dot4_biased(I sum, I w, I a) {
  const __m256i bias = _mm256_set1_epi8(char(0x80));
  return {dot4_signed(sum.a, _mm256_xor_si256(w.a, bias), a.a), dot4_signed(sum.b, _mm256_xor_si256(w.b, bias), a.b)};
}
BG_INLINE I start_biased(int32_t) { return zero_i(); }
BG_INLINE I dot2(I sum, I a, I b) { return {plus_32(sum.a, _mm256_madd_epi16(a.a, b.a)), plus_32(sum.b, _mm256_madd_epi16(a.b, b.b))}; }
#elif BG_NEON
// ---- AArch64: V is four of 32 registers -----------------------------------------------------------------------------------------------
struct V { float32x4_t a, b, c, d; };
struct I { int32x4_t a, b, c, d; };

BG_INLINE V splat(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}; }
BG_INLINE V load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
BG_INLINE float32x4_t widen(const Bf16* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16)); }
BG_INLINE V load(const Bf16* p) { return {widen(p), widen(p + 4), widen(p + 8), widen(p + 12)}; }
BG_INLINE float32x4_t widen(const F16* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits))); }
BG_INLINE V load(const F16* p) { return {widen(p), widen(p + 4), widen(p + 8), widen(p + 12)}; }
BG_INLINE float32x4_t floats(int16x4_t x) { return vcvtq_f32_s32(vmovl_s16(x)); }
BG_INLINE V load(const int8_t* p) {
  const int16x8_t low = vmovl_s8(vld1_s8(p)), high = vmovl_s8(vld1_s8(p + 8));
  return {floats(vget_low_s16(low)), floats(vget_high_s16(low)), floats(vget_low_s16(high)), floats(vget_high_s16(high))};
}
BG_INLINE V splat(F16 a) { return splat(f16_to_float(a.bits)); }
BG_INLINE void store(float* p, V x) { vst1q_f32(p, x.a), vst1q_f32(p + 4, x.b), vst1q_f32(p + 8, x.c), vst1q_f32(p + 12, x.d); }
BG_INLINE V add(V x, V y) { return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)}; }
BG_INLINE V sub(V x, V y) { return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)}; }
BG_INLINE V mul(V x, V y) { return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)}; }
BG_INLINE V div(V x, V y) { return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)}; }
BG_INLINE V madd(V x, V y, V z) { return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)}; }
BG_INLINE float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }  // y when either is NaN, as on x86
BG_INLINE V max(V x, V y) { return {larger(x.a, y.a), larger(x.b, y.b), larger(x.c, y.c), larger(x.d, y.d)}; }
BG_INLINE V where_less(V x, V y, V yes, V no) {
  return {vbslq_f32(vcltq_f32(x.a, y.a), yes.a, no.a), vbslq_f32(vcltq_f32(x.b, y.b), yes.b, no.b), vbslq_f32(vcltq_f32(x.c, y.c), yes.c, no.c),
          vbslq_f32(vcltq_f32(x.d, y.d), yes.d, no.d)};
}
BG_INLINE float32x4_t power_of_two(float32x4_t s) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vreinterpretq_s32_f32(s), vdupq_n_s32(127)), 23)); }
BG_INLINE V power_of_two(V s) { return {power_of_two(s.a), power_of_two(s.b), power_of_two(s.c), power_of_two(s.d)}; }
BG_INLINE V minus_abs(V x) { return {vnegq_f32(vabsq_f32(x.a)), vnegq_f32(vabsq_f32(x.b)), vnegq_f32(vabsq_f32(x.c)), vnegq_f32(vabsq_f32(x.d))}; }
BG_INLINE float32x4_t low_half(const uint32_t* p) { return vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32(p), 16)); }
BG_INLINE float32x4_t high_half(const uint32_t* p) { return vreinterpretq_f32_u32(vandq_u32(vld1q_u32(p), vdupq_n_u32(0xffff0000u))); }
BG_INLINE V low_halves(const uint32_t* p) { return {low_half(p), low_half(p + 4), low_half(p + 8), low_half(p + 12)}; }
BG_INLINE V high_halves(const uint32_t* p) { return {high_half(p), high_half(p + 4), high_half(p + 8), high_half(p + 12)}; }

template <class Op>
BG_INLINE V across(const V (&a)[16], const Op& op) {
  const auto pairs = [&](V x, V y) {
    return op(V{vuzp1q_f32(x.a, x.b), vuzp1q_f32(x.c, x.d), vuzp1q_f32(y.a, y.b), vuzp1q_f32(y.c, y.d)}, V{vuzp2q_f32(x.a, x.b), vuzp2q_f32(x.c, x.d), vuzp2q_f32(y.a, y.b), vuzp2q_f32(y.c, y.d)});
  };
  V b[4];
  BG_UNROLL for (int i = 0; i < 4; ++i) {
    const V &w = a[4 * i], &x = a[4 * i + 1], &y = a[4 * i + 2], &z = a[4 * i + 3];
    b[i] = op(op(V{w.a, x.a, y.a, z.a}, V{w.b, x.b, y.b, z.b}), op(V{w.c, x.c, y.c, z.c}, V{w.d, x.d, y.d, z.d}));
  }
  return pairs(pairs(b[0], b[1]), pairs(b[2], b[3]));
}

BG_INLINE I zero_i() { return {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}; }
BG_INLINE I splat_i(int32_t x) { return {vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x)}; }
BG_INLINE int32x4_t int_at(const void* p) { return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t*>(p))); }
BG_INLINE I load_i(const void* p) {
  const char* q = static_cast<const char*>(p);
  return {int_at(q), int_at(q + 16), int_at(q + 32), int_at(q + 48)};
}
BG_INLINE void store_i(void* p, I x) {
  int32_t* q = static_cast<int32_t*>(p);
  vst1q_s32(q, x.a), vst1q_s32(q + 4, x.b), vst1q_s32(q + 8, x.c), vst1q_s32(q + 12, x.d);
}
BG_INLINE V to_float(I x) { return {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d)}; }
BG_INLINE int16x8_t words(float32x4_t x, float32x4_t y) { return vcombine_s16(vmovn_s32(vcvtq_s32_f32(x)), vmovn_s32(vcvtq_s32_f32(y))); }
BG_INLINE void store_bytes(int8_t* p, V x) { vst1q_s8(p, vcombine_s8(vmovn_s16(words(x.a, x.b)), vmovn_s16(words(x.c, x.d)))); }
BG_INLINE I and_i(I x, I y) { return {vandq_s32(x.a, y.a), vandq_s32(x.b, y.b), vandq_s32(x.c, y.c), vandq_s32(x.d, y.d)}; }
BG_INLINE I or_i(I x, I y) { return {vorrq_s32(x.a, y.a), vorrq_s32(x.b, y.b), vorrq_s32(x.c, y.c), vorrq_s32(x.d, y.d)}; }
template <int n> BG_INLINE int32x4_t shr(int32x4_t x) { return n == 0 ? x : vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(x), n == 0 ? 1 : n)); }
template <int n> BG_INLINE int32x4_t shr_signed(int32x4_t x) { return n == 0 ? x : vshrq_n_s32(x, n == 0 ? 1 : n); }
template <int n> BG_INLINE I shl(I x) { return {vshlq_n_s32(x.a, n), vshlq_n_s32(x.b, n), vshlq_n_s32(x.c, n), vshlq_n_s32(x.d, n)}; }
template <int n> BG_INLINE I shr(I x) { return {shr<n>(x.a), shr<n>(x.b), shr<n>(x.c), shr<n>(x.d)}; }
template <int n> BG_INLINE I shr_signed(I x) { return {shr_signed<n>(x.a), shr_signed<n>(x.b), shr_signed<n>(x.c), shr_signed<n>(x.d)}; }
BG_INLINE int32x4_t dot4(int32x4_t sum, int32x4_t w, int32x4_t a) { return vdotq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(a)); }
BG_INLINE I dot4_small(I sum, I w, I a) { return {dot4(sum.a, w.a, a.a), dot4(sum.b, w.b, a.b), dot4(sum.c, w.c, a.c), dot4(sum.d, w.d, a.d)}; }
BG_INLINE int32x4_t unbias(int32x4_t w) { return veorq_s32(w, vdupq_n_s32(int32_t(0x80808080))); }
BG_INLINE I dot4_biased(I sum, I w, I a) { return dot4_small(sum, {unbias(w.a), unbias(w.b), unbias(w.c), unbias(w.d)}, a); }
BG_INLINE I start_biased(int32_t) { return zero_i(); }
BG_INLINE int32x4_t dot2(int32x4_t sum, int32x4_t a, int32x4_t b) {
  sum = vmlaq_s32(sum, vshrq_n_s32(vshlq_n_s32(a, 16), 16), vshrq_n_s32(vshlq_n_s32(b, 16), 16));
  return vmlaq_s32(sum, vshrq_n_s32(a, 16), vshrq_n_s32(b, 16));
}
BG_INLINE I dot2(I sum, I a, I b) { return {dot2(sum.a, a.a, b.a), dot2(sum.b, a.b, b.b), dot2(sum.c, a.c, b.c), dot2(sum.d, a.d, b.d)}; }
#else
// ---- portable: four 128-bit vectors of the compiler -----------------------------------------------------------------------------------
typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));
struct V { F4 a, b, c, d; };

BG_INLINE V splat(float x) { return {F4{x, x, x, x}, F4{x, x, x, x}, F4{x, x, x, x}, F4{x, x, x, x}}; }
BG_INLINE V load(const float* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
BG_INLINE V load(const Bf16* p) {
  float f[16];
  for (int i = 0; i < 16; ++i) f[i] = bf16_to_float(p[i].bits);
  return load(f);
}
BG_INLINE V load(const F16* p) {
  float f[16];
  for (int i = 0; i < 16; ++i) f[i] = f16_to_float(p[i].bits);
  return load(f);
}
BG_INLINE V load(const int8_t* p) {
  float f[16];
  for (int i = 0; i < 16; ++i) f[i] = float(p[i]);
  return load(f);
}
BG_INLINE V splat(F16 a) { return splat(f16_to_float(a.bits)); }
BG_INLINE void store(float* p, V x) { memcpy(p, &x, sizeof x); }
BG_INLINE V add(V x, V y) { return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d}; }
BG_INLINE V sub(V x, V y) { return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d}; }
BG_INLINE V mul(V x, V y) { return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d}; }
BG_INLINE V div(V x, V y) { return {x.a / y.a, x.b / y.b, x.c / y.c, x.d / y.d}; }
BG_INLINE V madd(V x, V y, V z) { return {x.a * y.a + z.a, x.b * y.b + z.b, x.c * y.c + z.c, x.d * y.d + z.d}; }
BG_INLINE F4 pick(I4 mask, F4 yes, F4 no) { return F4((I4(yes) & mask) | (I4(no) & ~mask)); }
BG_INLINE V where_less(V x, V y, V yes, V no) {
  return {pick(x.a < y.a, yes.a, no.a), pick(x.b < y.b, yes.b, no.b), pick(x.c < y.c, yes.c, no.c), pick(x.d < y.d, yes.d, no.d)};
}
BG_INLINE V max(V x, V y) { return where_less(y, x, x, y); }
BG_INLINE F4 power_of_two(F4 s) { return F4((I4(s) + 127) << 23); }
BG_INLINE V power_of_two(V s) { return {power_of_two(s.a), power_of_two(s.b), power_of_two(s.c), power_of_two(s.d)}; }
BG_INLINE F4 minus_abs(F4 x) { return F4(I4(x) | INT32_MIN); }
BG_INLINE V minus_abs(V x) { return {minus_abs(x.a), minus_abs(x.b), minus_abs(x.c), minus_abs(x.d)}; }
BG_INLINE V low_halves(const uint32_t* p) {
  float f[16];
  for (int i = 0; i < 16; ++i) f[i] = bf16_to_float(uint16_t(p[i]));
  return load(f);
}
BG_INLINE V high_halves(const uint32_t* p) {
  float f[16];
  for (int i = 0; i < 16; ++i) f[i] = bf16_to_float(uint16_t(p[i] >> 16));
  return load(f);
}
#endif

#if BG_INT8
#if !BG_AVX512
BG_INLINE I dot4_small_at(I sum, I w, const char* a) {
  int32_t four;
  memcpy(&four, a, 4);
  return dot4_small(sum, w, splat_i(four));
}
constexpr float kHighUnit = 1;
BG_INLINE I high_codes(I q) { return and_i(shr<4>(q), splat_i(0x0f0f0f0f)); }
#endif
#if BG_AVX2
BG_INLINE __m256i four_at(const char* a) {
  int32_t four;
  memcpy(&four, a, 4);
  return _mm256_set1_epi32(four);
}
BG_INLINE I dot4_part(I sum, I w, const char* a) {
  const __m256i x = four_at(a);
  return {plus_16(sum.a, _mm256_maddubs_epi16(w.a, x)), plus_16(sum.b, _mm256_maddubs_epi16(w.b, x))};
}
BG_INLINE I dot4_whole(I sum) { return {_mm256_madd_epi16(sum.a, _mm256_set1_epi16(1)), _mm256_madd_epi16(sum.b, _mm256_set1_epi16(1))}; }
#else
BG_INLINE I dot4_part(I sum, I w, const char* a) { return dot4_small_at(sum, w, a); }
BG_INLINE I dot4_whole(I sum) { return sum; }
#endif
// sum + Σ of four byte products in each lane:
//   dot4_small   w unsigned and at most 63 (AVX2 adds pairs in 16 bits), a signed
//   dot4_part    the same of four activations at `a`, where that saves instructions in two numbers of 16 bits, until dot4_whole: eight of w up to 15, or four of six bits
//                (low four and high two apart or together: it may wrap on the way) if the sum begins with −32·Σ a of the activations of each of the two
//   dot4_biased  w is a signed code plus 128; where the instruction takes it as it is, the sum begins with start_biased(−128·Σ a)
// dot2: sum + Σ of two products of signed 16-bit numbers.
#endif

// ---- all ------------------------------------------------------------------------------------------------------------------------------

#if !BG_AVX512
BG_INLINE V times_power(V a, V shifted, V) { return mul(a, power_of_two(shifted)); }
// The first n < 16 lanes from memory, the others 0; nothing beyond is read or written.
BG_INLINE V load_first(const float* p, int64_t n) {
  float all[16] = {};
  memcpy(all, p, size_t(n) * sizeof(float));
  return load(all);
}
BG_INLINE void store_first(float* p, V a, int64_t n) {
  float all[16];
  store(all, a);
  memcpy(p, all, size_t(n) * sizeof(float));
}
#endif

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
  return where_less(x, splat(-86.5f), splat(0.0f), times_power(e, shifted, n));
}

// 2^x for x ≤ 0, relative error ≤ 3u where x is exact; 0 below −124, NaN for NaN. 2^r on ±½: degree 5, 1.3u (Remez).
BG_INLINE V exp2_negative(V x) {
  const V magic = splat(12582912.0f), bounded = max(splat(-125.0f), x), shifted = add(bounded, magic), n = sub(shifted, magic), r = sub(bounded, n);
  V p = splat(0.0013276469654f);
  p = madd(p, r, splat(0.00967554106904f));
  p = madd(p, r, splat(0.0555071328742f));
  p = madd(p, r, splat(0.240221197342f));
  p = madd(p, r, splat(0.693146967048f));
  p = madd(p, r, splat(1.00000007165f));
  return where_less(x, splat(-124.0f), splat(0.0f), times_power(p, shifted, n));
}

}  // namespace bg::cpu::BG_ISA
