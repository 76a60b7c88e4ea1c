// Rotary positions, and new tokens into the cache; a row, or of one row a head, per unit of work.
#include "kernels/cpu/cpu.h"

namespace bg::cpu {

void rotary(const Context& c, Tensor y, int64_t heads, Tensor cos, Tensor sin) {
  for_rows(c, y.rows, 2 * y.cols, [&](int64_t t) { c.isa.rotary->rotate(row(y, t), heads, y.cols / heads / 2, row(cos, t), row(sin, t)); });
}

void rotate_into_cache(const Context& c, Tensor keys, Tensor values, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk,
                       float eps, Tensor cos, Tensor sin, int64_t past) {
  const int64_t d = keys.cols, G = heads / kv_heads;
  const auto turn = [&](float* x, int64_t n, const float* w, int64_t t) {
    c.isa.norm->rms_norm(x, d, x, d, n, d, w, eps);
    c.isa.rotary->rotate(x, n, d / 2, row(cos, t), row(sin, t));
  };
  const auto heads_of = [&](int64_t t, int64_t first, int64_t count) {  // kv heads and the query heads that share them
    turn(row(q, t) + first * G * d, count * G, wq, t);
    turn(row(k, t) + first * d, count, wk, t);
    for (int64_t h = first; h < first + count; ++h) {
      put_row(c, keys.part(h, kv_heads).row_range(past + t, 1).data, keys.type, row(k, t) + h * d, d);
      put_row(c, values.part(h, kv_heads).row_range(past + t, 1).data, values.type, row(v, t) + h * d, d);
    }
  };
  // Of one token by heads: a thread turns those that it has multiplied and will attend with.
  if (q.rows == 1) return c.threads.run(kv_heads, [&](int64_t head, int) { heads_of(0, head, 1); });
  for_rows(c, q.rows, 5 * q.cols + 10 * k.cols, [&](int64_t t) { heads_of(t, 0, kv_heads); });
}

}  // namespace bg::cpu
