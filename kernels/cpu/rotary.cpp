// Rotary positions, and new tokens into the cache; a row per unit of work.
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
  // Of one token by kv heads: a thread turns the heads that it has multiplied and will attend with.
  const int64_t parts = q.rows == 1 ? kv_heads : 1, each = kv_heads / parts;
  const auto unit = [&](int64_t i) {
    const int64_t t = i / parts, first = i % parts * each;
    turn(row(q, t) + first * G * d, each * G, wq, t);
    turn(row(k, t) + first * d, each, wk, t);
    for (int64_t h = first; h < first + each; ++h) {
      put_row(c, keys.part(h, kv_heads).row_range(past + t, 1).data, keys.type, row(k, t) + h * d, d);
      put_row(c, values.part(h, kv_heads).row_range(past + t, 1).data, values.type, row(v, t) + h * d, d);
    }
  };
  if (q.rows == 1) return c.threads.run(kv_heads, [&](int64_t head, int) { unit(head); });
  for_rows(c, q.rows, 5 * q.cols + 10 * k.cols, unit);
}

}  // namespace bg::cpu
