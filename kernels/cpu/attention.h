// Softmax attention of a few query rows over one head's keys, once per instruction set.
// Not here: which rows share a call, threads (attention.cpp, dilated.cpp).
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace bg::cpu {

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

struct AttentionIsa {
  void (*attend)(const AttendArgs& a, const AttendRow* rows, int64_t count);
};

}  // namespace bg::cpu
