// See slide_select.h.
#include "runtime/slide_select.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/panels.h"
#include "kernels/ref/ref.h"

namespace bg {
namespace {

typedef double D2 __attribute__((vector_size(16)));

// Rows [first, first + count) of M = [P c], in double: (count, n), n = w + 1 rounded up to `stride`
void rows_of_projector(double* to, const Linear& p, int64_t first, int64_t count, int64_t stride) {
  std::vector<float> values(size_t(p.w.cols));
  for (int64_t d = 0; d < count; ++d) {
    double* row = to + d * stride;
    read_row(values.data(), p.w, first + d);
    std::copy(values.begin(), values.end(), row);
    row[p.w.cols] = p.b != nullptr ? double(p.b[first + d]) : 0;
  }
}

// g += the 4 × 4 block at (a, b) of Σ_d row_dᵀ·row_d, ascending d
void gram_block(double* g, const double* rows, int64_t count, int64_t stride, int64_t a, int64_t b) {
  D2 sum[4][2] = {};
  for (int64_t d = 0; d < count; ++d) {
    const double* row = rows + d * stride;
    const D2 right[2] = {{row[b], row[b + 1]}, {row[b + 2], row[b + 3]}};
    for (int i = 0; i < 4; ++i) {
      const D2 left = {row[a + i], row[a + i]};
      sum[i][0] += left * right[0];
      sum[i][1] += left * right[1];
    }
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) g[(a + i) * stride + b + j] += sum[i][j / 2][j % 2];
}

}  // namespace

// Cholesky with diagonal pivots (columns stay where they are). It ends where no diagonal is above n·u64·the largest: all of what is left
// of MᵀM is then no larger, which is what its own rounding may be.
SlideFactor factor_of(const Linear& p) {
  SlideFactor f;
  f.n = p.w.cols + 1;
  const int64_t stride = (f.n + 3) / 4 * 4, most = std::min(f.n, p.w.rows);
  constexpr int64_t kChunk = 64;  // rows of M at a time: they stay in a cache
  std::vector<double> g(size_t(stride * stride)), chunk(size_t(kChunk * stride)), left(static_cast<size_t>(f.n));
  for (int64_t d = 0; d < p.w.rows; d += kChunk) {
    const int64_t count = std::min(kChunk, p.w.rows - d);
    rows_of_projector(chunk.data(), p, d, count, stride);
    for (int64_t a = 0; a < stride; a += 4)
      for (int64_t b = a; b < stride; b += 4) gram_block(g.data(), chunk.data(), count, stride, a, b);
  }
  for (int64_t a = 0; a < stride; ++a)
    for (int64_t b = 0; b < a; ++b) g[size_t(a * stride + b)] = g[size_t(b * stride + a)];
  for (int64_t j = 0; j < f.n; ++j) left[size_t(j)] = g[size_t(j * stride + j)];
  const double smallest = double(f.n) * 0x1p-53 * *std::max_element(left.begin(), left.end());
  f.r.assign(size_t(most * f.n), 0);
  while (f.rank < most) {
    const int64_t at = std::max_element(left.begin(), left.end()) - left.begin();
    if (!(left[size_t(at)] > smallest)) break;
    double* row = f.r.data() + f.rank * f.n;
    std::copy_n(g.begin() + at * stride, f.n, row);
    for (int64_t s = 0; s < f.rank; ++s) {
      const double* above = f.r.data() + s * f.n;
      for (int64_t j = 0; j < f.n; ++j) row[j] -= above[at] * above[j];
    }
    const double root = std::sqrt(left[size_t(at)]);
    for (int64_t j = 0; j < f.n; ++j) {
      row[j] = j == at ? root : row[j] / root;
      left[size_t(j)] -= row[j] * row[j];
    }
    for (const int64_t done : f.pivot) row[done] = 0;  // eliminated: what stands there is rounding
    left[size_t(at)] = -1;
    for (const int64_t done : f.pivot) left[size_t(done)] = -1;
    f.pivot.push_back(at);
    ++f.rank;
  }
  return f;
}

namespace {

// t' and the part of t outside the projector's range. text (m, D) → out (m, width)
std::vector<float> guide_rows(const Run& run, const Linear& p, const SlideFactor& f, Tensor text, int64_t width) {
  std::vector<double> t(size_t(text.rows * text.cols)), chunk, along(size_t(text.rows * f.n));
  run.ops.read(t.data(), text);
  chunk.resize(size_t(f.n));
  for (int64_t d = 0; d < p.w.rows; ++d) {  // Mᵀt
    rows_of_projector(chunk.data(), p, d, 1, f.n);
    for (int64_t i = 0; i < text.rows; ++i)
      for (int64_t j = 0; j < f.n; ++j) along[size_t(i * f.n + j)] += t[size_t(i * text.cols + d)] * chunk[size_t(j)];
  }
  std::vector<float> out(size_t(text.rows * width));
  std::vector<double> solved(static_cast<size_t>(f.rank));
  for (int64_t i = 0; i < text.rows; ++i) {
    double rest = 0;
    for (int64_t d = 0; d < text.cols; ++d) rest += t[size_t(i * text.cols + d)] * t[size_t(i * text.cols + d)];
    for (int64_t a = 0; a < f.rank; ++a) {  // Rᵀt' = Mᵀt, in the order of the pivots a triangle
      const int64_t at = f.pivot[size_t(a)];
      double sum = along[size_t(i * f.n + at)];
      for (int64_t s = 0; s < a; ++s) sum -= f.r[size_t(s * f.n + at)] * solved[size_t(s)];
      solved[size_t(a)] = sum / f.r[size_t(a * f.n + at)];
      rest -= solved[size_t(a)] * solved[size_t(a)];
      out[size_t(i * width + a)] = float(solved[size_t(a)]);
    }
    out[size_t((i + 1) * width - 1)] = float(std::sqrt(std::max(rest, 0.0)));
  }
  return out;
}

}  // namespace

Kept select_slide_coverage(const Run& run, Tensor states, const Linear& projector, const SlideFactor& f, Tensor text, int64_t k, size_t memory_allowed) {
  const int64_t N = states.rows, w = states.cols, size = std::min(w + 1, projector.w.rows), width = size + (text.rows > 0 ? 1 : 0);
  if (N <= k) {
    Kept kept;
    kept.index.resize(size_t(N));
    std::iota(kept.index.begin(), kept.index.end(), 0);
    return kept;
  }
  Arena::Scope scope(run.arena);
  const Tensor rows = run.arena.tensor(N, width), guide = run.arena.tensor(text.rows, width);
  const size_t r_bytes = size_t(width * w) * sizeof(float), c_bytes = size_t(width) * sizeof(float);
  void *r_there = run.arena.bytes(r_bytes), *c_there = run.arena.bytes(c_bytes);
  if (!run.arena.counting()) {
    std::vector<float> r(size_t(width * w)), c(static_cast<size_t>(width));  // rows beyond R's are 0
    for (int64_t a = 0; a < size; ++a) {
      for (int64_t j = 0; j < w; ++j) r[size_t(a * w + j)] = float(f.r[size_t(a * f.n + j)]);
      c[size_t(a)] = float(f.r[size_t(a * f.n + w)]);
    }
    run.ops.upload(r_there, r.data(), r_bytes);
    run.ops.upload(c_there, c.data(), c_bytes);
    run.ops.linear(rows, states, {r_there, Type::f32, width, w}, static_cast<const float*>(c_there));
    if (text.rows > 0) run.ops.write(guide, guide_rows(run, projector, f, text, width).data());
  }
  return select_coverage(run, rows, guide, k, memory_allowed);
}

}  // namespace bg
