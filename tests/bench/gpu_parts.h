// The sections of the GPU benchmark, and what they share: memory on the device.
#pragma once
#include <algorithm>
#include <vector>

#include "kernels/panels.h"
#include "loaders/error.h"
#include "tests/bench/gpu_report.h"

namespace bg::bench {

struct Bench {
  Gpu& gpu;
  const Sizes& sizes;
  Figures& figures;
  Ops& ops() const { return gpu.ops(); }
};

void bench_decode(const Bench& b);      // "model decode …"
void bench_prompts(const Bench& b);     // "model prompt …"
void bench_pictures(const Bench& b);    // "model picture …", "model volume …"
void bench_slides(const Bench& b);      // "model slide …"
void bench_weights(const Bench& b);     // "step …": products of one row, from memory
void bench_products(const Bench& b);    // "product …": of many rows
void bench_attention(const Bench& b);   // "attention …"
void bench_selection(const Bench& b);   // "coverage …", "products …"
void bench_rows(const Bench& b);        // "norm …", "rotary …", "activation …", "rows …"

// Device memory, given back at the end. Throws Error{too_large}.
class Block {
 public:
  Block(const Bench& b, size_t bytes) : device_(b.gpu.device()), bytes_(bytes), data_(static_cast<char*>(device_.allocate(bytes))) {
    if (data_ == nullptr) throw Error(Status::too_large, "no device memory for " + std::to_string(bytes) + " bytes");
  }
  ~Block() { device_.release(data_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  char* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  Device& device_;
  size_t bytes_;
  char* data_;
};

// Random float rows on the device.
struct Rows32 {
  Block block;
  Tensor t;
  Rows32(const Bench& b, int64_t rows, int64_t cols) : block(b, size_t(rows * cols) * sizeof(float)), t{block.data(), Type::f32, rows, cols, cols} {
    b.gpu.fill_floats(block.floats(), size_t(rows * cols));
  }
};

// Sets of weights that are used together, beside each other in sizes.ring bytes at most, at least one set: taken in turn, none lies in a cache.
class Ring {
 public:
  struct Shape {
    Type type;
    int64_t rows, cols;
    size_t bytes() const { return (weight_bytes(type, rows, cols, Layout::panels) + 255) / 256 * 256; }
  };
  Ring(const Bench& b, const std::vector<Shape>& set) : set_(set), count_(std::max<int64_t>(1, int64_t(b.sizes.ring / bytes_of(set)))), block_(b, size_t(count_) * bytes_of(set)) {
    char* at = block_.data();
    for (int64_t i = 0; i < count_; ++i)
      for (const Shape& s : set_) {
        b.gpu.fill_panels(at, s.type, weight_bytes(s.type, s.rows, s.cols, Layout::panels));
        weights_.push_back({at, s.type, s.rows, s.cols, Layout::panels});
        at += s.bytes();
      }
  }
  int64_t count() const { return count_; }
  const Weight* set(int64_t i) const { return &weights_[size_t(i) * set_.size()]; }  // set_.size() of them
  double set_bytes() const { return double(bytes_of(set_)); }

 private:
  static size_t bytes_of(const std::vector<Shape>& set) {
    size_t n = 0;
    for (const Shape& s : set) n += s.bytes();
    return n;
  }
  std::vector<Shape> set_;
  int64_t count_;
  Block block_;
  std::vector<Weight> weights_;
};

// Operations as a session's token runs them: recorded once, then one graph.
template <class Body>
void as_step(Ops& ops, const Body& body) {
  ops.begin_step(0);
  body();
  ops.end_step();
}

}  // namespace bg::bench
