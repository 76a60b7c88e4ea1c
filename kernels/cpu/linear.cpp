// The matrix product, cut into groups of panels. y (T, N), x (T, D), w (N, D).
// kRowBlock rows of x at a time are packed, each once for all the products that share them, and stay in a cache while all panels pass; a thread takes one
// group of panels, all of D, and finishes its outputs while their sums are near.
#include <cstring>
#include <new>

#include "kernels/cpu/cpu.h"
#include "kernels/panels.h"

namespace bg::cpu {

// For *.isa.cpp, which include no inline functions.
size_t chunk_bytes(Type t, int64_t inputs) { return panel_bytes(t, inputs); }
void chunk_of_rows(void* to, const Weight& w, int64_t panel, int64_t j0, int64_t len) { pack_piece(to, w, panel, j0, len); }

namespace {

struct Job {
  const Product& product;
  Packing packing;
  int64_t panels;
};

// What becomes of a row of sums.
void finish(const Context& c, const Product& p, float* y, float* sums, int64_t n0, int64_t count) {
  if (p.bias != nullptr) c.isa.element->add(sums, p.bias + n0, count);
  switch (p.then) {
    case Then::store: std::memcpy(y, sums, size_t(count) * sizeof(float)); return;
    case Then::add: return c.isa.element->add(y, sums, count);
    case Then::gelu_tanh: return c.isa.element->gelu_tanh(y, sums, count);
    case Then::gelu_erf: return c.isa.element->gelu_erf(y, sums, count);
  }
}

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// What x becomes for weights of a type. Inputs so long that not even two tiles of rows fit into the packed block (some hundred thousand) stay float.
Packing packing_of(const Context& c, Type weights, int64_t D, Phase phase) {
  const Packing p = c.isa.linear->packing(weights, c.precision, phase);
  return p != kPackNone && kPackedBytes / c.isa.linear->packed_stride(p, D) < 32 ? kPackNone : p;
}

// Rows that are packed at a time: a multiple of 32.
int64_t block_rows(Packing p, const LinearIsa& isa, int64_t D) {
  return p == kPackNone ? kRowBlock : least(int64_t(kPackedBytes / isa.packed_stride(p, D)) / 32 * 32, kRowBlock);
}

Rows pack(const Context& c, Packing p, const Tensor& x) {
  const LinearIsa& isa = *c.isa.linear;
  if (p == kPackNone) return {x.data, size_t(x.stride) * sizeof(float), x.rows, x.cols};
  if (x.rows == 1)
    isa.pack_one(p, c.packed, row(x, 0), x.cols);
  else
    c.threads.run(divide_up(x.rows, 16), [&](int64_t block, int) { isa.pack(p, c.packed, {row(x, 16 * block), x.stride, 16 * block, least(16, x.rows - 16 * block)}, x.cols); });
  return {c.packed, isa.packed_stride(p, x.cols), x.rows, x.cols};
}

// The most panels of one call: some calls for every thread; with few rows about 512 KiB, some 30 µs of reading: every call begins with a wait for memory.
int64_t group_of(const Context& c, int64_t rows, int64_t panels, size_t panel) {
  const int64_t share = divide_up(panels, 4 * c.threads.count());
  const int64_t wanted = rows <= 16 ? least(share, int64_t((512 << 10) / panel)) : share, even = divide_up(wanted, kWidestTile) * kWidestTile;
  return even < kWidestTile ? kWidestTile : least(even, kGroupPanels);
}

// The panels of one product in groups of nearly the same size, as many groups for each thread: of 19 equal ones two threads would take 10 and 9.
class Groups {
 public:
  Groups(const Context& c, int64_t panels, int64_t most) : panels_(panels), tiles_(divide_up(panels, kWidestTile)) {
    const int64_t threads = c.threads.count();
    count_ = least(divide_up(divide_up(panels, most), threads) * threads, tiles_);
  }
  int64_t count() const { return count_; }
  int64_t first(int64_t i) const { return least(tiles_ * i / count_ * kWidestTile, panels_); }

 private:
  int64_t panels_, tiles_, count_;
};

constexpr int64_t kMostJobs = 8;

// body(product, first panel, panels, thread) for groups of panels of all products: of each product its share of the first thread, then those of the second, …; so a thread
// reads its part of every product in the order of memory, and what it writes is what it works on next (the heads of q, k and v).
template <class Body>
void for_groups(const Context& c, const Job* jobs, int64_t n, int64_t rows, const Body& body) {
  int64_t panels = 0, total = 0, counts[kMostJobs];
  for (int64_t i = 0; i < n; ++i) panels += jobs[i].panels;
  const Weight& w = jobs[0].product.w;
  const int64_t most = group_of(c, rows, panels, panel_bytes(w.type, w.cols)), threads = c.threads.count();
  for (int64_t i = 0; i < n; ++i) total += counts[i] = Groups(c, jobs[i].panels, most).count();
  c.threads.run(total, [&](int64_t block, int thread) {
    for (int64_t at = 0;; ++at) {
      const int64_t i = at % n, share = at / n, from = counts[i] * share / threads, count = counts[i] * (share + 1) / threads - from;
      if (block >= count) {
        block -= count;
        continue;
      }
      const Groups groups(c, jobs[i].panels, most);
      const int64_t first = groups.first(from + block);
      return body(jobs[i], first, groups.first(from + block + 1) - first, thread);
    }
  });
}

// Products [0, n) of one packing, rows [t0, t0 + rows).
void product_block(const Context& c, const Tensor& x, Packing packing, const Job* jobs, int64_t n, int64_t t0, int64_t rows) {
  const Rows packed = pack(c, packing, x.row_range(t0, rows));
  for_groups(c, jobs, n, rows, [&](const Job& job, int64_t first, int64_t count, int thread) {
    char* scratch = c.scratch_of(thread);
    auto* sums = reinterpret_cast<float*>(scratch);
    const Product& p = job.product;
    c.isa.linear->group(sums, packed, packing, p.w, first, count, scratch + kSumsBytes);
    const int64_t n0 = first * kPanelRows, cols = least(count * kPanelRows, p.w.rows - n0);
    constexpr int64_t kRowsAhead = 2;  // of y that are read: they may be as far away as memory
    for (int64_t t = 0; t < rows; ++t) {
      if (p.then == Then::add && t + kRowsAhead < rows) {
        for (int64_t j = 0; j < cols; j += 16) __builtin_prefetch(row(p.y, t0 + t + kRowsAhead) + n0 + j, 1);
      }
      finish(c, p, row(p.y, t0 + t) + n0, sums + t * kSumsStride, n0, cols);
    }
  });
}

}  // namespace

void linear(const Context& c, Tensor x, const Product* products, int64_t n, Phase phase) {
  if (x.rows == 0) return;
  std::lock_guard<std::mutex> turn(c.packed_turn);
  for (int64_t first = 0; first < n;) {  // runs of products that want the same packing
    const Packing packing = packing_of(c, products[first].w.type, x.cols, phase);
    int64_t count = 0;
    alignas(Job) char room[kMostJobs * sizeof(Job)];
    Job* jobs = reinterpret_cast<Job*>(room);
    for (; first + count < n && count < kMostJobs && packing_of(c, products[first + count].w.type, x.cols, phase) == packing; ++count)
      new (jobs + count) Job{products[first + count], packing, panels_of(products[first + count].w.rows)};
    const int64_t rows = block_rows(packing, *c.isa.linear, x.cols);
    for (int64_t t = 0; t < x.rows; t += rows) product_block(c, x, packing, jobs, count, t, least(rows, x.rows - t));
    first += count;
  }
}

void gated(const Context& c, Tensor y, Tensor x, Weight gate, Weight up, Phase phase) {
  if (x.rows == 0) return;
  std::lock_guard<std::mutex> turn(c.packed_turn);
  const Product p{y, gate, nullptr, Then::store};
  const Packing packing = packing_of(c, gate.type, x.cols, phase);
  const Job job{p, packing, panels_of(gate.rows)};
  const int64_t block = block_rows(packing, *c.isa.linear, x.cols);
  for (int64_t t0 = 0; t0 < x.rows; t0 += block) {
    const int64_t rows = least(block, x.rows - t0);
    const Rows packed = pack(c, packing, x.row_range(t0, rows));
    // gate's sums in the first half of a row, up's in the second; of one row, in the first row and in the second
    for_groups(c, &job, 1, rows, [&](const Job&, int64_t first, int64_t count, int thread) {
      char* scratch = c.scratch_of(thread);
      auto* sums = reinterpret_cast<float*>(scratch);
      const int64_t most = rows == 1 ? kGroupPanels : kGroupPanels / 2, up_sums = rows == 1 ? kSumsStride : most * kPanelRows;
      for (; count > 0; first += most, count -= most) {
        const int64_t panels = least(most, count), n0 = first * kPanelRows, cols = least(panels * kPanelRows, gate.rows - n0);
        c.isa.linear->group(sums, packed, packing, gate, first, panels, scratch + kSumsBytes);
        c.isa.linear->group(sums + up_sums, packed, packing, up, first, panels, scratch + kSumsBytes);
        for (int64_t t = 0; t < rows; ++t) {
          const float* s = sums + t * kSumsStride;
          c.isa.element->silu_mul(row(y, t0 + t) + n0, s, s + up_sums, cols);
        }
      }
    });
  }
}

void products(const Context& c, Tensor y, Tensor a, Tensor b) {
  if (a.rows == 0 || b.rows == 0) return;
  Context exact{c.isa, Precision::float32, c.threads, c.scratch, c.packed, c.packed_turn};
  const Product p{y, {b.data, Type::f32, b.rows, b.cols, Layout::rows}, nullptr, Then::store};
  linear(exact, a, &p, 1, Phase::prompt);
}

}  // namespace bg::cpu
