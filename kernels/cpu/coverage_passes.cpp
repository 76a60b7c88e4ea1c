// Passes over E for the coverage selector. See coverage_passes.h. Threads add integers into shared sums: any order gives the same bits.
#include "kernels/cpu/coverage_passes.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>

namespace bg::cpu {
namespace {

constexpr int64_t kTile = kCoverageTile;
constexpr int64_t kPassTiles = 32;  // tiles down one block of columns in one unit of work: what packing the block costs is lost among them
constexpr int64_t kListTiles = 4;   // the same for listed rows, whose columns are packed beforehand

uint64_t bits(double x) { return std::bit_cast<uint64_t>(x); }

uint64_t sum_of_bits(const double* x, int64_t n) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += bits(x[i]);
  return sum;
}

void add(uint64_t& to, uint64_t x) { std::atomic_ref<uint64_t>(to).fetch_add(x, std::memory_order_relaxed); }

// A maximum does not depend on the order, NaN is never taken.
void raise_to(float& to, float x) {
  std::atomic_ref<float> a(to);
  float seen = a.load(std::memory_order_relaxed);
  while (x > seen && !a.compare_exchange_weak(seen, x, std::memory_order_relaxed)) {
  }
}

void unit_rows(const Context& c, float* unit, int64_t stride, const Tensor& x) {
  for_rows(c, x.rows, 4 * x.cols, [&](int64_t i) { c.isa.norm->unit(unit + i * stride, row(x, i), x.cols); });
}

}  // namespace

Coverage::Coverage(const Context& c, int64_t columns, int64_t width, int64_t text, int64_t k, bool stored)
    : L(columns), D(width), m(text), units(ref::coverage_units(columns, text)), c_(c), isa_(*c.isa.coverage), stride_(((width + 15) / 16 | 1) * 16) {
  const size_t n = size_t(L), all = size_t(m + L), d = size_t(D), threads = size_t(c.threads.count()), tile = size_t(kTile);
  const size_t sizes[] = {4 * n * all * (stored ? 1 : 0),                      // ct
                          4 * all * size_t(stride_),                           // unit rows
                          8 * all,                                             // scale
                          4 * size_t(m),                                       // top
                          8 * size_t(m),                                       // text_z
                          8 * n * (stored ? 1 : size_t(kCoverageBest)),        // sums
                          sizeof(Candidate) * n,                               // heap
                          8 * all * (stored ? 1 : size_t(k)),                  // best
                          8 * (stored ? 0 : size_t(k)),                        // total_best
                          8 * all * (stored ? 0 : size_t(kCoverageBest - 1)),  // guess
                          4 * threads * tile * tile,                           // tiles
                          4 * threads * tile * d,                              // packed
                          stored ? 0 : 4 * size_t(kCoverageBatch) * d,         // batch
                          stored ? 0 : 4 * size_t(kCoverageBatch / kTile) * all};  // lists
  for (size_t i = 0; i < std::size(sizes); ++i) {
    at_[i] = end_;
    end_ += (sizes[i] + 63) / 64 * 64;
  }
  stored_ = stored;
}

void Coverage::begin(void* scratch, Tensor v, Tensor t) {
  const auto part = [&](int i) { return static_cast<void*>(static_cast<char*>(scratch) + at_[i]); };
  if (stored_) ct = static_cast<float*>(part(0));
  unit_ = static_cast<float*>(part(1));
  scale_ = static_cast<double*>(part(2));
  top_ = static_cast<float*>(part(3));
  text_z_ = static_cast<uint64_t*>(part(4));
  sums = static_cast<uint64_t*>(part(5));
  heap = static_cast<Candidate*>(part(6));
  best_ = static_cast<double*>(part(7));
  total_best_ = static_cast<uint64_t*>(part(8));
  guess_ = static_cast<double*>(part(9));
  tiles_ = static_cast<float*>(part(10));
  packed_ = static_cast<float*>(part(11));
  batch_ = static_cast<float*>(part(12));
  lists_ = static_cast<uint32_t*>(part(13));

  if (m > 0) unit_rows(c_, unit_, stride_, t);
  unit_rows(c_, unit_ + m * stride_, stride_, v);
  std::fill(best_, best_ + rows(), kMagic);
  // Z is a sum of gains above 0 of terms that are E itself.
  std::fill(scale_, scale_ + rows(), std::ldexp(1.0, ref::coverage_sum_bits(L)));
  if (m > 0) text_sums();
  std::fill(sums, sums + L, 0);
  const double* none = best_;
  pass_visual(&none, 1);
  for (int64_t j = 0; j < L; ++j) sums[j] -= uint64_t(L) * bits(kMagic);
  for (int64_t i = 0; i < m; ++i) scale_[i] = ref::coverage_scale(int64_t(text_z_[i]), L, units.text_scale);
  for (int64_t j = 0; j < L; ++j) scale_[m + j] = ref::coverage_scale(int64_t(sums[j]), L, units.visual_scale);
}

// E of `count` rows and the columns that are packed: unit row row_of(r), r < count; all of them text or none.
template <class Row>
void Coverage::tile(float* e, const Row& row_of, int64_t count, const float* packed, int64_t cols, bool exponential) const {
  const float* rows[kTile];
  float top[kTile];
  const bool text = row_of(0) < m;
  for (int64_t r = 0; r < kTile; ++r) {
    const int64_t i = row_of(std::min(r, count - 1));
    rows[r] = unit_ + i * stride_;
    top[r] = text && exponential ? top_[i] : 1;  // before E the largest similarity is still being found
  }
  isa_.products(e, rows, count, packed, cols, D);
  if (exponential) isa_.exponentials(e, count, cols, text ? top : nullptr, text ? 50.0f : 5.0f);
}

void Coverage::pack(float* packed, int64_t first, int64_t count) const {
  const float* columns[kTile];
  for (int64_t n = 0; n < count; ++n) columns[n] = unit_ + (m + first + n) * stride_;
  isa_.pack(packed, columns, count, D);
}

// sums[q·L + j] += Σ over visual rows of bits(max(C_ij, best[q]_i)), half the tiles computed. Fills ct where there is one.
void Coverage::pass_visual(const double* const* best, int count) {
  const int64_t tiles = divide_up(L, kTile), parts = divide_up(tiles, kPassTiles);
  c_.threads.run(tiles * parts, [&](int64_t block, int thread) {
    const int64_t b = block / parts, from = std::max(b, block % parts * kPassTiles), to = std::min(tiles, (block % parts + 1) * kPassTiles);
    if (from >= to) return;
    const int64_t first = b * kTile, cols = std::min(kTile, L - first);
    float *e = tile_of(thread), *packed = packed_of(thread);
    pack(packed, first, cols);
    uint64_t down[kCoverageBest * kTile] = {};
    for (int64_t a = from; a < to; ++a) {
      const int64_t start = a * kTile, count_rows = std::min(kTile, L - start);
      tile(e, [&](int64_t r) { return m + start + r; }, count_rows, packed, cols, true);
      if (ct != nullptr) store(e, m + start, count_rows, first, cols, a > b);
      const double *beside[kCoverageBest], *above[kCoverageBest];
      for (int q = 0; q < count; ++q) {
        beside[q] = best[q] + m + start;
        above[q] = best[q] + m + first;
      }
      isa_.sum_down(down, e, count_rows, cols, scale_ + m + start, beside, count);
      for (int64_t r = 0; a > b && r < count_rows; ++r) {  // the mirror image: column start + r, rows of the block
        uint64_t sum[kCoverageBest] = {};
        isa_.sum_across(sum, e + r * kTile, cols, scale_ + m + first, above, count);
        for (int q = 0; q < count; ++q) add(sums[q * L + start + r], sum[q]);
      }
    }
    for (int q = 0; q < count; ++q)
      for (int64_t n = 0; n < cols; ++n) add(sums[q * L + first + n], down[q * kTile + n]);
  });
}

// Rows `row` … of E, columns `first` … into ct; visual tiles off the diagonal a second time, mirrored.
void Coverage::store(const float* e, int64_t row, int64_t count, int64_t first, int64_t cols, bool mirrored) {
  for (int64_t n = 0; n < cols; ++n)
    for (int64_t r = 0; r < count; ++r) ct[(first + n) * rows() + row + r] = e[r * kTile + n];
  for (int64_t r = 0; mirrored && r < count; ++r) std::copy(e + r * kTile, e + r * kTile + cols, ct + (row - m + r) * rows() + m + first);
}

// body(e, first row, rows, first column, columns) for all tiles of text rows; those of one block of columns by one thread.
template <class Body>
void Coverage::pass_text(bool exponential, const Body& body) {
  if (m == 0) return;
  c_.threads.run(divide_up(L, kTile), [&](int64_t block, int thread) {
    const int64_t first = block * kTile, cols = std::min(kTile, L - first);
    float *e = tile_of(thread), *packed = packed_of(thread);
    pack(packed, first, cols);
    for (int64_t start = 0; start < m; start += kTile) {
      const int64_t count = std::min(kTile, m - start);
      tile(e, [&](int64_t r) { return start + r; }, count, packed, cols, exponential);
      body(e, start, count, first, cols);
    }
  });
}

// The largest similarity of each text row, then its Z.
void Coverage::text_sums() {
  std::fill(top_, top_ + m, -2.0f);
  std::fill(text_z_, text_z_ + m, 0);
  pass_text(false, [&](const float* s, int64_t start, int64_t count, int64_t, int64_t cols) {
    for (int64_t r = 0; r < count; ++r) {
      float largest = -2;
      for (int64_t n = 0; n < cols; ++n) largest = s[r * kTile + n] > largest ? s[r * kTile + n] : largest;
      raise_to(top_[start + r], largest);
    }
  });
  pass_text(true, [&](const float* e, int64_t start, int64_t count, int64_t first, int64_t cols) {
    if (ct != nullptr) store(e, start, count, first, cols, false);
    for (int64_t r = 0; r < count; ++r) {
      uint64_t sum = 0;
      const double* none = best_;
      isa_.sum_across(&sum, e + r * kTile, cols, scale_, &none, 1);
      add(text_z_[start + r], sum - uint64_t(cols) * bits(kMagic));
    }
  });
}

// sums[q·L + j] += gain of column j in the text rows above best[q]
void Coverage::gains_of_text(const double* const* best, int count) {
  pass_text(true, [&](const float* e, int64_t start, int64_t count_rows, int64_t first, int64_t cols) {
    uint64_t down[kCoverageBest * kTile] = {};
    const double* beside[kCoverageBest];
    for (int q = 0; q < count; ++q) beside[q] = best[q] + start;
    isa_.sum_down(down, e, count_rows, cols, scale_ + start, beside, count);
    for (int q = 0; q < count; ++q) {
      const uint64_t base = sum_of_bits(beside[q], count_rows);
      for (int64_t n = 0; n < cols; ++n) sums[q * L + first + n] += (down[q * kTile + n] - base) << units.text_shift;
    }
  });
}

void Coverage::gains(const double* const* best, int count) {
  evaluations += count * L;
  for (int q = 0; q < count; ++q) std::fill(sums + q * L, sums + (q + 1) * L, -sum_of_bits(best[q] + m, L));
  pass_visual(best, count);
  gains_of_text(best, count);
}

int Coverage::guess_first(int64_t* guess) {
  const int64_t stride = std::max<int64_t>(16, L / 4096), count = divide_up(L, stride);
  std::fill(sums, sums + L, 0);
  const double* none = best_;
  gains_of_text(&none, 1);
  c_.threads.run(divide_up(L, kTile), [&](int64_t block, int thread) {
    const int64_t first = block * kTile, cols = std::min(kTile, L - first);
    float *e = tile_of(thread), *packed = packed_of(thread);
    pack(packed, first, cols);
    uint64_t down[kTile] = {};
    for (int64_t start = 0; start < count; start += kTile) {
      const int64_t some = std::min(kTile, count - start);
      double scale[kTile];
      const auto row_of = [&](int64_t r) { return m + (start + r) * stride; };
      for (int64_t r = 0; r < some; ++r) scale[r] = scale_[row_of(r)];
      tile(e, row_of, some, packed, cols, true);
      isa_.sum_down(down, e, some, cols, scale, &none, 1);
    }
    for (int64_t n = 0; n < cols; ++n) sums[first + n] = sums[first + n] / uint64_t(stride) + down[n] - uint64_t(count) * bits(kMagic);
  });
  int n = 0;
  for (int64_t j = 0; j < L; ++j) {
    int at = n;
    for (; at > 0 && sums[j] > sums[guess[at - 1]]; --at)
      if (at < kCoverageBest - 1) guess[at] = guess[at - 1];
    if (at < kCoverageBest - 1) guess[at] = j;
    n = std::min(n + 1, kCoverageBest - 1);
  }
  return n;
}

void Coverage::raise(const int64_t* column, int count, const double* from, double* const* to) {
  if (ct != nullptr) {
    const float* e = ct + column[0] * rows();
    for (int64_t i = 0; i < rows(); ++i) to[0][i] = std::max(double(e[i]) * scale_[i] + kMagic, from[i]);
    return;
  }
  const float* columns[16];
  for (int n = 0; n < count; ++n) columns[n] = unit_ + (m + column[n]) * stride_;
  isa_.pack(batch_, columns, count, D);
  const int64_t text_tiles = divide_up(m, kTile);
  c_.threads.run(text_tiles + divide_up(L, kTile), [&](int64_t block, int thread) {
    const bool text = block < text_tiles;
    const int64_t start = text ? block * kTile : m + (block - text_tiles) * kTile, some = std::min(kTile, (text ? m : rows()) - start);
    float* e = tile_of(thread);
    tile(e, [&](int64_t r) { return start + r; }, some, batch_, count, true);
    for (int n = 0; n < count; ++n)
      for (int64_t r = 0; r < some; ++r) to[n][start + r] = std::max(double(e[r * kTile + n]) * scale_[start + r] + kMagic, from[start + r]);
  });
}

void Coverage::sum_stored(Candidate* list, int64_t count, int64_t step) {
  evaluations += count;
  const uint64_t text_base = sum_of_bits(best_, m), base = sum_of_bits(best_ + m, L);
  for_rows(c_, count, 2 * rows(), [&](int64_t n) {
    const float* e = ct + list[n].column * rows();
    const double *text_best = best_, *best = best_ + m;
    uint64_t text = 0, sum = 0;
    if (m > 0) isa_.sum_across(&text, e, m, scale_, &text_best, 1);
    isa_.sum_across(&sum, e + m, L, scale_ + m, &best, 1);
    list[n].gain = int64_t(sum - base + ((text - text_base) << units.text_shift));
    list[n].step = step;
  });
}

void Coverage::add_up_best(int64_t step) {
  const double* best = best_at(step);
  total_best_[step] = sum_of_bits(best + m, L) + (sum_of_bits(best, m) << units.text_shift);
}

void Coverage::carry_on(Candidate* list, int64_t count, int64_t step) {
  evaluations += count;
  std::sort(list, list + count, [](const Candidate& a, const Candidate& b) { return a.step < b.step || (a.step == b.step && a.column < b.column); });
  constexpr int64_t kBlocks = kCoverageBatch / kTile;
  struct Block {
    int64_t cols, text, all, text_tiles, work;  // columns; listed rows (text first); units of work
    const double* old[kTile];
    uint32_t* row;
  } block[kBlocks];
  const int64_t blocks = divide_up(count, kTile);
  const double* now = best_at(step);
  c_.threads.run(blocks, [&](int64_t b, int) {  // the rows whose best rose since the oldest column of the block was evaluated
    Block& x = block[b];
    const Candidate* some = list + b * kTile;
    x.cols = std::min(kTile, count - b * kTile);
    for (int64_t n = 0; n < kTile; ++n) x.old[n] = best_at(some[std::min(n, x.cols - 1)].step);
    x.row = lists_ + b * rows();
    x.all = 0;
    const float* columns[kTile];
    for (int64_t n = 0; n < x.cols; ++n) columns[n] = unit_ + (m + some[n].column) * stride_;
    isa_.pack(batch_ + b * kTile * D, columns, x.cols, D);
    for (int64_t i = 0; i < rows(); ++i) {
      if (i == m) x.text = x.all;
      x.row[x.all] = uint32_t(i);
      x.all += x.old[0][i] != now[i];
    }
    x.text_tiles = divide_up(x.text, kTile);
    x.work = divide_up(x.text_tiles + divide_up(x.all - x.text, kTile), kListTiles);
  });
  int64_t work = 0;
  for (int64_t b = 0; b < blocks; ++b) work += block[b].work;
  uint64_t lost[kCoverageBatch] = {};
  c_.threads.run(work, [&](int64_t unit, int thread) {
    int64_t b = 0;
    for (; unit >= block[b].work; ++b) unit -= block[b].work;
    const Block& x = block[b];
    const int64_t tiles = x.text_tiles + divide_up(x.all - x.text, kTile);
    uint64_t sum[2][kTile] = {};  // visual, text
    float* e = tile_of(thread);
    for (int64_t a = unit * kListTiles; a < std::min(tiles, (unit + 1) * kListTiles); ++a) {
      const bool text = a < x.text_tiles;
      const int64_t start = text ? a * kTile : x.text + (a - x.text_tiles) * kTile, some = std::min(kTile, (text ? x.text : x.all) - start);
      const uint32_t* row = x.row + start;
      tile(e, [&](int64_t r) { return int64_t(row[r]); }, some, batch_ + b * kTile * D, x.cols, true);
      isa_.sum_lost(sum[text], e, some, x.cols, row, scale_, x.old, now);
    }
    for (int64_t n = 0; n < x.cols; ++n) add(lost[b * kTile + n], sum[0][n] + (sum[1][n] << units.text_shift));
  });
  for (int64_t n = 0; n < count; ++n) {
    list[n].gain -= int64_t(lost[n] + total_best_[step] - total_best_[list[n].step]);
    list[n].step = step;
  }
}

double Coverage::most() const {
  double text = 0, visual = 0;
  for (int64_t i = 0; i < m; ++i) text += scale_[i];
  for (int64_t i = m; i < rows(); ++i) visual += scale_[i];
  return std::ldexp(text, units.text_shift - units.bits) + std::ldexp(visual, -units.bits);
}

}  // namespace bg::cpu
