// What every stage of the model gets: the backend's table, scratch memory, the trace, and the caller's progress and cancel callbacks.
#pragma once
#include <functional>
#include <string>

#include "kernels/ops.h"

namespace bg {

class Trace;

// Scratch in the order of a stack: tensors are taken one after the other and given back in blocks by Arena::Scope.
// capacity == 0 counts only: addresses are invented and never used, peak() says what a real run will need (runtime/plan.cpp).
class Arena {
 public:
  Arena(Ops& ops, size_t capacity);  // throws Error{too_large} when the backend has not so much memory
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  Tensor tensor(int64_t rows, int64_t cols);  // (rows, cols) of ops.type(), contents unspecified
  void* bytes(size_t n);                      // 64-byte aligned
  size_t peak() const { return peak_; }
  size_t capacity() const { return capacity_; }
  bool counting() const { return capacity_ == 0; }

  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t mark_;
  };

 private:
  Ops& ops_;
  char* base_ = nullptr;
  size_t capacity_ = 0, used_ = 0, peak_ = 0;
};

struct Callbacks {
  std::function<void(int level, const std::string& message)> log;                         // 0 error, 1 warning, 2 information
  std::function<void(const char* stage, int64_t done, int64_t total)> progress;
  std::function<bool()> cancel;                                                           // true: stop soon
};

struct Run {
  Ops& ops;
  Arena& arena;
  Trace* trace = nullptr;  // nullptr: off
  const Callbacks* callbacks = nullptr;

  // Called between layers: reports progress and throws Error{cancelled} when the caller wants to stop.
  void step(const char* stage, int64_t done, int64_t total) const;
  // The one tap of the model code: a stage's name and its output (runtime/trace.h).
  void tap(const std::string& stage, Tensor x) const {
    if (trace) trace_tensor(stage, x);
  }
  // y += x·wᵀ + b. With a trace the product is made by itself, in `scratch` (the shape of y), so that it can be shown: the same bits.
  void add_product(Tensor y, Tensor x, Weight w, const float* b, Tensor scratch, const std::string& stage, Phase phase = Phase::prompt) const;

 private:
  void trace_tensor(const std::string& stage, Tensor x) const;
};

}  // namespace bg
