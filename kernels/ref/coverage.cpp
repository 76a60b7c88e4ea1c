// CoverageTokenSelector (MODEL.md §3a), the plain definition: C is stored whole and every gain is evaluated again at every step.
// v (L, D) feature rows, t (m, D) text rows or none.
//   E_ij = e^((V_i·V_j − 1)·5), text rows e^((T_i·V_j − max_j T_i·V_j)·50): in type T, NaN counts as 0 (the shift cancels in the softmax)
//   Z_i  = Σ_j E_ij, each term rounded to a multiple of 2^−e, e = min(50, 61 − ⌈log2 L⌉), added exactly
//   C_ij = E_ij·scale_i rounded to an integer, scale_i = 2^s·weight/(n·Z_i) in double: C in units of 2^−s (n = L, weight 1, or ½ with text;
//          for text n = m, weight 1, in units of 2^−s')
// s = min(62, 51 + ⌊log2 L⌋), s' = min(s, 51 + ⌊log2 m⌋): so that an entry (at most 2^s·weight/n) is at most 2^51, and all of C at most 1.5·2^62.
// Gains are sums of integers: exact, whatever the order, and none depends on how it was reached. A unit is 2^−62 of the whole for L ≥ 2048; an entry
// is off by half of it at most, where rounding of similarities to float moves it by 10^−6 of itself.
#include <algorithm>
#include <bit>
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

// E of one kind of rows. text: the largest similarity of the row is taken off, else 1
template <class T>
void exponentials(T* e, const T* a, int64_t rows, const T* v, int64_t L, int64_t D, bool text) {
  for (int64_t i = 0; i < rows; ++i) {
    T* ei = e + i * L;
    T top = text ? -2 : 1;
    for (int64_t j = 0; j < L; ++j) {
      ei[j] = 0;
      for (int64_t d = 0; d < D; ++d) ei[j] += a[i * D + d] * v[j * D + d];
      if (text && ei[j] > top) top = ei[j];
    }
    for (int64_t j = 0; j < L; ++j) {
      ei[j] = std::exp((ei[j] - top) * T(text ? 50 : 5));
      if (!(ei[j] > 0)) ei[j] = 0;
    }
  }
}

template <class T>
void units_of_rows(int64_t* c, const T* e, int64_t rows, int64_t L, double scale) {
  const double sum_unit = std::ldexp(1.0, coverage_sum_bits(L));
  for (int64_t i = 0; i < rows; ++i) {
    int64_t z = 0;
    for (int64_t j = 0; j < L; ++j) z += int64_t(std::nearbyint(double(e[i * L + j]) * sum_unit));
    const double scale_i = coverage_scale(z, L, scale);
    for (int64_t j = 0; j < L; ++j) c[i * L + j] = int64_t(std::nearbyint(double(e[i * L + j]) * scale_i));
  }
}

}  // namespace

int coverage_sum_bits(int64_t L) { return std::min(50, 61 - int(std::bit_width(uint64_t(L - 1)))); }

double coverage_scale(int64_t z, int64_t L, double scale) { return z > 0 ? scale / (double(z) * std::ldexp(1.0, -coverage_sum_bits(L))) : 0; }

CoverageUnits coverage_units(int64_t L, int64_t m) {
  CoverageUnits u;
  u.bits = std::min(62, 50 + int(std::bit_width(uint64_t(L))));
  const int text_bits = m > 0 ? std::min(u.bits, 50 + int(std::bit_width(uint64_t(m)))) : u.bits;
  u.text_shift = u.bits - text_bits;
  u.text_scale = m > 0 ? std::ldexp(1.0, text_bits) / double(m) : 0;
  u.visual_scale = std::ldexp(m > 0 ? 0.5 : 1.0, u.bits) / double(L);
  return u;
}

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
double greedy_plain(int64_t* index, double* gain, const int64_t* c, int64_t rows, int64_t L, int64_t k, int64_t* best, int bits) {
  std::fill(best, best + rows, 0);
  for (int64_t step = 0; step < k; ++step) {
    int64_t chosen = -1, most = 0;
    for (int64_t j = 0; j < L; ++j) {
      if (std::find(index, index + step, j) != index + step) continue;
      int64_t g = 0;
      for (int64_t i = 0; i < rows; ++i) g += std::max<int64_t>(0, c[i * L + j] - best[i]);
      if (chosen < 0 || g > most) {
        chosen = j;
        most = g;
      }
    }
    index[step] = chosen;
    gain[step] = std::ldexp(double(most), -bits);
    for (int64_t i = 0; i < rows; ++i) best[i] = std::max(best[i], c[i * L + chosen]);
  }
  return in_index_order(index, gain, k);
}

template <class T>
double coverage_of_exponentials(int64_t* index, double* gain, const T* e, int64_t m, int64_t L, int64_t k, int64_t* c, int64_t* best) {
  const CoverageUnits u = coverage_units(L, m);
  units_of_rows(c, e, m, L, u.text_scale);
  for (int64_t i = 0; i < m * L; ++i) c[i] <<= u.text_shift;
  units_of_rows(c + m * L, e + m * L, L, L, u.visual_scale);
  return greedy_plain(index, gain, c, m + L, L, k, best, u.bits);
}

// Scratch: C (m+L, L) and best (m+L) of 8 bytes, E (m+L, L), V (L, D), T (m, D) of type T, one after the other.
template <class T>
size_t coverage_scratch(int64_t L, int64_t D, int64_t m) {
  return 8 * size_t(m + L) * size_t(L + 1) + sizeof(T) * size_t(m + L) * size_t(L + D);
}

template <class T>
double coverage_select(int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch, CoverageReport* report) {
  const int64_t L = v.rows, D = v.cols, m = t.rows;
  int64_t* c = static_cast<int64_t*>(scratch);
  int64_t* best = c + (m + L) * L;
  T* e = reinterpret_cast<T*>(best + m + L);
  T* unit_v = e + (m + L) * L;
  T* unit_t = unit_v + L * D;
  unit_rows(unit_v, v);
  if (m > 0) unit_rows(unit_t, t);
  exponentials(e, unit_t, m, unit_v, L, D, true);
  exponentials(e + m * L, unit_v, L, unit_v, L, D, false);
  const double total = coverage_of_exponentials(index, gain, e, m, L, k, c, best);
  int64_t sum = 0;
  for (int64_t i = 0; i < m + L; ++i) sum += *std::max_element(c + i * L, c + (i + 1) * L);
  report->most = std::ldexp(double(sum), -coverage_units(L, m).bits);
  report->evaluations = k * L - k * (k - 1) / 2;
  return total;
}

#define BG_INSTANTIATE(T)                                                                                                     \
  template size_t coverage_scratch<T>(int64_t, int64_t, int64_t);                                                             \
  template double coverage_of_exponentials<T>(int64_t*, double*, const T*, int64_t, int64_t, int64_t, int64_t*, int64_t*);    \
  template double coverage_select<T>(int64_t*, double*, Tensor, Tensor, int64_t, void*, CoverageReport*);
BG_INSTANTIATE(float)
BG_INSTANTIATE(double)

}  // namespace bg::ref
