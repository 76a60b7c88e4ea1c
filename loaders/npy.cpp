// NumPy's .npy, versions 1, 2 and 3: one array of numbers of shape (z, y, x), either order in memory, either byte order. The header is a Python
// dictionary; only what numpy.save writes is accepted: the keys descr, fortran_order and shape, once each, with literals. Nothing is evaluated.
// In: the file in memory. Out: Volume without spacing. Not here: objects (pickle), records, booleans, complex numbers, text.
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "loaders/cursor.h"
#include "loaders/volume_source.h"

namespace bg {
namespace {

struct Header {
  std::string descr;
  bool fortran = false;
  std::vector<int64_t> shape;
};

// {'descr': '<i2', 'fortran_order': False, 'shape': (48, 384, 384), } and blanks up to the end.
class HeaderParser {
 public:
  HeaderParser(const VolumeSource& s, std::string_view text) : s_(s), text_(text) {}

  Header parse() {
    Header h;
    bool seen[3] = {};
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      const int which = key == "descr" ? 0 : key == "fortran_order" ? 1 : key == "shape" ? 2 : -1;
      if (which < 0 || seen[which]) wrong("key " + shown(key) + " is unknown or stands twice");
      seen[which] = true;
      expect(':');
      if (which == 0) h.descr = description();
      if (which == 1) h.fortran = truth();
      if (which == 2) h.shape = tuple();
      if (accept(',')) continue;
      expect('}');
      break;
    }
    skip_blanks();
    if (at_ != text_.size()) wrong("something follows the dictionary");
    if (!seen[0] || !seen[1] || !seen[2]) wrong("descr, fortran_order or shape is missing");
    return h;
  }

 private:
  [[noreturn]] void wrong(const std::string& what) const { s_.damaged("NPY header, character " + std::to_string(at_) + ": " + what); }

  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }

  bool accept(char c) {
    skip_blanks();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) wrong(std::string("expected ") + c);
  }

  std::string quoted() {
    const char quote = accept('\'') ? '\'' : accept('"') ? '"' : 0;
    if (!quote) wrong("expected a text in quotes");
    const size_t end = text_.find(quote, at_);
    if (end == std::string_view::npos || text_.substr(at_, end - at_).find('\\') != std::string_view::npos) wrong("a text does not end");
    const std::string value(text_.substr(at_, end - at_));
    at_ = end + 1;
    return value;
  }

  std::string description() {
    skip_blanks();
    if (at_ < text_.size() && text_[at_] == '[') s_.fail(Status::unsupported, "NPY: records are not read; save one array of numbers (z, y, x)");
    return quoted();
  }

  bool truth() {
    skip_blanks();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return value;
    }
    wrong("expected True or False");
  }

  int64_t whole() {
    skip_blanks();
    const size_t first = at_;
    int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      if (__builtin_mul_overflow(value, int64_t(10), &value) || __builtin_add_overflow(value, int64_t(text_[at_] - '0'), &value)) {
        wrong("a side of the shape is beyond 63 bits");
      }
    }
    if (at_ == first) wrong("expected a whole number");
    return value;
  }

  std::vector<int64_t> tuple() {
    std::vector<int64_t> values;
    expect('(');
    while (!accept(')')) {
      values.push_back(whole());
      if (accept(',')) continue;
      if (values.size() == 1) wrong("(n) is no tuple");
      expect(')');
      break;
    }
    return values;
  }

  const VolumeSource& s_;
  std::string_view text_;
  size_t at_ = 0;
};

// '<i2' and the like: byte order, kind, bytes.
Coding parse_description(const VolumeSource& s, const std::string& descr) {
  const std::string kind = descr.size() > 1 ? descr.substr(1) : "";
  const char order = descr.empty() ? 0 : descr[0];
  static constexpr struct {
    const char* name;
    Number type;
  } known[] = {{"i1", Number::i8},  {"u1", Number::u8},  {"i2", Number::i16}, {"u2", Number::u16}, {"i4", Number::i32}, {"u4", Number::u32},
               {"i8", Number::i64}, {"u8", Number::u64}, {"f2", Number::f16}, {"f4", Number::f32}, {"f8", Number::f64}};
  for (const auto& k : known) {
    if (kind != k.name) continue;
    if (order != '<' && order != '>' && !(order == '|' && number_bytes(k.type) == 1)) break;
    Coding coding;
    coding.type = k.type;
    coding.swapped = order == '>';
    return coding;
  }
  const char letter = kind.empty() ? 0 : kind[0];
  const char* what = letter == 'O' ? "Python objects" : letter == 'c' ? "complex numbers" : letter == 'b' ? "truth values" : letter == 'V' ? "records"
                     : letter == 'U' || letter == 'S' ? "text" : letter == 'M' || letter == 'm' ? "dates" : letter == 'f' ? "extended floats" : nullptr;
  if (what) s.fail(Status::unsupported, "NPY: " + std::string(what) + " (" + shown(descr) + ") are not read; save integers or float16, float32, float64");
  s.damaged("NPY: descr " + shown(descr) + " is not a type of numbers");
}

std::string text(const std::vector<int64_t>& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size() && i < 8; ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + (shape.size() > 8 ? ", …)" : ")");
}

// Memory order (x, y, z), z fastest → (z, y, x), a column along z at a time.
void read_fortran(Volume& v, const uint8_t* data, const Coding& coding) {
  std::vector<float> column(static_cast<size_t>(v.nz));
  const int64_t step = v.nz * number_bytes(coding.type), slice = v.nx * v.ny;
  for (int64_t x = 0; x < v.nx; ++x) {
    for (int64_t y = 0; y < v.ny; ++y, data += step) {
      to_floats(column.data(), data, v.nz, coding);
      float* out = &v.voxels[size_t(y * v.nx + x)];
      for (int64_t z = 0; z < v.nz; ++z) out[z * slice] = column[size_t(z)];
    }
  }
}

}  // namespace

Volume read_npy(const VolumeSource& s) {
  Cursor cursor(s.data, s.size, s.name + ": NPY");
  cursor.take(6, "the signature");
  const int major = cursor.number<uint8_t>("the version"), minor = cursor.number<uint8_t>("the version");
  if (major < 1 || major > 3 || minor != 0) {
    s.fail(Status::unsupported, "NPY: version " + std::to_string(major) + "." + std::to_string(minor) + "; 1.0, 2.0 and 3.0 are read");
  }
  const uint64_t length = major == 1 ? cursor.number<uint16_t>("the header's length") : cursor.number<uint32_t>("the header's length");
  const char* header = reinterpret_cast<const char*>(cursor.take(length, "the header"));
  Header h = HeaderParser(s, {header, size_t(length)}).parse();
  const Coding coding = parse_description(s, h.descr);

  const std::string shape = text(h.shape);
  while (h.shape.size() > 3 && h.shape.back() == 1) h.shape.pop_back();
  if (h.shape.size() != 3) s.fail(Status::unsupported, "NPY: shape " + shape + " is not three-dimensional; expected (z, y, x), save one volume");
  Volume v;
  v.format = "NPY";
  v.nx = h.shape[2];
  v.ny = h.shape[1];
  v.nz = h.shape[0];
  const int64_t bytes = check_volume_size(s, "NPY", v.nx, v.ny, v.nz, coding.type);
  if (uint64_t(bytes) != cursor.left()) {
    s.damaged("NPY: shape " + shape + " of " + shown(h.descr) + " needs " + std::to_string(bytes) + " bytes, " + std::to_string(cursor.left()) +
              " follow the header");
  }
  const uint8_t* data = cursor.take(uint64_t(bytes), "the numbers");
  v.voxels.resize(size_t(v.nx * v.ny * v.nz));
  if (h.fortran) read_fortran(v, data, coding);
  else to_floats(v.voxels.data(), data, v.nx * v.ny * v.nz, coding);
  return v;
}

}  // namespace bg
