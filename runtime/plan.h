// Memory of a request, known before it starts: the model's own code is run against a table whose operations do nothing and an arena that only counts.
// So plan and run cannot disagree about a shape.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/ops.h"
#include "runtime/device_weights.h"

namespace bg {

// All operations without effect, type and scratch sizes as `real`. real must live as long.
std::unique_ptr<Ops> make_plan_ops(const Ops& real);

// How a session shares a GPU's memory with its model.
struct DevicePlan {
  uint64_t vram = 0;            // bytes for both
  uint64_t for_weights = 0;     // of these, what weights may take
  DeviceWeights::Bytes weights; // and where they go then
  uint64_t pieces = 0;          // through which products of many rows take weights that stay with the host; 0: none do
};

struct MemoryPlan {
  uint64_t weights = 0;    // bytes of the mapped file, shared with every process that maps it
  uint64_t packed = 0;     // matrices in panels, beside a file that has them in rows; shared by the model's sessions
  uint64_t kv_cache = 0;   // keys and values of `context` tokens
  uint64_t media = 0;      // visual rows kept for the whole session
  uint64_t workspace = 0;  // peak scratch of the largest stage, and the backend's own
  uint64_t pixels = 0;     // peak of the picture's preparation, patch vectors included
  bool on_device = false;  // KV cache, media and workspace lie in a GPU's memory, and so do
  uint64_t device_weights = 0;  // weights; shared by the model's sessions on that GPU
  uint64_t host_weights = 0;    // what of them did not fit, in host memory
  uint64_t pieces = 0;          // of the GPU, through which they come
  uint64_t staging = 0;         // host memory on the way to the GPU
  void take(const DevicePlan& device) {
    on_device = true;
    device_weights = device.weights.device;
    host_weights = device.weights.host;
    pieces = device.pieces;
    staging = kStagingBytes;
  }
  // What a session takes of the host beside the file: the preparation of pixels is over before the stage with the largest workspace begins only for one picture,
  // so both are counted.
  uint64_t total() const { return on_device ? host_weights + staging + pixels : packed + kv_cache + media + workspace + pixels; }
  uint64_t device_total() const { return on_device ? device_weights + pieces + kv_cache + media + workspace : 0; }
};

}  // namespace bg
