// A published checkpoint folder → one weights file. In: folder, target, type of the matrices. Out: the file, complete or not at all, and a summary.
// Streams: beside the mapped input it holds the header and a few MiB. Not here: the command line (cli.h).
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace bg {

struct ConvertOptions {
  std::string folder, target;
  Type matrices = Type::bf16;  // F32, BF16, F16; vectors are always F32
  bool dry_run = false;        // check everything except the values, write nothing
  // (what is done, bytes done, bytes in all); at least once per 4 MiB; returning false stops with Error{cancelled}.
  std::function<bool(const char* phase, uint64_t done, uint64_t total)> progress;
};

struct ConvertSummary {
  struct Group {
    int64_t tensors = 0;
    uint64_t bytes = 0;
  };
  std::map<std::string, Group> by_type;  // "BF16" → …
  uint64_t file_bytes = 0;
  std::string model_type;
  std::vector<std::string> notes;  // what was left out on purpose
};

ConvertSummary convert_checkpoint(const ConvertOptions& options);  // throws Error

}  // namespace bg
