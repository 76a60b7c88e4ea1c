// A weights file, opened and checked: immutable, shared by any number of sessions and threads.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "loaders/gguf.h"
#include "runtime/config.h"
#include "runtime/device_weights.h"
#include "runtime/packed.h"
#include "runtime/run.h"
#include "runtime/slide_select.h"
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
  uint64_t packed_bytes;       // that in_panels() takes; 0 when the file's matrices lie in panels

  int64_t levels() const { return 1 + int64_t(config.vision.deepstack.size()); }  // feature matrices per medium
  // The weights as the CPU kernels read them fast: the file's own, or a copy in panels, made by the first who asks, for all, and kept. Without memory for
  // it the file's rows, with a warning.
  const Weights& in_panels(int threads, const Callbacks& callbacks) const;
  // The weights in a GPU's memory, `allowed` bytes of it at most: uploaded by the first who asks, for all on that GPU, and kept.
  const DeviceWeights& on_device(const std::string& backend, int threads, uint64_t allowed, const Callbacks& callbacks) const;
  uint64_t bytes_on_device(const std::string& backend) const;  // that on_device() took there; 0 before
  // Of the slide projector of a level, made by the first who asks and kept.
  const SlideFactor& slide_factor(int64_t level) const;

 private:
  mutable std::mutex packing_;
  mutable std::unique_ptr<PackedWeights> packed_;
  mutable std::map<std::string, std::unique_ptr<DeviceWeights>> on_device_;  // by backend
  mutable std::mutex factoring_;
  mutable std::map<int64_t, SlideFactor> factors_;  // by level
};

}  // namespace bg
