// Safetensors, read-only, memory-mapped: one file, or the shards named by an index. Every type, shape and offset is checked before use.
// In: a .safetensors file, or a folder with model.safetensors or model.safetensors.index.json. Out: named tensors in place, and the text metadata.
// Not here: what the names mean, conversion of types.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "loaders/mapped_file.h"

namespace bg {

struct SafetensorsTensor {
  std::string name;
  std::string dtype;              // "F32", "F64", "F16", "BF16", "I64", "I32", "U8", "BOOL" …
  std::vector<int64_t> shape;     // slowest first; empty for a scalar
  const uint8_t* data = nullptr;  // in the mapping; aligned only as well as the file's header was padded, so copy elements with memcpy
  uint64_t bytes = 0;
  size_t file = 0;                // which of files()
  uint64_t offset = 0;            // of the data in that file
};

class Safetensors {
 public:
  explicit Safetensors(const std::string& path);  // throws Error

  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }
  const SafetensorsTensor* find(std::string_view name) const;                    // nullptr when absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // __metadata__ of all files
  const std::vector<std::unique_ptr<MappedFile>>& files() const { return files_; }
  const std::string& index_path() const { return index_path_; }                  // "" without an index

 private:
  void add_file(const std::string& path);
  void add_shards(const std::string& folder);
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<SafetensorsTensor> tensors_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<std::string, std::string> metadata_;
  std::string index_path_;
};

}  // namespace bg
