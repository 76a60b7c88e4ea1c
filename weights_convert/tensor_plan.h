// Which checkpoint tensor becomes which tensor of the weights file: the name table (runtime/names.h) matched against what the checkpoint holds.
// In: the checkpoint's tensors and its Config. Out: the plan in the file's order. Not here: reading or writing of values.
#pragma once
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "loaders/safetensors.h"
#include "runtime/names.h"

namespace bg {

struct PlannedTensor {
  TensorSpec spec;
  const SafetensorsTensor* source = nullptr;
  Type from = Type::f32, to = Type::f32;
};

struct TensorPlan {
  std::vector<PlannedTensor> tensors;
  std::vector<std::string> notes;  // what was left out on purpose
};

// Rows of the embedding matrix. Throws Error{unsupported} for exports from before the names had `language_model`.
int64_t vocabulary_rows(const Safetensors& checkpoint, const std::string& where);

// matrices: F32, BF16 or F16. Throws one Error{bad_file} that lists every missing, unknown, repeated or misshapen tensor and every unusable type.
TensorPlan plan_tensors(const Safetensors& checkpoint, const Config& config, Type matrices, const std::string& where);

}  // namespace bg
