// PBM, PGM, PPM (P1 … P6), plain and raw, as PIL reads them: a maximum other than 255 (PGM above 255: 65535) is scaled to it, rounded half to even;
// PPM above 255 becomes 8-bit, PGM above 255 becomes grey16. Own code because stb_image reads only P5 and P6 and does not scale. First picture only.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "loaders/image_decode.h"

namespace bg {
namespace {

bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

class Text {
 public:
  Text(const ImageSource& s, size_t at) : s_(s), at_(at) {}
  size_t at() const { return at_; }

  // A decimal number; ends at one white space, which is taken. Comments run from '#' to the end of the line, also inside a number (PIL).
  uint32_t number(const char* what) {
    uint32_t value = 0;
    int digits = 0;
    for (;;) {
      if (at_ == s_.size) {
        if (digits == 0) s_.damaged(std::string("PNM: ends before ") + what);
        return value;
      }
      const uint8_t c = s_.data[at_++];
      if (c == '#') {
        skip_line();
      } else if (is_space(c)) {
        if (digits > 0) return value;
      } else {
        if (c < '0' || c > '9' || ++digits > 9) s_.damaged(std::string("PNM: ") + what + " is not a number of at most 9 digits");
        value = value * 10 + (c - '0');
      }
    }
  }

  // P1: digits 0 and 1, white space between them optional.
  bool bit() {
    for (;;) {
      if (at_ == s_.size) s_.damaged("PNM: ends before the last pixel");
      const uint8_t c = s_.data[at_++];
      if (c == '#') skip_line();
      else if (c == '0' || c == '1') return c == '1';
      else if (!is_space(c)) s_.damaged("PNM: a pixel is neither 0 nor 1");
    }
  }

 private:
  void skip_line() {
    while (at_ < s_.size && s_.data[at_] != '\n' && s_.data[at_] != '\r') ++at_;
    if (at_ < s_.size) ++at_;
  }
  const ImageSource& s_;
  size_t at_;
};

// Values 0 … maximum → 0 … top: round_half_even(v / maximum · top) in double, as PIL computes it.
std::vector<uint16_t> scale_table(uint32_t maximum, uint32_t top) {
  std::vector<uint16_t> table(maximum + 1);
  for (uint32_t v = 0; v <= maximum; ++v) table[v] = uint16_t(std::nearbyint(double(v) / maximum * top));
  return table;
}

void read_bits(Image& image, const ImageSource& s, Text& text, bool plain) {
  const size_t width = size_t(image.width), height = size_t(image.height), stride = (width + 7) / 8;
  const uint8_t* row = s.data + text.at();
  for (size_t y = 0; y < height; ++y, row += plain ? 0 : stride) {
    for (size_t x = 0; x < width; ++x) {
      const bool black = plain ? text.bit() : (row[x / 8] >> (7 - x % 8) & 1) != 0;
      std::fill_n(image.rgb.begin() + std::ptrdiff_t((y * width + x) * 3), 3, uint8_t(black ? 0 : 255));
    }
  }
}

// One sample of a raw or plain file, scaled.
class Samples {
 public:
  Samples(const ImageSource& s, Text& text, bool plain, uint32_t maximum, uint32_t top)
      : s_(s), text_(text), plain_(plain), wide_(maximum > 255), maximum_(maximum), table_(scale_table(maximum, top)), raw_(s.data + text.at()) {}
  uint16_t next() {
    uint32_t v = 0;
    if (plain_) {
      v = text_.number("the last pixel");
      if (v > maximum_) s_.damaged("PNM: a pixel value is above the maximum of " + std::to_string(maximum_));
    } else {
      v = wide_ ? uint32_t(raw_[0]) << 8 | raw_[1] : raw_[0];
      raw_ += wide_ ? 2 : 1;
    }
    return table_[std::min(v, maximum_)];  // PIL clips raw values above the maximum
  }

 private:
  const ImageSource& s_;
  Text& text_;
  bool plain_, wide_;
  uint32_t maximum_;
  std::vector<uint16_t> table_;
  const uint8_t* raw_;
};

}  // namespace

Image decode_pnm(const ImageSource& s) {
  const int kind = s.data[1] - '0';
  const bool plain = kind <= 3, bits = kind == 1 || kind == 4, colour = kind == 3 || kind == 6;
  Text text(s, 3);
  Image image;
  image.width = text.number("the width");
  image.height = text.number("the height");
  image.format = "PNM";
  check_image_size(s, "PNM", uint64_t(image.width), uint64_t(image.height));
  const uint32_t maximum = bits ? 1 : text.number("the maximum value");
  if (maximum == 0 || maximum > 65535) s.damaged("PNM: the maximum value must be 1 ... 65535, got " + std::to_string(maximum));
  const size_t area = size_t(image.width) * size_t(image.height);
  const size_t needed = plain       ? (bits ? area : area * (colour ? 6 : 2) - 1)  // a digit and a space each
                        : kind == 4 ? size_t(image.width + 7) / 8 * size_t(image.height)
                                    : area * (colour ? 3 : 1) * (maximum > 255 ? 2 : 1);
  if (s.size - text.at() < needed) {
    s.damaged("PNM: the pixels need at least " + std::to_string(needed) + " bytes, the file has " + std::to_string(s.size - text.at()));
  }
  const bool grey16 = !colour && !bits && maximum > 255;
  if (grey16) image.grey16.resize(area);
  else image.rgb.resize(area * 3);
  if (bits) {
    read_bits(image, s, text, plain);
    return image;
  }
  Samples samples(s, text, plain, maximum, grey16 ? 65535 : 255);
  if (grey16) {
    for (uint16_t& v : image.grey16) v = samples.next();
  } else if (colour) {
    for (uint8_t& v : image.rgb) v = uint8_t(samples.next());
  } else {
    for (size_t i = 0; i < area; ++i) std::fill_n(image.rgb.begin() + std::ptrdiff_t(i * 3), 3, uint8_t(samples.next()));
  }
  return image;
}

}  // namespace bg
