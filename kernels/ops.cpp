// What every table does alike.
#include "kernels/ops.h"

#include <cstring>

namespace bg {

void Ops::upload(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

void Ops::rotate_into_cache(Tensor keys, Tensor values, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk, float eps,
                            Tensor cos, Tensor sin, int64_t past) {
  rms_norm(q.split_rows(heads), q.split_rows(heads), wq, eps);
  rms_norm(k.split_rows(kv_heads), k.split_rows(kv_heads), wk, eps);
  rotary(q, heads, cos, sin);
  rotary(k, kv_heads, cos, sin);
  const Tensor new_keys = keys.row_range(past, k.rows), new_values = values.row_range(past, v.rows);
  if (new_keys.data != k.data) copy(new_keys, k);
  if (new_values.data != v.data) copy(new_values, v);
}

}  // namespace bg
