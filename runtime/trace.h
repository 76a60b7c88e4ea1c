// The trace of a run: one line per stage of the model, in order, so that two runs can be compared stage by stage.
//   DIR/trace.jsonl          {"n":12,"stage":"vit.block.8.out","shape":[96,64],"type":"F32","sha256":"…","min":…,"max":…,"mean":…,"nonfinite":0}
//   DIR/000012.safetensors   with data: the stage's tensor under its stage name
// The hash is of the values' bytes, row-major. min, max and mean are over finite values. A trace with data contains what the model saw: treat it
// like the picture itself.
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace bg {

class Trace {
 public:
  // Makes the folder when it is missing; refuses one that already has a trace (throws Error{invalid_argument, io}).
  Trace(const std::string& folder, bool with_data);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  void tensor(const std::string& stage, Ops& ops, Tensor x);
  void integers(const std::string& stage, const std::vector<int64_t>& values, int64_t cols = 1);

 private:
  void line(const std::string& stage, const char* type, const std::string& shape, const void* data, size_t bytes, const double* values, size_t count);

  std::string folder_;
  bool with_data_;
  std::FILE* file_ = nullptr;
  int64_t n_ = 0;
};

}  // namespace bg
