// A checkpoint folder in memory, for the converter's tests: read a golden one, change it, write it under another name.
// Safetensors are written here byte by byte, independently of the reader under test.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct TestTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

struct TestCheckpoint {
  std::map<std::string, TestTensor> tensors;
  std::map<std::string, std::string> files;  // "config.json" → text

  static TestCheckpoint read(const std::string& folder);
  // Replaces the first `from` in a file's text; the test fails when it is not there.
  void edit(const std::string& file, const std::string& from, const std::string& to);
  void write(const std::string& folder) const;  // one model.safetensors
};

// Only the header, as in a real file, with the data as a hole of the right size: a full-size layout that needs no disk. Tensors are of zeros.
void write_sparse_safetensors(const std::string& path, const std::map<std::string, TestTensor>& tensors);
