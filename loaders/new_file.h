// A file of ours comes into being whole or not at all: written under a temporary name in the target's folder, then renamed over the target.
// In: bytes. Out: the file. Not here: formats.
#pragma once
#include <cstdint>
#include <string>

namespace bg {

class NewFile {
 public:
  explicit NewFile(const std::string& target);  // throws Error{io}, also when the target is there and no regular file
  ~NewFile();                                   // without commit() nothing is left behind
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void append(const void* data, uint64_t bytes);
  void overwrite(uint64_t offset, const void* data, uint64_t bytes);  // inside what was appended
  void commit();
  const std::string& temporary() const { return temporary_; }  // its name until then, for a library that writes by name

 private:
  [[noreturn]] void fail(const char* what) const;
  void write_at(uint64_t offset, const void* data, uint64_t bytes);
  std::string target_, temporary_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

}  // namespace bg
