// A weights file, opened and checked: immutable, shared by any number of sessions and threads.
#pragma once
#include <memory>
#include <string>

#include "loaders/gguf.h"
#include "runtime/config.h"
#include "runtime/tokenizer.h"
#include "runtime/weights.h"

namespace bg {

struct Model {
  explicit Model(const std::string& path);  // throws Error

  Gguf file;
  Config config;
  Weights weights;
  Tokenizer tokenizer;
  std::string weights_sha256;  // SHA-256 over the file's list of tensor hashes: names this set of weights
  std::string weight_types;    // of the decoder's matrices: "Q4_K + Q6_K"

  int64_t levels() const { return 1 + int64_t(config.vision.deepstack.size()); }  // feature matrices per medium
};

}  // namespace bg
