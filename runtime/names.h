// The name table: every tensor of a checkpoint with its published name, its name in our weights file and its shape, derived from a Config.
// The converter and the runtime's weights.cpp share it, so a name or shape is stated once.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/config.h"

namespace bg {

struct TensorSpec {
  std::string published;       // "model.language_model.layers.0.self_attn.q_proj.weight"
  std::string name;            // "blk.0.attn_q.weight"
  std::vector<int64_t> shape;  // in our file, slowest first: (rows, cols) for matrices, (n) for vectors; the element count equals the published one
  std::vector<int64_t> published_shape;  // as the checkpoint states it, e.g. (d, 3, 2, 16, 16) for the patch embedding
  bool matrix = false;         // matrices take the requested weight type; vectors (norms, biases) are always F32
  bool multiplied = false;     // and those that are more than read row by row may lie in panels
};

std::vector<TensorSpec> tensor_specs(const Config& config);

}  // namespace bg
