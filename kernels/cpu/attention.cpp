// Attention, cut into (kv head, kAttendRows query rows). The query heads that share a kv head are rows side by side, so that one token with
// grouped queries still reads each key once.
#include <cmath>

#include "kernels/cpu/cpu.h"

namespace bg::cpu {
namespace {

// Query rows [t0, t0 + T) against `args`; row t of these sees keys(t) keys. Unit r of a kv head is row r div G, query head r mod G of the group.
template <class Keys>
void block(const Context& c, const AttendArgs& args, const Tensor& o, const Tensor& q, int64_t t0, int64_t first_head, int64_t G, int64_t r0, int64_t r1,
           const Keys& keys) {
  AttendRow rows[kAttendRows];
  for (int64_t r = r0; r < r1; ++r) {
    const int64_t t = r / G, column = (first_head + r % G) * args.d;
    rows[r - r0] = {row(q, t0 + t) + column, row(o, t0 + t) + column, keys(t), nullptr};
  }
  c.isa.attention->attend(args, rows, r1 - r0);
}

AttendArgs arguments(const Tensor& k, const Tensor& v, int64_t first_key, int64_t kv_head, int64_t d) {
  return {row(k, first_key) + kv_head * d, row(v, first_key) + kv_head * d, k.stride, v.stride, d, float(1 / std::sqrt(double(d))), 0};
}

}  // namespace

void attention_frames(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame) {
  if (q.rows == 0) return;
  const int64_t d = q.cols / heads, per_head = divide_up(frame, kAttendRows);
  c.threads.run(q.rows / frame * heads * per_head, [&](int64_t unit, int) {
    const int64_t r0 = unit % per_head * kAttendRows, r1 = frame - r0 < kAttendRows ? frame : r0 + kAttendRows;
    const int64_t head = unit / per_head % heads, t0 = unit / per_head / heads * frame;
    block(c, arguments(k, v, t0, head, d), o, q, t0, head, 1, r0, r1, [&](int64_t) { return frame; });
  });
}

void attention_causal(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past) {
  const int64_t d = q.cols / heads, G = heads / kv_heads, rows = q.rows * G, per_head = divide_up(rows, kAttendRows);
  c.threads.run(kv_heads * per_head, [&](int64_t unit, int) {
    // The longest rows first: the short ones fill the gaps at the end.
    const int64_t part = per_head - 1 - unit / kv_heads, kv_head = unit % kv_heads;
    const int64_t r0 = part * kAttendRows, r1 = rows - r0 < kAttendRows ? rows : r0 + kAttendRows;
    block(c, arguments(k, v, 0, kv_head, d), o, q, 0, kv_head * G, G, r0, r1, [&](int64_t t) { return past + t + 1; });
  });
}

}  // namespace bg::cpu
