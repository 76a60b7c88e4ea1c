// Memory for the benchmarks: huge pages where the system gives them, and random weights laid out in panels.
// A weight's numbers are a short random run over and over: kernels cannot tell, and filling 16 GB must not take longer than reading it.
#pragma once
#include <cstddef>
#include <random>
#include <vector>

#include "kernels/ops.h"

namespace bg::bench {

// Zero-filled, every page touched. Throws std::bad_alloc.
class Memory {
 public:
  explicit Memory(size_t bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* mapping_;
  size_t mapped_, bytes_;
  char* data_;  // on a boundary of 2 MiB
};

size_t available_memory();  // bytes that the system can still give
double peak_gigabytes();    // the most that this process has held so far

// Random numbers of about 2^−6, as panels of this type hold them. `bytes`: whole panels.
void fill_panels(char* to, Type type, size_t bytes);
// Keys or values as a cache of this type holds them: (rows, cols), contiguous.
void fill_cache(Tensor t);

// Weights of one type beside each other in `bytes` of memory at most, at least one: a kernel that takes them in turn finds none of them in a cache.
class WeightRing {
 public:
  WeightRing(Type type, int64_t rows, int64_t cols, size_t bytes);
  int64_t count() const { return count_; }
  Weight next() { return at(turn_++ % count_); }

 private:
  Weight at(int64_t i) const;
  Type type_;
  int64_t rows_, cols_, count_, turn_ = 0;
  size_t each_;
  Memory memory_;
};

struct Activations {  // owned random float32 rows in [−0.5, 0.5)
  std::vector<float> data;
  Tensor t;
  Activations(int64_t rows, int64_t cols);
};

}  // namespace bg::bench
