// See verify.h.
#include "runtime/verify.h"

#include <algorithm>

#include "loaders/error.h"
#include "loaders/sha256.h"

namespace bg {

VerifyResult verify_weights(const Gguf& file, const std::function<bool(uint64_t done, uint64_t total)>& progress) {
  constexpr uint64_t piece = 16 << 20;
  const std::vector<std::string_view> expected = file.texts("breastgpt.sha256");
  if (expected.size() != file.tensors().size())
    throw Error(Status::bad_file, file.path() + ": breastgpt.sha256 has " + std::to_string(expected.size()) + " hashes for " +
        std::to_string(file.tensors().size()) +
                                      " tensors; convert the checkpoint again");
  uint64_t total = 0;
  for (const GgufTensor& t : file.tensors()) total += t.bytes;

  VerifyResult result;
  for (size_t i = 0; i < expected.size(); ++i) {
    const GgufTensor& t = file.tensors()[i];
    Sha256 hash;
    for (uint64_t at = 0; at < t.bytes; at += piece) {
      const uint64_t n = std::min(piece, t.bytes - at);
      hash.update(t.data + at, n);
      result.bytes += n;
      if (progress && !progress(result.bytes, total)) throw Error(Status::cancelled, file.path() + ": verification was cancelled");
    }
    if (hash.hex() != expected[i]) result.mismatched.push_back(t.name);
    ++result.checked;
  }
  return result;
}

}  // namespace bg
