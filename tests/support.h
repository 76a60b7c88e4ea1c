// What tests share: where goldens are, a temporary folder, a check that NaN fails.
#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

inline std::string golden_path(const std::string& name) {
  const char* root = std::getenv("BG_GOLDEN");
  return std::string(root ? root : "tests/golden") + "/" + name;
}

// The folder of larger test data beside the checkout ("" when absent: the test says that it skips).
inline std::string shared_data(const std::string& name) {
  const char* root = std::getenv("BG_SHARED_DATA");
  const std::string path = std::string(root ? root : "../shared/data") + "/" + name;
  return std::filesystem::exists(path) ? path : "";
}

struct TempDir {
  std::filesystem::path path;
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "bgtest-XXXXXX").string();
    if (!mkdtemp(name.data())) std::abort();
    path = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string file(const std::string& name) const { return (path / name).string(); }
};

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
