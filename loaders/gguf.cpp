// The GGUF v3 reader: header, metadata, tensor list, in the file's order. See gguf.h.
//   "GGUF" u32 version · u64 tensors · u64 keys · keys · tensor list · padding to the alignment · tensor data, each padded to the alignment
//   key:    string name, u32 type, value       (string: u64 length, bytes; array: u32 element type, u64 count, values)
//   tensor: string name, u32 n, n × u64 sizes (fastest first), u32 type, u64 offset from the start of the data
//   type:   ggml's, or 0x42470000 + ggml's for a matrix in panels (kernels/panels.h), whose data starts at a multiple of 64
#include "loaders/gguf.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "kernels/panels.h"
#include "loaders/cursor.h"
#include "loaders/error.h"

namespace bg {
namespace {

// GGUF's value types, by their numbers in the file.
enum : uint32_t { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, TYPES };
const char* const type_names[TYPES] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
constexpr uint64_t type_bytes[TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};  // 0: variable

// Far above what this project writes, and small enough that a hostile file cannot make us allocate more than a few times its own size.
constexpr uint64_t most_keys = 65536, most_tensors = 262144, most_elements = 1 << 24, longest_name = 65535;
constexpr uint64_t least_alignment = 32, most_alignment = 65536, panels_alignment = 64;

[[noreturn]] void bad(const std::string& where, const std::string& what, Status status = Status::bad_file) { throw Error(status, where + ": " + what); }

std::string_view read_string(Cursor& in, const char* what) {
  const uint64_t n = in.number<uint64_t>(what);
  return {reinterpret_cast<const char*>(in.take(n, what)), n};
}

std::string_view read_name(Cursor& in, const char* what) {
  const std::string_view name = read_string(in, what);
  if (name.empty() || name.size() > longest_name) bad(in.where(), std::string(what) + " has " + std::to_string(name.size()) + " bytes, expected 1 to 65535");
  return name;
}

void check_bools(const uint8_t* p, uint64_t n, const std::string& where) {
  for (uint64_t i = 0; i < n; ++i)
    if (p[i] > 1) bad(where, "a bool is " + std::to_string(p[i]) + ", expected 0 or 1");
}

// Number at p widened to int64; empty when it does not fit or the type is no integer.
std::optional<int64_t> integer_at(const uint8_t* p, uint32_t type) {
  const auto as = [p](auto value) {
    std::memcpy(&value, p, sizeof value);
    return value;
  };
  switch (type) {
    case U8: return as(uint8_t());
    case I8: return as(int8_t());
    case U16: return as(uint16_t());
    case I16: return as(int16_t());
    case U32: return as(uint32_t());
    case I32: return as(int32_t());
    case I64: return as(int64_t());
    case U64: {
      const uint64_t v = as(uint64_t());
      if (v > INT64_MAX) return {};
      return int64_t(v);
    }
    default: return {};
  }
}

}  // namespace

struct Gguf::Value {
  uint32_t type = 0, element = 0;  // element: of an array
  uint64_t count = 0;              // of an array
  const uint8_t* at = nullptr;     // a number, a string's bytes, an array's first element
  uint64_t bytes = 0;

  std::string describe() const { return type == ARRAY ? std::string("an array of ") + type_names[element] : std::string("a ") + type_names[type]; }
};

namespace {

template <class Value>
void read_array(Cursor& in, Value& v, const std::string& where) {
  v.element = in.number<uint32_t>("array element type");
  if (v.element == ARRAY) bad(where, "an array of arrays; this reader takes flat arrays only", Status::unsupported);
  if (v.element >= TYPES) bad(where, "array element type " + std::to_string(v.element) + " is not a GGUF type");
  v.count = in.number<uint64_t>("array count");
  in.expect(v.count, v.element == STRING ? 8 : type_bytes[v.element], "array elements");
  if (v.count > most_elements) bad(where, "an array of " + std::to_string(v.count) + " elements; at most " + std::to_string(most_elements) +
      " are read", Status::too_large);
  const uint64_t start = in.position();
  if (v.element == STRING) {
    v.at = in.take(0, "array elements");
    for (uint64_t i = 0; i < v.count; ++i) read_string(in, "string in an array");
  } else {
    v.at = in.take(v.count * type_bytes[v.element], "array elements");
    if (v.element == BOOL) check_bools(v.at, v.count, where);
  }
  v.bytes = in.position() - start;
}

template <class Value>
Value read_value(Cursor& in, const std::string& where) {
  Value v;
  v.type = in.number<uint32_t>("value type");
  if (v.type >= TYPES) bad(where, "value type " + std::to_string(v.type) + " is not a GGUF type");
  if (v.type == ARRAY) {
    read_array(in, v, where);
  } else if (v.type == STRING) {
    const std::string_view s = read_string(in, "string value");
    v.at = reinterpret_cast<const uint8_t*>(s.data()), v.bytes = s.size();
  } else {
    v.bytes = type_bytes[v.type];
    v.at = in.take(v.bytes, "value");
    if (v.type == BOOL) check_bools(v.at, 1, where);
  }
  return v;
}

struct Place {
  uint64_t offset;  // from the start of the data
  size_t index;     // in tensors_
};

void check_type(Type type, uint32_t number, const std::string& where) {
  switch (type) {
    case Type::f32: case Type::f16: case Type::bf16: case Type::f64: case Type::q8_0: case Type::q4_k: case Type::q6_k: return;
  }
  bad(where, "tensor type " + std::to_string(number) +
      " is not one of F32, F16, BF16, F64, Q8_0, Q4_K, Q6_K; convert the checkpoint with --type f32, bf16, f16, q8_0, q6_k or q4_k_m", Status::unsupported);
}

void check_panels(const GgufTensor& t, uint32_t dimensions, uint64_t alignment, const std::string& where) {
  constexpr int64_t most = int64_t(1) << 40;  // of rows and of columns: far from an overflow of a panel's bytes
  if (dimensions != 2) bad(where, std::to_string(dimensions) + " dimensions in panels, expected 2");
  if (t.type == Type::f64) bad(where, "F64 in panels; there is no such layout");
  if (t.shape[0] > most || t.shape[1] > most) bad(where, "sizes overflow in panels; the file is damaged");
  if (alignment < panels_alignment)
    bad(where, "in panels, with an alignment of " + std::to_string(alignment) + ", expected at least " + std::to_string(panels_alignment) +
                   "; convert the checkpoint again");
}

// One entry of the tensor list; its data pointer is set later, when the start of the data is known.
GgufTensor read_tensor(Cursor& in, uint64_t alignment, uint64_t& offset) {
  GgufTensor t;
  t.name = std::string(read_name(in, "tensor name"));
  const std::string where = in.where() + ": tensor " + shown(t.name);
  const uint32_t dimensions = in.number<uint32_t>("tensor dimensions");
  if (dimensions < 1 || dimensions > 4) bad(where, std::to_string(dimensions) + " dimensions, expected 1 to 4");
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const uint64_t n = in.number<uint64_t>("tensor size");
    if (n == 0) bad(where, "a size of 0");
    elements = checked_multiply(elements, n, where);
    t.shape.insert(t.shape.begin(), int64_t(n));
  }
  const uint32_t number = in.number<uint32_t>("tensor type");
  t.layout = number >> 16 == gguf_panels >> 16 ? Layout::panels : Layout::rows;
  t.type = Type(t.layout == Layout::panels ? number & 0xffff : number);
  check_type(t.type, number, where);
  if (t.layout == Layout::panels) check_panels(t, dimensions, alignment, where);
  const uint64_t block = uint64_t(block_values(t.type)), row = uint64_t(t.shape.back());
  if (row % block != 0)
    bad(where, "rows of " + std::to_string(row) + " values are not whole " + type_name(t.type) + " blocks of " + std::to_string(block) + "; convert the checkpoint again");
  t.bytes = t.layout == Layout::panels ? checked_multiply(uint64_t(panels_of(t.shape[0])), panel_bytes(t.type, t.shape[1]), where)
                                       : checked_multiply(elements / block, block_bytes(t.type), where);
  offset = in.number<uint64_t>("tensor offset");
  if (offset % alignment != 0) bad(where, "offset " + std::to_string(offset) + " is not a multiple of the alignment " + std::to_string(alignment));
  return t;
}

void read_header(Cursor& in, uint64_t& tensors, uint64_t& keys) {
  if (in.number<uint32_t>("magic") != 0x46554747) bad(in.where(), "does not start with \"GGUF\": not a GGUF file; make one with breastgpt-convert");
  const uint32_t version = in.number<uint32_t>("version");
  if (version == 0x03000000) bad(in.where(), "is a big-endian GGUF file; only little-endian ones are read", Status::unsupported);
  if (version != 3) bad(in.where(), "GGUF version " + std::to_string(version) + ", expected 3; convert the checkpoint again", Status::unsupported);
  tensors = in.number<uint64_t>("tensor count");
  keys = in.number<uint64_t>("key count");
  in.expect(keys, 8 + 1 + 4 + 1, "keys");
  in.expect(tensors, 8 + 1 + 4 + 8 + 4 + 8, "tensors");
  if (keys > most_keys) bad(in.where(), std::to_string(keys) + " keys; at most " + std::to_string(most_keys) + " are read", Status::too_large);
  if (tensors > most_tensors) bad(in.where(), std::to_string(tensors) + " tensors; at most " + std::to_string(most_tensors) + " are read", Status::too_large);
}

}  // namespace

Gguf::Gguf(const std::string& path) : file_(std::make_unique<MappedFile>(path)) {
  Cursor in(file_->data(), file_->size(), path);
  uint64_t tensor_count, key_count;
  read_header(in, tensor_count, key_count);

  for (uint64_t i = 0; i < key_count; ++i) {
    const std::string key(read_name(in, "key"));
    const std::string where = path + ": key " + shown(key);
    if (!values_.emplace(key, std::make_shared<Value>(read_value<Value>(in, where))).second) bad(where, "appears twice");
  }
  const int64_t alignment = has("general.alignment") ? integer("general.alignment") : int64_t(least_alignment);
  if (alignment < int64_t(least_alignment) || alignment > int64_t(most_alignment) || !std::has_single_bit(uint64_t(alignment)))
    bad(path, "general.alignment is " + std::to_string(alignment) + ", expected a power of two from 32 to 65536", Status::unsupported);

  std::vector<Place> places;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    uint64_t offset;
    GgufTensor t = read_tensor(in, uint64_t(alignment), offset);
    if (!by_name_.emplace(t.name, i).second) bad(path, "tensor " + shown(t.name) + " appears twice");
    tensors_.push_back(std::move(t));
    places.push_back({offset, i});
  }
  if (tensor_count == 0) return;

  const auto padded = [alignment](uint64_t n) { return (n + uint64_t(alignment) - 1) / uint64_t(alignment) * uint64_t(alignment); };
  in.take(padded(in.position()) - in.position(), "padding before the tensor data");
  const uint64_t start = in.position(), available = in.left();
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.offset < b.offset; });
  uint64_t end = 0;  // of the tensors so far, from the start of the data
  for (const Place& place : places) {
    GgufTensor& t = tensors_[place.index];
    const std::string where = path + ": tensor " + shown(t.name);
    if (place.offset < end) bad(where, "overlaps another tensor: it starts at " + std::to_string(place.offset) + ", before " + std::to_string(end));
    // Both are below 2^63, so neither the padding nor the sum wraps. Padding after the last tensor counts: a file cut anywhere is refused.
    if (place.offset > available || padded(t.bytes) > available - place.offset)
      bad(where, "truncated: its data of " + std::to_string(t.bytes) + " bytes at " + std::to_string(place.offset) + " goes beyond the " +
                     std::to_string(available) + " bytes of tensor data; copy or make the file again");
    end = place.offset + padded(t.bytes);
    t.data = file_->data() + start + place.offset;
  }
}

const std::string& Gguf::path() const { return file_->path(); }
uint64_t Gguf::file_bytes() const { return file_->size(); }
const std::vector<GgufTensor>& Gguf::tensors() const { return tensors_; }

const GgufTensor* Gguf::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

bool Gguf::has(std::string_view key) const { return values_.find(key) != values_.end(); }

const Gguf::Value& Gguf::value(std::string_view key, const char* wanted) const {
  const auto it = values_.find(key);
  if (it == values_.end()) bad(path(), "key " + shown(key) + " is missing, expected " + wanted + "; convert the checkpoint again");
  return *it->second;
}

namespace {
[[noreturn]] void wrong_type(const Gguf& file, std::string_view key, const std::string& found, const char* wanted) {
  bad(file.path(), "key " + shown(key) + " is " + found + ", expected " + wanted + "; convert the checkpoint again");
}
}  // namespace

int64_t Gguf::integer(std::string_view key) const {
  const char* wanted = "an integer below 2^63";
  const Value& v = value(key, wanted);
  const std::optional<int64_t> n = v.type == ARRAY ? std::nullopt : integer_at(v.at, v.type);
  if (!n) wrong_type(*this, key, v.describe(), wanted);
  return *n;
}

double Gguf::real(std::string_view key) const {
  const char* wanted = "an f32 or f64";
  const Value& v = value(key, wanted);
  if (v.type != F32 && v.type != F64) wrong_type(*this, key, v.describe(), wanted);
  float f;
  double d;
  if (v.type == F32) std::memcpy(&f, v.at, 4);
  else std::memcpy(&d, v.at, 8);
  return v.type == F32 ? double(f) : d;
}

bool Gguf::boolean(std::string_view key) const {
  const Value& v = value(key, "a bool");
  if (v.type != BOOL) wrong_type(*this, key, v.describe(), "a bool");
  return *v.at != 0;
}

std::string_view Gguf::text(std::string_view key) const {
  const Value& v = value(key, "a string");
  if (v.type != STRING) wrong_type(*this, key, v.describe(), "a string");
  return {reinterpret_cast<const char*>(v.at), v.bytes};
}

std::vector<int64_t> Gguf::integers(std::string_view key) const {
  const char* wanted = "an array of integers below 2^63";
  const Value& v = value(key, wanted);
  if (v.type != ARRAY || v.element == STRING) wrong_type(*this, key, v.describe(), wanted);
  std::vector<int64_t> all;
  all.reserve(v.count);
  for (uint64_t i = 0; i < v.count; ++i) {
    const std::optional<int64_t> n = integer_at(v.at + i * type_bytes[v.element], v.element);
    if (!n) wrong_type(*this, key, v.describe(), wanted);
    all.push_back(*n);
  }
  return all;
}

std::vector<std::string_view> Gguf::texts(std::string_view key) const {
  const char* wanted = "an array of strings";
  const Value& v = value(key, wanted);
  if (v.type != ARRAY || v.element != STRING) wrong_type(*this, key, v.describe(), wanted);
  Cursor in(v.at, v.bytes, path());
  std::vector<std::string_view> all;
  all.reserve(v.count);
  for (uint64_t i = 0; i < v.count; ++i) all.push_back(read_string(in, "string in an array"));
  return all;
}

}  // namespace bg
