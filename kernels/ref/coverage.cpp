// CoverageTokenSelector (MODEL.md §3a), the plain definition: C is stored whole and every gain is evaluated again at every step.
// v (L, D) feature rows, t (m, D) text rows or none. Scratch: V (L, D), T (m, D), C (m+L, L), best (m+L), all of type T, one after the other.
#include <algorithm>
#include <cmath>

#include "kernels/ref/ref.h"

namespace bg::ref {
namespace {

// unit_i = x_i/max(‖x_i‖, 1e-12), squares summed in double
template <class T>
void unit_rows(T* unit, const Tensor& x) {
  for (int64_t i = 0; i < x.rows; ++i) {
    double squares = 0;
    for (int64_t j = 0; j < x.cols; ++j) squares += double(row<T>(x, i)[j]) * double(row<T>(x, i)[j]);
    const T norm = std::fmax(T(std::sqrt(squares)), T(1e-12));
    for (int64_t j = 0; j < x.cols; ++j) unit[i * x.cols + j] = row<T>(x, i)[j] / norm;
  }
}

// c_ij = weight·softmax_j(a_i·v_j/temperature)/rows
template <class T>
void similarity_softmax(T* c, const T* a, int64_t rows, const T* v, int64_t L, int64_t D, T temperature, T weight) {
  for (int64_t i = 0; i < rows; ++i) {
    T* ci = c + i * L;
    for (int64_t j = 0; j < L; ++j) {
      T dot = 0;
      for (int64_t d = 0; d < D; ++d) dot += a[i * D + d] * v[j * D + d];
      ci[j] = dot / temperature;
    }
    const T largest = *std::max_element(ci, ci + L);
    T total = 0;
    for (int64_t j = 0; j < L; ++j) total += ci[j] = std::exp(ci[j] - largest);
    for (int64_t j = 0; j < L; ++j) ci[j] = weight * (ci[j] / total / T(rows));
  }
}

}  // namespace

double in_index_order(int64_t* index, double* gain, int64_t k) {
  double total = 0;
  for (int64_t i = 0; i < k; ++i) total += gain[i];
  for (int64_t i = 1; i < k; ++i) {  // insertion sort of the pairs: k is a token budget, a few hundred at most
    const int64_t at = index[i];
    const double g = gain[i];
    int64_t j = i;
    for (; j > 0 && index[j - 1] > at; --j) {
      index[j] = index[j - 1];
      gain[j] = gain[j - 1];
    }
    index[j] = at;
    gain[j] = g;
  }
  return total;
}

// k times: gain_j = Σ_i max(0, C_ij − best_i) over columns not yet taken; the largest, lowest index on a tie; best_i = max(best_i, C_ij)
template <class T>
double greedy_plain(int64_t* index, double* gain, const T* c, int64_t rows, int64_t L, int64_t k, T* best) {
  std::fill(best, best + rows, T(0));
  for (int64_t step = 0; step < k; ++step) {
    int64_t chosen = -1;
    double most = 0;
    for (int64_t j = 0; j < L; ++j) {
      if (std::find(index, index + step, j) != index + step) continue;
      const double g = column_gain(c + j, L, best, rows);
      if (chosen < 0 || g > most) {
        chosen = j;
        most = g;
      }
    }
    index[step] = chosen;
    gain[step] = most;
    for (int64_t i = 0; i < rows; ++i)
      if (c[i * L + chosen] > best[i]) best[i] = c[i * L + chosen];
  }
  return in_index_order(index, gain, k);
}

template <class T>
size_t coverage_scratch(int64_t L, int64_t D, int64_t m) {
  return sizeof(T) * (size_t(L + m) * size_t(D) + size_t(m + L) * size_t(L) + size_t(m + L));
}

template <class T>
double coverage_select(int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch) {
  const int64_t L = v.rows, D = v.cols, m = t.rows;
  T* unit_v = static_cast<T*>(scratch);
  T* unit_t = unit_v + L * D;
  T* c = unit_t + m * D;
  T* best = c + (m + L) * L;
  unit_rows(unit_v, v);
  if (m > 0) {
    unit_rows(unit_t, t);
    similarity_softmax(c, unit_t, m, unit_v, L, D, T(0.02), T(1));
  }
  similarity_softmax(c + m * L, unit_v, L, unit_v, L, D, T(0.2), m > 0 ? T(0.5) : T(1));
  return greedy_plain(index, gain, c, m + L, L, k, best);
}

#define BG_INSTANTIATE(T)                                                                                   \
  template size_t coverage_scratch<T>(int64_t, int64_t, int64_t);                                           \
  template double greedy_plain<T>(int64_t*, double*, const T*, int64_t, int64_t, int64_t, T*);              \
  template double coverage_select<T>(int64_t*, double*, Tensor, Tensor, int64_t, void*);
BG_INSTANTIATE(float)
BG_INSTANTIATE(double)

}  // namespace bg::ref
