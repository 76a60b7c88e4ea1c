// See tiny.h.
#include "tests/tiny.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "loaders/safetensors.h"
#include "tests/support.h"
#include "weights_convert/convert.h"

namespace fs = std::filesystem;

std::string tiny_weights(const std::string& checkpoint, const std::string& type, const std::map<std::string, std::string>& edits) {
  static TempDir folder;
  std::string name = checkpoint + "-" + type;
  for (const auto& [key, value] : edits) name += "-" + key + "=" + value;
  const std::string out = folder.file(name + ".gguf");
  if (fs::exists(out)) return out;
  const fs::path source = folder.path / (name + ".checkpoint");
  fs::copy(golden_path(checkpoint), source, fs::copy_options::recursive);
  nlohmann::json config = nlohmann::json::parse(read_file((source / "config.json").string()));
  for (const auto& [key, value] : edits) config[key] = nlohmann::json::parse(value);
  write_file((source / "config.json").string(), config.dump());
  bg::ConvertOptions options;
  options.input = source.string();
  options.target = out;
  options.layout = bg::Layout::rows;
  options.matrices = type == "f32" ? bg::Type::f32 : type == "f16" ? bg::Type::f16 : bg::Type::bf16;
  bg::convert_checkpoint(options);
  return out;
}

std::shared_ptr<const bg::Model> tiny_model(const std::string& checkpoint, const std::string& type, const std::map<std::string, std::string>& edits) {
  return std::make_shared<const bg::Model>(tiny_weights(checkpoint, type, edits));
}

TinyCase tiny_case(const std::string& name, const std::string& folder) {
  TinyCase out;
  std::istringstream in(read_file(golden_path(folder + "/" + name + "/case.txt")));
  for (std::string line; std::getline(in, line);) {
    const size_t space = line.find(' ');
    const std::string key = line.substr(0, space);
    std::string value = space == std::string::npos ? "" : line.substr(space + 1);
    for (size_t at; (at = value.find("\\n")) != std::string::npos;) value.replace(at, 2, "\n");
    if (key == "checkpoint")
      out.checkpoint = value;
    else if (key == "system")
      out.system = value;
    else if (key == "image" || key == "volume" || key == "slide") {
      out.media.emplace_back(key, golden_path(value));
      if (key == "image") out.images.push_back(golden_path(value));
    } else if (key == "no_prescale")
      out.no_prescale = value == "1";
    else if (key == "image_token_num" || key == "video_token_num" || key == "histo_token_num")
      out.edits[key] = value;
    else if (key == "selector_use_txt")
      out.edits[key] = value == "1" ? "true" : "false";
    else if (key == "next_position")
      out.next_position = std::stoll(value);
    else if (key != "seed")
      out.turns.push_back({key, value});
  }
  return out;
}

struct Golden::File {
  bg::Safetensors tensors;
};

Golden::Golden(const std::string& path) : file_(new File{bg::Safetensors(path)}) {}
Golden::~Golden() = default;

bool Golden::has(const std::string& name) const { return file_->tensors.find(name) != nullptr; }

namespace {

template <class T, class Out>
void convert(const bg::SafetensorsTensor& t, std::vector<Out>& out) {
  for (size_t at = 0; at < t.bytes; at += sizeof(T)) {
    T v;
    std::memcpy(&v, t.data + at, sizeof v);
    out.push_back(Out(v));
  }
}

}  // namespace

std::vector<double> Golden::values(const std::string& name) const {
  const bg::SafetensorsTensor* t = file_->tensors.find(name);
  if (!t) throw std::runtime_error("golden without " + name);
  std::vector<double> out;
  if (t->dtype == "F64") convert<double>(*t, out);
  if (t->dtype == "F32") convert<float>(*t, out);
  if (t->dtype == "I64") convert<int64_t>(*t, out);
  if (t->dtype == "U8") convert<uint8_t>(*t, out);
  return out;
}

std::vector<int64_t> Golden::integers(const std::string& name) const {
  const std::vector<double> v = values(name);
  return {v.begin(), v.end()};
}

std::vector<std::string> Golden::names() const {
  std::vector<std::string> out;
  for (const bg::SafetensorsTensor& t : file_->tensors.tensors()) out.push_back(t.name);
  return out;
}

double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

std::map<std::string, std::vector<double>> read_trace_data(const std::string& folder) {
  std::map<std::string, std::vector<double>> out;
  std::istringstream in(read_file(folder + "/trace.jsonl"));
  for (std::string text; std::getline(in, text);) {
    const nlohmann::json line = nlohmann::json::parse(text);
    char name[32];
    std::snprintf(name, sizeof name, "/%06lld.safetensors", static_cast<long long>(line["n"].get<int64_t>()));
    const std::string stage = line["stage"];
    const std::vector<double> values = Golden(folder + name).values(stage);
    out[stage].insert(out[stage].end(), values.begin(), values.end());
  }
  return out;
}
