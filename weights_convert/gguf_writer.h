// GGUF v3 written in two steps: the header (keys and tensor list) is built in memory with the final offsets, then the tensor data is streamed behind it.
// In: keys and tensors in the file's order. Out: bytes of the header, and an output file that appears under its name only when it is complete.
// Not here: what goes into the keys.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace bg {

constexpr uint64_t gguf_alignment = 64;
constexpr uint64_t gguf_padded(uint64_t bytes) { return (bytes + gguf_alignment - 1) / gguf_alignment * gguf_alignment; }

class GgufHeader {
 public:
  void text(const std::string& key, const std::string& value);
  void integer(const std::string& key, int64_t value);  // u32 where it fits, else i64
  void real(const std::string& key, double value);      // f32 where that is exact, else f64
  void boolean(const std::string& key, bool value);
  void integers(const std::string& key, const std::vector<int64_t>& values);  // i32 where all fit, else i64
  void texts(const std::string& key, const std::vector<std::string>& values);
  // shape: slowest first; rows are whole blocks of the type; in panels, (rows, cols). The offset of its data follows from the tensors before it.
  void tensor(const std::string& name, const std::vector<int64_t>& shape, Type type, Layout layout = Layout::rows);

  std::string bytes() const;                         // the whole header, padded to the alignment: the data starts behind it
  uint64_t data_bytes() const { return data_bytes_; }  // of all tensors, each padded

 private:
  void key(const std::string& key, uint32_t type);
  std::string keys_, list_;
  uint64_t key_count_ = 0, tensor_count_ = 0, data_bytes_ = 0;
};

}  // namespace bg
