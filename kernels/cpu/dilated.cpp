// Dilated attention (LongNet), cut into (head, up to kUnitRows consecutive rows). For each pair the rows that the head's group keeps go through the same
// attention as everywhere else, their keys being a strided view of k and v; padding is a number of zero keys. The pairs are mixed one after the other:
//   m' = max(m, s_p);  f = e^(m − m');  w = e^(s_p − m');  total = total·f + w;  o = o·f + w·o_p;  at the end o/total.
// Nothing depends on which rows share a unit. Work is linear in T.
#include <cmath>

#include "kernels/cpu/cpu.h"

namespace bg::cpu {
namespace {

constexpr int64_t kUnitRows = 2048;  // whole segments of LongNet: a dilation of 4 still fills a call
constexpr float kMissing = -1e8f;               // s of a pair that does not hold the row

// The rows [t0, t1) of one head, their sums over the pairs so far.
struct Unit {
  const Context& c;
  int thread;
  Tensor o, q, k, v;
  int64_t head, d, t0, t1;
  float most[kUnitRows], total[kUnitRows];

  float* out(int64_t t) const { return row(o, t) + head * d; }

  void begin() {
    for (int64_t t = t0; t < t1; ++t) {
      most[t - t0] = kMissing;
      total[t - t0] = 0;
      for (int64_t j = 0; j < d; ++j) out(t)[j] = 0;
    }
  }

  // from: o_p, or nullptr for a row that is not kept.
  void mix(int64_t t, const float* from, float s) {
    if (s == 0) s = kMissing;
    float &m = most[t - t0], &sum = total[t - t0];
    const float larger = s > m ? s : m, f = std::exp(m - larger), w = std::exp(s - larger);
    if (from != nullptr) {
      c.isa.element->mix(out(t), f, from, w, d);
    } else if (f != 1) {
      for (int64_t j = 0; j < d; ++j) out(t)[j] *= f;
    }
    sum = sum * f + w;
    m = larger;
  }

  void finish() const {
    for (int64_t t = t0; t < t1; ++t) c.isa.element->divide(out(t), total[t - t0], d);
  }

  // Rows [a, b), all of the segment that starts at `start`, in a pair whose group j keeps every r-th row of it.
  void add_segment(int64_t a, int64_t b, int64_t start, int64_t g, int64_t r, int64_t j) {
    const int64_t rows_here = k.rows - start < g ? k.rows - start : g;                 // the others of the segment are zero
    const int64_t keys = rows_here > j ? divide_up(rows_here - j, r) : 0, zeros = divide_up(g, r) - keys;
    AttendRow rows[kAttendRows];
    int64_t where[kAttendRows], count = 0;
    const auto attend = [&] {
      if (count == 0) return;
      const auto from_first = [&](const Tensor& x) { return x.row_range(start + j, x.rows - start - j).col_range(head * d, d); };
      AttendArgs args = attend_args(c, from_first(k), from_first(v), r);
      args.zeros = zeros;
      auto* states = reinterpret_cast<float*>(c.scratch_of(thread));
      c.isa.attention->sums(states, args, rows, count, 0, divide_up(keys, kSpanKeys), c.scratch_of(thread) + kAttendStates);
      for (int64_t first = 0; first < count; first += 16, states += attend_state(d)) {
        const int64_t here = count - first < 16 ? count - first : 16;
        float parts[16 * kHeadDimMax], s[16];
        for (int64_t i = 0; i < here; ++i) {
          rows[first + i].o = parts + i * d;
          rows[first + i].log_sum = s + i;
        }
        c.isa.attention->finish(rows + first, states, d, here);
        for (int64_t i = 0; i < here; ++i) mix(where[first + i], parts + i * d, s[i]);
      }
      count = 0;
    };
    for (int64_t t = a; t < b; ++t) {
      if ((t - start) % r != j) {
        mix(t, nullptr, kMissing);
        continue;
      }
      rows[count] = {row(q, t) + head * d, nullptr, keys, nullptr};
      where[count++] = t;
      if (count == attend_most(d)) attend();
    }
    attend();
  }
};

}  // namespace

void attention_dilated(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n) {
  const int64_t T = q.rows, d = q.cols / heads, wanted = 4 * attend_rows(c, heads, divide_up(T, 4), d);
  const int64_t each = wanted < kUnitRows ? wanted : kUnitRows, per_head = divide_up(T, each);
  c.threads.run(heads * per_head, [&](int64_t index, int thread) {
    const int64_t t0 = index % per_head * each, t1 = T - t0 < each ? T : t0 + each;
    Unit unit{c, thread, o, q, k, v, index / per_head, d, t0, t1, {}, {}};
    unit.begin();
    for (int64_t p = 0; p < n; ++p) {
      const int64_t g = pairs[p].segment, r = pairs[p].dilation, group = unit.head / divide_up(heads, r);
      for (int64_t a = t0; a < t1;) {
        const int64_t start = a / g * g, b = t1 - start < g ? t1 : start + g;
        unit.add_segment(a, b, start, g, r, group);
        a = b;
      }
    }
    unit.finish();
  });
}

}  // namespace bg::cpu
