// breastgpt compare A B: the first stage where two traces part. Needs the folders written by ask --trace.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "tools/options.h"

namespace tool {
namespace {

using Json = nlohmann::json;

std::vector<Json> read_trace(const std::string& folder) {
  const std::string path = folder + "/trace.jsonl";
  std::ifstream in(path);
  if (!in) throw Failure{kFailed, path + ": cannot be read; name two folders written by breastgpt ask --trace"};
  std::vector<Json> lines;
  for (std::string text; std::getline(in, text);) {
    Json line = Json::parse(text, nullptr, false);
    const bool good = line.is_object() && line.contains("n") && line["n"].is_number_integer() && line.contains("stage") && line["stage"].is_string() && line.contains("sha256") &&
                      line["sha256"].is_string() && line.contains("shape") && line["shape"].is_array() && line.contains("type") && line["type"].is_string();
    if (!good) throw Failure{kFailed, path + ": line " + std::to_string(lines.size() + 1) + " is not a line of a trace; was the run interrupted?"};
    lines.push_back(std::move(line));
  }
  return lines;
}

// The tensor of one line, as doubles. False when the trace has no data for it.
bool read_data(const std::string& folder, const Json& line, std::vector<double>& values) {
  char name[32];
  std::snprintf(name, sizeof name, "/%06lld.safetensors", static_cast<long long>(line["n"].get<int64_t>()));
  std::ifstream in(folder + name, std::ios::binary);
  if (!in) return false;
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  uint64_t header = 0;
  if (bytes.size() >= 8) std::memcpy(&header, bytes.data(), 8);
  if (bytes.size() < 8 || header > bytes.size() - 8) throw Failure{kFailed, folder + name + ": truncated"};
  const char* data = bytes.data() + 8 + header;
  const size_t size = bytes.size() - 8 - size_t(header);
  const auto convert = [&](auto zero) {
    using T = decltype(zero);
    for (size_t at = 0; at + sizeof(T) <= size; at += sizeof(T)) {
      T v;
      std::memcpy(&v, data + at, sizeof v);
      values.push_back(double(v));
    }
  };
  const std::string type = line["type"];
  if (type == "F64")
    convert(double());
  else if (type == "I64")
    convert(int64_t());
  else
    convert(float());
  return true;
}

// ‖a − b‖/‖b‖, the measure of every tolerance in this project; infinite when a value is not finite.
double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  const double error = norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
  return std::isfinite(error) ? error : INFINITY;
}

std::string describe(const Json& line) {
  const auto number = [&](const char* key) { return line.contains(key) ? line[key].dump() : std::string("?"); };
  return line["shape"].dump() + " " + line["type"].get<std::string>() + "  min " + number("min") + "  max " + number("max") + "  mean " + number("mean") + "  non-finite " + number("nonfinite");
}

}  // namespace

int run_compare(int argc, char** argv) {
  const Options o("breastgpt compare", "[--tolerance X] A B", {{"--tolerance", "X", "accept ‖a−b‖/‖b‖ up to X where both traces have data; default 0: equal bits"}}, argc, argv);
  if (o.help()) {
    std::printf("%s\nA and B are folders written by breastgpt ask --trace. Exit code 0: equal, 3: they part.\n", o.help_text().c_str());
    return kOk;
  }
  if (o.arguments().size() != 2) throw Failure{kUsage, "compare takes two trace folders; see breastgpt compare --help"};
  const std::string a_folder = o.arguments()[0], b_folder = o.arguments()[1];
  const double tolerance = o.real("--tolerance", 0);
  const std::vector<Json> a = read_trace(a_folder), b = read_trace(b_folder);
  double worst = 0;
  std::string worst_stage;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const std::string stage = a[i]["stage"];
    if (stage != b[i]["stage"].get<std::string>()) {
      std::printf("line %zu: A has stage %s, B has stage %s: not the same path through the model\n", i + 1, stage.c_str(), b[i]["stage"].get<std::string>().c_str());
      return kDiffers;
    }
    const bool same_shape = a[i]["shape"] == b[i]["shape"];
    if (same_shape && a[i]["type"] == b[i]["type"] && a[i]["sha256"] == b[i]["sha256"]) continue;
    std::vector<double> x, y;
    const bool data = same_shape && read_data(a_folder, a[i], x) && read_data(b_folder, b[i], y) && x.size() == y.size();
    const double error = data ? relative_error(x, y) : INFINITY;
    if (data && error > worst) {
      worst = error;
      worst_stage = stage;
    }
    if (error <= tolerance) continue;
    std::printf("first difference at line %zu, stage %s\n  A  %s\n  B  %s\n", i + 1, stage.c_str(), describe(a[i]).c_str(), describe(b[i]).c_str());
    if (data) {
      size_t at = 0;
      while (at + 1 < x.size() && x[at] == y[at]) ++at;
      std::printf("  relative error %.3g; first value that differs: [%zu] %.9g, %.9g\n", error, at, x[at], y[at]);
    } else if (same_shape) {
      std::printf("  run both with --trace-data to see by how much\n");
    }
    return kDiffers;
  }
  if (a.size() != b.size()) {
    std::printf("equal for %zu lines, then one trace ends: A has %zu, B has %zu\n", std::min(a.size(), b.size()), a.size(), b.size());
    return kDiffers;
  }
  if (worst > 0)
    std::printf("%zu stages, all within %.3g; worst %.3g at %s\n", a.size(), tolerance, worst, worst_stage.c_str());
  else
    std::printf("%zu stages, all equal\n", a.size());
  return kOk;
}

}  // namespace tool
