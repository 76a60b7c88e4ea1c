// See checkpoint.h.
#include "tests/checkpoint.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "loaders/safetensors.h"
#include "tests/support.h"

namespace {

uint64_t data_bytes(const TestTensor& t) {
  uint64_t n = t.dtype == "I64" || t.dtype == "F64" ? 8 : t.dtype == "F32" ? 4 : 2;
  for (const int64_t size : t.shape) n *= uint64_t(size);
  return n;
}

std::string header_of(const std::map<std::string, TestTensor>& tensors, uint64_t& end) {
  std::string json = "{\"__metadata__\":{\"format\":\"pt\"}";
  end = 0;
  for (const auto& [name, t] : tensors) {
    json += ",\"" + name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":[";
    for (size_t i = 0; i < t.shape.size(); ++i) json += (i ? "," : "") + std::to_string(t.shape[i]);
    json += "],\"data_offsets\":[" + std::to_string(end) + "," + std::to_string(end + data_bytes(t)) + "]}";
    end += data_bytes(t);
  }
  json += "}";
  const uint64_t n = json.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + json;
}

}  // namespace

TestCheckpoint TestCheckpoint::read(const std::string& folder) {
  TestCheckpoint c;
  const bg::Safetensors weights(folder);
  for (const bg::SafetensorsTensor& t : weights.tensors()) c.tensors[t.name] = {t.dtype, t.shape, std::string(reinterpret_cast<const char*>(t.data), t.bytes)};
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.find("safetensors") == std::string::npos) c.files[name] = read_file(entry.path().string());
  }
  return c;
}

void TestCheckpoint::edit(const std::string& file, const std::string& from, const std::string& to) {
  const size_t at = files.at(file).find(from);
  REQUIRE_MESSAGE(at != std::string::npos, file, " has no ", from);
  files[file].replace(at, from.size(), to);
}

void TestCheckpoint::write(const std::string& folder) const {
  std::filesystem::create_directories(folder);
  for (const auto& [name, text] : files) write_file(folder + "/" + name, text);
  uint64_t end;
  std::string bytes = header_of(tensors, end);
  for (const auto& [name, t] : tensors) bytes += t.bytes;
  write_file(folder + "/model.safetensors", bytes);
}

void write_sparse_safetensors(const std::string& path, const std::map<std::string, TestTensor>& tensors) {
  uint64_t end;
  const std::string header = header_of(tensors, end);
  write_file(path, header);
  std::filesystem::resize_file(path, header.size() + end);
}
