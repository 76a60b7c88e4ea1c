// The AVX-512 intrinsics that kernels/cpu uses, in plain loops, so that its AVX-512 kernels can be tested on a processor without them (make avx512): the same source
// must give the same bits as the other instruction sets. Meanings from Intel's instruction set reference. The types are the compiler's own, as vectors of 64 bytes.
#pragma once
#include <immintrin.h>
#include <math.h>
#include <string.h>

#define BG_EMULATED static inline __attribute__((always_inline))

namespace bg::emulated {

typedef float Floats __attribute__((vector_size(64)));
typedef double Doubles __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef int64_t Longs __attribute__((vector_size(64)));

template <class T>
struct Lanes {
  T at[64 / sizeof(T)];
};
template <class To, class From>
BG_EMULATED To as(const From& x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}

// ---- memory, splats -----------------------------------------------------------------------------------------------------------------------
template <class M>
BG_EMULATED M from(const void* p) {
  M x;
  memcpy(&x, p, sizeof x);
  return x;
}
template <class M>
BG_EMULATED void to(void* p, M x) { memcpy(p, &x, sizeof x); }
template <class M, class T>
BG_EMULATED M splat(T x) {
  Lanes<T> y;
  for (T& lane : y.at) lane = x;
  return as<M>(y);
}
BG_EMULATED __m512 maskz_loadu(__mmask16 mask, const float* p) {
  Lanes<float> y = {};
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) y.at[i] = p[i];
  }
  return as<__m512>(y);
}
BG_EMULATED void mask_storeu(float* p, __mmask16 mask, __m512 x) {
  const auto lanes = as<Lanes<float>>(x);
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) p[i] = lanes.at[i];
  }
}

// ---- lane by lane -------------------------------------------------------------------------------------------------------------------------
#define BG_EMULATED_BOTH(name, type, lanes, op) \
  BG_EMULATED type name(type a, type b) { return (type)((lanes)a op (lanes)b); }
BG_EMULATED_BOTH(add_ps, __m512, Floats, +)
BG_EMULATED_BOTH(sub_ps, __m512, Floats, -)
BG_EMULATED_BOTH(mul_ps, __m512, Floats, *)
BG_EMULATED_BOTH(div_ps, __m512, Floats, /)
BG_EMULATED_BOTH(or_ps, __m512, Ints, |)
BG_EMULATED_BOTH(add_pd, __m512d, Doubles, +)
BG_EMULATED_BOTH(sub_pd, __m512d, Doubles, -)
BG_EMULATED_BOTH(mul_pd, __m512d, Doubles, *)
BG_EMULATED_BOTH(add_epi32, __m512i, Words, +)
BG_EMULATED_BOTH(add_epi64, __m512i, Longs, +)
BG_EMULATED_BOTH(sub_epi64, __m512i, Longs, -)
BG_EMULATED_BOTH(and_si512, __m512i, Longs, &)
BG_EMULATED_BOTH(or_si512, __m512i, Longs, |)
#undef BG_EMULATED_BOTH
template <class T, class M, class F>
BG_EMULATED M each(M a, M b, F f) {
  auto x = as<Lanes<T>>(a);
  const auto y = as<Lanes<T>>(b);
  for (size_t i = 0; i < 64 / sizeof(T); ++i) x.at[i] = f(x.at[i], y.at[i]);
  return as<M>(x);
}
template <class To, class M, class T, int n, class F>
BG_EMULATED M convert(const T (&x)[n], F f) {
  Lanes<To> y;
  static_assert(sizeof y == n * sizeof(To));
  for (int i = 0; i < n; ++i) y.at[i] = f(x[i]);
  return as<M>(y);
}
BG_EMULATED __m512 fmadd(__m512 a, __m512 b, __m512 c) {
  const auto x = as<Lanes<float>>(a), y = as<Lanes<float>>(b);
  auto z = as<Lanes<float>>(c);
  for (int i = 0; i < 16; ++i) z.at[i] = __builtin_fmaf(x.at[i], y.at[i], z.at[i]);
  return as<__m512>(z);
}
BG_EMULATED __m512d fmadd(__m512d a, __m512d b, __m512d c) {
  const auto x = as<Lanes<double>>(a), y = as<Lanes<double>>(b);
  auto z = as<Lanes<double>>(c);
  for (int i = 0; i < 8; ++i) z.at[i] = __builtin_fma(x.at[i], y.at[i], z.at[i]);
  return as<__m512d>(z);
}
BG_EMULATED __m512 max(__m512 a, __m512 b) {  // b where either is NaN
  return each<float>(a, b, [](float x, float y) { return x > y ? x : y; });
}
BG_EMULATED __m512d max(__m512d a, __m512d b) {
  return each<double>(a, b, [](double x, double y) { return x > y ? x : y; });
}
BG_EMULATED __mmask16 less(__m512 a, __m512 b) {
  const auto x = as<Lanes<float>>(a), y = as<Lanes<float>>(b);
  unsigned mask = 0;
  for (int i = 0; i < 16; ++i) mask |= unsigned(x.at[i] < y.at[i]) << i;
  return __mmask16(mask);
}
BG_EMULATED __m512 blend(__mmask16 mask, __m512 a, __m512 b) {
  auto x = as<Lanes<float>>(a);
  const auto y = as<Lanes<float>>(b);
  for (int i = 0; i < 16; ++i) x.at[i] = mask >> i & 1 ? y.at[i] : x.at[i];
  return as<__m512>(x);
}
BG_EMULATED __m512 scalef(__m512 a, __m512 b) {
  return each<float>(a, b, [](float x, float y) { return y != y ? x + y : y < -300 ? x * 0.0f : ldexpf(x, int(floorf(y))); });
}
BG_EMULATED __m512 to_float(__m512i a) {
  return convert<float, __m512>(as<Lanes<int32_t>>(a).at, [](int32_t x) { return float(x); });
}
BG_EMULATED __m512i to_int(__m512 a) {
  return convert<int32_t, __m512i>(as<Lanes<float>>(a).at, [](float x) { return _mm_cvtss_si32(_mm_set_ss(x)); });
}
BG_EMULATED __m128i to_bytes(__m512i a) {
  const auto x = as<Lanes<int32_t>>(a);
  int8_t y[16];
  for (int i = 0; i < 16; ++i) y[i] = int8_t(x.at[i]);
  return from<__m128i>(y);
}
BG_EMULATED __m512i of_bytes(__m128i a) {
  int8_t x[16];
  memcpy(x, &a, sizeof x);
  return convert<int32_t, __m512i>(x, [](int8_t v) { return int32_t(v); });
}
BG_EMULATED __m512i of_words(__m256i a) {
  uint16_t x[16];
  memcpy(x, &a, sizeof x);
  return convert<int32_t, __m512i>(x, [](uint16_t v) { return int32_t(v); });
}
BG_EMULATED __m512 of_halves(__m256i a) {
  const __m256 half[2] = {_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))};
  return from<__m512>(half);
}
BG_EMULATED __m512d to_double(__m256 a) {
  float x[8];
  memcpy(x, &a, sizeof x);
  return convert<double, __m512d>(x, [](float v) { return double(v); });
}

// x less the largest integer that is not above it; rounded as that integer was, downwards (found on an AMD Zen 4: vreduceps with that rounding, 10^5 numbers).
BG_EMULATED __m512 over_floor(__m512 a) {
  return each<float>(a, a, [](float x, float) {
    if (isinf(x)) return 0.0f;
    const float y = x - floorf(x);
    return y + floorf(x) > x ? nextafterf(y, 0) : y;
  });
}
BG_EMULATED float without_subnormals(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }
// The nearest bf16, ties to even; subnormal numbers become 0. b first.
BG_EMULATED __m512i to_bf16(__m512 a, __m512 b) {
  Lanes<uint16_t> y;
  const auto low = as<Lanes<float>>(b), high = as<Lanes<float>>(a);
  for (int i = 0; i < 32; ++i) {
    const float x = without_subnormals(i < 16 ? low.at[i] : high.at[i - 16]);
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    y.at[i] = uint16_t(x != x ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
  return as<__m512i>(y);
}

// ---- across lanes -------------------------------------------------------------------------------------------------------------------------
// In each 128 bits: lanes of a and b by turns, from the lower or the upper half.
template <class T, class M>
BG_EMULATED M unpack(M a, M b, bool upper) {
  constexpr int n = 16 / sizeof(T);
  const auto x = as<Lanes<T>>(a), y = as<Lanes<T>>(b);
  Lanes<T> z;
  for (int part = 0; part < 4 * n; part += n) {
    for (int i = 0; i < n / 2; ++i) {
      z.at[part + 2 * i] = x.at[part + (upper ? n / 2 : 0) + i];
      z.at[part + 2 * i + 1] = y.at[part + (upper ? n / 2 : 0) + i];
    }
  }
  return as<M>(z);
}
// Two 128-bit parts of a, two of b, two bits of `choice` each.
template <class M>
BG_EMULATED M shuffle_parts(M a, M b, int choice) {
  const auto x = as<Lanes<int64_t>>(a), y = as<Lanes<int64_t>>(b);
  Lanes<int64_t> z;
  for (int part = 0; part < 4; ++part) memcpy(z.at + 2 * part, (part < 2 ? x : y).at + 2 * (choice >> 2 * part & 3), 16);
  return as<M>(z);
}

// In each 128 bits: two lanes of a, two of b, two bits of `choice` each.
BG_EMULATED __m512 shuffle_floats(__m512 a, __m512 b, int choice) {
  const auto x = as<Lanes<float>>(a), y = as<Lanes<float>>(b);
  Lanes<float> z;
  for (int i = 0; i < 16; ++i) z.at[i] = (i % 4 < 2 ? x : y).at[i / 4 * 4 + (choice >> 2 * (i % 4) & 3)];
  return as<__m512>(z);
}
// b in the lower or the upper half, the rest from a.
BG_EMULATED __m512i insert_half(__m512i a, __m256i b, int upper) {
  memcpy(reinterpret_cast<char*>(&a) + 32 * upper, &b, 32);
  return a;
}
BG_EMULATED __m256i lower_half(__m512i a) { return from<__m256i>(&a); }
BG_EMULATED __m512i with_half(__m256i a) { return insert_half(splat<__m512i, int32_t>(0), a, 0); }

template <class... T>
BG_EMULATED __m512i words(T... from_the_last) {
  static_assert(sizeof...(T) == 32);
  const int x[32] = {from_the_last...};
  Lanes<uint16_t> y;
  for (int i = 0; i < 32; ++i) y.at[i] = uint16_t(x[31 - i]);
  return as<__m512i>(y);
}
BG_EMULATED __m512i permute_words(__m512i order, __m512i a) {
  const auto at = as<Lanes<uint16_t>>(order), x = as<Lanes<uint16_t>>(a);
  Lanes<uint16_t> y;
  for (int i = 0; i < 32; ++i) y.at[i] = x.at[at.at[i] & 31];
  return as<__m512i>(y);
}
// order 0 … 31: of a, 32 … 63: of b.
BG_EMULATED __m512i permute_words_of_two(__m512i a, __m512i order, __m512i b) {
  const auto at = as<Lanes<uint16_t>>(order), x = as<Lanes<uint16_t>>(a), y = as<Lanes<uint16_t>>(b);
  Lanes<uint16_t> z;
  for (int i = 0; i < 32; ++i) z.at[i] = (at.at[i] & 32 ? y : x).at[at.at[i] & 31];
  return as<__m512i>(z);
}

// ---- sums of products ---------------------------------------------------------------------------------------------------------------------
BG_EMULATED __m512i vpdpbusd(__m512i sum, __m512i w, __m512i a) {  // w unsigned, a signed
  auto s = as<Lanes<int32_t>>(sum);
  const auto x = as<Lanes<uint8_t>>(w);
  const auto y = as<Lanes<int8_t>>(a);
  for (int i = 0; i < 64; ++i) s.at[i / 4] += x.at[i] * y.at[i];
  return as<__m512i>(s);
}
BG_EMULATED __m512i vpdpwssd(__m512i sum, __m512i a, __m512i b) {
  auto s = as<Lanes<int32_t>>(sum);
  const auto x = as<Lanes<int16_t>>(a), y = as<Lanes<int16_t>>(b);
  for (int i = 0; i < 32; ++i) s.at[i / 2] += x.at[i] * y.at[i];
  return as<__m512i>(s);
}

// vdpbf16ps: the product of the high halves, then that of the low ones, each fused and rounded to nearest; subnormal numbers count as 0, before and after.
BG_EMULATED __m512 dot2_bf16(__m512 sum, __m512i a, __m512i b) {
  auto s = as<Lanes<float>>(sum);
  const auto x = as<Lanes<uint32_t>>(a), y = as<Lanes<uint32_t>>(b);
  const auto number = [](uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return without_subnormals(f);
  };
  for (int i = 0; i < 16; ++i) {
    const float odd = without_subnormals(__builtin_fmaf(number(x.at[i] & 0xffff0000), number(y.at[i] & 0xffff0000), without_subnormals(s.at[i])));
    s.at[i] = without_subnormals(__builtin_fmaf(number(x.at[i] << 16), number(y.at[i] << 16), odd));
  }
  return as<__m512>(s);
}

}  // namespace bg::emulated

#define _mm512_set1_ps bg::emulated::splat<__m512, float>
#define _mm512_set1_pd bg::emulated::splat<__m512d, double>
#define _mm512_set1_epi32 bg::emulated::splat<__m512i, int32_t>
#define _mm512_setzero_si512() bg::emulated::splat<__m512i, int32_t>(0)
#define _mm512_loadu_ps bg::emulated::from<__m512>
#define _mm512_loadu_pd bg::emulated::from<__m512d>
#define _mm512_loadu_si512 bg::emulated::from<__m512i>
#define _mm512_storeu_ps bg::emulated::to<__m512>
#define _mm512_storeu_pd bg::emulated::to<__m512d>
#define _mm512_storeu_si512 bg::emulated::to<__m512i>
#define _mm512_maskz_loadu_ps bg::emulated::maskz_loadu
#define _mm512_maskz_loadu_epi32(mask, p) ((__m512i)bg::emulated::maskz_loadu(mask, reinterpret_cast<const float*>(p)))
#define _mm512_mask_storeu_ps bg::emulated::mask_storeu
#define _mm512_add_ps bg::emulated::add_ps
#define _mm512_sub_ps bg::emulated::sub_ps
#define _mm512_mul_ps bg::emulated::mul_ps
#define _mm512_div_ps bg::emulated::div_ps
#define _mm512_or_ps bg::emulated::or_ps
#define _mm512_add_pd bg::emulated::add_pd
#define _mm512_sub_pd bg::emulated::sub_pd
#define _mm512_mul_pd bg::emulated::mul_pd
#define _mm512_add_epi32 bg::emulated::add_epi32
#define _mm512_add_epi64 bg::emulated::add_epi64
#define _mm512_sub_epi64 bg::emulated::sub_epi64
#define _mm512_and_si512 bg::emulated::and_si512
#define _mm512_or_si512 bg::emulated::or_si512
#define _mm512_slli_epi32(a, n) ((__m512i)((bg::emulated::Words)(a) << (n)))
#define _mm512_srli_epi32(a, n) ((__m512i)((bg::emulated::Words)(a) >> (n)))
#define _mm512_srai_epi32(a, n) ((__m512i)((bg::emulated::Ints)(a) >> (n)))
#define _mm512_fmadd_ps bg::emulated::fmadd
#define _mm512_fmadd_pd bg::emulated::fmadd
#define _mm512_max_ps bg::emulated::max
#define _mm512_max_pd bg::emulated::max
#define _mm512_cmp_ps_mask(a, b, less_only) bg::emulated::less(a, b)
#define _mm512_mask_blend_ps bg::emulated::blend
#define _mm512_scalef_ps bg::emulated::scalef
#define _mm512_reduce_ps(x, down) bg::emulated::over_floor(x)
#define _mm512_cvtne2ps_pbh bg::emulated::to_bf16
#define _mm512_set_epi16 bg::emulated::words
#define _mm512_permutexvar_epi16 bg::emulated::permute_words
#define _mm512_permutex2var_epi16 bg::emulated::permute_words_of_two
#define _mm512_cvtepi32_ps bg::emulated::to_float
#define _mm512_cvtps_epi32 bg::emulated::to_int
#define _mm512_cvtepi32_epi8 bg::emulated::to_bytes
#define _mm512_cvtepi8_epi32 bg::emulated::of_bytes
#define _mm512_cvtepu16_epi32 bg::emulated::of_words
#define _mm512_cvtph_ps bg::emulated::of_halves
#define _mm512_cvtps_pd bg::emulated::to_double
#define _mm512_castsi512_ps(a) ((__m512)(a))
#define _mm512_castps_si512(a) ((__m512i)(a))
#define _mm512_castps_pd(a) ((__m512d)(a))
#define _mm512_castpd_ps(a) ((__m512)(a))
#define _mm512_castpd_si512(a) ((__m512i)(a))
#define _mm512_unpacklo_ps(a, b) bg::emulated::unpack<float>(a, b, false)
#define _mm512_unpackhi_ps(a, b) bg::emulated::unpack<float>(a, b, true)
#define _mm512_unpacklo_pd(a, b) bg::emulated::unpack<double>(a, b, false)
#define _mm512_unpackhi_pd(a, b) bg::emulated::unpack<double>(a, b, true)
#define _mm512_unpacklo_epi32(a, b) bg::emulated::unpack<int32_t>(a, b, false)
#define _mm512_unpackhi_epi32(a, b) bg::emulated::unpack<int32_t>(a, b, true)
#define _mm512_unpacklo_epi64(a, b) bg::emulated::unpack<int64_t>(a, b, false)
#define _mm512_unpackhi_epi64(a, b) bg::emulated::unpack<int64_t>(a, b, true)
#define _mm512_shuffle_ps bg::emulated::shuffle_floats
#define _mm512_inserti64x4 bg::emulated::insert_half
#define _mm512_castsi512_si256 bg::emulated::lower_half
#define _mm512_castsi256_si512 bg::emulated::with_half
#define _mm512_shuffle_f32x4 bg::emulated::shuffle_parts<__m512>
#define _mm512_shuffle_i32x4 bg::emulated::shuffle_parts<__m512i>
