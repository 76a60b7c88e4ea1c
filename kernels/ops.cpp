// What every table does alike.
#include "kernels/ops.h"

#include <cstring>

namespace bg {

void Ops::upload(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

void Ops::rotate_into_cache(Tensor keys, Tensor values, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk, float eps,
                            Tensor cos, Tensor sin, int64_t past) {
  const int64_t d = keys.cols, T = q.rows;
  for (int64_t h = 0; h < heads; ++h) rms_norm(q.col_range(h * d, d), q.col_range(h * d, d), wq, eps);
  for (int64_t h = 0; h < kv_heads; ++h) rms_norm(k.col_range(h * d, d), k.col_range(h * d, d), wk, eps);
  rotary(q, heads, cos, sin);
  rotary(k, kv_heads, cos, sin);
  for (int64_t h = 0; h < kv_heads; ++h) {
    copy(keys.part(h, kv_heads).row_range(past, T), k.col_range(h * d, d));
    copy(values.part(h, kv_heads).row_range(past, T), v.col_range(h * d, d));
  }
}

}  // namespace bg
