// The matrices of a file in rows, once more in memory in panels (kernels/panels.h), because the CPU kernels read those straight ahead. The same numbers, so
// the same bits come out. Not here: files that are in panels already; when this is done (runtime/model.h).
#pragma once
#include <cstdint>
#include <memory>

#include "runtime/weights.h"

namespace bg {

class PackedWeights {
 public:
  static uint64_t bytes(const Weights& w);  // that a copy takes; 0: all matrices that are multiplied lie in panels
  // nullptr when the system has not `bytes(rows)` bytes to give. rows and what it points to must live as long.
  static std::unique_ptr<PackedWeights> make(const Weights& rows, int threads, uint64_t available = available_memory());
  ~PackedWeights();
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;

  const Weights& weights() const { return weights_; }

 private:
  PackedWeights(const Weights& rows, void* base, size_t mapped);
  static uint64_t available_memory();  // bytes that programs may still take; the largest number where the system does not say
  void pack(int threads);
  Weights weights_;
  void* base_;      // mapped_ bytes
  size_t mapped_;
};

}  // namespace bg
