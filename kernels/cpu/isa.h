// What is compiled once per instruction set: the inner loops, on raw pointers. kernels/cpu/*.cpp cuts the operations into blocks and calls these
// through the table of the instruction set chosen at run time. Only C headers here, no inline functions (see simd.h).
// Not here: shapes as Tensor, threads.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace bg::cpu {

enum WeightKind { kF32, kF16, kBf16, kQ8_0, kQ4_K, kQ6_K };

struct LinearArgs {                // y_tn = Σ_j x_tj·w_nj + bias_n
  float* y;                        // (T, N)
  int64_t y_stride;
  const float* x;                  // (T, D)
  int64_t x_stride;
  const void* w;                   // (N, D) contiguous, of type `kind`
  WeightKind kind;
  int64_t D;
  const float* bias;               // (N) or nullptr
};
constexpr int64_t kLinearRows = 128, kLinearCols = 48;  // the largest block of y that linear_block takes with scratch
constexpr int64_t kLinearDepth = 512;                   // the part of D that one pass over such a block covers; whole blocks of every quantised type
constexpr int64_t kLinearDirect = 8;                    // up to this many rows of x, weights that are not quantised are read in place, without scratch
constexpr size_t kLinearScratch = sizeof(float) * size_t(kLinearCols * kLinearDepth + kLinearRows * kLinearCols * 8);

constexpr int64_t kAttendRows = 24;      // the most query rows in one call
constexpr int64_t kAttendKeys = 64;      // keys per step of the online softmax, counted from key 0
constexpr int64_t kHeadDimMax = 256;
struct AttendRow {
  const float* q;                        // (d)
  float* o;                              // (d)
  int64_t keys;                          // sees keys 0 … keys−1, at least one
  float* log_sum;                        // where ln Σ_s e^(z_s) goes, or nullptr
};
struct AttendArgs {
  const float *k, *v;                    // (S, d) inside rows of k_stride, v_stride
  int64_t k_stride, v_stride, d;
  float scale;
  int64_t zeros;                         // further keys that every row sees, before key 0: score 0, value 0
};

struct CoverageIsa;  // coverage.h

struct IsaTable {
  const char* name;
  // y rows [t0, t1), columns [n0, n1). scratch: kLinearScratch bytes, unused when t1 − t0 ≤ kLinearDirect and w is not quantised.
  void (*linear_block)(const LinearArgs& a, int64_t t0, int64_t t1, int64_t n0, int64_t n1, float* scratch);
  void (*attend)(const AttendArgs& a, const AttendRow* rows, int64_t count);
  void (*gelu_tanh)(float* y, const float* x, int64_t n);
  void (*silu_mul)(float* y, const float* gate, const float* up, int64_t n);
  void (*exp_negative)(float* y, const float* x, int64_t n);  // y = e^x, x ≤ 0
  const CoverageIsa* coverage;
};

#define BG_DECLARE(isa)                                                                                                   \
  namespace isa {                                                                                                         \
  void linear_block(const LinearArgs& a, int64_t t0, int64_t t1, int64_t n0, int64_t n1, float* scratch);                 \
  void attend(const AttendArgs& a, const AttendRow* rows, int64_t count);                                                 \
  void gelu_tanh(float* y, const float* x, int64_t n);                                                                    \
  void silu_mul(float* y, const float* gate, const float* up, int64_t n);                                                 \
  void exp_negative(float* y, const float* x, int64_t n);                                                                 \
  }
BG_DECLARE(portable)
#if defined(__x86_64__)
BG_DECLARE(avx2)
#endif
#undef BG_DECLARE

}  // namespace bg::cpu
