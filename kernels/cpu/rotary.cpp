// Rotary positions, and new tokens into the cache; a row per unit of work.
#include "kernels/cpu/cpu.h"

namespace bg::cpu {

void rotary(const Context& c, Tensor y, int64_t heads, Tensor cos, Tensor sin) {
  for_rows(c, y.rows, 2 * y.cols, [&](int64_t t) { c.isa.rotary->rotate(row(y, t), heads, y.cols / heads / 2, row(cos, t), row(sin, t)); });
}

void rotate_into_cache(const Context& c, Tensor keys, Tensor values, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk,
                       float eps, Tensor cos, Tensor sin, int64_t past) {
  const int64_t d = keys.cols;
  const auto turn = [&](float* x, int64_t n, const float* w, int64_t t) {
    c.isa.norm->rms_norm(x, d, x, d, n, d, w, eps);
    c.isa.rotary->rotate(x, n, d / 2, row(cos, t), row(sin, t));
  };
  const auto keep = [&](const Tensor& cache, const float* x, int64_t t) {
    for (int64_t h = 0; h < kv_heads; ++h, x += d) put_row(c, cache.part(h, kv_heads).row_range(past + t, 1).data, cache.type, x, d);
  };
  for_rows(c, q.rows, 5 * q.cols + 10 * k.cols, [&](int64_t t) {
    turn(row(q, t), heads, wq, t);
    turn(row(k, t), kv_heads, wk, t);
    keep(keys, row(k, t), t);
    keep(values, row(v, t), t);
  });
}

}  // namespace bg::cpu
