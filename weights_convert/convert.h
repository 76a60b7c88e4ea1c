// A published checkpoint folder, or a weights file of ours → one weights file. In: input, target, type and layout of the matrices.
// Out: the file, complete or not at all, and a summary. Streams: beside the mapped input it holds the header and some MiB. Tensors are the same bytes for
// any number of threads, from the checkpoint as from its F32 file, and from either layout. Not here: the command line (cli.h).
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace bg {

struct ConvertOptions {
  std::string input, target;   // a checkpoint's folder or a .gguf file; the file to write
  // F32, BF16, F16, or the mix of that type: Q8_0, Q6_K, Q4_K (mix.h); vectors are always F32. Nothing: BF16 of a checkpoint, of a weights file what it has.
  std::optional<Type> matrices;
  Layout layout = Layout::panels;  // of the matrices that are multiplied (kernels/panels.h); rows is the public layout, for other readers
  int threads = 1;             // that quantise
  bool dry_run = false;        // check everything except the values, write nothing
  // (what is done, bytes done, bytes in all); at least once per 4 MiB; returning false stops with Error{cancelled}.
  std::function<bool(const char* phase, uint64_t done, uint64_t total)> progress;
};

struct ConvertSummary {
  struct Group {
    int64_t tensors = 0;
    uint64_t bytes = 0;
  };
  std::map<std::string, Group> by_type;  // "BF16", "BF16 in panels" → …
  uint64_t file_bytes = 0;
  std::string model_type;
  std::vector<std::string> notes;  // what was left out on purpose
  std::vector<std::string> mix;    // of a quantised file: the types of each part, and what kept a wider type
};

ConvertSummary convert_checkpoint(const ConvertOptions& options);  // throws Error

}  // namespace bg
