// ConceptSelector's scores. Columns of z in blocks (a column's maximum and sum over the rows belong to one thread), then rows.
#include <cmath>

#include "kernels/cpu/cpu.h"

namespace bg::cpu {
namespace {

constexpr int64_t kColumns = 64;  // of z in a unit: 256 bytes of each row

// Columns [first, first + n) of z: z ← e^(z − max_l z), inverse_c ← 1/Σ_l of that.
void soften_columns(const Context& c, const Tensor& z, double* inverse, int64_t first, int64_t n) {
  float most[kColumns];
  double total[kColumns] = {};
  for (int64_t i = 0; i < n; ++i) most[i] = row(z, 0)[first + i];
  for (int64_t l = 1; l < z.rows; ++l) {
    const float* from = row(z, l) + first;
    for (int64_t i = 0; i < n; ++i) most[i] = from[i] > most[i] ? from[i] : most[i];
  }
  for (int64_t l = 0; l < z.rows; ++l) {
    float* p = row(z, l) + first;
    for (int64_t i = 0; i < n; ++i) p[i] -= most[i];
    c.isa.element->exp_negative(p, p, n);
    for (int64_t i = 0; i < n; ++i) total[i] += double(p[i]);
  }
  for (int64_t i = 0; i < n; ++i) inverse[first + i] = 1 / total[i];
}

}  // namespace

void scale(const Context& c, Tensor y, double a) {
  const float factor = float(a);
  for_rows(c, y.rows, y.cols, [&](int64_t t) {
    for (int64_t j = 0; j < y.cols; ++j) row(y, t)[j] *= factor;
  });
}

size_t concept_scratch(int64_t columns) { return size_t(columns) * sizeof(double); }

void concept_scores(const Context& c, Tensor y, Tensor z, int64_t heads, void* scratch) {
  double* inverse = static_cast<double*>(scratch);
  c.threads.run(divide_up(z.cols, kColumns), [&](int64_t block, int) {
    const int64_t first = block * kColumns, n = z.cols - first < kColumns ? z.cols - first : kColumns;
    soften_columns(c, z, inverse, first, n);
  });
  const int64_t concepts = z.cols / heads;
  for_rows(c, z.rows, 2 * z.cols, [&](int64_t l) {
    double sum = 0;
    for (int64_t h = 0; h < heads; ++h) {
      double best = 0;
      for (int64_t i = h * concepts; i < (h + 1) * concepts; ++i) {
        const double p = double(row(z, l)[i]) * inverse[i];
        if (p > best) best = p;
      }
      sum += best;
    }
    *row(y, l) = float(std::log(std::fmax(1e-8, sum / double(heads))));
  });
}

}  // namespace bg::cpu
