// Recomputes the SHA-256 of every tensor of a weights file and compares it with breastgpt.sha256 in its metadata.
// Not here: the detached signature, the command line.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "loaders/gguf.h"

namespace bg {

struct VerifyResult {
  int64_t checked = 0;                   // tensors
  uint64_t bytes = 0;                    // of their data
  std::vector<std::string> mismatched;   // names, in the file's order; empty: all is well
  bool ok() const { return mismatched.empty(); }
};

// progress(done, total) in bytes, at least once per 16 MiB; returning false throws Error{cancelled}.
// Throws Error{bad_file} when the list of hashes is absent or does not fit the tensors.
VerifyResult verify_weights(const Gguf& file, const std::function<bool(uint64_t done, uint64_t total)>& progress = {});

}  // namespace bg
