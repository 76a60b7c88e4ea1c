// Pictures: every golden file decodes to Pillow's bytes (tests/oracle/images.py); every error message is provoked; cut and flipped files give an error or a
// picture, never anything else.
#include <doctest/doctest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <random>
#include <vector>

#include "loaders/error.h"
#include "loaders/image.h"
#include "loaders/image_decode.h"
#include "loaders/sha256.h"
#include "tests/support.h"

using bg::Error;
using bg::Image;
using bg::ImageLimits;
using bg::Status;
using bg::load_image;

namespace {

std::string image_path(const std::string& name) { return golden_path("images/" + name); }

std::string big32(uint32_t v) { return {char(v >> 24), char(v >> 16), char(v >> 8), char(v)}; }
std::string little16(uint32_t v) { return {char(v), char(v >> 8)}; }
std::string little32(uint32_t v) { return little16(v & 0xFFFF) + little16(v >> 16); }
std::string zeros(size_t n) { return std::string(n, '\0'); }

// Writes the bytes, loads them, expects an Error of this status whose message holds the file's name and `part`.
void expect_error(const std::string& bytes, Status status, const std::string& part, const ImageLimits& limits = {}) {
  const TempDir dir;
  const std::string path = dir.file("bad");
  write_file(path, bytes);
  CAPTURE(part);
  try {
    load_image(path, limits);
    FAIL("no error");
  } catch (const Error& e) {
    CHECK_MESSAGE(e.status() == status, e.what());
    CHECK_MESSAGE(std::string(e.what()).find(part) != std::string::npos, e.what());
    CHECK(std::string(e.what()).find("bad: ") != std::string::npos);
  }
}

// The picture, or nothing when it is an Error; every other exception fails the test. From a block of exactly these bytes, so that the address sanitizer
// sees a read beyond the end.
std::optional<Image> try_decode(const std::string& bytes, const ImageLimits& limits = {}) {
  const std::vector<uint8_t> exact(bytes.begin(), bytes.end());
  try {
    return bg::decode_image({exact.data(), exact.size(), "cut", limits});
  } catch (const Error& e) {
    CHECK_MESSAGE(e.status() != Status::internal, e.what());
    return {};
  }
}

void check_shape(const Image& image) {
  const size_t area = size_t(image.width * image.height);
  CHECK(image.width >= 1);
  CHECK(image.height >= 1);
  CHECK(image.rgb.size() + image.grey16.size() == (image.rgb.empty() ? area : area * 3));
}

std::string pixel_hash(const Image& image) {
  return image.rgb.empty() ? bg::sha256_hex(image.grey16.data(), image.grey16.size() * 2) : bg::sha256_hex(image.rgb.data(), image.rgb.size());
}

std::string chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  return big32(uint32_t(data.size())) + body + big32(uint32_t(crc32_z(0, reinterpret_cast<const Bytef*>(body.data()), body.size())));
}

std::string deflated(const std::string& bytes) {
  uLongf n = compressBound(uLong(bytes.size()));
  std::string out(n, '\0');
  compress2(reinterpret_cast<Bytef*>(out.data()), &n, reinterpret_cast<const Bytef*>(bytes.data()), uLong(bytes.size()), 9);
  out.resize(n);
  return out;
}

const std::string png_mark("\x89PNG\r\n\x1A\n", 8);
const std::string png_end = chunk("IEND", "");

std::string ihdr(uint32_t w, uint32_t h, int bits, int colour, int compression = 0, int filter = 0, int interlace = 0) {
  return chunk("IHDR", big32(w) + big32(h) + std::string{char(bits), char(colour), char(compression), char(filter), char(interlace)});
}

// A grey 8-bit PNG of 2×2 pixels whose inflated stream is `raw`.
std::string small_png(const std::string& raw) { return png_mark + ihdr(2, 2, 8, 0) + chunk("IDAT", deflated(raw)) + png_end; }

struct Tag {
  uint32_t tag, type, value;  // type 3: 16 bits, 4: 32 bits; one value each
};

// A little-endian TIFF: directory first, then `pixels`; ImageWidth … StripByteCounts of one strip, changed or completed by `more`.
std::string tiff(uint32_t w, uint32_t h, const std::string& pixels, const std::vector<Tag>& more) {
  std::vector<Tag> tags = {{256, 4, w}, {257, 4, h}, {258, 3, 8}, {259, 3, 1}, {262, 3, 1},
                           {273, 4, 0}, {277, 3, 1}, {278, 4, h}, {279, 4, uint32_t(pixels.size())}};
  for (const Tag& m : more) {
    const auto same = std::find_if(tags.begin(), tags.end(), [&m](const Tag& t) { return t.tag == m.tag; });
    if (same != tags.end()) *same = m;
    else tags.push_back(m);
  }
  std::erase_if(tags, [](const Tag& t) { return t.type == 0; });
  std::sort(tags.begin(), tags.end(), [](const Tag& a, const Tag& b) { return a.tag < b.tag; });
  const uint32_t start = uint32_t(8 + 2 + tags.size() * 12 + 4);
  std::string out = std::string("II*\0", 4) + little32(8) + little16(uint32_t(tags.size()));
  for (const Tag& t : tags) out += little16(t.tag) + little16(t.type) + little32(1) + little32(t.tag == 273 || t.tag == 324 ? start : t.value);
  return out + little32(0) + pixels;
}

std::string bmp(uint32_t w, uint32_t h, uint32_t bits, uint32_t compression, const std::string& rest, uint32_t colours = 0,
                uint32_t header = 40, uint32_t offset = 54) {
  return "BM" + zeros(8) + little32(offset) + little32(header) + little32(w) + little32(h) + little16(1) + little16(bits) +
         little32(compression) + zeros(12) + little32(colours) + zeros(4) + rest;
}

std::string jpeg_file() { return read_file(image_path("rgb-2-17x33.jpg")); }

// Position of the first marker FF `code`.
size_t marker(const std::string& jpeg, int code) { return jpeg.find(std::string{char(0xFF), char(code)}); }

}  // namespace

TEST_CASE("image: every golden file equals Pillow's pixels") {
  std::ifstream list(image_path("decode.txt"));
  std::string file, format, kind, hash;
  int64_t width = 0, height = 0;
  int count = 0;
  while (list >> file >> format >> width >> height >> kind >> hash) {
    CAPTURE(file);
    ++count;
    try {
      const Image image = load_image(image_path(file));
      check_shape(image);
      CHECK(image.format == format);
      CHECK(image.width == width);
      CHECK(image.height == height);
      CHECK(image.grey16.empty() == (kind == "rgb"));
      CHECK(pixel_hash(image) == hash);
    } catch (const Error& e) {
      FAIL_CHECK(e.what());
    }
  }
  CHECK(count >= 180);
}

TEST_CASE("image: the format is told from the bytes, not from the name") {
  const TempDir dir;
  write_file(dir.file("a.jpg"), read_file(image_path("rgb8.png")));
  CHECK(load_image(dir.file("a.jpg")).format == "PNG");
  write_file(dir.file("b"), read_file(image_path("grey.jpg")));
  CHECK(load_image(dir.file("b")).format == "JPEG");
}

TEST_CASE("image: missing file, folder, empty file") {
  const TempDir dir;
  CHECK_THROWS_AS(load_image(dir.file("none.png")), Error);
  CHECK_THROWS_AS(load_image(dir.path.string()), Error);
  try {
    load_image(dir.file("none.png"));
  } catch (const Error& e) {
    CHECK(e.status() == Status::not_found);
    CHECK(std::string(e.what()).find("none.png") != std::string::npos);
  }
  expect_error("", Status::bad_file, "is empty");
}

TEST_CASE("image: other formats are refused by name, with advice") {
  const auto refused = [](const std::string& bytes, const std::string& name) { expect_error(bytes + zeros(400), Status::unsupported, name); };
  refused("GIF89a", "GIF pictures are not read; convert to PNG");
  refused("GIF87a", "GIF");
  refused("RIFF" + zeros(4) + "WEBP", "WebP");
  refused(zeros(3) + "\x18" "ftypheic", "HEIC");
  refused(zeros(3) + "\x18" "ftypavif", "AVIF");
  refused(zeros(3) + "\x0CjP  ", "JPEG 2000");
  refused("\xFF\x4F\xFF\x51", "JPEG 2000");
  refused(zeros(3) + "\x0CJXL ", "JPEG XL");
  refused("\xFF\x0A", "JPEG XL");
  refused("8BPS", "Photoshop");
  refused("%PDF-1.7", "PDF");
  refused("%!PS-Adobe", "PostScript");
  refused("P7\n", "PAM");
  refused("Pf\n", "PFM");
  refused("<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "SVG");
  refused("\xEF\xBB\xBF <svg/>", "SVG");
  refused(zeros(128) + "DICM", "DICOM is not read yet (a later version will)");
  refused(zeros(344) + "n+1", "NIfTI");
  refused("\x89HDF\r\n\x1A\n", "HDF5");
  refused("\x1F\x8B", "compressed archive");
  refused(std::string("PK\x03\x04"), "compressed archive");
  refused("hello", "is not a picture of a known format (PNG, JPEG, TIFF, BMP and PNM are read); convert to PNG");
  expect_error("P", Status::unsupported, "known format");
  expect_error("\x89PN", Status::unsupported, "known format");
}

TEST_CASE("image: the size limit is checked from the header, for every format") {
  const ImageLimits small{16};
  for (const char* file : {"rgb8.png", "grey.jpg", "rgb-raw.tif", "rgb24.bmp", "p6-255.ppm"}) {
    const std::string bytes = read_file(image_path(file));
    expect_error(bytes, Status::too_large, "pixels are above the limit of 16 pixels; reduce the picture or raise the limit (--max-pixels)", small);
    // Enough is the exact area, not one pixel less.
    const Image image = load_image(image_path(file));
    const int64_t area = image.width * image.height;
    CHECK(load_image(image_path(file), {area}).width == image.width);
    CHECK_THROWS_AS(load_image(image_path(file), {area - 1}), Error);
  }
  // Headers that lie, without any pixels behind them: refused before memory is asked for.
  expect_error(png_mark + ihdr(0xFFFFFFFF, 0xFFFFFFFF, 8, 2) + png_end, Status::too_large, "4294967295x4294967295");
  expect_error(tiff(2000000, 2000000, "", {}), Status::too_large, "2000000x2000000");
  expect_error(bmp(0xFFFFFFFF, 0x7FFFFFFF, 24, 0, ""), Status::too_large, "4294967295x2147483647");
  expect_error("P6 999999999 999999999 255\n", Status::too_large, "999999999x999999999");
  std::string jpeg = jpeg_file();
  jpeg.replace(marker(jpeg, 0xC0) + 5, 4, "\xFF\xDC\xFF\xDC");
  expect_error(jpeg, Status::too_large, "65500x65500");
}

TEST_CASE("image: sides of zero") {
  expect_error(png_mark + ihdr(0, 5, 8, 2) + png_end, Status::bad_file, "0x5 pixels, both sides must be at least 1");
  expect_error(bmp(0, 5, 24, 0, ""), Status::bad_file, "0x5");
  expect_error(tiff(5, 0, "", {}), Status::bad_file, "TIFF");
  expect_error("P6 5 0 255\n", Status::bad_file, "5x0");
  std::string jpeg = jpeg_file();
  jpeg.replace(marker(jpeg, 0xC0) + 5, 2, zeros(2));
  expect_error(jpeg, Status::bad_file, "JPEG");
}

TEST_CASE("image: damaged PNG") {
  const std::string good = small_png(zeros(6));
  const TempDir dir;
  write_file(dir.file("good.png"), good);
  CHECK(load_image(dir.file("good.png")).rgb == std::vector<uint8_t>(12, 0));
  expect_error(png_mark + ihdr(2, 2, 3, 0) + png_end, Status::bad_file, "colour type 0 with 3 bits does not exist");
  expect_error(png_mark + ihdr(2, 2, 16, 3) + png_end, Status::bad_file, "colour type 3 with 16 bits");
  expect_error(png_mark + ihdr(2, 2, 8, 2, 1) + png_end, Status::bad_file, "method is unknown");
  expect_error(png_mark + ihdr(2, 2, 8, 2, 0, 1) + png_end, Status::bad_file, "method is unknown");
  expect_error(png_mark + ihdr(2, 2, 8, 2, 0, 0, 2) + png_end, Status::bad_file, "method is unknown");
  expect_error(png_mark + chunk("IHDR", "short") + png_end, Status::bad_file, "IHDR has 5 bytes, expected 13");
  expect_error(png_mark + chunk("gAMA", big32(45455)) + ihdr(2, 2, 8, 0) + png_end, Status::bad_file, "the first chunk, and no other, must be IHDR");
  expect_error(png_mark + ihdr(2, 2, 8, 0) + ihdr(2, 2, 8, 0) + png_end, Status::bad_file, "the first chunk, and no other, must be IHDR");
  expect_error(png_mark + ihdr(2, 2, 8, 3) + chunk("PLTE", "four") + png_end, Status::bad_file, "(PLTE) is misplaced or has a wrong size");
  expect_error(png_mark + ihdr(2, 2, 8, 3) + chunk("PLTE", zeros(771)) + png_end, Status::bad_file, "(PLTE)");
  expect_error(png_mark + ihdr(2, 2, 8, 3) + chunk("IDAT", deflated(zeros(6))) + png_end, Status::bad_file, "without a palette");
  expect_error(png_mark + ihdr(2, 2, 8, 0) + png_end, Status::bad_file, "has no picture data (IDAT)");
  expect_error(png_mark + ihdr(2, 2, 8, 0) + chunk("ABCD", "") + png_end, Status::unsupported, "critical chunk that is not known");
  const std::string data = deflated(zeros(6));
  const std::string parted = chunk("IDAT", data.substr(0, 4)) + chunk("tEXt", "a") + chunk("IDAT", data.substr(4));
  expect_error(png_mark + ihdr(2, 2, 8, 0) + parted + png_end, Status::bad_file, "the IDAT chunks are not consecutive");
  std::string crc = good;
  crc[crc.size() - 13] = char(crc[crc.size() - 13] ^ 1);  // inside the CRC of IDAT
  expect_error(crc, Status::bad_file, "has a wrong CRC");
  expect_error(good.substr(0, good.size() - 12), Status::bad_file, "without the final chunk (IEND)");
  expect_error(png_mark + big32(0x7FFFFFFF) + "IHDR" + zeros(20), Status::bad_file, "the chunk at byte 8 reaches beyond the end of the file");
  // The compressed stream itself, with correct CRCs around it.
  expect_error(small_png(zeros(5)), Status::bad_file, "the compressed data hold only 5 of 6 bytes");
  expect_error(small_png(zeros(7)), Status::bad_file, "hold more than the 6 bytes that the header asks for");
  expect_error(small_png(zeros(1 << 24)), Status::bad_file, "hold more than the 6 bytes");  // a bomb is not inflated
  expect_error(png_mark + ihdr(2, 2, 8, 0) + chunk("IDAT", data.substr(0, data.size() - 5)) + png_end, Status::bad_file, "the compressed data end after");
  std::string adler = data;
  adler.back() = char(adler.back() ^ 1);
  expect_error(png_mark + ihdr(2, 2, 8, 0) + chunk("IDAT", adler) + png_end, Status::bad_file, "the compressed data are wrong after");
  expect_error(small_png("\x09" + zeros(5)), Status::bad_file, "cannot be decoded (");  // filter 9
}

TEST_CASE("image: damaged JPEG") {
  const std::string good = jpeg_file();
  expect_error(good.substr(0, good.size() - 2), Status::bad_file, "Premature end of JPEG file");  // only the end marker is missing
  expect_error(good.substr(0, good.size() / 2), Status::bad_file, "the file is damaged or cut short, copy or export it again");
  expect_error(good.substr(0, 20), Status::bad_file, "JPEG: ");
  std::string two = good;
  const size_t frame = marker(two, 0xC0);
  two[frame + 3] = 14;  // 8 + 3·2 bytes: the frame of two components
  two[frame + 9] = 2;
  two.erase(frame + 16, 3);
  const size_t scan = marker(two, 0xDA);
  two[scan + 3] = 10;
  two[scan + 4] = 2;
  two.erase(scan + 9, 2);
  expect_error(two, Status::unsupported, "2 components; 1 (grey), 3 (colour) or 4 (CMYK) are read");
  // A warning of libjpeg about the entropy-coded data is an error.
  std::string corrupt = good;
  std::fill(corrupt.begin() + std::ptrdiff_t(marker(corrupt, 0xDA) + 54), corrupt.end() - 2, char(0xAA));
  expect_error(corrupt, Status::bad_file, "Corrupt JPEG data");
}

TEST_CASE("image: a JPEG of too many scans") {
  // One block per component, each scan holds one component: DC difference 0, end of block, ones as padding (the standard Huffman tables).
  const std::string file = read_file(image_path("rgb-0-1x1.jpg"));
  const std::string head = file.substr(0, marker(file, 0xDA));
  const auto scan = [](char component, char tables, char data) {
    return std::string("\xFF\xDA\0\x08\x01", 5) + component + tables + std::string("\0\x3F\0", 3) + data;
  };
  std::string jpeg = head + scan(2, 0x11, 0x0F) + scan(3, 0x11, 0x0F);
  for (int i = 2; i < 500; ++i) jpeg += scan(1, 0, 0x2B);
  const TempDir dir;
  write_file(dir.file("500.jpg"), jpeg + "\xFF\xD9");
  CHECK(load_image(dir.file("500.jpg")).rgb == std::vector<uint8_t>{128, 128, 128});
  expect_error(jpeg + scan(1, 0, 0x2B) + "\xFF\xD9", Status::bad_file, "JPEG: more than 500 scans");
}

TEST_CASE("image: damaged or unusual TIFF") {
  const std::string pixels(12, 'x');
  const TempDir dir;
  write_file(dir.file("good.tif"), tiff(4, 3, pixels, {}));
  CHECK(load_image(dir.file("good.tif")).rgb == std::vector<uint8_t>(36, 'x'));
  const auto odd = [&pixels](std::vector<Tag> tags, const std::string& part) { expect_error(tiff(4, 3, pixels, tags), Status::unsupported, part); };
  const auto bad = [&pixels](std::vector<Tag> tags, const std::string& part) { expect_error(tiff(4, 3, pixels, tags), Status::bad_file, part); };
  odd({{262, 0, 0}}, "the photometric interpretation is missing");
  odd({{262, 3, 8}}, "photometric interpretation 8 is not read");
  odd({{258, 3, 12}}, "1 samples of 12 bits");
  odd({{258, 3, 32}}, "1 samples of 32 bits");
  odd({{258, 3, 32}, {339, 3, 3}}, "samples that are signed, complex or floating point are not read; convert to 8-bit or 16-bit PNG");
  odd({{339, 3, 2}}, "signed");
  odd({{259, 3, 6}}, "compression 6 is not read");
  odd({{259, 3, 34712}}, "compression 34712 is not read");
  odd({{259, 3, 7}, {258, 3, 16}}, "JPEG compression of 16-bit samples is not read");
  odd({{277, 3, 3}, {262, 3, 6}}, "YCbCr outside JPEG compression is not read");
  odd({{277, 3, 2}, {338, 3, 1}}, "premultiplied alpha");
  odd({{277, 3, 5}}, "5 samples of 8 bits");
  odd({{32997, 4, 2}}, "three-dimensional pictures are not read");
  bad({{259, 3, 4}}, "CCITT compression of more than one bit per pixel");
  bad({{262, 3, 3}, {258, 3, 4}}, "Colormap");
  expect_error(tiff(4, 3, pixels, {}).substr(0, tiff(4, 3, pixels, {}).size() - 4), Status::bad_file, "the block at pixel (0, 0) cannot be decoded (");
  bad({{322, 4, 1 << 20}, {323, 4, 1 << 20}, {324, 4, 0}, {325, 4, 12}}, "blocks of 1048576x1048576 pixels for a picture of 4x3");
  bad({{322, 4, 0}, {323, 4, 16}, {324, 4, 0}, {325, 4, 12}}, "TIFF: ");
  expect_error(tiff(10000, 10000, pixels, {}), Status::bad_file, "bytes cannot hold 10000x10000 pixels");
  expect_error(tiff(10000, 10000, pixels, {{259, 3, 8}}), Status::bad_file, "bytes cannot hold 10000x10000 pixels");
  expect_error(tiff(4, 3, pixels, {}).substr(0, 60), Status::bad_file, "TIFF: ");
  expect_error(std::string("II*\0", 4) + little32(0xFFFFFFF0), Status::bad_file, "TIFF: ");
  expect_error(tiff(4, 3, "not deflate!", {{259, 3, 8}}), Status::bad_file, "cannot be decoded");
  // A directory without width: libtiff itself refuses, or we do.
  bad({{256, 0, 0}}, "TIFF: ");
}

TEST_CASE("image: damaged or unusual BMP") {
  const TempDir dir;
  write_file(dir.file("good.bmp"), bmp(1, 1, 24, 0, "\x03\x02\x01"));
  CHECK(load_image(dir.file("good.bmp")).rgb == std::vector<uint8_t>{1, 2, 3});
  expect_error("BM" + zeros(10), Status::bad_file, "the header is cut short");
  expect_error("BM" + zeros(8) + little32(54) + little32(40) + zeros(8), Status::bad_file, "the header is cut short");
  expect_error(bmp(2, 2, 32, 3, ""), Status::bad_file, "the header is cut short");  // masks missing
  expect_error(bmp(2, 2, 24, 0, "", 0, 41), Status::unsupported, "a header of 41 bytes is not read; convert to PNG");
  expect_error(bmp(2, 2, 2, 0, zeros(64)), Status::unsupported, "2 bits per pixel is not read");
  expect_error(bmp(2, 2, 24, 4, zeros(64)), Status::unsupported, "compression 4 is not read");
  expect_error(bmp(2, 2, 8, 2, zeros(2000), 256), Status::unsupported, "compression 2 is not read");  // run-length for 4 bits in a file of 8
  expect_error(bmp(2, 2, 32, 3, little32(1) + little32(2) + little32(4) + zeros(64)), Status::unsupported, "this layout of colour masks is not read");
  expect_error(bmp(2, 2, 24, 3, little32(1) + little32(2) + little32(4) + zeros(64)), Status::unsupported, "this layout of colour masks is not read");
  expect_error(bmp(2, 2, 8, 0, zeros(64), 300), Status::bad_file, "the palette is larger");
  expect_error(bmp(2, 2, 8, 0, zeros(64)), Status::bad_file, "the palette is larger");
  expect_error(bmp(2, 2, 24, 0, zeros(16), 0, 40, 5000), Status::bad_file, "the pixels start beyond the end of the file");
  expect_error(bmp(2, 2, 24, 0, zeros(13)), Status::bad_file, "the pixels need 14 bytes, the file has 13");
  const std::string palette = zeros(64);
  const auto coded = [&palette](uint32_t compression, uint32_t bits, const std::string& data) {
    return bmp(4, 2, bits, compression, palette + data, 16, 40, 118);
  };
  const auto indices = [&dir](const std::string& bytes) {  // grey palette: red is the index
    std::string ramp;
    for (char v = 0; v < 16; ++v) ramp += std::string{v, v, v, 0};
    write_file(dir.file("coded.bmp"), std::string(bytes).replace(54, 64, ramp));
    std::vector<int> out;
    for (size_t i = 0; const uint8_t v : load_image(dir.file("coded.bmp")).rgb) {
      if (i++ % 3 == 0) out.push_back(v);
    }
    return out;
  };
  // Bottom row first. A run, a skip of one pixel right and one row up, a run; then literal runs of an odd number of 4-bit pixels, padded to 16 bits.
  CHECK(indices(coded(1, 8, std::string("\x02\x05\0\x02\x01\x01\x01\x07", 8))) == std::vector<int>{0, 0, 0, 7, 5, 5, 0, 0});
  CHECK(indices(coded(2, 4, std::string("\0\x03\x12\x30\x01\x40\0\0\x04\x89", 10))) == std::vector<int>{8, 9, 8, 9, 1, 2, 3, 4});
  expect_error(coded(1, 8, std::string("\x04\x01", 2)), Status::bad_file, "the run-length data end after 4 of 8 pixels");
  expect_error(coded(1, 8, std::string("\x04\x01\0\x01", 4)), Status::bad_file, "the run-length data end after 4 of 8 pixels");
  expect_error(coded(1, 8, std::string("\0\x02", 2)), Status::bad_file, "the run-length data are cut short");
  expect_error(coded(1, 8, std::string("\0\x05zzzzz", 7)), Status::bad_file, "the run-length data are wrong or cut short");  // five pixels in a row of four
  expect_error(coded(2, 4, std::string("\0\x04z", 3)), Status::bad_file, "the run-length data are wrong or cut short");
}

TEST_CASE("image: damaged PNM") {
  expect_error("P6\n", Status::bad_file, "PNM: ends before the width");
  expect_error("P6 3", Status::bad_file, "PNM: ends before the height");
  expect_error("P5 3 x 255\n", Status::bad_file, "the height is not a number of at most 9 digits");
  expect_error("P5 -3 3 255\n", Status::bad_file, "the width is not a number");
  expect_error("P5 1234567890 3 255\n", Status::bad_file, "of at most 9 digits");
  expect_error("P5 3 3 0\n", Status::bad_file, "the maximum value must be 1 ... 65535, got 0");
  expect_error("P5 3 3 65536\n", Status::bad_file, "got 65536");
  expect_error("P5 3 3 255\n" + zeros(8), Status::bad_file, "the pixels need at least 9 bytes, the file has 8");
  expect_error("P5 3 3 256\n" + zeros(17), Status::bad_file, "the pixels need at least 18 bytes, the file has 17");
  expect_error("P4 9 3\n" + zeros(5), Status::bad_file, "the pixels need at least 6 bytes");
  expect_error("P2 2 2 255\n1 2 3  ", Status::bad_file, "PNM: ends before the last pixel");
  expect_error("P2 2 2 255\n1 2 3 999", Status::bad_file, "a pixel value is above the maximum of 255");
  expect_error("P2 2 2 255\n1 2 3 z", Status::bad_file, "the last pixel is not a number");
  expect_error("P1 2 2\n1 0 1 2", Status::bad_file, "a pixel is neither 0 nor 1");
  expect_error("P1 2 2\n1 0 1 ", Status::bad_file, "ends before the last pixel");
  expect_error("P2 2 2 255 # a comment without end", Status::bad_file, "PNM: ends before the last pixel");
}

TEST_CASE("image: a file cut anywhere is an error or, where only unused bytes are missing, the same picture") {
  for (const char* file : {"rgb8.png", "grey16-interlaced.png", "palette8-trns.png", "rgb-2-progressive.jpg", "restart.jpg", "cmyk.jpg",
                           "rgb-raw.tif", "grey16.tif", "rgb-tiff_lzw-predictor.tif", "rgb-planes-tiles.tif", "ycbcr-tiles-jpeg.tif",
                           "bits-group4.tif", "rgb-packbits.tif", "rgb24.bmp", "palette4.bmp", "rle8.bmp", "rle4.bmp", "p3-255.ppm", "p5-4095.pgm", "p1.pbm", "p6-255.ppm"}) {
    CAPTURE(std::string(file));
    const std::string bytes = read_file(image_path(file));
    const std::string whole = pixel_hash(load_image(image_path(file)));
    const bool strict = std::string(file).find(".png") != std::string::npos || std::string(file).find(".jpg") != std::string::npos;
    const bool plain = bytes.rfind("P3", 0) == 0;
    const size_t step = std::max<size_t>(1, bytes.size() / 150);
    for (size_t n = 0; n < bytes.size(); n += n + 40 > bytes.size() ? 1 : step) {
      const auto image = try_decode(bytes.substr(0, n));
      CAPTURE(n);
      if (strict) CHECK_FALSE(image.has_value());
      else if (plain && n + 4 > bytes.size()) continue;  // a last number cut short is still a number
      else if (image) CHECK(pixel_hash(*image) == whole);
    }
  }
}

TEST_CASE("image: random bit flips give an error or a picture") {
  std::mt19937 random(20240607);
  for (const char* file : {"rgb8.png", "grey4-interlaced.png", "palette8-short.png", "rgb-2-progressive.jpg", "restart.jpg", "ycck.jpg",
                           "grey.jpg", "rgb-raw.tif", "palette4.tif", "grey16-tiles.tif", "rgb-tiff_lzw-predictor.tif", "rgb-planes-tiles.tif",
                           "ycbcr-tiles-jpeg.tif", "rgb-jpeg.tif", "bits-group3.tif", "bits-group4.tif", "rgb-packbits.tif", "orientation7.tif",
                           "rgb-bigtiff.tif", "rgb-premultiplied.tif", "rgb24.bmp", "palette4-short.bmp", "rle8.bmp", "rle4.bmp", "rgb565.bmp",
                           "rgb32-masks3.bmp", "os2.bmp", "p3-255.ppm", "p5-4095.pgm", "p1.pbm", "p4.pbm"}) {
    CAPTURE(std::string(file));
    const std::string bytes = read_file(image_path(file));
    const bool png = std::string(file).find(".png") != std::string::npos;
    for (int round = 0; round < 80; ++round) {
      std::string flipped = bytes;
      for (int k = 0; k <= round % 4; ++k) {
        // Half of the flips go to the first 64 bytes or the last 256: headers and directories.
        size_t at = random() % flipped.size();
        if (round % 2 == 0) at = round % 4 == 0 ? at % 64 : flipped.size() - 1 - at % std::min<size_t>(256, flipped.size());
        flipped[at] = char(uint8_t(flipped[at]) ^ (1u << random() % 8));
      }
      if (png) {  // correct CRCs, so that the flips reach the decoder
        for (size_t at = 8; at + 12 <= flipped.size();) {
          uint32_t n = 0;
          for (size_t i = 0; i < 4; ++i) n = n << 8 | uint8_t(flipped[at + i]);
          if (n > flipped.size() - at - 12) break;
          flipped.replace(at + 8 + n, 4, big32(uint32_t(crc32_z(0, reinterpret_cast<const Bytef*>(flipped.data()) + at + 4, n + 4))));
          at += n + 12;
        }
      }
      if (const auto image = try_decode(flipped, {1'000'000})) check_shape(*image);
    }
  }
}
