// Preprocessing: sizes of the specification, resize bit for bit against Pillow, whole path against numpy + Pillow and against transformers
// (tests/oracle/images.py), every error message.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "loaders/error.h"
#include "loaders/image.h"
#include "loaders/sha256.h"
#include "runtime/preprocess.h"
#include "runtime/resize.h"
#include "tests/support.h"

using bg::Error;
using bg::ImageOptions;
using bg::ImageSteps;
using bg::Pixels;
using bg::Size;
using bg::Status;

namespace {

// Byte i is a hash of (i, seed), as in tests/oracle/images.py.
std::vector<uint8_t> noise(size_t count, uint32_t seed) {
  std::vector<uint8_t> out(count);
  for (size_t i = 0; i < count; ++i) {
    uint32_t v = uint32_t(i) * 2654435761u + seed;
    v = (v ^ v >> 15) * 2246822519u;
    out[i] = uint8_t(v ^ v >> 13);
  }
  return out;
}

bg::Image source_image(const std::string& source) {
  if (source.rfind("noise:", 0) != 0) return bg::load_image(golden_path("images/" + source));
  bg::Image image;
  char x = 0, colon = 0;
  uint32_t seed = 0;
  std::istringstream(source.substr(6)) >> image.width >> x >> image.height >> colon >> seed;
  image.rgb = noise(size_t(image.width * image.height * 3), seed);
  return image;
}

Pixels borrow(const bg::Image& i) {
  return {i.width, i.height, i.rgb.empty() ? nullptr : i.rgb.data(), i.grey16.empty() ? nullptr : i.grey16.data()};
}

std::vector<float> patches_of(const Pixels& pixels, const ImageOptions& options, ImageSteps* steps = nullptr) {
  const bg::Grid grid = bg::image_grid(bg::plan_image({pixels.width, pixels.height}, options), 16);
  // NaN before, and one guard behind: everything is written, nothing beyond.
  std::vector<float> out(size_t(grid.patches()) * 1536 + 1, std::numeric_limits<float>::quiet_NaN());
  const ImageSteps done = bg::preprocess_image(out.data(), pixels, options);
  CHECK(std::isnan(out.back()));
  out.pop_back();
  if (steps) *steps = done;
  return out;
}

bool is(Size s, int64_t width, int64_t height) { return s.width == width && s.height == height; }

template <class F>
void expect_invalid(F&& f, const std::string& part) {
  CAPTURE(part);
  try {
    f();
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.status() == Status::invalid_argument);
    CHECK_MESSAGE(std::string(e.what()).find(part) != std::string::npos, e.what());
  }
}

}  // namespace

TEST_CASE("preprocess: smart_resize, the table of the specification") {
  const int64_t most = 1024 * 1024;
  const int64_t sides[][2] = {{48, 64}, {80, 64}, {112, 128}, {144, 128}, {976, 960}, {1008, 1024}, {1040, 1024}};
  for (const auto& s : sides) CHECK(is(bg::smart_resize({s[0], 512}, 32, 1024, most), s[1], 512));
  CHECK(is(bg::smart_resize({2560, 3328}, 32, 1024, most), 896, 1152));
  CHECK(is(bg::smart_resize({900, 1200}, 32, 1024, most), 864, 1152));
  CHECK(is(bg::smart_resize({800, 600}, 32, 1024, most), 800, 608));
  CHECK(is(bg::smart_resize({20, 20}, 32, 1024, most), 32, 32));
  CHECK(is(bg::smart_resize({40000, 200}, 32, 1024, most), 14464, 64));
  CHECK(is(bg::smart_resize({1, 1}, 32, 1024, most), 32, 32));
  CHECK(is(bg::smart_resize({64, 64}, 32, 64 * 1024, most), 256, 256));    // below the minimum
  CHECK(is(bg::smart_resize({40000, 200}, 32, 1024, 1024), 448, 32));      // the short side never falls below the factor
}

TEST_CASE("preprocess: prescale") {
  CHECK(is(bg::prescale_size({3328, 4096}, 1024 * 1024), 923, 1136));
  CHECK(is(bg::prescale_size({1024, 1024}, 1024 * 1024), 1024, 1024));
  CHECK(is(bg::prescale_size({1, 100000000}, 1024 * 1024), 1, 10240000));
  const ImageSteps steps = bg::plan_image({3328, 4096}, {});
  CHECK(is(steps.prescaled, 923, 1136));
  CHECK(is(steps.resized, 896, 1120));
  ImageOptions off;
  off.prescale = false;
  CHECK(is(bg::plan_image({3328, 4096}, off).prescaled, 3328, 4096));
}

TEST_CASE("preprocess: resize equals Pillow's bytes") {
  std::ifstream list(golden_path("images/resize.txt"));
  int channels = 0, count = 0;
  uint32_t seed = 0;
  Size in, out;
  std::string hash;
  while (list >> channels >> in.width >> in.height >> out.width >> out.height >> seed >> hash) {
    CAPTURE(seed);
    ++count;
    std::vector<uint8_t> x = noise(size_t(in.width * in.height * channels), seed);
    if (seed % 3 == 2) std::transform(x.begin(), x.end(), x.begin(), [](uint8_t v) { return uint8_t(v > 127 ? 255 : 0); });
    const std::vector<uint8_t> y = bg::resize_bicubic(x.data(), in, out, channels);
    CHECK(y.size() == size_t(out.width * out.height * channels));
    CHECK(bg::sha256_hex(y.data(), y.size()) == hash);
  }
  CHECK(count == 50);
}

TEST_CASE("preprocess: patch vectors equal numpy + Pillow, and transformers where it applies") {
  std::ifstream list(golden_path("images/preprocess.txt"));
  std::string source, mode, kind, hash;
  int64_t least = 0, most = 0, grid_h = 0, grid_w = 0;
  double level = 0, width = 0;
  bool prescale = false;
  int count = 0;
  while (list >> source >> least >> most >> prescale >> mode >> level >> width >> grid_h >> grid_w >> kind >> hash) {
    CAPTURE(source);
    CAPTURE(mode);
    ++count;
    ImageOptions options;
    options.min_pixels = least * 1024;
    options.max_pixels = most * 1024;
    options.prescale = prescale;
    options.pil_exact = mode == "pil-exact";
    options.has_window = mode == "window";
    options.level = level;
    options.width = width;
    const bg::Image image = source_image(source);
    ImageSteps steps;
    const std::vector<float> v = patches_of(borrow(image), options, &steps);
    const bg::Grid grid = bg::image_grid(steps, 16);
    CHECK(steps.grey16 == mode);
    CHECK(grid.t == 1);
    CHECK(grid.h == grid_h);
    CHECK(grid.w == grid_w);
    if (kind == "f32") {
      CHECK(bg::sha256_hex(v.data(), v.size() * sizeof(float)) == hash);
    } else {  // transformers normalises in another order of operations: compare the pixels behind the numbers
      std::vector<uint8_t> pixels(v.size());
      std::transform(v.begin(), v.end(), pixels.begin(), [](float x) { return uint8_t(std::lround(double(x) * 127.5 + 127.5)); });
      CHECK(bg::sha256_hex(pixels.data(), pixels.size()) == hash);
    }
  }
  CHECK(count == 35);
}

TEST_CASE("preprocess: windows of 16-bit grey") {
  const std::vector<uint16_t> grey(32 * 32, 1000);
  const Pixels constant{32, 32, nullptr, grey.data()};
  ImageSteps steps;
  for (const float x : patches_of(constant, {}, &steps)) REQUIRE(x == -1.0f);  // a picture of one value is black
  CHECK(steps.low == 1000);
  CHECK(steps.high == 1000);
  ImageOptions exact;
  exact.pil_exact = true;
  for (const float x : patches_of(constant, exact, &steps)) REQUIRE(x == 1.0f);
  CHECK(steps.low == 0);
  CHECK(steps.high == 255);
  ImageOptions window;
  window.has_window = true;
  window.level = 1000;
  window.width = 200;
  for (const float x : patches_of(constant, window, &steps)) REQUIRE(x == (128.0f - 127.5f) / 127.5f);  // 127.5 is rounded up
  CHECK(steps.low == 900);
  CHECK(steps.high == 1100);
  // Grey of 16 bits windowed 0 … 255 and the same picture as RGB give the same bytes, through a prescale and a resize.
  const std::vector<uint8_t> one = noise(1100 * 1000, 77);
  std::vector<uint16_t> wide(one.begin(), one.end());
  std::vector<uint8_t> rgb;
  for (const uint8_t v : one) rgb.insert(rgb.end(), 3, v);
  CHECK(patches_of({1100, 1000, nullptr, wide.data()}, exact) == patches_of({1100, 1000, rgb.data(), nullptr}, {}));
}

TEST_CASE("preprocess: order of patches and of the numbers in a patch") {
  // Red holds the column, green the row, blue the sum of the patch's coordinates.
  const int64_t w = 96, h = 64;
  std::vector<uint8_t> rgb;
  for (int64_t y = 0; y < h; ++y) {
    for (int64_t x = 0; x < w; ++x) rgb.insert(rgb.end(), {uint8_t(x), uint8_t(y), uint8_t(x / 16 * 16 + y / 16)});
  }
  const std::vector<float> v = patches_of({w, h, rgb.data(), nullptr}, {});
  const auto value = [&v](int64_t p, int64_t c, int64_t t, int64_t y, int64_t x) {
    return std::lround(double(v[size_t(p * 1536 + ((c * 2 + t) * 16 + y) * 16 + x)]) * 127.5 + 127.5);
  };
  CHECK(value(0, 0, 0, 0, 3) == 3);
  CHECK(value(0, 1, 1, 5, 0) == 5);
  CHECK(value(1, 2, 0, 0, 0) == 16);       // patch 1: row 0, column 1
  CHECK(value(2, 2, 0, 0, 0) == 1);        // patch 2: row 1, column 0
  CHECK(value(4, 2, 1, 15, 15) == 32);     // patch 4: the next block to the right
  CHECK(value(12, 2, 0, 0, 0) == 2);       // patch 12: the second row of blocks
}

TEST_CASE("preprocess: planned memory") {
  // Same size, no work: nothing but what 16-bit grey needs (its 8-bit copy and the table of the window).
  CHECK(bg::preprocess_bytes({64, 64}, {}) == 64 * 64 + 65536);
  // 3328×4096 RGB: the first pass (923 columns of 4096 rows) and its result are the peak; the tables add less than 1 %.
  const double peak = 3.0 * 923 * (4096 + 1136);
  const double got = double(bg::preprocess_bytes({3328, 4096}, {}));
  const double grey = 3328.0 * 4096 + 923.0 * (4096 + 1136);
  CHECK(got >= std::max(peak, grey));
  CHECK(got <= std::max(peak, grey) * 1.01);
}

TEST_CASE("preprocess: error messages") {
  const auto resize = [](Size s, int64_t factor, int64_t least, int64_t most) { return [=] { bg::smart_resize(s, factor, least, most); }; };
  expect_invalid(resize({10, 2001}, 32, 1024, 4096), "picture of 10x2001 pixels: one side is more than 200 times the other; crop it");
  expect_invalid(resize({0, 20}, 32, 1024, 4096), "picture of 0x20 pixels: sides must be 1 ... 2147483647");
  expect_invalid(resize({20, -1}, 32, 1024, 4096), "sides must be");
  expect_invalid(resize({20, int64_t(1) << 31}, 32, 1024, 4096), "sides must be");
  expect_invalid(resize({20, 20}, 32, 4096, 1024), "picture size bounds 4096 ... 1024 pixels, factor 32: expected 1 <= minimum <= maximum");
  expect_invalid(resize({20, 20}, 0, 1024, 4096), "factor 0");
  expect_invalid(resize({20, 20}, 32, 1024, (int64_t(1) << 40) + 1), "maximum <= 2^40");
  expect_invalid([] { bg::prescale_size({0, 1}, 1024); }, "sides must be");

  const std::vector<uint8_t> rgb(32 * 32 * 3);
  const std::vector<uint16_t> grey(32 * 32);
  std::vector<float> out(4 * 1536);
  const auto run = [&out](const Pixels& p, const ImageOptions& o) { return [&out, p, o] { bg::preprocess_image(out.data(), p, o); }; };
  expect_invalid(run({32, 32, nullptr, nullptr}, {}), "exactly one of rgb and grey16 must be given");
  expect_invalid(run({32, 32, rgb.data(), grey.data()}, {}), "exactly one of rgb and grey16 must be given");
  ImageOptions o;
  o.factor = 28;
  expect_invalid(run({32, 32, rgb.data(), nullptr}, o), "factor 28: patches are 16 pixels, merged 2 by 2; expected 32");
  o = {};
  o.has_window = o.pil_exact = true;
  o.width = 1;
  expect_invalid(run({32, 32, nullptr, grey.data()}, o), "exclude each other; give one");
  o.pil_exact = false;
  for (const double width : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    o.width = width;
    expect_invalid(run({32, 32, nullptr, grey.data()}, o), "must be finite, the width above 0");
  }
  o.width = 1;
  o.level = std::numeric_limits<double>::quiet_NaN();
  expect_invalid(run({32, 32, nullptr, grey.data()}, o), "must be finite");
}
