// Attention, cut into (kv head, some query rows). The query heads that share a kv head are rows side by side, so that one token with grouped queries still
// reads each key once. Where that gives too few parts for the threads, as one token does, the spans of keys are shared out too and joined afterwards, in the
// order in which one thread would have joined them: the same bits.
#include <cmath>
#include <mutex>

#include "kernels/cpu/cpu.h"

namespace bg::cpu {

int64_t attend_rows(const Context& c, int64_t heads, int64_t rows) {
  constexpr int64_t kWhole = 48;           // whole vectors of every instruction set
  const int64_t wanted = divide_up(8 * c.threads.count(), heads);
  int64_t parts = divide_up(rows, kAttendRows);
  if (parts < wanted) parts = wanted;
  const int64_t each = divide_up(divide_up(rows, parts), kWhole) * kWhole;
  return each < kAttendRows ? each : kAttendRows;
}

AttendArgs attend_args(const Context& c, const Tensor& k, const Tensor& v, int64_t first, int64_t step, int64_t head, int64_t d) {
  const Tensor keys = k.row_range(first, 0).col_range(head * d, d), values = v.row_range(first, 0).col_range(head * d, d);
  return {keys.data, values.data, stored_bytes(k.type, step * k.stride), stored_bytes(v.type, step * v.stride), k.type, c.precision, d, float(1 / std::sqrt(double(d))), 0};
}

namespace {

// The query rows of one kv head: row r is row r div G of q, query head r mod G of its group; row t of q, from t0 on, sees keys(t) keys.
template <class Keys>
void fill(AttendRow* rows, const Tensor& o, const Tensor& q, int64_t t0, int64_t column, int64_t d, int64_t G, int64_t r0, int64_t r1, const Keys& keys) {
  for (int64_t r = r0; r < r1; ++r) {
    const int64_t t = r / G, at = column + r % G * d;
    rows[r - r0] = {row(q, t0 + t) + at, row(o, t0 + t) + at, keys(t), nullptr};
  }
}

void attend(const Context& c, const AttendArgs& args, const AttendRow* rows, int64_t count, int64_t spans, int thread) {
  auto* states = reinterpret_cast<float*>(c.scratch_of(thread));
  c.isa.attention->sums(states, args, rows, count, 0, spans, c.scratch_of(thread) + kAttendStates);
  c.isa.attention->finish(rows, states, args.d, count);
}

int64_t spans_of(int64_t keys) { return divide_up(keys, kSpanKeys); }

}  // namespace

void attention_frames(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame) {
  if (q.rows == 0) return;
  const int64_t d = q.cols / heads, frames = q.rows / frame, each = attend_rows(c, frames * heads, frame), per_head = divide_up(frame, each);
  c.threads.run(frames * heads * per_head, [&](int64_t unit, int thread) {
    const int64_t r0 = unit % per_head * each, r1 = frame - r0 < each ? frame : r0 + each;
    const int64_t head = unit / per_head % heads, t0 = unit / per_head / heads * frame;
    AttendRow rows[kAttendRows];
    fill(rows, o, q, t0, head * d, d, 1, r0, r1, [&](int64_t) { return frame; });
    attend(c, attend_args(c, k, v, t0, 1, head, d), rows, r1 - r0, spans_of(frame), thread);
  });
}

void attention_causal(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past) {
  const int64_t d = q.cols / heads, G = heads / kv_heads, rows = q.rows * G, each = attend_rows(c, kv_heads, rows), per_head = divide_up(rows, each);
  const auto keys = [&](int64_t t) { return past + t + 1; };
  const auto fill_rows = [&](AttendRow* to, int64_t head, int64_t r0, int64_t r1) { fill(to, o, q, 0, head * G * d, d, G, r0, r1, keys); };
  const int64_t spans = spans_of(past + q.rows);

  // Few rows over many keys: a unit is a span of one head, and leaves its state.
  const size_t floats = size_t(divide_up(rows, 16) * attend_state(d));
  if (per_head == 1 && spans > 1 && kv_heads < 8 * c.threads.count() && size_t(kv_heads * spans) * floats * sizeof(float) <= kPackedBytes) {
    const std::lock_guard<std::mutex> turn(c.packed_turn);
    auto* states = reinterpret_cast<float*>(c.packed);
    const auto state = [&](int64_t head, int64_t span) { return states + size_t(head * spans + span) * floats; };
    c.threads.run(kv_heads * spans, [&](int64_t unit, int thread) {
      const int64_t head = unit % kv_heads, span = unit / kv_heads;
      AttendRow block[kAttendRows];
      fill_rows(block, head, 0, rows);
      c.isa.attention->sums(state(head, span), attend_args(c, k, v, 0, 1, head, d), block, rows, span, span + 1, c.scratch_of(thread));
    });
    c.threads.run(kv_heads, [&](int64_t head, int) {
      AttendRow block[kAttendRows];
      fill_rows(block, head, 0, rows);
      for (int64_t span = 1; span < spans; ++span) c.isa.attention->join(state(head, 0), state(head, span), d, rows);
      c.isa.attention->finish(block, state(head, 0), d, rows);
    });
    return;
  }
  c.threads.run(kv_heads * per_head, [&](int64_t unit, int thread) {
    // The longest rows first: the short ones fill the gaps at the end.
    const int64_t part = per_head - 1 - unit / kv_heads, head = unit % kv_heads;
    const int64_t r0 = part * each, r1 = rows - r0 < each ? rows : r0 + each;
    AttendRow block[kAttendRows];
    fill_rows(block, head, r0, r1);
    attend(c, attend_args(c, k, v, 0, 1, head, d), block, r1 - r0, spans_of(keys((r1 - 1) / G)), thread);
  });
}

}  // namespace bg::cpu
