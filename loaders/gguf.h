// GGUF v3, read-only, memory-mapped. Every offset, size, type and count is checked before use; tensors are used in place.
// In: a path. Out: metadata by key and tensors by name. Not here: what the keys mean (runtime/config.h, runtime/weights.h).
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops.h"
#include "loaders/mapped_file.h"

namespace bg {

struct GgufTensor {
  std::string name;
  Type type = Type::f32;
  Layout layout = Layout::rows;
  std::vector<int64_t> shape;  // slowest dimension first: (rows, cols), the reverse of the file's order
  const uint8_t* data = nullptr;  // in the mapping, 32-byte aligned; 64 in panels
  uint64_t bytes = 0;

  int64_t elements() const {
    int64_t n = 1;
    for (const int64_t size : shape) n *= size;
    return n;
  }
};

// The file's number for a tensor's type: ggml's, or, for a matrix in panels, one that no other reader knows, so that it is refused and never misread.
constexpr uint32_t gguf_panels = 0x42470000;  // "BG", then ggml's type
constexpr uint32_t gguf_type(Type type, Layout layout) { return (layout == Layout::panels ? gguf_panels : 0) + uint32_t(type); }

class Gguf {
 public:
  explicit Gguf(const std::string& path);  // throws Error

  const std::string& path() const;
  uint64_t file_bytes() const;
  const MappedFile& mapping() const { return *file_; }
  const std::vector<GgufTensor>& tensors() const;             // in the file's order
  const GgufTensor* find(std::string_view name) const;        // nullptr when absent

  bool has(std::string_view key) const;
  // Each throws Error{bad_file} naming file, key, expected and found type when the key is absent or of another type.
  // Any of GGUF's integer types is accepted where the value fits.
  int64_t integer(std::string_view key) const;
  double real(std::string_view key) const;  // f32, f64
  bool boolean(std::string_view key) const;
  std::string_view text(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;
  std::vector<std::string_view> texts(std::string_view key) const;  // views into the mapping

 private:
  struct Value;  // {GGUF type, element type, count, position in the mapping}
  const Value& value(std::string_view key, const char* wanted) const;
  std::unique_ptr<MappedFile> file_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<std::string, std::shared_ptr<Value>, std::less<>> values_;
};

}  // namespace bg
