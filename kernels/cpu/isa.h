// What is compiled once per instruction set (*.isa.cpp): the inner loops, on raw pointers, behind one table of each kind. kernels/cpu/*.cpp cuts the
// operations into blocks and calls these through the tables of the instruction set chosen at run time. Only C headers here, no inline functions (see simd.h).
// Not here: shapes as Tensor, threads.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace bg {
struct BlockQ8_0;
}
namespace bg::cpu {

#if defined(__x86_64__)
#define BG_EACH_ISA(X) X(portable) X(avx2) X(avx512) X(avx512bf16) X(amx)
#elif defined(__aarch64__)
#define BG_EACH_ISA(X) X(portable) X(neon) X(neon_i8mm)
#else
#define BG_EACH_ISA(X) X(portable)
#endif

struct LinearIsa;     // linear.h
struct AttentionIsa;  // attention.h
struct CoverageIsa;   // coverage.h

// Runs of n floats. y may be an input.
struct ElementIsa {
  void (*gelu_tanh)(float* y, const float* x, int64_t n);
  void (*gelu_erf)(float* y, const float* x, int64_t n);
  void (*silu_mul)(float* y, const float* gate, const float* up, int64_t n);
  void (*exp_negative)(float* y, const float* x, int64_t n);  // y = e^x, x ≤ 0
  void (*add)(float* y, const float* x, int64_t n);           // y += x
  void (*mix)(float* y, float f, const float* x, float w, int64_t n);  // y = y·f + x·w
  void (*divide)(float* y, float by, int64_t n);              // y /= by
  // As `copy` writes a cache: to the nearest bf16; to blocks of Q8_0, n a multiple of 32.
  void (*round_bf16)(uint16_t* y, const float* x, int64_t n);
  void (*round_q8_0)(BlockQ8_0* y, const float* x, int64_t n);
};

// `rows` rows of n floats, `stride` floats from one to the next. y may be x.
struct NormIsa {
  void (*layer_norm)(float* y, int64_t y_stride, const float* x, int64_t x_stride, int64_t rows, int64_t n, const float* w, const float* b, float eps);
  void (*rms_norm)(float* y, int64_t y_stride, const float* x, int64_t x_stride, int64_t rows, int64_t n, const float* w, float eps);
  void (*unit)(float* y, const float* x, int64_t n);  // y = x/max(‖x‖, 1e-12)
};

struct RotaryIsa {
  void (*rotate)(float* y, int64_t heads, int64_t half, const float* cos, const float* sin);  // y (heads, 2·half), cos, sin (half)
};

struct IsaTable {
  const char* name;  // "cpu/avx2"
  const LinearIsa* linear;
  const AttentionIsa* attention;
  const ElementIsa* element;
  const NormIsa* norm;
  const RotaryIsa* rotary;
  const CoverageIsa* coverage;
};

#define BG_DECLARE(isa)                \
  namespace isa {                      \
  extern const LinearIsa linear;       \
  extern const AttentionIsa attention; \
  extern const ElementIsa element;     \
  extern const NormIsa norm;           \
  extern const RotaryIsa rotary;       \
  extern const CoverageIsa coverage;   \
  }
BG_EACH_ISA(BG_DECLARE)
#undef BG_DECLARE

}  // namespace bg::cpu
