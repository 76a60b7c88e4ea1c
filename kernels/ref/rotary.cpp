// Rotary positions, half-split form, in place. y (T, H·d), cos, sin (T, d/2).
#include "kernels/ref/ref.h"

namespace bg::ref {

// (a, b) = the halves of y_th:  a' = a·cos − b·sin,  b' = b·cos + a·sin
template <class T>
void rotary(Tensor y, int64_t heads, Tensor cos, Tensor sin) {
  const int64_t half = y.cols / heads / 2;
  for (int64_t t = 0; t < y.rows; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      T *a = row<T>(y, t) + 2 * half * h, *b = a + half;
      for (int64_t i = 0; i < half; ++i) {
        const T c = row<T>(cos, t)[i], s = row<T>(sin, t)[i], a_i = a[i], b_i = b[i];
        a[i] = a_i * c - b_i * s;
        b[i] = b_i * c + a_i * s;
      }
    }
  }
}

template void rotary<float>(Tensor, int64_t, Tensor, Tensor);
template void rotary<double>(Tensor, int64_t, Tensor, Tensor);

}  // namespace bg::ref
