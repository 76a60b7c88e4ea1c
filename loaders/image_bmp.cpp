// Windows and OS/2 bitmaps, as PIL reads them: 1, 4, 8 bits with a palette (plain or run-length coded), 16 bits (5-5-5 and 5-6-5), 24 and 32 bits,
// the byte layouts of PIL's table of masks. Run-length data follow the format where PIL before 13 misreads it (skips, odd literal runs of 4 bits).
// Own code because stb_image expands 5-bit channels differently, has no run-length coding and reads past a short palette.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "loaders/image_decode.h"

namespace bg {
namespace {

uint32_t little16(const uint8_t* p) { return uint32_t(p[0]) | uint32_t(p[1]) << 8; }
uint32_t little32(const uint8_t* p) { return little16(p) | little16(p + 2) << 16; }

enum Compression : uint32_t { plain = 0, rle8 = 1, rle4 = 2, bitfields = 3 };

struct Header {
  int64_t width = 0, height = 0;
  bool top_down = false;
  uint32_t bits = 0, compression = plain;
  size_t palette_at = 0, palette_entry = 4, colours = 0;  // bytes from the start, bytes per entry, entries
  size_t pixels_at = 0;                                   // bytes from the start
  uint32_t masks[4] = {};                                 // red, green, blue, alpha; used with bitfields
};

[[noreturn]] void unsupported(const ImageSource& s, const std::string& what) {
  s.fail(Status::unsupported, "BMP: " + what + " is not read; convert to PNG");
}

Header read_header(const ImageSource& s) {
  if (s.size < 18) s.damaged("BMP: the header is cut short");
  Header h;
  const size_t offset = little32(s.data + 10), size = little32(s.data + 14);
  const bool known = size == 12 || size == 40 || size == 52 || size == 56 || size == 64 || size == 108 || size == 124;
  if (!known) unsupported(s, "a header of " + std::to_string(size) + " bytes");
  if (s.size < 14 + size) s.damaged("BMP: the header is cut short");
  const uint8_t* p = s.data + 14;
  size_t end = 14 + size;
  if (size == 12) {
    h.width = little16(p + 4);
    h.height = little16(p + 6);
    h.bits = little16(p + 10);
    h.palette_entry = 3;
  } else {
    h.width = little32(p + 4);
    const auto height = int64_t(int32_t(little32(p + 8)));
    h.top_down = height < 0;
    h.height = h.top_down ? -height : height;
    h.bits = little16(p + 14);
    h.compression = little32(p + 16);
    h.colours = little32(p + 32);
    if (h.compression == bitfields) {
      const size_t count = size == 40 ? 3 : size >= 56 ? 4 : 3;
      if (s.size < 54 + count * 4) s.damaged("BMP: the header is cut short");
      for (size_t i = 0; i < count; ++i) h.masks[i] = little32(s.data + 54 + i * 4);
      if (size == 40) end += 12;
    }
  }
  check_image_size(s, "BMP", uint64_t(h.width), uint64_t(h.height));
  if (h.bits <= 8) {
    if (h.colours == 0) h.colours = size_t(1) << h.bits;
    if (h.colours > 256 || h.colours * h.palette_entry > s.size - end) s.damaged("BMP: the palette is larger than 256 colours or than the file");
    h.palette_at = end;
    end += h.colours * h.palette_entry;
  }
  // Writers that forget the palette in the offset of the pixels: PIL reads on behind it.
  h.pixels_at = offset == 0 || (h.bits <= 8 && offset == 14 + size) ? end : offset;
  if (h.pixels_at > s.size) s.damaged("BMP: the pixels start beyond the end of the file");
  return h;
}

// Where red, green, blue stand in a 32-bit pixel's bytes, for the masks that PIL knows.
struct Places {
  uint32_t masks[4];
  uint8_t red, green, blue;
};
constexpr Places known_places[] = {
    {{0xFF0000, 0xFF00, 0xFF, 0}, 2, 1, 0},          {{0xFF000000, 0xFF0000, 0xFF00, 0}, 3, 2, 1},
    {{0xFF000000, 0xFF00, 0xFF, 0}, 3, 1, 0},        {{0xFF000000, 0xFF0000, 0xFF00, 0xFF}, 3, 2, 1},
    {{0xFF, 0xFF00, 0xFF0000, 0xFF000000}, 0, 1, 2}, {{0xFF0000, 0xFF00, 0xFF, 0xFF000000}, 2, 1, 0},
    {{0xFF000000, 0xFF00, 0xFF, 0xFF0000}, 3, 1, 0}, {{0, 0, 0, 0}, 2, 1, 0},
};

// How pixels of 16, 24 and 32 bits become RGB.
struct Direct {
  int bytes = 3;
  int green_bits = 5;                   // of 16-bit pixels
  uint8_t red = 2, green = 1, blue = 0;  // byte places of 24- and 32-bit pixels
};

Direct direct_layout(const ImageSource& s, const Header& h) {
  Direct d;
  d.bytes = int(h.bits / 8);
  if (h.compression == plain) return d;
  const auto is = [&h](uint32_t r, uint32_t g, uint32_t b) { return h.masks[0] == r && h.masks[1] == g && h.masks[2] == b; };
  if (h.bits == 16 && is(0xF800, 0x7E0, 0x1F)) d.green_bits = 6;
  else if (h.bits == 16 && is(0x7C00, 0x3E0, 0x1F)) d.green_bits = 5;
  else if (h.bits == 32) {
    const Places* match = nullptr;
    for (const Places& p : known_places) {
      if (std::memcmp(p.masks, h.masks, sizeof p.masks) == 0) match = &p;
    }
    if (!match) unsupported(s, "this layout of colour masks");
    d.red = match->red;
    d.green = match->green;
    d.blue = match->blue;
  } else if (h.bits != 24 || !is(0xFF0000, 0xFF00, 0xFF)) {
    unsupported(s, "this layout of colour masks");
  }
  return d;
}

void direct_row(uint8_t* rgb, const uint8_t* row, int64_t width, const Direct& d) {
  for (int64_t x = 0; x < width; ++x, rgb += 3, row += d.bytes) {
    if (d.bytes == 2) {  // channels scaled with truncation, as PIL
      const uint32_t v = little16(row), top = (1u << d.green_bits) - 1;
      rgb[0] = uint8_t((v >> (5 + d.green_bits) & 31) * 255 / 31);
      rgb[1] = uint8_t((v >> 5 & top) * 255 / top);
      rgb[2] = uint8_t((v & 31) * 255 / 31);
    } else {
      rgb[0] = row[d.red];
      rgb[1] = row[d.green];
      rgb[2] = row[d.blue];
    }
  }
}

// Run-length coded indices (height, width), rows in the file's order. Every pixel must be given by the data or a skip, and as in PIL a full row stays
// full until the code that ends it.
std::vector<uint8_t> run_length(const ImageSource& s, const Header& h) {
  const size_t width = size_t(h.width), area = width * size_t(h.height);
  std::vector<uint8_t> out(area);
  const uint8_t *p = s.data + h.pixels_at, *end = s.data + s.size;
  const bool four = h.compression == rle4;
  size_t at = 0, column = 0;
  while (at < area) {
    if (end - p < 2) s.damaged("BMP: the run-length data end after " + std::to_string(at) + " of " + std::to_string(area) + " pixels");
    const size_t count = p[0], value = p[1];
    p += 2;
    if (count > 0) {
      const size_t n = std::min(count, width - column);
      for (size_t i = 0; i < n; ++i) out[at + i] = uint8_t(!four ? value : i % 2 == 0 ? value >> 4 : value & 15);
      at += n;
      column += n;
    } else if (value == 0) {
      at += at % width == 0 ? 0 : width - at % width;
      column = 0;
    } else if (value == 1) {
      s.damaged("BMP: the run-length data end after " + std::to_string(at) + " of " + std::to_string(area) + " pixels");
    } else if (value == 2) {
      if (end - p < 2) s.damaged("BMP: the run-length data are cut short");
      at += size_t(p[0]) + size_t(p[1]) * width;
      column = at % width;
      p += 2;
    } else {
      const size_t bytes = four ? (value + 1) / 2 : value;
      if (value > width - column || size_t(end - p) < bytes) s.damaged("BMP: the run-length data are wrong or cut short");
      for (size_t i = 0; i < value; ++i) out[at + i] = uint8_t(!four ? p[i] : i % 2 == 0 ? p[i / 2] >> 4 : p[i / 2] & 15);
      at += value;
      column += value;
      p += bytes;
      if (size_t(p - s.data) % 2 != 0 && p < end) ++p;  // 16-bit alignment counts from the start of the file, as in PIL
    }
  }
  return out;
}

}  // namespace

Image decode_bmp(const ImageSource& s) {
  const Header h = read_header(s);
  const bool indexed = h.bits == 1 || h.bits == 4 || h.bits == 8;
  const bool coded = (h.compression == rle8 && h.bits == 8) || (h.compression == rle4 && h.bits == 4);
  if (!indexed && h.bits != 16 && h.bits != 24 && h.bits != 32) unsupported(s, std::to_string(h.bits) + " bits per pixel");
  if (!coded && h.compression != plain && (h.compression != bitfields || indexed)) unsupported(s, "compression " + std::to_string(h.compression));
  const Direct direct = indexed ? Direct{} : direct_layout(s, h);
  const size_t width = size_t(h.width), height = size_t(h.height), stride = (width * h.bits + 31) / 32 * 4;
  // The last row may lack its padding.
  const size_t needed = (height - 1) * stride + (width * h.bits + 7) / 8;
  if (!coded && s.size - h.pixels_at < needed) {
    s.damaged("BMP: the pixels need " + std::to_string(needed) + " bytes, the file has " + std::to_string(s.size - h.pixels_at));
  }
  uint8_t palette[256][3] = {};  // entries that the file lacks are black, as in PIL
  for (size_t i = 0; i < h.colours && indexed; ++i) {
    const uint8_t* p = s.data + h.palette_at + i * h.palette_entry;
    palette[i][0] = p[2];
    palette[i][1] = p[1];
    palette[i][2] = p[0];
  }
  const std::vector<uint8_t> indices = coded ? run_length(s, h) : std::vector<uint8_t>();

  Image image;
  image.width = h.width;
  image.height = h.height;
  image.format = "BMP";
  image.rgb.resize(width * height * 3);
  for (size_t y = 0; y < height; ++y) {
    uint8_t* rgb = image.rgb.data() + (h.top_down ? y : height - 1 - y) * width * 3;
    const uint8_t* row = s.data + h.pixels_at + y * stride;
    if (!indexed) {
      direct_row(rgb, row, h.width, direct);
      continue;
    }
    const uint32_t mask = (1u << h.bits) - 1, per_byte = 8 / h.bits;
    for (size_t x = 0; x < width; ++x) {
      const uint32_t v = coded ? indices[y * width + x] : uint32_t(row[x / per_byte]) >> (8 - h.bits - x % per_byte * h.bits) & mask;
      std::memcpy(rgb + 3 * x, palette[v], 3);
    }
  }
  return image;
}

}  // namespace bg
