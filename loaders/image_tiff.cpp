// TIFF and BigTIFF through libtiff, first page only. Grey and palette of 1, 2, 4, 8 bits, grey of 16 bits, RGB and CMYK of 8 and 16 bits (16-bit colour
// keeps the high byte, as PIL), YCbCr inside JPEG; strips and tiles, contiguous and separate planes; uncompressed, LZW, deflate, PackBits, JPEG, CCITT.
// Blocks (strips or tiles) are decoded one by one into a buffer whose size was checked against the picture. The file is read from memory; libtiff's
// messages go to a buffer of ours through per-file handlers (no global state, nothing printed). A warning while pixels are decoded is an error.
// Not read: float, signed, 12 and 32 bits, Lab, grey with premultiplied alpha, YCbCr outside JPEG.
#include <tiffio.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "loaders/image_decode.h"

#if TIFFLIB_VERSION < 20221213
#error "libtiff 4.5 or newer is needed (message handlers per file)"
#endif

namespace bg {
namespace {

// What libtiff's callbacks see: the file in memory, the read position, the first message.
struct Reader {
  const uint8_t* data;
  uint64_t size;
  uint64_t at = 0;
  bool decoding = false;  // from here on, warnings count
  bool failed = false;
  char message[256] = "no message";

  void keep(const char* format, va_list args) {
    if (!failed) std::vsnprintf(message, sizeof message, format, args);
    failed = true;
  }
};

Reader& reader_of(thandle_t handle) { return *static_cast<Reader*>(handle); }

tmsize_t read_bytes(thandle_t handle, void* out, tmsize_t n) {
  Reader& r = reader_of(handle);
  if (n <= 0 || r.at >= r.size) return 0;
  const uint64_t take = std::min<uint64_t>(uint64_t(n), r.size - r.at);
  std::memcpy(out, r.data + r.at, size_t(take));
  r.at += take;
  return tmsize_t(take);
}

tmsize_t write_bytes(thandle_t, void*, tmsize_t) { return 0; }

toff_t seek(thandle_t handle, toff_t offset, int whence) {
  Reader& r = reader_of(handle);
  r.at = whence == SEEK_SET ? offset : whence == SEEK_CUR ? r.at + offset : r.size + offset;  // wraps for negative offsets, as meant
  return r.at;
}

int close_nothing(thandle_t) { return 0; }
toff_t size_of(thandle_t handle) { return reader_of(handle).size; }

int on_error(TIFF*, void* user, const char*, const char* format, va_list args) {
  static_cast<Reader*>(user)->keep(format, args);
  return 1;
}

int on_warning(TIFF*, void* user, const char*, const char* format, va_list args) {
  auto* r = static_cast<Reader*>(user);
  // Files of an early LZW variant are read correctly and only advised against.
  if (r->decoding && std::strstr(format, "Old-style LZW") == nullptr) r->keep(format, args);
  return 1;
}

struct Close {
  void operator()(TIFF* t) const { TIFFClose(t); }
};
struct FreeOptions {
  void operator()(TIFFOpenOptions* o) const { TIFFOpenOptionsFree(o); }
};
using Tiff = std::unique_ptr<TIFF, Close>;

Tiff open(const ImageSource& s, Reader& reader) {
  std::unique_ptr<TIFFOpenOptions, FreeOptions> options(TIFFOpenOptionsAlloc());
  if (!options) s.fail(Status::too_large, "TIFF: not enough memory to open the file");
  TIFFOpenOptionsSetErrorHandlerExtR(options.get(), on_error, &reader);
  TIFFOpenOptionsSetWarningHandlerExtR(options.get(), on_warning, &reader);
  const int64_t pixels = std::clamp<int64_t>(s.limits.max_pixels, 0, int64_t(1) << 40);
  TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(), (int64_t(1) << 26) + pixels * 16);
  Tiff tiff(TIFFClientOpenExt("TIFF", "rm", &reader, read_bytes, write_bytes, seek, close_nothing, size_of, nullptr, nullptr, options.get()));
  if (!tiff) s.damaged(std::string("TIFF: ") + reader.message);
  return tiff;
}

struct Layout {
  uint32_t width = 0, height = 0;
  uint32_t block_width = 0, block_height = 0;  // pixels of a tile, or of a strip
  uint64_t block_bytes = 0, row_bytes = 0;
  uint16_t bits = 1, samples = 1, planar = PLANARCONFIG_CONTIG, photometric = 0, compression = 1, orientation = 1;
  bool tiled = false, premultiplied = false;
  int used = 1;  // channels that are kept: 1 grey or palette, 3 RGB, 4 CMYK or RGB with premultiplied alpha
  bool separate() const { return planar == PLANARCONFIG_SEPARATE; }
  bool grey() const { return photometric == PHOTOMETRIC_MINISWHITE || photometric == PHOTOMETRIC_MINISBLACK; }
  bool grey16() const { return grey() && bits == 16; }
  bool palette() const { return photometric == PHOTOMETRIC_PALETTE; }
};

template <class T>
T field(TIFF* tiff, uint32_t tag, T otherwise) {
  T value = otherwise;
  return TIFFGetFieldDefaulted(tiff, tag, &value) ? value : otherwise;
}

[[noreturn]] void unsupported(const ImageSource& s, const std::string& what) {
  s.fail(Status::unsupported, "TIFF: " + what + "; convert to 8-bit or 16-bit PNG");
}

void check_compression(const ImageSource& s, const Layout& l) {
  switch (l.compression) {
    case COMPRESSION_NONE:
    case COMPRESSION_LZW:
    case COMPRESSION_ADOBE_DEFLATE:
    case COMPRESSION_DEFLATE:
    case COMPRESSION_PACKBITS: break;
    case COMPRESSION_CCITTRLE:
    case COMPRESSION_CCITTFAX3:
    case COMPRESSION_CCITTFAX4:
      if (l.bits != 1 || l.samples != 1) s.damaged("TIFF: CCITT compression of more than one bit per pixel");
      break;
    case COMPRESSION_JPEG:
      if (l.bits != 8) unsupported(s, "JPEG compression of " + std::to_string(l.bits) + "-bit samples is not read");
      break;
    default: unsupported(s, "compression " + std::to_string(l.compression) + " is not read");
  }
  if (!TIFFIsCODECConfigured(l.compression)) unsupported(s, "compression " + std::to_string(l.compression) + " is not built into libtiff here");
}

// Sets `used` and `premultiplied`; refuses what PIL's table of pixel layouts does not hold either.
void check_samples(const ImageSource& s, TIFF* tiff, Layout& l) {
  const bool low = l.bits == 1 || l.bits == 2 || l.bits == 4;
  const bool colour = l.photometric == PHOTOMETRIC_RGB || l.photometric == PHOTOMETRIC_SEPARATED || l.photometric == PHOTOMETRIC_YCBCR;
  const std::string layout = std::to_string(l.samples) + " samples of " + std::to_string(l.bits) + " bits, photometric interpretation " +
                             std::to_string(l.photometric);
  const uint16_t format = field<uint16_t>(tiff, TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_UINT);
  if (format != SAMPLEFORMAT_UINT) unsupported(s, "samples that are signed, complex or floating point are not read");
  if (!(colour || l.grey() || l.palette())) unsupported(s, layout + " is not read");
  l.used = l.photometric == PHOTOMETRIC_SEPARATED ? 4 : colour ? 3 : 1;
  uint16_t extras = 0;
  const uint16_t* types = nullptr;
  if (!TIFFGetField(tiff, TIFFTAG_EXTRASAMPLES, &extras, &types)) extras = 0;
  const bool alpha_premultiplied = extras > 0 && types[0] == EXTRASAMPLE_ASSOCALPHA;
  const bool depth_known = l.bits == 8 || (low && l.samples == 1 && !colour) || (l.bits == 16 && (colour || l.grey()));
  const bool count_known = l.samples >= l.used && l.samples <= (colour && l.bits == 8 ? 6 : colour ? 4 : l.grey16() ? 1 : 2);
  if (!depth_known || !count_known) unsupported(s, layout + " is not read");
  if (l.photometric == PHOTOMETRIC_YCBCR && (l.compression != COMPRESSION_JPEG || l.separate() || l.samples != 3)) {
    unsupported(s, "YCbCr outside JPEG compression is not read");
  }
  if (alpha_premultiplied && (l.photometric != PHOTOMETRIC_RGB || l.separate())) {
    unsupported(s, "premultiplied alpha with " + layout + " is not read");
  }
  l.premultiplied = alpha_premultiplied;
  if (l.premultiplied) l.used = 4;
}

// The geometry of blocks against the picture: a lying tile size must not ask for memory.
void check_blocks(const ImageSource& s, TIFF* tiff, Layout& l) {
  l.tiled = TIFFIsTiled(tiff) != 0;
  if (field<uint32_t>(tiff, TIFFTAG_IMAGEDEPTH, 1) > 1 || field<uint32_t>(tiff, TIFFTAG_TILEDEPTH, 1) > 1) {
    unsupported(s, "three-dimensional pictures are not read");
  }
  if (l.tiled) {
    l.block_width = field<uint32_t>(tiff, TIFFTAG_TILEWIDTH, 0);
    l.block_height = field<uint32_t>(tiff, TIFFTAG_TILELENGTH, 0);
  } else {
    l.block_width = l.width;
    l.block_height = std::min(l.height, field<uint32_t>(tiff, TIFFTAG_ROWSPERSTRIP, l.height));
  }
  const std::string block = std::to_string(l.block_width) + "x" + std::to_string(l.block_height);
  const uint64_t area = uint64_t(l.width) * l.height, most = 4 * area + (uint64_t(1) << 22);
  if (l.block_width == 0 || l.block_height == 0 || l.block_width > most / l.block_height) {
    s.damaged("TIFF: blocks of " + block + " pixels for a picture of " + std::to_string(l.width) + "x" + std::to_string(l.height));
  }
  const uint64_t samples = l.separate() ? 1 : l.samples;
  l.row_bytes = l.tiled ? TIFFTileRowSize64(tiff) : TIFFScanlineSize64(tiff);
  l.block_bytes = l.tiled ? TIFFTileSize64(tiff) : TIFFVStripSize64(tiff, l.block_height);
  // Our own arithmetic must agree with libtiff's, or rows would be read at wrong places.
  if (l.row_bytes != (uint64_t(l.block_width) * samples * l.bits + 7) / 8 || l.block_bytes != l.row_bytes * l.block_height) {
    s.damaged("TIFF: blocks of " + block + " pixels have an impossible size in bytes");
  }
  // Best cases of the codecs: LZW and deflate shrink about 1400 times, CCITT 4 and JPEG can do more on blank pages.
  const bool plain = l.compression == COMPRESSION_NONE;
  const bool bounded = plain || l.compression == COMPRESSION_LZW || l.compression == COMPRESSION_ADOBE_DEFLATE ||
                       l.compression == COMPRESSION_DEFLATE || l.compression == COMPRESSION_PACKBITS;
  const uint64_t picture_bytes = area * l.samples * l.bits / 8;
  if (bounded && picture_bytes / (plain ? 1 : 2000) > s.size) {
    s.damaged("TIFF: " + std::to_string(s.size) + " bytes cannot hold " + std::to_string(l.width) + "x" + std::to_string(l.height) + " pixels");
  }
}

Layout read_layout(const ImageSource& s, TIFF* tiff) {
  Layout l;
  if (!TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &l.width) || !TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &l.height)) {
    s.damaged("TIFF: has no width or height");
  }
  check_image_size(s, "TIFF", l.width, l.height);
  if (!TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &l.photometric)) unsupported(s, "the photometric interpretation is missing");
  l.bits = field<uint16_t>(tiff, TIFFTAG_BITSPERSAMPLE, 1);
  l.samples = field<uint16_t>(tiff, TIFFTAG_SAMPLESPERPIXEL, 1);
  l.planar = l.samples == 1 ? uint16_t(PLANARCONFIG_CONTIG) : field<uint16_t>(tiff, TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
  l.compression = field<uint16_t>(tiff, TIFFTAG_COMPRESSION, COMPRESSION_NONE);
  l.orientation = field<uint16_t>(tiff, TIFFTAG_ORIENTATION, ORIENTATION_TOPLEFT);
  check_compression(s, l);
  check_samples(s, tiff, l);
  if (l.photometric == PHOTOMETRIC_YCBCR) TIFFSetField(tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
  check_blocks(s, tiff, l);
  return l;
}

// n values of 1, 2 or 4 bits, most significant first.
void unpack_bits(uint8_t* out, const uint8_t* row, uint32_t n, int bits) {
  const int mask = (1 << bits) - 1, per_byte = 8 / bits;
  for (uint32_t i = 0; i < n; ++i) out[i] = uint8_t(row[i / uint32_t(per_byte)] >> (8 - bits - int(i % uint32_t(per_byte)) * bits) & mask);
}

// n pixels of one block row → `used` interleaved bytes each; with separate planes only channel `plane` of them.
void unpack_row(uint8_t* out, const uint8_t* row, uint32_t n, const Layout& l, int plane) {
  if (l.bits < 8) return unpack_bits(out, row, n, l.bits);
  const size_t bytes = l.bits / 8, step = bytes * (l.separate() ? 1 : l.samples);
  const size_t high = bytes - 1;  // the high byte of a little-endian sample
  const int first = l.separate() ? plane : 0, last = l.separate() ? plane + 1 : l.used;
  for (uint32_t i = 0; i < n; ++i) {
    for (int c = first; c < last; ++c) out[size_t(i) * size_t(l.used) + size_t(c)] = row[i * step + size_t(c - first) * bytes + high];
  }
}

// All blocks → kept channels (height, width, used), or grey16.
void read_pixels(const ImageSource& s, TIFF* tiff, Reader& reader, const Layout& l, std::vector<uint8_t>& channels, std::vector<uint16_t>& grey16) {
  std::vector<uint8_t> block(static_cast<size_t>(l.block_bytes));
  reader.decoding = true;
  reader.failed = false;
  for (int plane = 0; plane < (l.separate() ? l.used : 1); ++plane) {
    for (uint64_t y = 0; y < l.height; y += l.block_height) {
      for (uint64_t x = 0; x < l.width; x += l.block_width) {
        const auto rows = uint32_t(std::min<uint64_t>(l.block_height, l.height - y));
        const auto columns = uint32_t(std::min<uint64_t>(l.block_width, l.width - x));
        const auto expected = tmsize_t(l.tiled ? l.block_bytes : l.row_bytes * rows);
        const uint32_t index = l.tiled ? TIFFComputeTile(tiff, uint32_t(x), uint32_t(y), 0, uint16_t(plane))
                                       : TIFFComputeStrip(tiff, uint32_t(y), uint16_t(plane));
        const tmsize_t got = l.tiled ? TIFFReadEncodedTile(tiff, index, block.data(), expected)
                                     : TIFFReadEncodedStrip(tiff, index, block.data(), expected);
        if (got != expected || reader.failed) {
          s.damaged("TIFF: the block at pixel (" + std::to_string(x) + ", " + std::to_string(y) + ") cannot be decoded (" + reader.message + ")");
        }
        for (uint32_t r = 0; r < rows; ++r) {
          const uint8_t* row = block.data() + r * l.row_bytes;
          const size_t pixel = size_t(y + r) * l.width + size_t(x);
          if (l.grey16()) std::memcpy(grey16.data() + pixel, row, size_t(columns) * 2);
          else unpack_row(channels.data() + pixel * size_t(l.used), row, columns, l, plane);
        }
      }
    }
  }
}

// One kept channel → RGB through a table: palette (its high bytes, as PIL), or grey scaled from `bits` to 255 and inverted for MinIsWhite.
std::vector<uint8_t> look_up(const ImageSource& s, TIFF* tiff, const Layout& l, const std::vector<uint8_t>& values) {
  uint8_t table[256][3] = {};
  const int count = 1 << l.bits;
  uint16_t* map[3] = {};
  // Cannot fail: libtiff has refused a palette picture without a palette, or (8 bits) declared it grey.
  if (l.palette() && !TIFFGetField(tiff, TIFFTAG_COLORMAP, &map[0], &map[1], &map[2])) s.fail(Status::internal, "TIFF: the palette is lost");
  for (int v = 0; v < count; ++v) {
    const int grey = v * 255 / (count - 1);
    for (int c = 0; c < 3; ++c) table[v][c] = uint8_t(l.palette() ? map[c][v] >> 8 : l.photometric == PHOTOMETRIC_MINISWHITE ? 255 - grey : grey);
  }
  std::vector<uint8_t> rgb(values.size() * 3);
  for (size_t i = 0; i < values.size(); ++i) std::memcpy(&rgb[3 * i], table[values[i]], 3);
  return rgb;
}

// Four kept channels → RGB, in place: CMYK, or colour divided by its alpha as PIL does (v·255/a, truncated, at most 255; 0 where a = 0).
void four_to_rgb(std::vector<uint8_t>& pixels, bool premultiplied) {
  const size_t n = pixels.size() / 4;
  for (size_t i = 0; i < n; ++i) {
    uint8_t p[4];
    std::memcpy(p, &pixels[4 * i], 4);
    uint8_t* rgb = &pixels[3 * i];
    if (!premultiplied) {
      cmyk_to_rgb(rgb, p[0], p[1], p[2], p[3]);
    } else {
      for (int c = 0; c < 3; ++c) rgb[c] = p[3] == 0 ? 0 : uint8_t(std::min(255, p[c] * 255 / p[3]));
    }
  }
  pixels.resize(n * 3);
}

// The Orientation tag: 2 mirrored, 3 turned by 180°, 4 upside down, 5 … 8 the same four with rows and columns exchanged.
template <class T>
std::vector<T> oriented(const std::vector<T>& in, int64_t& width, int64_t& height, size_t channels, int orientation) {
  const int64_t w = width, h = height;
  const bool swap = orientation >= 5;
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  if (swap) std::swap(width, height);
  std::vector<T> out(in.size());
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const int64_t u = swap ? y : x, v = swap ? x : y;  // in the stored picture, before mirroring
      const int64_t from = (flip_y ? h - 1 - v : v) * w + (flip_x ? w - 1 - u : u);
      std::memcpy(&out[size_t(y * width + x) * channels], &in[size_t(from) * channels], channels * sizeof(T));
    }
  }
  return out;
}

}  // namespace

Image decode_tiff(const ImageSource& s) {
  Reader reader{s.data, s.size};
  const Tiff tiff = open(s, reader);
  const Layout l = read_layout(s, tiff.get());
  const size_t area = size_t(l.width) * l.height;
  Image image;
  image.width = l.width;
  image.height = l.height;
  image.format = "TIFF";
  std::vector<uint8_t> channels(l.grey16() ? 0 : area * size_t(l.used));
  if (l.grey16()) image.grey16.resize(area);
  read_pixels(s, tiff.get(), reader, l, channels, image.grey16);
  if (!l.grey16()) {
    if (l.used == 1) channels = look_up(s, tiff.get(), l, channels);
    if (l.used == 4) four_to_rgb(channels, l.premultiplied);
    image.rgb = std::move(channels);
  }
  if (l.orientation >= 2 && l.orientation <= 8) {
    int64_t w = image.width, h = image.height;
    if (l.grey16()) image.grey16 = oriented(image.grey16, w, h, 1, l.orientation);
    else image.rgb = oriented(image.rgb, w, h, 3, l.orientation);
    image.width = w;
    image.height = h;
  }
  return image;
}

}  // namespace bg
