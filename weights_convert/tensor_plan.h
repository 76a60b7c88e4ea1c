// Which tensor of the input becomes which tensor of the weights file: the name table (runtime/names.h) matched against what the checkpoint or the
// weights file holds. In: its tensors and Config. Out: the plan in the file's order. Not here: reading or writing of values, the choice of types (mix.h).
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "loaders/gguf.h"
#include "loaders/safetensors.h"
#include "runtime/names.h"

namespace bg {

struct PlannedTensor {
  TensorSpec spec;
  std::string source;               // its name in the input
  const uint8_t* data = nullptr;    // there, any alignment
  const MappedFile* file = nullptr;
  Type from = Type::f32, to = Type::f32;
  Layout from_layout = Layout::rows, to_layout = Layout::rows;

  int64_t cols() const { return spec.shape.back(); }
  int64_t rows() const { return elements() / cols(); }
  int64_t elements() const {
    int64_t n = 1;
    for (const int64_t size : spec.shape) n *= size;
    return n;
  }
};

struct TensorPlan {
  std::vector<PlannedTensor> tensors;
  std::vector<std::string> notes;  // what was left out on purpose
};

// Rows of the embedding matrix. Throws Error{unsupported} for exports from before the names had `language_model`.
int64_t vocabulary_rows(const Safetensors& checkpoint, const std::string& where);

// asked: what mix.h takes. layout: of the matrices that are multiplied; the others lie in rows.
// Throws one Error{bad_file} that lists every missing, unknown, repeated or misshapen tensor and every unusable type.
TensorPlan plan_tensors(const Safetensors& checkpoint, const Config& config, Type asked, Layout layout, const std::string& where);
// From a weights file of ours, in either layout. asked: nothing keeps each tensor's type. Throws Error: as read_weights, and for quantised tensors that are
// to get another type.
TensorPlan plan_tensors(const Gguf& file, const Config& config, std::optional<Type> asked, Layout layout);

}  // namespace bg
