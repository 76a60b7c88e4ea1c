// A file as read-only memory (mmap). Owns the mapping; unmapped when destroyed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace bg {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // throws Error{not_found, io}; an empty file is a mapping of 0 bytes
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }
  void forget(size_t offset, size_t bytes) const;  // tells the system that these pages are not needed soon (streaming converters)

 private:
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace bg
