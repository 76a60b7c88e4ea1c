// Softmax attention of some query rows over one head's keys, once per instruction set.
// Not here: which rows share a call, threads (attention.cpp, dilated.cpp).
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/linear.h"
#include "kernels/ops.h"

namespace bg::cpu {

constexpr int64_t kAttendRows = 528;     // the most query rows in one call: they share what is made of the keys
constexpr int64_t kSpanKeys = 512;       // keys of a span, counted from key 0; each is summed from nothing, then joined to those before it
constexpr int64_t kHeadDimMax = 256;
static inline int64_t attend_most(int64_t d) { return d <= 176 ? kAttendRows : 384; }  // the same for heads of d
constexpr int64_t kAttendQueries = 384 * kHeadDimMax;                                  // floats of attend_most rows of d
static_assert(176 * kAttendRows <= kAttendQueries);
constexpr int64_t kFewRows = 4;

struct AttendRow {
  const float* q;                        // (d)
  float* o;                              // (d)
  int64_t keys;                          // sees keys 0 … keys−1, at least one
  float* log_sum;                        // where ln Σ_s e^(z_s) goes, or nullptr
};
struct AttendArgs {
  const void *k, *v;                     // (S, d) of `type`: F32, BF16 or Q8_0
  size_t k_stride, v_stride;             // bytes from one row to the next
  Type type;
  Precision precision;
  int64_t d;
  float scale;
  int64_t zeros;                         // further keys that every row sees, before key 0: score 0, value 0
  const float* packed;                   // what `pack` made of all spans, one after the other, for calls that share them; or nullptr
};

// What is known of sixteen rows after some keys, in lines of sixteen floats: Σ p·v (d lines and zeros up to a multiple of 16), the largest scaled score m, and
// l = Σ p, with p = e^(z − m). The states of a call are sixteens one after the other; the last may be partly empty.
static inline int64_t attend_state(int64_t d) { return 16 * ((d + 15) / 16 * 16 + 2); }  // floats
struct AttentionIsa {
  // Keys and values of one span as `sums` reads them: packed_floats for a whole span, at a multiple of 64 bytes.
  int64_t (*packed_floats)(const AttendArgs& a);
  void (*pack)(float* to, const AttendArgs& a, int64_t span, int64_t keys);  // keys: of the whole cache
  // The state of the rows after spans [first, last) alone. scratch: kAttendScratch bytes, 64-byte aligned.
  void (*sums)(float* states, const AttendArgs& a, const AttendRow* rows, int64_t count, int64_t first, int64_t last, char* scratch);
  // The same for one token and one span, where are_few: the same bits.
  bool (*are_few)(const AttendArgs& a, int64_t count);
  void (*sums_few)(float* state, const AttendArgs& a, const AttendRow* rows, int64_t count, int64_t span, char* scratch);
  // states of earlier spans ∪= one later span's.
  void (*join)(float* states, const float* span, int64_t d, int64_t count);
  // o and log_sum of the rows.
  void (*finish)(const AttendRow* rows, const float* states, int64_t d, int64_t count);
};

constexpr size_t kAttendStates = size_t(kAttendQueries + 2 * kAttendRows) * sizeof(float);  // of a full call
constexpr size_t kAttendScratch = kThreadScratch - kAttendStates;

}  // namespace bg::cpu
