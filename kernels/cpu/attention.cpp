// Attention, cut into (kv head, some query rows). The query heads that share a kv head are rows side by side, so that one token with grouped queries still
// reads each key once. Calls that share keys read a packed copy of them. Where there are too few parts for the threads, as with one token, the spans of keys
// are shared out too and joined afterwards, in the order in which one thread would have joined them. How work is cut may depend on the number of threads: a
// row's bits depend on nothing but its own keys.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <new>

#include "kernels/cpu/cpu.h"

namespace bg::cpu {

int64_t attend_rows(const Context& c, int64_t heads, int64_t rows, int64_t d) {
  constexpr int64_t kWhole = 48;           // whole vectors of every instruction set
  const int64_t wanted = divide_up(8 * c.threads.count(), heads);
  int64_t parts = divide_up(rows, attend_most(d));
  if (parts < wanted) parts = wanted;
  const int64_t each = divide_up(divide_up(rows, parts), kWhole) * kWhole;
  return each < attend_most(d) ? each : attend_most(d);
}

AttendArgs attend_args(const Context& c, const Tensor& k, const Tensor& v, int64_t step) {
  const size_t k_stride = stored_bytes(k.type, step * k.stride), v_stride = stored_bytes(v.type, step * v.stride);
  return {k.data, v.data, k_stride, v_stride, k.type, c.precision, k.cols, float(1 / std::sqrt(double(k.cols))), 0, nullptr};
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

// body(head, part, args, thread) for each of `heads` sets of keys and each of `parts` sets of rows that share them. Where several calls share keys, these are
// packed first, for as many heads at a time as there is room for. args_of(head): without `packed`.
template <class ArgsOf, class Body>
void share_keys(const Context& c, int64_t heads, int64_t parts, int64_t keys, const ArgsOf& args_of, const Body& body) {
  if (heads == 0) return;
  const int64_t spans = spans_of(keys), span = c.isa.attention->packed_floats(args_of(0)), each = spans * span;
  int64_t room = int64_t(kPackedBytes / sizeof(float)) / each;
  if (parts == 1 || room == 0) {
    c.threads.run(heads * parts, [&](int64_t unit, int thread) { body(unit / parts, unit % parts, args_of(unit / parts), thread); });
    return;
  }
  room = divide_up(heads, divide_up(heads, room));  // alike
  const std::lock_guard<std::mutex> turn(c.packed_turn);
  auto* packed = reinterpret_cast<float*>(c.packed);
  for (int64_t first = 0; first < heads; first += room) {
    const int64_t count = heads - first < room ? heads - first : room;
    c.threads.run(count * spans, [&](int64_t unit, int) { c.isa.attention->pack(packed + unit * span, args_of(first + unit / spans), unit % spans, keys); });
    c.threads.run(count * parts, [&](int64_t unit, int thread) {
      AttendArgs args = args_of(first + unit / parts);
      args.packed = packed + unit / parts * each;
      body(first + unit / parts, unit % parts, args, thread);
    });
  }
}

}  // namespace

void attention_frames(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame) {
  if (q.rows == 0) return;
  const int64_t d = q.cols / heads, frames = q.rows / frame, each = attend_rows(c, frames * heads, frame, d), per_head = divide_up(frame, each);
  const auto args_of = [&](int64_t unit) {
    const int64_t t0 = unit / heads * frame, column = unit % heads * d;
    return attend_args(c, k.row_range(t0, frame).col_range(column, d), v.row_range(t0, frame).col_range(column, d), 1);
  };
  share_keys(c, frames * heads, per_head, frame, args_of, [&](int64_t unit, int64_t part, const AttendArgs& args, int thread) {
    const int64_t r0 = part * each, r1 = frame - r0 < each ? frame : r0 + each, t0 = unit / heads * frame;
    AttendRow rows[kAttendRows];
    fill(rows, o, q, t0, unit % heads * d, d, 1, r0, r1, [&](int64_t) { return frame; });
    attend(c, args, rows, r1 - r0, spans_of(frame), thread);
  });
}

void attention_causal(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past) {
  const int64_t d = q.cols / heads, G = heads / kv_heads, rows = q.rows * G, each = attend_rows(c, kv_heads, rows, d), per_head = divide_up(rows, each);
  const auto keys = [&](int64_t t) { return past + t + 1; };
  const auto fill_rows = [&](AttendRow* to, int64_t head, int64_t r0, int64_t r1) { fill(to, o, q, 0, head * G * d, d, G, r0, r1, keys); };
  const int64_t spans = spans_of(past + q.rows);

  // Few rows over many keys: a unit is a span of one head, or two if the last is short, and leaves its states. Whoever computes the last unit of a head joins all its spans.
  struct alignas(128) Left {
    std::atomic<int64_t> units;
  };
  const int64_t units = std::max<int64_t>(1, (past + q.rows + kSpanKeys / 2) / kSpanKeys);
  const size_t floats = size_t(divide_up(rows, 16) * attend_state(d)), counts = size_t(kv_heads) * sizeof(Left);
  const auto args_of = [&](int64_t head) { return attend_args(c, k.part(head, kv_heads), v.part(head, kv_heads), 1); };
  const bool few = q.rows == 1 && c.isa.attention->are_few(args_of(0), G);
  if (per_head == 1 && (few || (spans > 1 && kv_heads < 8 * c.threads.count())) && counts + size_t(kv_heads * spans) * floats * sizeof(float) <= kPackedBytes) {
    const std::lock_guard<std::mutex> turn(c.packed_turn);
    auto* left = reinterpret_cast<Left*>(c.packed);
    for (int64_t head = 0; head < kv_heads; ++head) new (left + head) Left{units};
    auto* states = reinterpret_cast<float*>(c.packed + counts);
    c.threads.run(kv_heads * units, [&](int64_t i, int thread) {
      const int64_t head = i / units, unit = i % units;
      float* first = states + size_t(head * spans) * floats;
      AttendRow block[kAttendRows];
      fill_rows(block, head, 0, rows);
      for (int64_t span = unit; span == unit || (unit == units - 1 && span < spans); ++span) {
        float* state = first + size_t(span) * floats;
        if (few) {
          c.isa.attention->sums_few(state, args_of(head), block, rows, span, c.scratch_of(thread));
        } else {
          c.isa.attention->sums(state, args_of(head), block, rows, span, span + 1, c.scratch_of(thread));
        }
      }
      if (left[head].units.fetch_sub(1) > 1) return;
      for (int64_t s = 1; s < spans; ++s) c.isa.attention->join(first, first + size_t(s) * floats, d, rows);
      c.isa.attention->finish(block, first, d, rows);
    });
    return;
  }
  share_keys(c, kv_heads, per_head, past + q.rows, args_of, [&](int64_t head, int64_t unit, const AttendArgs& args, int thread) {
    const int64_t part = per_head - 1 - unit;  // the longest rows first: the short ones fill the gaps at the end
    const int64_t r0 = part * each, r1 = rows - r0 < each ? rows : r0 + each;
    AttendRow block[kAttendRows];
    fill_rows(block, head, r0, r1);
    attend(c, args, block, r1 - r0, spans_of(keys((r1 - 1) / G)), thread);
  });
}

}  // namespace bg::cpu
