// The safetensors reader: u64 header length, a JSON header {name: {dtype, shape, data_offsets: [begin, end]}, __metadata__: {text: text}}, data.
// As the format demands, the tensors must cover the data from its first to its last byte without hole or overlap. See safetensors.h.
#include "loaders/safetensors.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "loaders/cursor.h"
#include "loaders/error.h"
#include "loaders/json_text.h"

namespace bg {
namespace {

constexpr uint64_t most_header = 100'000'000;  // bytes, the format's own limit
constexpr size_t most_tensors = 262144, most_dimensions = 8, most_shards = 4096;

uint64_t dtype_bytes(std::string_view dtype) {  // 0: unknown
  static const std::map<std::string, uint64_t, std::less<>> table = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
                                                                     {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                                                                     {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};
  const auto it = table.find(dtype);
  return it == table.end() ? 0 : it->second;
}

struct Entry {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::vector<uint64_t> offsets;  // begin, end in the data
};

// Takes the header's JSON event by event: whatever does not belong in a header is refused where it stands, so a hostile header never becomes a tree.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderHandler(const std::string& where) : where_(where) {}
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool start_object(size_t) override {
    if (depth_ == 0 || (depth_ == 1 && array_ == nullptr)) return ++depth_, true;
    return refuse("an object");
  }
  bool end_object() override {
    if (depth_-- == 2 && !in_metadata_) finish_entry();
    return true;
  }
  bool key(std::string& text) override {
    if (depth_ == 1) {
      if (!names_.insert(text).second) bad("name " + shown(text) + " appears twice");
      in_metadata_ = text == "__metadata__";
      if (in_metadata_) return true;
      if (entries.size() >= most_tensors) bad("more than " + std::to_string(most_tensors) + " tensors");
      entries.push_back({text, "", {}, {}});
      fields_.clear();
      return true;
    }
    field_ = text;
    if (in_metadata_ ? metadata.count(text) > 0 : !fields_.insert(text).second) bad("key " + shown(text) + " appears twice");
    if (!in_metadata_ && text != "dtype" && text != "shape" && text != "data_offsets") bad("tensor " + shown(entries.back().name) +
        ": unknown field " + shown(text));
    return true;
  }
  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || field_ == "dtype" || array_) return refuse("an array");
    array_ = &field_;
    return true;
  }
  bool end_array() override {
    array_ = nullptr;
    return true;
  }
  bool string(std::string& text) override {
    if (depth_ != 2 || array_ || (!in_metadata_ && field_ != "dtype")) return refuse("a string");
    (in_metadata_ ? metadata[field_] : entries.back().dtype) = text;
    return true;
  }
  bool number_unsigned(uint64_t n) override {
    if (!array_) return refuse("a number");
    if (n > INT64_MAX) bad("number " + std::to_string(n) + " is too large");
    Entry& e = entries.back();
    if (field_ == "shape") {
      if (e.shape.size() >= most_dimensions) bad("tensor " + shown(e.name) + ": more than " + std::to_string(most_dimensions) + " dimensions");
      e.shape.push_back(int64_t(n));
    } else {
      if (e.offsets.size() >= 2) bad("tensor " + shown(e.name) + ": data_offsets needs exactly two numbers");
      e.offsets.push_back(n);
    }
    return true;
  }
  bool number_integer(int64_t n) override { return refuse("the negative number " + std::to_string(n)); }
  bool number_float(double, const std::string& text) override { return refuse("the number " + shown(text)); }
  bool null() override { return refuse("null"); }
  bool boolean(bool) override { return refuse("a bool"); }
  bool binary(nlohmann::json::binary_t&) override { return refuse("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    bad("the JSON header is damaged at its byte " + std::to_string(position) + "; copy the file again");
  }

 private:
  [[noreturn]] void bad(const std::string& what) const { throw Error(Status::bad_file, where_ + ": " + what); }
  bool refuse(const std::string& found) const {
    bad("the JSON header has " + found + " where none belongs" + (entries.empty() ? "" : " (at tensor " + shown(entries.back().name) + ")"));
  }
  void finish_entry() const {
    const Entry& e = entries.back();
    if (fields_.size() != 3) bad("tensor " + shown(e.name) + ": dtype, shape or data_offsets is missing");
    if (e.offsets.size() != 2) bad("tensor " + shown(e.name) + ": data_offsets needs exactly two numbers");
  }

  const std::string& where_;
  int depth_ = 0;
  bool in_metadata_ = false;
  std::string field_;
  const std::string* array_ = nullptr;  // the field whose array is open
  std::set<std::string> names_, fields_;
};

// Checks one entry against its own shape; overlap and coverage are the caller's.
uint64_t entry_bytes(const Entry& e, const std::string& path, uint64_t data_bytes) {
  const std::string where = path + ": tensor " + shown(e.name);
  const uint64_t element = dtype_bytes(e.dtype);
  if (element == 0) throw Error(Status::unsupported, where + ": dtype " + shown(e.dtype) + " is not known");
  uint64_t bytes = element;
  for (const int64_t n : e.shape) bytes = checked_multiply(bytes, uint64_t(n), where);
  if (e.offsets[0] > e.offsets[1] || e.offsets[1] > data_bytes)
    throw Error(Status::bad_file, where + ": data_offsets [" + std::to_string(e.offsets[0]) + ", " + std::to_string(e.offsets[1]) +
        "] do not lie in order inside the " +
                                      std::to_string(data_bytes) + " bytes of data; the file is truncated or damaged");
  if (e.offsets[1] - e.offsets[0] != bytes)
    throw Error(Status::bad_file, where + ": its shape needs " + std::to_string(bytes) + " bytes, data_offsets give " +
        std::to_string(e.offsets[1] - e.offsets[0]));
  return bytes;
}

// {"weight_map": {tensor: shard}}; shard names must be plain names of files in the same folder.
std::map<std::string, std::string> read_weight_map(const std::string& path) {
  const MappedFile file(path);
  const nlohmann::json root = parse_json({reinterpret_cast<const char*>(file.data()), file.size()}, path);
  if (!root.is_object() || !root.contains("weight_map") || !root["weight_map"].is_object())
    throw Error(Status::bad_file, path + ": has no object \"weight_map\"; not a safetensors index");
  std::map<std::string, std::string> map;
  for (const auto& [tensor, shard] : root["weight_map"].items()) {
    if (!shard.is_string()) throw Error(Status::bad_file, path + ": the shard of " + shown(tensor) + " is not a string");
    const std::string name = shard.get<std::string>();
    if (name.empty() || name[0] == '.' || name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
      throw Error(Status::bad_file, path + ": shard name " + shown(name) + " is not the plain name of a file in the same folder");
    map.emplace(tensor, name);
  }
  if (map.empty()) throw Error(Status::bad_file, path + ": \"weight_map\" is empty");
  return map;
}

}  // namespace

Safetensors::Safetensors(const std::string& path) {
  std::error_code ignored;  // what cannot be looked at is reported when it is opened
  if (!std::filesystem::is_directory(path, ignored)) {
    add_file(path);
  } else if (std::filesystem::exists(path + "/model.safetensors.index.json", ignored)) {
    add_shards(path);
  } else if (std::filesystem::exists(path + "/model.safetensors", ignored)) {
    add_file(path + "/model.safetensors");
  } else {
    throw Error(Status::not_found, path + ": has neither model.safetensors nor model.safetensors.index.json; give the folder of a published checkpoint");
  }
}

void Safetensors::add_shards(const std::string& folder) {
  index_path_ = folder + "/model.safetensors.index.json";
  const std::map<std::string, std::string> shard_of = read_weight_map(index_path_);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
  if (shards.size() > most_shards) throw Error(Status::too_large, index_path_ + ": " + std::to_string(shards.size()) + " shards; at most " +
      std::to_string(most_shards) + " are read");
  for (const std::string& shard : shards) {
    const size_t first = tensors_.size();
    add_file(folder + "/" + shard);
    for (size_t i = first; i < tensors_.size(); ++i) {
      const auto it = shard_of.find(tensors_[i].name);
      if (it == shard_of.end() || it->second != shard)
        throw Error(Status::bad_file, folder + "/" + shard + ": tensor " + shown(tensors_[i].name) + " is not listed for this shard in the index");
    }
  }
  for (const auto& [tensor, shard] : shard_of)
    if (!find(tensor)) throw Error(Status::bad_file, index_path_ + ": tensor " + shown(tensor) + " is not in its shard " + shown(shard));
}

void Safetensors::add_file(const std::string& path) {
  files_.push_back(std::make_unique<MappedFile>(path));
  const MappedFile& file = *files_.back();
  Cursor in(file.data(), file.size(), path);
  const uint64_t header_bytes = in.number<uint64_t>("header length");
  if (header_bytes > most_header)
    throw Error(Status::bad_file, path + ": a header of " + std::to_string(header_bytes) + " bytes, at most " + std::to_string(most_header) +
        " are allowed; not a safetensors file");
  const char* header = reinterpret_cast<const char*>(in.take(header_bytes, "header"));
  if (header_bytes == 0 || header[0] != '{') throw Error(Status::bad_file, path + ": the header does not start with '{'; not a safetensors file");

  HeaderHandler handler(path);
  nlohmann::json::sax_parse(header, header + header_bytes, &handler);
  for (const auto& [key, text] : handler.metadata) metadata_.emplace(key, text);
  std::vector<Entry>& entries = handler.entries;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.offsets < b.offsets; });
  uint64_t end = 0;
  for (Entry& e : entries) {
    const uint64_t bytes = entry_bytes(e, path, in.left());
    if (e.offsets[0] != end)
      throw Error(Status::bad_file, path + ": tensor " + shown(e.name) + " starts at " + std::to_string(e.offsets[0]) + " of the data, expected " +
          std::to_string(end) +
                                        ": tensors must neither overlap nor leave holes");
    end += bytes;
    const uint64_t offset = in.position() + e.offsets[0];
    if (!by_name_.emplace(e.name, tensors_.size()).second) throw Error(Status::bad_file, path + ": tensor " + shown(e.name) + " is also in another shard");
    tensors_.push_back({e.name, e.dtype, e.shape, file.data() + offset, bytes, files_.size() - 1, offset});
  }
  if (end != in.left()) throw Error(Status::bad_file, path + ": the tensors end at " + std::to_string(end) + ", but there are " +
      std::to_string(in.left()) + " bytes of data");
}

const SafetensorsTensor* Safetensors::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

}  // namespace bg
