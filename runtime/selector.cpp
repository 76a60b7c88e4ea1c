// See selector.h.
#include "runtime/selector.h"

#include <numeric>

namespace bg {

Kept select_coverage(const Run& run, Tensor v, Tensor text, int64_t k) {
  Kept kept;
  if (v.rows <= k) {
    kept.index.resize(size_t(v.rows));
    std::iota(kept.index.begin(), kept.index.end(), 0);
    return kept;
  }
  Arena::Scope scope(run.arena);
  kept.index.resize(size_t(k));
  kept.gain.resize(size_t(k));
  void* scratch = run.arena.bytes(run.ops.coverage_scratch(v.rows, v.cols, text.rows, k));
  kept.coverage = run.ops.coverage_select(kept.index.data(), kept.gain.data(), v, text, k, scratch);
  return kept;
}

}  // namespace bg
