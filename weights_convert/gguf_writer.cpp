// See gguf_writer.h; the layout is described in loaders/gguf.cpp.
#include "weights_convert/gguf_writer.h"

#include <algorithm>
#include <cstring>

#include "kernels/panels.h"
#include "loaders/error.h"
#include "loaders/gguf.h"

namespace bg {
namespace {

enum : uint32_t { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, I64 = 11, F64 = 12 };  // GGUF's value types

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& out, const std::string& text) {
  put<uint64_t>(out, text.size());
  out += text;
}

}  // namespace

void GgufHeader::key(const std::string& key, uint32_t type) {
  put_text(keys_, key);
  put(keys_, type);
  ++key_count_;
}

void GgufHeader::text(const std::string& name, const std::string& value) {
  key(name, STRING);
  put_text(keys_, value);
}

void GgufHeader::integer(const std::string& name, int64_t value) {
  const bool fits = value >= 0 && value <= UINT32_MAX;
  key(name, fits ? U32 : I64);
  if (fits) put(keys_, uint32_t(value));
  else put(keys_, value);
}

void GgufHeader::real(const std::string& name, double value) {
  const bool fits = double(float(value)) == value;
  key(name, fits ? F32 : F64);
  if (fits) put(keys_, float(value));
  else put(keys_, value);
}

void GgufHeader::boolean(const std::string& name, bool value) {
  key(name, BOOL);
  put(keys_, uint8_t(value));
}

void GgufHeader::integers(const std::string& name, const std::vector<int64_t>& values) {
  const bool fit = std::all_of(values.begin(), values.end(), [](int64_t v) { return v >= INT32_MIN && v <= INT32_MAX; });
  key(name, ARRAY);
  put<uint32_t>(keys_, fit ? I32 : I64);
  put<uint64_t>(keys_, values.size());
  for (const int64_t v : values) {
    if (fit) put(keys_, int32_t(v));
    else put(keys_, v);
  }
}

void GgufHeader::texts(const std::string& name, const std::vector<std::string>& values) {
  key(name, ARRAY);
  put<uint32_t>(keys_, STRING);
  put<uint64_t>(keys_, values.size());
  for (const std::string& v : values) put_text(keys_, v);
}

void GgufHeader::tensor(const std::string& name, const std::vector<int64_t>& shape, Type type, Layout layout) {
  put_text(list_, name);
  put<uint32_t>(list_, uint32_t(shape.size()));
  uint64_t elements = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    put<uint64_t>(list_, uint64_t(shape[i]));
    elements *= uint64_t(shape[i]);
  }
  put<uint32_t>(list_, gguf_type(type, layout));
  put<uint64_t>(list_, data_bytes_);
  data_bytes_ += gguf_padded(layout == Layout::panels ? weight_bytes(type, shape[0], shape[1], layout) : stored_bytes(type, int64_t(elements)));
  ++tensor_count_;
}

std::string GgufHeader::bytes() const {
  std::string out = "GGUF";
  put<uint32_t>(out, 3);
  put(out, tensor_count_);
  put(out, key_count_);
  out += keys_;
  out += list_;
  out.resize(gguf_padded(out.size()), '\0');
  return out;
}

}  // namespace bg
