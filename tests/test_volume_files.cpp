// Volume files: voxels and geometry against nibabel and numpy (tests/oracle/volumes.py), hostile files, every message, the mask.
#include <doctest/doctest.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "loaders/error.h"
#include "loaders/sha256.h"
#include "loaders/volume.h"
#include "tests/expect_error.h"
#include "tests/support.h"

using bg::Error;
using bg::Status;
using bg::Volume;

namespace {

std::string gzipped(const std::string& bytes) {
  std::string out(compressBound(uLong(bytes.size())) + 64, 0);
  z_stream z{};
  REQUIRE(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  z.avail_in = uInt(bytes.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = uInt(out.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(out.size() - z.avail_out);
  deflateEnd(&z);
  return out;
}

std::string gunzipped(const std::string& path) {
  gzFile f = gzopen(path.c_str(), "rb");
  std::string out(1 << 20, 0);
  const int n = gzread(f, out.data(), unsigned(out.size()));
  gzclose(f);
  out.resize(size_t(std::max(n, 0)));
  return out;
}

template <class T>
std::string with(std::string bytes, size_t at, T value) {
  std::memcpy(&bytes[at], &value, sizeof(T));
  return bytes;
}

Volume load_bytes(const std::string& bytes, const bg::VolumeLimits& limits = {}) {
  static const TempDir dir;
  write_file(dir.file("v"), bytes);
  return bg::load_volume(dir.file("v"), limits);
}

void refused(const std::string& bytes, Status status, const std::string& part) {
  expect_error([&] { load_bytes(bytes); }, status, part);
}

std::string npy(const std::string& header, const std::string& data, char version = 1) {
  std::string out = std::string("\x93NUMPY", 6) + version + std::string(1, '\0');
  const uint32_t n = uint32_t(header.size());
  out.append(reinterpret_cast<const char*>(&n), version == 1 ? 2 : 4);
  return out + header + data;
}

bool same_voxels(const Volume& a, const Volume& b) { return a.nx == b.nx && a.ny == b.ny && a.nz == b.nz && a.voxels == b.voxels; }

}  // namespace

TEST_CASE("volume: files equal nibabel and numpy") {
  std::ifstream list(golden_path("volumes/load.txt"));
  std::string name, format, hash;
  int64_t nx = 0, ny = 0, nz = 0;
  bool has_affine = false;
  int count = 0;
  while (list >> name >> format >> nx >> ny >> nz >> hash >> has_affine) {
    CAPTURE(name);
    ++count;
    const Volume v = bg::load_volume(golden_path("volumes/" + name));
    CHECK(v.format == format);
    CHECK((v.nx == nx && v.ny == ny && v.nz == nz));
    CHECK(bg::sha256_hex(v.voxels.data(), v.voxels.size() * sizeof(float)) == hash);
    CHECK(v.has_affine == has_affine);
    double size = 0;
    std::vector<double> wanted(15);
    for (double& x : wanted) list >> x, size = std::max(size, std::fabs(x));
    // A rotation's entry is a sum of two products of at most 1, times the zoom and the unit: 8 roundings of double are plenty.
    for (size_t i = 0; i < 12; ++i) CHECK(!(std::fabs(v.affine[i / 4][i % 4] - wanted[i]) > 8 * 0x1p-53 * size));
    for (size_t i = 0; i < 3; ++i) CHECK(!(std::fabs(v.spacing[i] - wanted[12 + i]) > 8 * 0x1p-53 * size));
  }
  CHECK(count == 88);
}

TEST_CASE("volume: a mask is read back with the same geometry") {
  const TempDir dir;
  Volume like = bg::load_volume(golden_path("volumes/sform_oblique.nii"));
  std::vector<uint8_t> mask(60);
  mask[7] = mask[31] = 1;
  bg::save_mask(dir.file("m.nii.gz"), mask, like);
  const std::string bytes = gunzipped(dir.file("m.nii.gz"));
  CHECK(bytes.substr(0, 352) == read_file(golden_path("volumes/mask.header")));
  CHECK(bytes.substr(352) == std::string(mask.begin(), mask.end()));
  const Volume back = bg::load_volume(dir.file("m.nii.gz"));
  CHECK(std::equal(mask.begin(), mask.end(), back.voxels.begin(), back.voxels.end()));
  for (size_t i = 0; i < 12; ++i) CHECK(back.affine[i / 4][i % 4] == double(float(like.affine[i / 4][i % 4])));
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path), {}) == 1);  // no temporary file is left

  mask.pop_back();
  expect_error([&] { bg::save_mask(dir.file("x.nii.gz"), mask, like); }, Status::invalid_argument, "the mask has 59 voxels, the volume 3x5x4; they must agree");
  like.nx = 32768;
  expect_error([&] { bg::save_mask(dir.file("x.nii.gz"), mask, like); }, Status::invalid_argument, "NIfTI-1 holds sides of 1 ... 32767");
  like = bg::load_volume(golden_path("volumes/int16_c.npy"));
  mask.resize(60);
  expect_error([&] { bg::save_mask(dir.file("no/x.nii.gz"), mask, like); }, Status::io, "cannot be created");
  std::filesystem::create_directory(dir.file("folder"));
  expect_error([&] { bg::save_mask(dir.file("folder"), mask, like); }, Status::io, "exists and is not a regular file; give another name");
  bg::save_mask(dir.file("n.nii.gz"), mask, like);  // without geometry: the one that no header means
  CHECK(bg::load_volume(dir.file("n.nii.gz")).spacing[1] == 1.0);
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path), {}) == 3);
}

TEST_CASE("volume: a neighbouring file is never read") {
  const TempDir dir;
  const std::string nii = read_file(golden_path("volumes/int16_le.nii"));
  write_file(dir.file("v.nii"), nii);
  const Volume alone = bg::load_volume(dir.file("v.nii"));
  for (const char* name : {"v.npy", "v.img", "v.hdr", "v.nii.npy", "v.nii.gz"}) write_file(dir.file(name), read_file(golden_path("volumes/uint8_c.npy")));
  CHECK(same_voxels(alone, bg::load_volume(dir.file("v.nii"))));
  std::string pair = nii.substr(0, 348);
  pair[345] = 'i';
  write_file(dir.file("v.hdr"), pair);
  write_file(dir.file("v.img"), nii.substr(352));
  expect_error([&] { bg::load_volume(dir.file("v.hdr")); }, Status::unsupported, "NIfTI-1: header and image are two files (.hdr and .img); convert to one .nii");
  expect_error([&] { bg::load_volume(dir.file("v")); }, Status::not_found, "cannot be opened");
}

TEST_CASE("volume: truncation at every byte") {
  for (const char* name : {"int16_le.nii", "int16_be2.nii.gz", "float64_be_scaled.nii.gz", "members.nii.gz", "extension.nii", "int16_c.npy", "float16_v2.npy"}) {
    CAPTURE(name);
    const std::string whole = read_file(golden_path(std::string("volumes/") + name));
    size_t end = whole.size();
    while (name == std::string("members.nii.gz") && whole[end - 1] == 0 && end + 2 > whole.size()) --end;  // the two bytes of padding may go
    for (size_t n = 0; n < end; ++n) {
      bool threw = false;
      try {
        load_bytes(whole.substr(0, n));
      } catch (const Error& e) {
        threw = true;
        REQUIRE_MESSAGE((e.status() == Status::bad_file || e.status() == Status::unsupported), e.what());
      }
      REQUIRE_MESSAGE(threw, n);
    }
  }
}

TEST_CASE("volume: flipped bytes end in an error or a volume") {
  std::mt19937 random(1);
  bg::VolumeLimits limits;
  limits.max_voxels = 100000;
  for (const char* name : {"int16_le.nii", "float32_be2.nii.gz", "uint64_be_scaled.nii.gz", "qform2_1.nii", "float64_f.npy", "int16_v3.npy"}) {
    const std::string whole = read_file(golden_path(std::string("volumes/") + name));
    for (int round = 0; round < 400; ++round) {
      std::string bytes = whole;
      for (uint32_t i = 0, n = 1 + random() % 3; i < n; ++i) bytes[random() % bytes.size()] = char(random());
      try {
        load_bytes(bytes, limits);
      } catch (const Error& e) {
        REQUIRE(e.status() != Status::internal);
      }
    }
    // The same behind a valid checksum: the header's bytes reach the parser.
    if (whole.compare(0, 2, "\x1F\x8B") != 0) continue;
    const std::string inner = gunzipped(golden_path(std::string("volumes/") + name));
    for (int round = 0; round < 400; ++round) {
      std::string bytes = inner;
      bytes[random() % 600] = char(random());
      try {
        load_bytes(gzipped(bytes), limits);
      } catch (const Error& e) {
        REQUIRE(e.status() != Status::internal);
      }
    }
  }
}

TEST_CASE("volume: messages about NIfTI") {
  const std::string one = read_file(golden_path("volumes/int16_le.nii")), two = gunzipped(golden_path("volumes/axes2.nii.gz"));
  refused("", Status::bad_file, "is empty; expected a volume (.nii, .nii.gz or .npy)");
  refused(std::string(400, 'x'), Status::unsupported, "is not a volume of a known format (.nii, .nii.gz and .npy are read)");
  refused(gzipped(std::string(400, 'x')), Status::unsupported, "is gzip of something else than NIfTI");
  refused(std::string(128, '\0') + "DICM" + std::string(400, '\0'), Status::unsupported, "is a DICOM file");
  refused("NRRD0004" + std::string(400, '\0'), Status::unsupported, "NRRD is not read");
  refused("PK\x03\x04" + std::string(400, '\0'), Status::unsupported, "zip archive");
  refused(one.substr(0, 300), Status::bad_file, "NIfTI: ends inside the header, after 300 bytes");
  refused(with(one, 344, '?'), Status::unsupported, "has no NIfTI signature (Analyze 7.5 or a damaged header)");
  refused(with(two, 5, '?'), Status::bad_file, "NIfTI-2: the signature is wrong");
  refused(with(two, 5, 'i').replace(4, 1, "n"), Status::unsupported, "NIfTI-2: header and image are two files");
}

TEST_CASE("volume: messages about sizes and types") {
  const std::string one = read_file(golden_path("volumes/int16_le.nii"));
  const auto dims = [&one](std::vector<int16_t> d) {
    std::string b = one;
    for (size_t i = 0; i < d.size(); ++i) b = with(b, 40 + 2 * i, d[i]);
    return b;
  };
  refused(dims({0}), Status::bad_file, "NIfTI-1: 0 axes; expected 3");
  refused(dims({8}), Status::bad_file, "8 axes; expected 3");
  refused(dims({2, 3, 5}), Status::unsupported, "NIfTI-1: 3x5 is not three-dimensional; extract one volume (x, y, z)");
  refused(dims({4, 3, 5, 2, 2}), Status::unsupported, "3x5x2x2 is not three-dimensional");
  refused(dims({3, 3, 0, 4}), Status::bad_file, "the volume is empty (3x0x4 voxels)");
  refused(dims({3, 3, -5, 4}), Status::bad_file, "the header says 3x-5x4 voxels, every side must be at least 1");
  refused(dims({3, 32767, 32767, 32767}), Status::too_large, "32767x32767x32767 voxels are above the limit of 2147483648 voxels");
  refused(dims({3, 3, 5, 5}), Status::bad_file, "the header asks for 150 bytes of voxels from byte 352, the file has or can hold only 472");
  refused(gzipped(dims({3, 1000, 1000, 1000})), Status::bad_file, "can hold only");  // a lie of 2 GB in 400 bytes, before anything is allocated
  refused(gzipped(dims({3, 3, 5, 5})), Status::bad_file, "from byte 352, the data end at byte 472");
  refused(one + std::string((1 << 20) + 1, 'x'), Status::bad_file, "more than 1 MiB follow behind");
  CHECK(same_voxels(load_bytes(one + "x"), load_bytes(one)));
  expect_error([&] { load_bytes(one, {59}); }, Status::too_large, "3x5x4 voxels are above the limit of 59 voxels");
  CHECK(load_bytes(one, {60}).voxels.size() == 60);

  const std::string wide = read_file(golden_path("volumes/pixdim2.nii"));  // big-endian
  std::string huge = wide;
  for (size_t i = 1; i <= 3; ++i) huge = with(huge, 16 + 8 * i, __builtin_bswap64(uint64_t(1) << 62));
  refused(huge, Status::too_large, "voxels are above the limit");

  for (const auto& [code, name] : std::vector<std::pair<int16_t, std::string>>{
           {1, "1-bit"}, {32, "complex64"}, {128, "RGB24"}, {1536, "float128"}, {1792, "complex128"}, {2048, "complex256"}, {2304, "RGBA32"}}) {
    refused(with(one, 70, code), Status::unsupported, "NIfTI-1: type " + name + " is not read; convert to int16 or float32");
  }
  refused(with(one, 70, int16_t(5)), Status::bad_file, "data type 5 does not exist");
  refused(with(one, 72, int16_t(32)), Status::bad_file, "data type 4 has 16 bits, bitpix says 32");
  for (const float offset : {0.0f, 348.0f, 352.5f, -1.0f, 1e30f, float(NAN), float(INFINITY)}) {
    refused(with(one, 108, offset), Status::bad_file, "expected a whole number of 352 ... 268435456");
  }
  refused(with(wide, 168, __builtin_bswap64(uint64_t(1) << 63)), Status::bad_file, "expected a whole number of 544 ... 268435456");
  refused(with(one, 108, 368.0f), Status::bad_file, "120 bytes of voxels from byte 368, the file has or can hold only 472");
  refused(gzipped(with(one, 108, 1000.0f)), Status::bad_file, "from byte 1000, the data end at byte 472");
  refused(with(with(one, 112, 1.0f), 116, float(INFINITY)), Status::bad_file, "the slope is valid and the intercept is not a number");
  refused(with(with(one, 252, int16_t(1)), 256, 2.0f), Status::bad_file, "the orientation's quaternion is longer than 1");
  refused(with(with(one, 254, int16_t(1)), 280, float(NAN)), Status::bad_file, "the orientation holds something that is not a number");

  const std::string packed = read_file(golden_path("volumes/uint8_be2.nii.gz"));
  refused(packed.substr(0, packed.size() - 4), Status::bad_file, "gzip: the compressed data end after");
  refused(with(packed, packed.size() - 8, char(packed[packed.size() - 8] ^ 1)), Status::bad_file, "gzip: the compressed data are wrong after");
  refused(packed + "tail", Status::bad_file, "gzip: something that is not gzip follows at byte");

  std::string floats = with(read_file(golden_path("volumes/float32_le.nii")), 352 + 4 * ((2 * 5 + 3) * 3 + 1), float(NAN));
  refused(floats, Status::bad_file, "NIfTI-1: 1 of 60 voxels are not finite numbers in float32, the first at x 1, y 3, z 2");
  refused(with(read_file(golden_path("volumes/float64_le.nii")), 352, 1e39), Status::bad_file, "1 of 60 voxels are not finite numbers in float32");
}

TEST_CASE("volume: messages about .npy") {
  const std::string head = "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 1, 3), }\n", data(12, 1);
  CHECK(load_bytes(npy(head, data)).voxels == std::vector<float>(6, 257.0f));
  CHECK(load_bytes(npy("{\"shape\":(2,1,3),\"descr\":\"<i2\",\"fortran_order\":True}", data, 2)).nx == 3);
  refused(npy(head, data + "x"), Status::bad_file, "NPY: shape (2, 1, 3) of \"<i2\" needs 12 bytes, 13 follow the header");
  refused(npy(head, data, 4), Status::unsupported, "NPY: version 4.0; 1.0, 2.0 and 3.0 are read");
  refused(npy(head, "").substr(0, 30), Status::bad_file, "the header at byte 10 needs");
  const auto descr = [&](const std::string& d) { return npy("{'descr': " + d + ", 'fortran_order': False, 'shape': (2, 1, 3), }", data); };
  refused(descr("'|O'"), Status::unsupported, "NPY: Python objects (\"|O\") are not read");
  refused(descr("'<c8'"), Status::unsupported, "complex numbers");
  refused(descr("'|b1'"), Status::unsupported, "truth values");
  refused(descr("'<U3'"), Status::unsupported, "text");
  refused(descr("'<M8[ns]'"), Status::unsupported, "dates");
  refused(descr("'<f16'"), Status::unsupported, "extended floats");
  refused(descr("'|V4'"), Status::unsupported, "records");
  refused(descr("[('a', '<i2')]"), Status::unsupported, "records are not read");
  for (const char* d : {"'<i3'", "'|i2'", "'=i2'", "'i2'", "''"}) refused(descr(d), Status::bad_file, "is not a type of numbers");
  const auto shape = [&](const std::string& s) { return npy("{'descr': '<i2', 'fortran_order': False, 'shape': " + s + ", }", data); };
  refused(shape("(6,)"), Status::unsupported, "NPY: shape (6) is not three-dimensional; expected (z, y, x)");
  refused(shape("(1, 2, 1, 3)"), Status::unsupported, "shape (1, 2, 1, 3) is not three-dimensional");
  refused(shape("()"), Status::unsupported, "shape ()");
  refused(shape("(2, 0, 3)"), Status::bad_file, "NPY: the volume is empty (3x0x2 voxels)");
  refused(shape("(4294967296, 4294967296, 4294967296)"), Status::too_large, "voxels are above the limit");
  refused(shape("(99999999999999999999, 1, 1)"), Status::bad_file, "a side of the shape is beyond 63 bits");
  refused(shape("(2, -1, 3)"), Status::bad_file, "expected a whole number");
  refused(shape("(2)"), Status::bad_file, "(n) is no tuple");
  refused(shape("(2, 1 3)"), Status::bad_file, "expected )");
  refused(shape("[2, 1, 3]"), Status::bad_file, "expected (");
  const auto whole = [&](const std::string& h) { return npy(h, data); };
  refused(whole("{}"), Status::bad_file, "descr, fortran_order or shape is missing");
  refused(whole(""), Status::bad_file, "expected {");
  refused(whole("{'descr': '<i2', 'descr': '<i2'}"), Status::bad_file, "key \"descr\" is unknown or stands twice");
  refused(whole("{'pickle': 1}"), Status::bad_file, "key \"pickle\" is unknown");
  refused(whole("{'descr': '<i2}"), Status::bad_file, "a text does not end");
  refused(whole("{descr: 1}"), Status::bad_file, "expected a text in quotes");
  refused(whole("{'fortran_order': 1}"), Status::bad_file, "expected True or False");
  refused(whole("{'fortran_order' False}"), Status::bad_file, "expected :");
  refused(whole("{'fortran_order': False 'shape': ()}"), Status::bad_file, "expected }");
  refused(whole(head + "x"), Status::bad_file, "something follows the dictionary");
}
