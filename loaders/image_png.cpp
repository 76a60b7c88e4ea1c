// PNG through stb_image. stb_image checks no CRC, inflates without a bound, reads past a short palette and needs no IEND, so the file is read here
// first: chunk order and CRCs, the header's numbers, and the compressed stream inflated once with zlib in a small window to count its bytes. What is
// then handed to stb_image is a file rebuilt from the checked parts only: IHDR, PLTE padded to 256 black entries as PIL pads it, one IDAT, IEND.
// Without tRNS the decoder makes no alpha; RGBA and grey+alpha lose theirs, the colour beneath is kept. 16-bit colour keeps the high byte, as PIL.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "loaders/image_decode.h"

// The implementation lives in this file only, static, for PNG only, without stdio and without assert.
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_ASSERT(x) ((void)0)
#define STBI_MAX_DIMENSIONS 0x7fffffff  // the limit is ours: check_image_size
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

namespace bg {
namespace {

uint32_t big32(const uint8_t* p) { return uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | p[3]; }

struct Header {
  uint32_t width, height;  // pixels
  int bits, colour, interlace;
  int channels() const { return colour == 2 ? 3 : colour == 4 ? 2 : colour == 6 ? 4 : 1; }
};

Header read_header(const ImageSource& s, const uint8_t* p) {
  const Header h{big32(p), big32(p + 4), p[8], p[9], p[12]};
  check_image_size(s, "PNG", h.width, h.height);
  const bool deep = h.bits == 8 || h.bits == 16;
  const bool shallow = h.bits == 1 || h.bits == 2 || h.bits == 4;
  const bool known = (h.colour == 0 && (shallow || deep)) || (h.colour == 3 && (shallow || h.bits == 8)) ||
                     ((h.colour == 2 || h.colour == 4 || h.colour == 6) && deep);
  if (!known) s.damaged("PNG: colour type " + std::to_string(h.colour) + " with " + std::to_string(h.bits) + " bits does not exist");
  if (p[10] != 0 || p[11] != 0 || h.interlace > 1) s.damaged("PNG: compression, filter or interlace method is unknown");
  return h;
}

// Bytes of the inflated stream: for every pass, rows of one filter byte and the packed pixels.
uint64_t stream_bytes(const Header& h) {
  const auto pass = [&h](uint64_t w, uint64_t rows) { return w == 0 ? 0 : rows * (1 + (w * uint64_t(h.bits * h.channels()) + 7) / 8); };
  if (h.interlace == 0) return pass(h.width, h.height);
  // Adam7: pass i takes pixels (x0 + dx·k, y0 + dy·l).
  static constexpr uint32_t x0[7] = {0, 4, 0, 2, 0, 1, 0}, y0[7] = {0, 0, 4, 0, 2, 0, 1};
  static constexpr uint32_t dx[7] = {8, 8, 4, 4, 2, 2, 1}, dy[7] = {8, 8, 8, 4, 4, 2, 2};
  uint64_t n = 0;
  for (int i = 0; i < 7; ++i) {
    n += pass((uint64_t(h.width) + dx[i] - 1 - x0[i]) / dx[i], (uint64_t(h.height) + dy[i] - 1 - y0[i]) / dy[i]);
  }
  return n;
}

// Inflates into a small window to see that the stream is whole, correct (Adler-32) and of exactly `expected` bytes.
void check_stream(const ImageSource& s, const std::vector<uint8_t>& idat, uint64_t expected) {
  struct Inflater {
    z_stream z{};
    bool ready = inflateInit(&z) == Z_OK;
    ~Inflater() {
      if (ready) inflateEnd(&z);
    }
  } in;
  if (!in.ready) s.fail(Status::internal, "PNG: zlib cannot start");
  std::vector<uint8_t> window(size_t(1) << 16);
  uint64_t made = 0;
  size_t used = 0;
  int state = Z_OK;
  while (state == Z_OK && made <= expected) {
    if (in.z.avail_in == 0) {
      const size_t n = std::min<size_t>(idat.size() - used, size_t(1) << 30);
      in.z.next_in = const_cast<uint8_t*>(idat.data()) + used;
      in.z.avail_in = uInt(n);
      used += n;
    }
    in.z.next_out = window.data();
    in.z.avail_out = uInt(window.size());
    state = inflate(&in.z, Z_NO_FLUSH);  // Z_BUF_ERROR when the input is used up before the end
    made += window.size() - in.z.avail_out;
  }
  const std::string count = std::to_string(made) + " of " + std::to_string(expected) + " bytes";
  if (made > expected) s.damaged("PNG: the compressed data hold more than the " + std::to_string(expected) + " bytes that the header asks for");
  if (state == Z_BUF_ERROR) s.damaged("PNG: the compressed data end after " + count);
  if (state != Z_STREAM_END) s.damaged("PNG: the compressed data are wrong after " + count);
  if (made < expected) s.damaged("PNG: the compressed data hold only " + count);
}

void append_chunk(std::vector<uint8_t>& out, const char* type, const uint8_t* data, size_t n) {
  const uint8_t head[8] = {uint8_t(n >> 24), uint8_t(n >> 16), uint8_t(n >> 8), uint8_t(n),
                           uint8_t(type[0]), uint8_t(type[1]), uint8_t(type[2]), uint8_t(type[3])};
  out.insert(out.end(), head, head + 8);
  out.insert(out.end(), data, data + n);
  out.insert(out.end(), 4, 0);  // the CRC, which stb_image skips
}

struct Parts {
  Header header{};
  const uint8_t* ihdr = nullptr;        // 13 bytes
  std::array<uint8_t, 768> palette{};   // R, G, B; entries that the file lacks are black
  bool has_palette = false;
  std::vector<uint8_t> idat;            // all IDAT chunks joined
};

// One critical chunk; ancillary ones have been checked and do not matter here.
void take_chunk(const ImageSource& s, Parts& parts, const char* type, const uint8_t* data, uint32_t n, bool follows_idat) {
  const std::string name(type, 4);
  if ((parts.ihdr == nullptr) != (name == "IHDR")) s.damaged("PNG: the first chunk, and no other, must be IHDR");
  if (name == "IHDR") {
    if (n != 13) s.damaged("PNG: IHDR has " + std::to_string(n) + " bytes, expected 13");
    parts.ihdr = data;
    parts.header = read_header(s, data);
  } else if (name == "PLTE") {
    if (n == 0 || n > 768 || n % 3 != 0 || !parts.idat.empty()) s.damaged("PNG: the palette (PLTE) is misplaced or has a wrong size");
    std::memcpy(parts.palette.data(), data, n);
    parts.has_palette = true;
  } else if (name == "IDAT") {
    if (!parts.idat.empty() && !follows_idat) s.damaged("PNG: the IDAT chunks are not consecutive");
    parts.idat.insert(parts.idat.end(), data, data + n);
  } else if (name != "IEND") {
    s.fail(Status::unsupported, "PNG: has a critical chunk that is not known; convert to a plain PNG");
  }
}

Parts read_parts(const ImageSource& s) {
  Parts parts;
  bool previous_idat = false;
  for (size_t at = 8;;) {
    if (s.size - at < 12) s.damaged("PNG: ends after " + std::to_string(s.size) + " bytes without the final chunk (IEND)");
    const uint32_t n = big32(s.data + at);
    const char* type = reinterpret_cast<const char*>(s.data) + at + 4;
    if (n > s.size - at - 12) s.damaged("PNG: the chunk at byte " + std::to_string(at) + " reaches beyond the end of the file");
    const uint8_t* data = s.data + at + 8;
    if (uint32_t(crc32_z(0, data - 4, size_t(n) + 4)) != big32(data + n)) s.damaged("PNG: the chunk at byte " + std::to_string(at) + " has a wrong CRC");
    const bool critical = (type[0] & 0x20) == 0;
    if (critical || parts.ihdr == nullptr) take_chunk(s, parts, type, data, n, previous_idat);
    if (std::memcmp(type, "IEND", 4) == 0) break;
    previous_idat = std::memcmp(type, "IDAT", 4) == 0;
    at += size_t(n) + 12;
  }
  if (parts.idat.empty()) s.damaged("PNG: has no picture data (IDAT)");
  if (parts.header.colour == 3 && !parts.has_palette) s.damaged("PNG: a palette picture without a palette (PLTE)");
  return parts;
}

struct StbFree {
  void operator()(void* p) const { stbi_image_free(p); }
};

}  // namespace

Image decode_png(const ImageSource& s) {
  Parts parts = read_parts(s);
  const Header& h = parts.header;
  check_stream(s, parts.idat, stream_bytes(h));

  std::vector<uint8_t> clean(s.data, s.data + 8);
  clean.reserve(parts.idat.size() + 1024);
  append_chunk(clean, "IHDR", parts.ihdr, 13);
  if (h.colour == 3) append_chunk(clean, "PLTE", parts.palette.data(), parts.palette.size());
  append_chunk(clean, "IDAT", parts.idat.data(), parts.idat.size());
  append_chunk(clean, "IEND", nullptr, 0);
  parts.idat = {};
  if (clean.size() > size_t(std::numeric_limits<int>::max())) s.fail(Status::too_large, "PNG: more than 2 GiB of compressed data; save it as TIFF");

  const bool grey16 = h.bits == 16 && h.colour == 0;
  int width = 0, height = 0, channels = 0;
  const int bytes = int(clean.size());
  std::unique_ptr<void, StbFree> pixels(
      grey16 ? static_cast<void*>(stbi_load_16_from_memory(clean.data(), bytes, &width, &height, &channels, 1))
             : static_cast<void*>(stbi_load_from_memory(clean.data(), bytes, &width, &height, &channels, 3)));
  if (!pixels) s.damaged(std::string("PNG: cannot be decoded (") + stbi_failure_reason() + ")");
  Image image;
  image.width = width;
  image.height = height;
  image.format = "PNG";
  const size_t area = size_t(width) * size_t(height);
  if (grey16) {
    const auto* p = static_cast<const uint16_t*>(pixels.get());
    image.grey16.assign(p, p + area);
  } else {
    const auto* p = static_cast<const uint8_t*>(pixels.get());
    image.rgb.assign(p, p + area * 3);
  }
  return image;
}

}  // namespace bg
