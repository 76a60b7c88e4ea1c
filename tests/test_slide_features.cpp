// Slide features: every golden file (tests/oracle/slide_features.py: h5py, safetensors) gives its values bit for bit; both formats are written and read back;
// every error message is provoked; cut and changed files give an error or a slide, never anything else. Needs libhdf5 in the build.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <random>
#include <sstream>

#include "loaders/error.h"
#include "loaders/sha256.h"
#include "loaders/slide_features.h"
#include "runtime/breastgpt_files.h"
#include "tests/support.h"

using bg::Error;
using bg::SlideFeatures;
using bg::Status;
using bg::load_slide_features;
using bg::save_slide_features;

namespace {

std::string slide_path(const std::string& name) { return golden_path("slides/" + name); }

struct Expected {
  std::string format, features, coords;
  int64_t tiles = 0, width = 0;
  std::map<std::string, std::string> attributes;
};

std::map<std::string, Expected> expected_slides() {
  std::map<std::string, Expected> out;
  std::istringstream in(read_file(slide_path("expected.txt")));
  for (std::string line; std::getline(in, line);) {
    std::vector<std::string> f;
    for (size_t begin = 0, end; begin <= line.size(); begin = end + 1) {
      end = std::min(line.find('\t', begin), line.size());
      f.push_back(line.substr(begin, end - begin));
    }
    if (f[0] == "attribute") out[f[1]].attributes[f[2]] = f[3];
    else out[f[1]] = {f[2], f[5], f[6], std::stoll(f[3]), std::stoll(f[4]), {}};
  }
  return out;
}

bool same(const SlideFeatures& a, const SlideFeatures& b) {
  return a.tiles == b.tiles && a.width == b.width && a.coords == b.coords && a.attributes == b.attributes && a.features.size() == b.features.size() &&
         std::memcmp(a.features.data(), b.features.data(), a.features.size() * sizeof(float)) == 0;
}

template <class F>
void expect_error(F f, Status status, const std::string& file, const std::string& part) {
  CAPTURE(file);
  CAPTURE(part);
  try {
    f();
    FAIL_CHECK("no error");
  } catch (const Error& e) {
    const std::string said = e.what();
    CHECK_MESSAGE(e.status() == status, said);
    CHECK_MESSAGE(said.find(part) != std::string::npos, said);
    CHECK_MESSAGE(said.find(file) != std::string::npos, said);
  }
}

void refused(const std::string& name, Status status, const std::string& part) {
  expect_error([&] { load_slide_features(slide_path(name)); }, status, name, part);
}

SlideFeatures random_slide(int64_t tiles, int64_t width, bool coords) {
  SlideFeatures s;
  s.tiles = tiles;
  s.width = width;
  std::mt19937 random(uint32_t(tiles * 31 + width));
  while (int64_t(s.features.size()) < tiles * width) {  // any finite bits: subnormals, −0, the largest
    const uint32_t bits = random();
    float v;
    std::memcpy(&v, &bits, sizeof v);
    if (std::isfinite(v)) s.features.push_back(v);
  }
  for (int64_t i = 0; coords && i < 2 * tiles; ++i) s.coords.push_back((int64_t(1) << 40) - int64_t(random()));
  s.attributes = {{"patch_size_level0", "1024"}, {"level0_magnification", "40.0"}, {"name", "123"}, {"encoder", "conch_v15"}, {"savetodir", ""}, {"note", "a b"}, {"padded", "007"},
                  {"features.name", "other"}, {"negative", "-9223372036854775808"}, {"tiny", "5e-324"}, {"not", "nan"}};
  return s;
}

size_t files_in(const TempDir& dir) { return size_t(std::distance(std::filesystem::directory_iterator(dir.path), {})); }

}  // namespace

TEST_CASE("slides: golden files bit for bit") {
  const auto slides = expected_slides();
  CHECK(slides.size() == 15);
  for (const auto& [name, e] : slides) {
    CAPTURE(name);
    const SlideFeatures s = load_slide_features(slide_path(name));
    CHECK(s.format == e.format);
    CHECK(s.tiles == e.tiles);
    CHECK(s.width == e.width);
    CHECK(s.features.size() == size_t(e.tiles * e.width));
    CHECK(bg::sha256_hex(s.features.data(), s.features.size() * sizeof(float)) == e.features);
    CHECK((s.coords.empty() ? "-" : bg::sha256_hex(s.coords.data(), s.coords.size() * sizeof(int64_t))) == e.coords);
    CHECK(s.attributes == e.attributes);
  }
  CHECK(load_slide_features(slide_path("trident.h5")).tile_side() == 1024);
  CHECK(load_slide_features(slide_path("clam.h5")).tile_side() == 0);
}

TEST_CASE("slides: the side of a tile") {
  SlideFeatures s;
  const auto side = [&s](const std::string& value) {
    s.attributes["patch_size_level0"] = value;
    return s.tile_side();
  };
  CHECK(s.tile_side() == 0);
  CHECK(side("512") == 512);
  CHECK(side("512.0") == 512);
  for (const char* wrong : {"", "512.5", "-512", "0", "512 px", "nan", "inf", "1e30", "99999999999999999999999"}) CHECK(side(wrong) == 0);
}

TEST_CASE("slides: written and read back, both formats, every bit and attribute") {
  const TempDir dir;
  const auto both_ways = [&dir](const SlideFeatures& s) {
    save_slide_features(dir.file("a.h5"), s);
    save_slide_features(dir.file("b.safetensors"), s);
    const SlideFeatures a = load_slide_features(dir.file("a.h5")), b = load_slide_features(dir.file("b.safetensors"));
    CHECK(same(s, a));
    CHECK(same(s, b));
    CHECK(b.format == "safetensors");
    save_slide_features(dir.file("c.h5"), b);  // h5 → safetensors → h5: the very same file
    save_slide_features(dir.file("d.safetensors"), a);
    CHECK(read_file(dir.file("c.h5")) == read_file(dir.file("a.h5")));
    CHECK(read_file(dir.file("d.safetensors")) == read_file(dir.file("b.safetensors")));
    CHECK(files_in(dir) == 4);
  };
  for (const auto& [tiles, width] : std::vector<std::pair<int, int>>{{1, 1}, {3, 17}, {5, 768}, {1400, 768}, {2, 16384}, {20011, 3}}) {
    CAPTURE(tiles);
    both_ways(random_slide(tiles, width, true));
    both_ways(random_slide(tiles, width, false));
  }
  for (const auto& [name, e] : expected_slides()) {
    CAPTURE(name);
    both_ways(load_slide_features(slide_path(name)));
  }
}

TEST_CASE("slides: HDF5 as Trident lays it out") {
  const TempDir dir;
  save_slide_features(dir.file("a.h5"), load_slide_features(slide_path("trident.h5")));
  const std::string ours = read_file(dir.file("a.h5"));
  CHECK(ours.substr(0, 9) == std::string("\x89HDF\r\n\x1A\n\0", 9));  // superblock version 0
  for (const char* word : {"SNOD", "TREE", "HEAP"}) CHECK(ours.find(word) != std::string::npos);  // old-style group, version 1 B-trees
  CHECK(ours.find("OHDR") == std::string::npos);                                              // version 1 headers
  CHECK(load_slide_features(dir.file("a.h5")).format == "Trident HDF5");
}

TEST_CASE("slides: HDF5 files that are refused") {
  const auto bad = Status::bad_file, other = Status::unsupported;
  refused("empty.h5", bad, "features of shape (0,): the slide has no tiles");
  refused("empty-rows.h5", bad, "features of shape (0, 768): the slide has no tiles");
  refused("nan.h5", bad, "features: 2 values are not finite as float32, the first at tile 1, position 2 (counted from 0)");
  refused("overflow.h5", bad, "2 values are not finite as float32, the first at tile 0, position 0");
  refused("rank1.h5", bad, "features of shape (4,); expected (tiles, width)");
  refused("scalar.h5", bad, "features of shape (); expected (tiles, width)");
  refused("rank3.h5", bad, "features of shape (2, 3, 4); expected (tiles, width)");
  refused("batch-bare.h5", bad, "features of shape (1, 3, 4) without coords: one slide of 3 tiles, or one tile of 3 rows?");
  refused("wide.h5", bad, "features of shape (1, 16385): the width must be 1 to 16384");
  refused("no-width.h5", bad, "features of shape (3, 0): the width must be 1 to 16384");
  refused("too-many.h5", Status::too_large, "features of shape (2000001, 768): 2000001 tiles, at most 2000000 are read");
  refused("coords-rows.h5", bad, "coords of shape (2, 2) do not fit features of shape (3, 4); expected (3, 2)");
  refused("coords-three.h5", bad, "coords of shape (3, 3) do not fit");
  refused("coords-float.h5", bad, "coords: floats of 4 bytes, expected int32 or int64");
  refused("coords-far.h5", bad, "coords: tile 0 lies at x 4611686018427387904, which is on no slide");
  refused("integers.h5", bad, "features: integers of 2 bytes, expected float16, float32 or float64");
  refused("text.h5", bad, "features: text of 1 bytes, expected float16");
  refused("bfloat16.h5", bad, "features: floats of 2 bytes, expected float16");
  refused("lzf.h5", other, "features: is packed with filter 32000");
  refused("scaleoffset.h5", other, "features: is packed with filter 6");
  refused("gzip-twice.h5", other, "packed with gzip 2 times");
  refused("long-attribute.h5", Status::too_large, "coords: attribute \"notes\" is longer than 16384 bytes");
  refused("many-attributes.h5", Status::too_large, "coords: more than 256 attributes");
  refused("group.h5", bad, "features: is a group or a type, expected a dataset");
  refused("nothing.h5", bad, "has no dataset \"features\" at its top");
  refused("coords-only.h5", bad, "tile coordinates only; run the feature extraction");
  refused("soft-link.h5", other, "features: is a soft link; links are not followed");
  refused("external-link.h5", other, "features: is an external link; links are not followed");
  refused("coords-link.h5", other, "coords: is an external link");
  refused("external-data.h5", other, "features: its data lie in an external file");
  refused("virtual.h5", other, "features: is a virtual dataset");
  refused("unfinished.h5", bad, "features: only 3 of 10 chunks are stored");
  refused("never-written.h5", bad, "features: 0 bytes are stored, 160 are needed");
  refused("sparse.h5", bad, "features: shape (2000000, 768) needs 6144000000 bytes, the file has");
  refused("sparse-gzip.h5", bad, "features: only 0 of 2 chunks are stored");
  refused("large-chunk.h5", other, "features: chunks of more than 67108864 bytes are not read");
  refused("long-chunk.h5", other, "features: chunks with a side of 134217728");
}

TEST_CASE("slides: safetensors files and other files that are refused") {
  const auto bad = Status::bad_file;
  refused("half.safetensors", bad, "features is F16, expected F32");
  refused("coords32.safetensors", bad, "coords is I32, expected I64");
  refused("nothing.safetensors", bad, "has no tensor \"features\"");
  refused("empty.safetensors", bad, "features of shape (0, 768): the slide has no tiles");
  refused("nan.safetensors", bad, "the first at tile 1, position 2");
  refused("absent.h5", Status::not_found, "cannot be opened");
  const TempDir dir;
  expect_error([&] { load_slide_features(dir.path.string()); }, Status::io, dir.path.string(), "is not a regular file");
  const auto bytes = [&dir](const std::string& content, Status status, const std::string& part) {
    write_file(dir.file("x.h5"), content);
    expect_error([&] { load_slide_features(dir.file("x.h5")); }, status, "x.h5", part);
  };
  bytes("", Status::unsupported, "is empty; expected the patch features of a slide");
  bytes("PK\3\4", Status::unsupported, "is a PyTorch or zip file");
  bytes("\x93NUMPY", Status::unsupported, "is a NumPy file");
  bytes(std::string("II*\0", 4), Status::unsupported, "is a TIFF file, perhaps the slide itself");
  bytes("hello, world", Status::unsupported, "is neither HDF5 nor safetensors");
  bytes("\x89HDF\r\n\x1A\n", bad, "HDF5 file cannot be opened (libhdf5: ");
  std::string header = "{\"__metadata__\":{\"k\":\"" + std::string(16385, 'v') + "\"},\"features\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]}}";
  const auto with_length = [](const std::string& h) {
    const uint64_t n = h.size();
    return std::string(reinterpret_cast<const char*>(&n), 8) + h + std::string(4, '\0');
  };
  bytes(with_length(header), Status::too_large, "attribute \"k\" has 16385 bytes; at most 16384 are read");
  header = "{\"__metadata__\":{";
  for (int i = 0; i < 257; ++i) header += (i ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
  bytes(with_length(header + "},\"features\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]}}"), Status::too_large, "257 attributes; at most 256 are read");
}

TEST_CASE("slides: what cannot be saved leaves no file") {
  const TempDir dir;
  const auto fails = [&dir](const SlideFeatures& s, Status status, const std::string& part, const std::string& name = "x") {
    for (const char* ending : {".h5", ".safetensors"}) expect_error([&] { save_slide_features(dir.file(name + ending), s); }, status, name + ending, part);
    CHECK(files_in(dir) == 0);
  };
  const SlideFeatures good = random_slide(3, 4, true);
  const auto with = [&good](auto change) {
    SlideFeatures s = good;
    change(s);
    return s;
  };
  const auto wrong = Status::invalid_argument;
  fails(with([](SlideFeatures& s) { s.tiles = 0; }), wrong, "a slide of 0 tiles cannot be saved");
  fails(with([](SlideFeatures& s) { s.tiles = 2000001; }), wrong, "a slide of 2000001 tiles cannot be saved");
  fails(with([](SlideFeatures& s) { s.width = -1; }), wrong, "features of width -1 cannot be saved");
  fails(with([](SlideFeatures& s) { s.features.pop_back(); }), wrong, "3 tiles of width 4 need 12 values, got 11");
  fails(with([](SlideFeatures& s) { s.coords.pop_back(); }), wrong, "3 tiles need 6 coordinates or none, got 5");
  fails(with([](SlideFeatures& s) { s.features[5] = std::numeric_limits<float>::infinity(); }), wrong, "1 values are not finite as float32, the first at tile 1, position 1");
  fails(with([](SlideFeatures& s) { s.coords[5] = -(int64_t(1) << 41); }), wrong, "coords: tile 2 lies at y -2199023255552");
  fails(with([](SlideFeatures& s) { s.attributes[""] = "x"; }), wrong, "an attribute without a name");
  fails(with([](SlideFeatures& s) { s.attributes["x"] = std::string("\0", 1); }), wrong, "with a zero byte");
  fails(with([](SlideFeatures& s) { s.attributes["x"] = std::string(16385, 'v'); }), wrong, "an attribute of 16386 bytes");
  fails(with([](SlideFeatures& s) { s.attributes[std::string(8193, 'k')] = ""; }), wrong, "an attribute of 8193 bytes");
  fails(with([](SlideFeatures& s) { for (int i = 0; i < 257; ++i) s.attributes[std::to_string(i)] = ""; }), wrong, "attributes; at most 256 can be saved");
  fails(good, Status::io, "cannot be created: No such file or directory; check that the folder exists", "no/where");
  expect_error([&] { save_slide_features(dir.file("x.hdf5"), good); }, wrong, "x.hdf5", "slide features are saved as .h5 or .safetensors");
  expect_error([&] { save_slide_features(".h5", good); }, wrong, ".h5", "slide features are saved as .h5 or .safetensors");
  std::filesystem::create_directory(dir.file("folder.h5"));
  expect_error([&] { save_slide_features(dir.file("folder.h5"), good); }, Status::io, "folder.h5", "exists and is not a regular file");
  CHECK(files_in(dir) == 1);
  SlideFeatures most = good;  // the largest that is allowed can be saved and read
  while (most.attributes.size() < 255) most.attributes[std::to_string(most.attributes.size())] = std::string(100, 'v');
  most.attributes[std::string(8192, 'k')] = std::string(16384, 'v');
  for (const char* name : {"most.h5", "most.safetensors"}) {
    save_slide_features(dir.file(name), most);
    CHECK(same(load_slide_features(dir.file(name)), most));
  }
}

TEST_CASE("slides: a full disk leaves the old file, nothing half-written, and a library that still works") {
  const TempDir dir;
  const SlideFeatures small = random_slide(2, 3, true), large = random_slide(400, 768, true);
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const auto old_signal = std::signal(SIGXFSZ, SIG_IGN);
  for (const char* name : {"x.h5", "x.safetensors"}) {
    save_slide_features(dir.file(name), small);
    for (const rlim_t bytes : {rlim_t(0), rlim_t(100), rlim_t(3000), rlim_t(65536), rlim_t(600000), rlim_t(1200000)}) {
      CAPTURE(bytes);
      const rlimit limit{bytes, before.rlim_max};
      setrlimit(RLIMIT_FSIZE, &limit);
      std::string said;
      try {
        save_slide_features(dir.file(name), large);
      } catch (const Error& e) {
        said = e.what();
      }
      setrlimit(RLIMIT_FSIZE, &before);
      CHECK_MESSAGE(said.find("cannot be written") != std::string::npos, said);
      CHECK(same(load_slide_features(dir.file(name)), small));
      save_slide_features(dir.file(name), small);
    }
  }
  std::signal(SIGXFSZ, old_signal);
  CHECK(files_in(dir) == 2);
}

// The slide, or false when it is an Error of the file; every other exception fails the test.
bool try_load(const std::string& path) {
  try {
    const SlideFeatures s = load_slide_features(path);
    CHECK(s.features.size() == size_t(s.tiles * s.width));
    return true;
  } catch (const Error& e) {
    CHECK_MESSAGE((e.status() == Status::bad_file || e.status() == Status::unsupported || e.status() == Status::too_large), e.what());
    return false;
  }
}

TEST_CASE("slides: cut files are refused") {
  const TempDir dir;
  for (const char* name : {"clam.h5", "newer.h5", "gzip.h5", "attributes.h5", "good.safetensors"}) {
    CAPTURE(name);
    const std::string whole = read_file(slide_path(name));
    for (size_t n = 0; n < whole.size(); n += n < 64 ? 7 : 173) {
      write_file(dir.file("cut"), whole.substr(0, n));
      CHECK_FALSE(try_load(dir.file("cut")));
    }
  }
}

TEST_CASE("slides: changed files are an error or a slide") {
  const TempDir dir;
  std::mt19937 random(7);
  for (const char* name : {"clam.h5", "one.h5", "newer.h5", "gzip.h5", "bare.h5", "attributes.h5", "good.safetensors"}) {
    CAPTURE(name);
    const std::string whole = read_file(slide_path(name));
    for (int i = 0; i < 60; ++i) {
      std::string bytes = whole;
      for (int flips = 1 + int(random() % 3); flips > 0; --flips) bytes[random() % bytes.size()] = char(random());
      write_file(dir.file("changed"), bytes);
      try_load(dir.file("changed"));
    }
  }
}

// One byte of newer.h5 or attributes.h5 each (global heaps of attribute texts, new-style headers) at which libhdf5 1.10.8 crashes or corrupts its memory.
TEST_CASE("slides: files that crash libhdf5 do not crash us, and leave no process and no open file") {
  const TempDir dir;
  const auto open_files = [] { return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}); };
  const auto before = open_files();
  int crashed = 0;
  const auto change = [&](const char* name, size_t at, uint8_t value) {
    std::string bytes = read_file(slide_path(name));
    REQUIRE(at < bytes.size());
    bytes[at] = char(value);
    write_file(dir.file("hostile"), bytes);
    try_load(dir.file("hostile"));
    try {
      load_slide_features(dir.file("hostile"));
    } catch (const Error& e) {
      crashed += std::string(e.what()).find("hostile: libhdf5 crashed or did not end while reading it; the file is damaged") != std::string::npos;
    }
  };
  change("newer.h5", 2162, 0xE8);
  change("newer.h5", 2163, 0x84);
  change("attributes.h5", 9305, 0xD1);
  change("attributes.h5", 9306, 0x89);
  change("attributes.h5", 9208, 0x85);
  change("attributes.h5", 9398, 0x50);
  if (crashed == 0) MESSAGE("this libhdf5 is not crashed by the files that crash 1.10.8");
  CHECK(waitpid(-1, nullptr, WNOHANG) == -1);
  CHECK(open_files() == before);
}

TEST_CASE("slides: HDF5 without a free file descriptor") {
  const int lowest = dup(0);
  REQUIRE(lowest >= 0);
  close(lowest);
  rlimit before;
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit one{rlim_t(lowest) + 1, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &one);
  std::string said;
  try {
    load_slide_features(slide_path("clam.h5"));
  } catch (const Error& e) {
    said = e.what();
  }
  setrlimit(RLIMIT_NOFILE, &before);
  CHECK_MESSAGE(said.find("clam.h5: no pipe to libhdf5: ") != std::string::npos, said);
}

TEST_CASE("slides: through the C API") {
  bg_error error;
  bg_slide_file* file = nullptr;
  REQUIRE(bg_slide_file_open(slide_path("trident.h5").c_str(), &file, &error) == BG_OK);
  const SlideFeatures s = load_slide_features(slide_path("trident.h5"));
  CHECK(bg_slide_file_tiles(file) == 3);
  CHECK(bg_slide_file_width(file) == 768);
  CHECK(std::memcmp(bg_slide_file_features(file), s.features.data(), s.features.size() * sizeof(float)) == 0);
  CHECK(std::memcmp(bg_slide_file_coords(file), s.coords.data(), s.coords.size() * sizeof(int64_t)) == 0);
  CHECK(bg_slide_file_tile_side(file) == 1024);
  CHECK(bg_slide_file_format(file) == std::string("Trident HDF5"));
  const std::string bytes = read_file(slide_path("trident.h5"));
  CHECK(bg_slide_file_sha256(file) == bg::sha256_hex(bytes.data(), bytes.size()));
  std::map<std::string, std::string> attributes;
  for (int64_t i = 0; i < bg_slide_file_attribute_count(file); ++i) attributes[bg_slide_file_attribute_key(file, i)] = bg_slide_file_attribute_value(file, i);
  CHECK(attributes == s.attributes);
  for (const int64_t outside : {int64_t(-1), bg_slide_file_attribute_count(file)}) {
    CHECK(bg_slide_file_attribute_key(file, outside) == nullptr);
    CHECK(bg_slide_file_attribute_value(file, outside) == nullptr);
  }
  const TempDir dir;
  CHECK(bg_slide_file_save(file, dir.file("x.safetensors").c_str(), &error) == BG_OK);
  CHECK(same(load_slide_features(dir.file("x.safetensors")), s));
  CHECK(bg_slide_file_save(file, dir.file("x.csv").c_str(), &error) == BG_INVALID_ARGUMENT);
  CHECK(bg_slide_file_save(file, nullptr, &error) == BG_INVALID_ARGUMENT);
  CHECK(bg_slide_file_save(nullptr, dir.file("x.h5").c_str(), &error) == BG_INVALID_ARGUMENT);
  bg_slide_file_close(file);
  REQUIRE(bg_slide_file_open(slide_path("bare.h5").c_str(), &file, &error) == BG_OK);
  CHECK(bg_slide_file_coords(file) == nullptr);
  CHECK(bg_slide_file_tile_side(file) == 0);
  bg_slide_file_close(file);
  CHECK(bg_slide_file_open(slide_path("nan.h5").c_str(), &file, &error) == BG_BAD_FILE);
  CHECK(file == nullptr);
  CHECK(std::string(error.message).find("nan.h5: features: 2 values are not finite") != std::string::npos);
  CHECK(bg_slide_file_open(nullptr, &file, &error) == BG_INVALID_ARGUMENT);
  CHECK(bg_slide_file_open("x", nullptr, &error) == BG_INVALID_ARGUMENT);
  bg_slide_file_close(nullptr);
}
