// CoverageTokenSelector (MODEL.md §3a) by lazy greedy. v (L, D), t (m, D) or none; C (m+L, L) is stored by columns: ct (L, m+L), ct_ji = C_ij,
// so that the gain of a column is one run through memory, text rows first.
//
// Why lazy gives the very choice and the very gains of the plain definition, in floating point too. A gain is Σ_i max(0, fl(C_ij − best_i)),
// added in ascending i. best_i never falls, rounding is monotone (a ≤ b ⇒ fl(a) ≤ fl(b)) and so are max and the rounded sum in each of its
// terms: evaluated again later, a gain is never larger. So a gain from an earlier step bounds today's from above. When the first of the heap
// (largest gain, lowest column on a tie) was evaluated in this step, every other column's gain today is at most its stored one, hence
// smaller, or equal with a higher column: the plain definition takes the same column, with the same number. How many stale columns
// are evaluated at once (for the threads' sake) cannot matter.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

namespace bg::cpu {
namespace {

constexpr int64_t kBatch = 16;   // stale columns evaluated at once

// Order of the heap: the first is the one with no other before it.
bool after(const Candidate& a, const Candidate& b) { return a.gain < b.gain || (a.gain == b.gain && a.column > b.column); }

// ref::column_gain of four columns side by side: four independent chains instead of one.
void gains_of_four(Candidate* four, const float* ct, const float* best, int64_t rows) {
  const float* column[4];
  double sum[4] = {};
  for (int i = 0; i < 4; ++i) column[i] = ct + four[i].column * rows;
  for (int64_t i = 0; i < rows; ++i) {
    for (int n = 0; n < 4; ++n) {
      const double more = double(column[n][i]) - double(best[i]);
      sum[n] += more > 0 ? more : 0;
    }
  }
  for (int i = 0; i < 4; ++i) four[i].gain = sum[i];
}

void evaluate(const Context& c, Candidate* list, int64_t count, int64_t step, const float* ct, const float* best, int64_t rows) {
  for_rows(c, divide_up(count, 4), 8 * rows, [&](int64_t quad) {
    Candidate* four = list + 4 * quad;
    const int64_t n = std::min<int64_t>(4, count - 4 * quad);
    if (n == 4) {
      gains_of_four(four, ct, best, rows);
    } else {
      for (int64_t i = 0; i < n; ++i) four[i].gain = ref::column_gain(ct + four[i].column * rows, 1, best, rows);
    }
    for (int64_t i = 0; i < n; ++i) four[i].step = step;
  });
}

// unit_i = x_i/max(‖x_i‖, 1e-12)
void unit_rows(const Context& c, float* unit, const Tensor& x) {
  for_rows(c, x.rows, 4 * x.cols, [&](int64_t i) {
    double squares = 0;
    for (int64_t j = 0; j < x.cols; ++j) squares += double(row(x, i)[j]) * double(row(x, i)[j]);
    const float norm = std::fmax(float(std::sqrt(squares)), 1e-12f);
    for (int64_t j = 0; j < x.cols; ++j) unit[i * x.cols + j] = row(x, i)[j] / norm;
  });
}

// Columns of s (L, n) hold the similarities of n rows of C → weight·softmax over the L entries of each column, /n. largest, total (n) are scratch.
// Each pass goes along rows of s; a column's maximum and its sum run over ascending j.
void softmax_columns(const Context& c, const Tensor& s, float temperature, float weight, float* largest, float* total) {
  const int64_t L = s.rows, n = s.cols;
  for_rows(c, L, 4 * n, [&](int64_t j) {
    for (int64_t i = 0; i < n; ++i) row(s, j)[i] /= temperature;
  });
  constexpr int64_t kStrip = 64;  // columns per unit of work
  for_rows(c, divide_up(n, kStrip), kStrip * L, [&](int64_t strip) {
    const int64_t first = strip * kStrip, last = std::min(n, first + kStrip);
    std::copy(row(s, 0) + first, row(s, 0) + last, largest + first);
    for (int64_t j = 1; j < L; ++j)
      for (int64_t i = first; i < last; ++i) largest[i] = std::max(largest[i], row(s, j)[i]);
  });
  for_rows(c, L, 4 * n, [&](int64_t j) {
    for (int64_t i = 0; i < n; ++i) row(s, j)[i] -= largest[i];
    c.isa.exp_negative(row(s, j), row(s, j), n);
  });
  for_rows(c, divide_up(n, kStrip), kStrip * L, [&](int64_t strip) {
    const int64_t first = strip * kStrip, last = std::min(n, first + kStrip);
    std::fill(total + first, total + last, 0.0f);
    for (int64_t j = 0; j < L; ++j)
      for (int64_t i = first; i < last; ++i) total[i] += row(s, j)[i];
  });
  for_rows(c, L, 4 * n, [&](int64_t j) {
    for (int64_t i = 0; i < n; ++i) row(s, j)[i] = weight * (row(s, j)[i] / total[i] / float(n));
  });
}

// Scratch, each part a multiple of 64 bytes long: ct, unit rows of v, of t, three vectors over the rows of C, the heap.
struct Layout {
  size_t unit_v, unit_t, vectors, heap, end;
  Layout(int64_t L, int64_t D, int64_t m) {
    const auto padded = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
    const size_t rows = size_t(m + L), columns = size_t(L), width = size_t(D), text = size_t(m);
    unit_v = padded(4 * rows * columns);
    unit_t = unit_v + padded(4 * columns * width);
    vectors = unit_t + padded(4 * text * width);
    heap = vectors + padded(4 * 3 * rows);
    end = heap + padded(sizeof(Candidate) * columns);
  }
};

}  // namespace

double greedy_lazy(const Context& c, int64_t* index, double* gain, const float* ct, int64_t rows, int64_t L, int64_t k, float* best, Candidate* heap) {
  std::fill(best, best + rows, 0.0f);
  for (int64_t j = 0; j < L; ++j) heap[j] = {0, j, 0};
  evaluate(c, heap, L, 0, ct, best, rows);
  std::make_heap(heap, heap + L, after);
  Candidate* end = heap + L;
  for (int64_t step = 0; step < k; ++step) {
    while (heap->step != step) {  // pop a run of stale columns to the end of the array, evaluate them there, push them back
      Candidate* stale = end;
      while (stale != heap && end - stale < kBatch && heap->step != step) std::pop_heap(heap, stale--, after);
      evaluate(c, stale, end - stale, step, ct, best, rows);
      while (stale != end) std::push_heap(heap, ++stale, after);
    }
    std::pop_heap(heap, end--, after);
    index[step] = end->column;
    gain[step] = end->gain;
    const float* chosen = ct + end->column * rows;
    for (int64_t i = 0; i < rows; ++i)
      if (chosen[i] > best[i]) best[i] = chosen[i];
  }
  return ref::in_index_order(index, gain, k);
}

size_t coverage_scratch(int64_t L, int64_t D, int64_t m) { return Layout(L, D, m).end; }

double coverage_select(const Context& c, int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch) {
  const int64_t L = v.rows, D = v.cols, m = t.rows, rows = m + L;
  const Layout at(L, D, m);
  char* base = static_cast<char*>(scratch);
  float* ct = reinterpret_cast<float*>(base);
  float* unit_v = reinterpret_cast<float*>(base + at.unit_v);
  float* vectors = reinterpret_cast<float*>(base + at.vectors);
  const Tensor whole{ct, Type::f32, L, rows, rows}, text = whole.col_range(0, m), visual = whole.col_range(m, L), units{unit_v, Type::f32, L, D, D};
  unit_rows(c, unit_v, v);
  if (m > 0) {
    float* unit_t = reinterpret_cast<float*>(base + at.unit_t);
    unit_rows(c, unit_t, t);
    linear(c, text, units, {unit_t, Type::f32, m, D}, nullptr);
    softmax_columns(c, text, 0.02f, 1.0f, vectors, vectors + rows);
  }
  self_products(c, visual, units);
  softmax_columns(c, visual, 0.2f, m > 0 ? 0.5f : 1.0f, vectors, vectors + rows);
  return greedy_lazy(c, index, gain, ct, rows, L, k, vectors + 2 * rows, reinterpret_cast<Candidate*>(base + at.heap));
}

}  // namespace bg::cpu
