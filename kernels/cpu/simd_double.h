// Eight doubles, and their bits as integers, at a time, for the instruction set of simd.h: the same rules, the same bits.
// Not here: floats (simd.h).
#pragma once
#include "kernels/cpu/simd.h"

namespace bg::cpu::BG_ISA {

#if BG_AVX512
typedef __m512d W;
typedef __m512i U;  // eight uint64

BG_INLINE W splat_d(double a) { return _mm512_set1_pd(a); }
BG_INLINE W load_d(const double* p) { return _mm512_loadu_pd(p); }
BG_INLINE void store_d(double* p, W a) { _mm512_storeu_pd(p, a); }
BG_INLINE W load_wide(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
BG_INLINE W add(W a, W b) { return _mm512_add_pd(a, b); }
BG_INLINE W sub(W a, W b) { return _mm512_sub_pd(a, b); }
BG_INLINE W mul(W a, W b) { return _mm512_mul_pd(a, b); }
BG_INLINE W madd(W a, W b, W c) { return _mm512_fmadd_pd(a, b, c); }
BG_INLINE W max(W a, W b) { return _mm512_max_pd(a, b); }  // b when either is NaN
BG_INLINE U load_u(const uint64_t* p) { return _mm512_loadu_si512(p); }
BG_INLINE void store_u(uint64_t* p, U a) { _mm512_storeu_si512(p, a); }
BG_INLINE U zero_u() { return _mm512_setzero_si512(); }
BG_INLINE U add_bits(U a, W b) { return _mm512_add_epi64(a, _mm512_castpd_si512(b)); }
BG_INLINE U sub_bits(U a, W b) { return _mm512_sub_epi64(a, _mm512_castpd_si512(b)); }
#elif BG_AVX2
struct W { __m256d a, b; };
struct U { __m256i a, b; };

BG_INLINE W splat_d(double a) { return {_mm256_set1_pd(a), _mm256_set1_pd(a)}; }
BG_INLINE W load_d(const double* p) { return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }
BG_INLINE void store_d(double* p, W a) { _mm256_storeu_pd(p, a.a), _mm256_storeu_pd(p + 4, a.b); }
BG_INLINE W load_wide(const float* p) { return {_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4))}; }
BG_INLINE W add(W a, W b) { return {_mm256_add_pd(a.a, b.a), _mm256_add_pd(a.b, b.b)}; }
BG_INLINE W sub(W a, W b) { return {_mm256_sub_pd(a.a, b.a), _mm256_sub_pd(a.b, b.b)}; }
BG_INLINE W mul(W a, W b) { return {_mm256_mul_pd(a.a, b.a), _mm256_mul_pd(a.b, b.b)}; }
BG_INLINE W madd(W a, W b, W c) { return {_mm256_fmadd_pd(a.a, b.a, c.a), _mm256_fmadd_pd(a.b, b.b, c.b)}; }
BG_INLINE W max(W a, W b) { return {_mm256_max_pd(a.a, b.a), _mm256_max_pd(a.b, b.b)}; }
BG_INLINE U load_u(const uint64_t* p) { return {bytes_at(p), bytes_at(p + 4)}; }
BG_INLINE void store_u(uint64_t* p, U a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p) + 1, a.b);
}
BG_INLINE U zero_u() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
BG_INLINE U add_bits(U a, W b) { return {_mm256_add_epi64(a.a, _mm256_castpd_si256(b.a)), _mm256_add_epi64(a.b, _mm256_castpd_si256(b.b))}; }
BG_INLINE U sub_bits(U a, W b) { return {_mm256_sub_epi64(a.a, _mm256_castpd_si256(b.a)), _mm256_sub_epi64(a.b, _mm256_castpd_si256(b.b))}; }
#elif BG_NEON
struct W { float64x2_t a, b, c, d; };
struct U { uint64x2_t a, b, c, d; };

BG_INLINE W splat_d(double x) { return {vdupq_n_f64(x), vdupq_n_f64(x), vdupq_n_f64(x), vdupq_n_f64(x)}; }
BG_INLINE W load_d(const double* p) { return {vld1q_f64(p), vld1q_f64(p + 2), vld1q_f64(p + 4), vld1q_f64(p + 6)}; }
BG_INLINE void store_d(double* p, W x) { vst1q_f64(p, x.a), vst1q_f64(p + 2, x.b), vst1q_f64(p + 4, x.c), vst1q_f64(p + 6, x.d); }
BG_INLINE W load_wide(const float* p) {
  const float32x4_t x = vld1q_f32(p), y = vld1q_f32(p + 4);
  return {vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x), vcvt_f64_f32(vget_low_f32(y)), vcvt_high_f64_f32(y)};
}
BG_INLINE W add(W x, W y) { return {vaddq_f64(x.a, y.a), vaddq_f64(x.b, y.b), vaddq_f64(x.c, y.c), vaddq_f64(x.d, y.d)}; }
BG_INLINE W sub(W x, W y) { return {vsubq_f64(x.a, y.a), vsubq_f64(x.b, y.b), vsubq_f64(x.c, y.c), vsubq_f64(x.d, y.d)}; }
BG_INLINE W mul(W x, W y) { return {vmulq_f64(x.a, y.a), vmulq_f64(x.b, y.b), vmulq_f64(x.c, y.c), vmulq_f64(x.d, y.d)}; }
BG_INLINE W madd(W x, W y, W z) { return {vfmaq_f64(z.a, x.a, y.a), vfmaq_f64(z.b, x.b, y.b), vfmaq_f64(z.c, x.c, y.c), vfmaq_f64(z.d, x.d, y.d)}; }
BG_INLINE float64x2_t larger(float64x2_t x, float64x2_t y) { return vbslq_f64(vcgtq_f64(x, y), x, y); }
BG_INLINE W max(W x, W y) { return {larger(x.a, y.a), larger(x.b, y.b), larger(x.c, y.c), larger(x.d, y.d)}; }
BG_INLINE U load_u(const uint64_t* p) { return {vld1q_u64(p), vld1q_u64(p + 2), vld1q_u64(p + 4), vld1q_u64(p + 6)}; }
BG_INLINE void store_u(uint64_t* p, U x) { vst1q_u64(p, x.a), vst1q_u64(p + 2, x.b), vst1q_u64(p + 4, x.c), vst1q_u64(p + 6, x.d); }
BG_INLINE U zero_u() { return {vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0)}; }
BG_INLINE uint64x2_t bits_of(float64x2_t x) { return vreinterpretq_u64_f64(x); }
BG_INLINE U add_bits(U x, W y) {
  return {vaddq_u64(x.a, bits_of(y.a)), vaddq_u64(x.b, bits_of(y.b)), vaddq_u64(x.c, bits_of(y.c)), vaddq_u64(x.d, bits_of(y.d))};
}
BG_INLINE U sub_bits(U x, W y) {
  return {vsubq_u64(x.a, bits_of(y.a)), vsubq_u64(x.b, bits_of(y.b)), vsubq_u64(x.c, bits_of(y.c)), vsubq_u64(x.d, bits_of(y.d))};
}
#else
typedef double D2 __attribute__((vector_size(16)));
typedef int64_t S2 __attribute__((vector_size(16)));
typedef uint64_t U2 __attribute__((vector_size(16)));
struct W { D2 a, b, c, d; };
struct U { U2 a, b, c, d; };

BG_INLINE W splat_d(double x) { return {D2{x, x}, D2{x, x}, D2{x, x}, D2{x, x}}; }
BG_INLINE W load_d(const double* p) {
  W w;
  memcpy(&w, p, sizeof w);
  return w;
}
BG_INLINE void store_d(double* p, W x) { memcpy(p, &x, sizeof x); }
BG_INLINE W load_wide(const float* p) { return {D2{p[0], p[1]}, D2{p[2], p[3]}, D2{p[4], p[5]}, D2{p[6], p[7]}}; }
BG_INLINE W add(W x, W y) { return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d}; }
BG_INLINE W sub(W x, W y) { return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d}; }
BG_INLINE W mul(W x, W y) { return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d}; }
BG_INLINE W madd(W x, W y, W z) { return {x.a * y.a + z.a, x.b * y.b + z.b, x.c * y.c + z.c, x.d * y.d + z.d}; }
BG_INLINE D2 larger(D2 x, D2 y) {
  const S2 mask = x > y;
  return D2((S2(x) & mask) | (S2(y) & ~mask));
}
BG_INLINE W max(W x, W y) { return {larger(x.a, y.a), larger(x.b, y.b), larger(x.c, y.c), larger(x.d, y.d)}; }
BG_INLINE U load_u(const uint64_t* p) {
  U u;
  memcpy(&u, p, sizeof u);
  return u;
}
BG_INLINE void store_u(uint64_t* p, U x) { memcpy(p, &x, sizeof x); }
BG_INLINE U zero_u() { return {U2{0, 0}, U2{0, 0}, U2{0, 0}, U2{0, 0}}; }
BG_INLINE U add_bits(U x, W y) { return {x.a + U2(y.a), x.b + U2(y.b), x.c + U2(y.c), x.d + U2(y.d)}; }
BG_INLINE U sub_bits(U x, W y) { return {x.a - U2(y.a), x.b - U2(y.b), x.c - U2(y.c), x.d - U2(y.d)}; }
#endif

// ((l0+l1)+(l2+l3)) + ((l4+l5)+(l6+l7))
BG_INLINE double sum_lanes(W a) {
  double l[8];
  store_d(l, a);
  return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
}
BG_INLINE uint64_t sum_lanes(U a) {
  uint64_t l[8];
  store_u(l, a);
  return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
}

}  // namespace bg::cpu::BG_ISA
