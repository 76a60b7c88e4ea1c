// See run.h.
#include "runtime/run.h"

#include "loaders/error.h"
#include "runtime/trace.h"

namespace bg {

Arena::Arena(Ops& ops, size_t capacity) : ops_(ops), capacity_(capacity) {
  if (counting()) {
    base_ = reinterpret_cast<char*>(uintptr_t(1) << 40);
    return;
  }
  base_ = static_cast<char*>(ops_.allocate(capacity));
  if (!base_) throw Error(Status::too_large, "no memory for a workspace of " + std::to_string(capacity) + " bytes; use a smaller picture, prompt or chunk");
}

Arena::~Arena() {
  if (!counting()) ops_.release(base_, capacity_);
}

void* Arena::bytes(size_t n) {
  const size_t rounded = (n + 63) / 64 * 64;
  if (!counting() && rounded > capacity_ - used_)
    throw Error(Status::internal, "workspace of " + std::to_string(capacity_) + " bytes is too small: the memory plan missed a stage");
  char* p = base_ + used_;
  used_ += rounded;
  if (used_ > peak_) peak_ = used_;
  return p;
}

Tensor Arena::tensor(int64_t rows, int64_t cols) { return {bytes(size_t(rows) * size_t(cols) * type_size(ops_.type())), ops_.type(), rows, cols, cols}; }

void Run::step(const char* stage, int64_t done, int64_t total) const {
  if (!callbacks) return;
  if (callbacks->progress) callbacks->progress(stage, done, total);
  if (callbacks->cancel && callbacks->cancel()) throw Error(Status::cancelled, std::string("cancelled by the caller during ") + stage);
}

void Run::add_product(Tensor y, Tensor x, Weight w, const float* b, Tensor scratch, const std::string& stage, Phase phase) const {
  const Product p{trace ? scratch : y, w, b, trace ? Then::store : Then::add};
  ops.linear(x, &p, 1, phase);
  if (!trace) return;
  tap(stage, scratch);
  ops.add(y, scratch);
}

void Run::trace_tensor(const std::string& stage, Tensor x) const { trace->tensor(stage, ops, x); }

}  // namespace bg
