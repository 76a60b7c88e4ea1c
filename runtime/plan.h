// Memory of a request, known before it starts: the model's own code is run against a table whose operations do nothing and an arena that only counts.
// So plan and run cannot disagree about a shape.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/ops.h"

namespace bg {

// All operations without effect, type and scratch sizes as `real`. real must live as long.
std::unique_ptr<Ops> make_plan_ops(const Ops& real);

struct MemoryPlan {
  uint64_t weights = 0;    // bytes of the mapped file, shared with every process that maps it
  uint64_t packed = 0;     // matrices in panels, beside a file that has them in rows; shared by the model's sessions
  uint64_t kv_cache = 0;   // keys and values of `context` tokens
  uint64_t media = 0;      // visual rows kept for the whole session
  uint64_t workspace = 0;  // peak scratch of the largest stage, and the backend's own
  uint64_t pixels = 0;     // peak of the picture's preparation, patch vectors included
  // What a session takes beside the file: the preparation of pixels is over before the stage with the largest workspace begins only for one picture,
  // so both are counted.
  uint64_t total() const { return packed + kv_cache + media + workspace + pixels; }
};

}  // namespace bg
