// See trace.h.
#include "runtime/trace.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "loaders/error.h"
#include "loaders/sha256.h"

namespace bg {
namespace {

std::string number(double v) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", v);
  return text;
}

}  // namespace

Trace::Trace(const std::string& folder, bool with_data) : folder_(folder), with_data_(with_data) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw Error(Status::io, folder + ": cannot make this folder for the trace: " + failed.message());
  const std::string path = folder + "/trace.jsonl";
  if (std::filesystem::exists(path)) throw Error(Status::invalid_argument, path + ": already there; name a new folder for this trace");
  file_ = std::fopen(path.c_str(), "wb");
  if (!file_) throw Error(Status::io, path + ": cannot be written: " + std::strerror(errno));
}

Trace::~Trace() { std::fclose(file_); }

void Trace::tensor(const std::string& stage, Ops& ops, Tensor x) {
  const size_t count = size_t(x.rows) * size_t(x.cols);
  const std::string shape = "[" + std::to_string(x.rows) + "," + std::to_string(x.cols) + "]";
  std::vector<double> values(count);
  ops.read(values.data(), x);
  if (x.type == Type::f64) return line(stage, "F64", shape, values.data(), count * 8, values.data(), count);
  std::vector<float> floats(values.begin(), values.end());
  line(stage, "F32", shape, floats.data(), count * 4, values.data(), count);
}

void Trace::integers(const std::string& stage, const std::vector<int64_t>& values, int64_t cols) {
  const std::vector<double> doubles(values.begin(), values.end());
  const std::string shape = "[" + std::to_string(int64_t(values.size()) / cols) + "," + std::to_string(cols) + "]";
  line(stage, "I64", shape, values.data(), values.size() * 8, doubles.data(), doubles.size());
}

void Trace::line(const std::string& stage, const char* type, const std::string& shape, const void* data, size_t bytes, const double* values, size_t count) {
  double low = 0, high = 0, sum = 0;
  size_t finite = 0;
  for (size_t i = 0; i < count; ++i) {
    const double v = values[i];
    if (!std::isfinite(v)) continue;
    if (finite == 0 || v < low) low = v;
    if (finite == 0 || v > high) high = v;
    sum += v;
    ++finite;
  }
  const std::string hash = sha256_hex(data, bytes);
  std::fprintf(file_, "{\"n\":%lld,\"stage\":\"%s\",\"shape\":%s,\"type\":\"%s\",\"sha256\":\"%s\",\"min\":%s,\"max\":%s,\"mean\":%s,\"nonfinite\":%zu}\n", static_cast<long long>(n_),
               stage.c_str(), shape.c_str(), type, hash.c_str(), number(low).c_str(), number(high).c_str(), number(finite ? sum / double(finite) : 0).c_str(), count - finite);
  if (std::fflush(file_) != 0) throw Error(Status::io, folder_ + "/trace.jsonl: writing failed: " + std::strerror(errno));
  if (with_data_) {
    char name[32];
    std::snprintf(name, sizeof name, "/%06lld.safetensors", static_cast<long long>(n_));
    std::string header = "{\"" + stage + "\":{\"dtype\":\"" + type + "\",\"shape\":" + shape + ",\"data_offsets\":[0," + std::to_string(bytes) + "]}}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    uint8_t length[8];
    for (int i = 0; i < 8; ++i) length[i] = uint8_t(uint64_t(header.size()) >> (8 * i));
    std::FILE* out = std::fopen((folder_ + name).c_str(), "wb");
    if (!out) throw Error(Status::io, folder_ + name + ": cannot be written: " + std::strerror(errno));
    const bool written = std::fwrite(length, 1, 8, out) == 8 && std::fwrite(header.data(), 1, header.size(), out) == header.size() && std::fwrite(data, 1, bytes, out) == bytes;
    if (std::fclose(out) != 0 || !written) throw Error(Status::io, folder_ + name + ": writing failed: " + std::strerror(errno));
  }
  ++n_;
}

}  // namespace bg
