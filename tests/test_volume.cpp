// Volume → patch vectors: each step against torch (tests/oracle/volumes.py), the table of the specification, memory, every message.
#include <doctest/doctest.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "loaders/error.h"
#include "loaders/sha256.h"
#include "loaders/volume.h"
#include "runtime/volume.h"
#include "runtime/volume_resize.h"
#include "tests/expect_error.h"
#include "tests/support.h"

using bg::Status;
using bg::VolumeOptions;
using bg::VolumeSteps;
using bg::Voxels;

namespace {

// As in tests/oracle/volumes.py.
std::vector<float> make(const std::string& kind, int64_t nx, int64_t ny, int64_t nz, uint32_t seed) {
  std::vector<float> v(size_t(nx * ny * nz), 7.0f);
  for (int64_t i = 0; i < nx * ny * nz && kind != "constant"; ++i) {
    const int64_t x = i % nx, y = i / nx % ny, z = i / nx / ny;
    uint32_t h = uint32_t(i) * 2654435761u + seed;
    h = (h ^ h >> 15) * 2246822519u;
    const float noise = float((h ^ h >> 13) & 1023) - 200.0f;
    v[size_t(i)] = kind == "smooth" ? float((x * 5 + y * y / 7 + z * 11 + x * z / 3 + seed) % 1024) : kind == "float" ? noise / 64.0f : noise;
  }
  return v;
}

std::vector<float> patches_of(const Voxels& v, const VolumeOptions& o, VolumeSteps* steps = nullptr) {
  // NaN before, and one guard behind: everything is written, nothing beyond.
  std::vector<float> out(size_t(bg::plan_volume(v.nx, v.ny, v.nz, o).grid.patches()) * 1536 + 1, std::numeric_limits<float>::quiet_NaN());
  const VolumeSteps done = bg::preprocess_volume(out.data(), v, o);
  CHECK(std::isnan(out.back()));
  out.pop_back();
  if (steps) *steps = done;
  return out;
}

VolumeOptions plain() {
  VolumeOptions o;
  o.prescale = false;
  return o;
}

}  // namespace

TEST_CASE("volume: nothing is flipped") {
  // One bright voxel at x 1, y 3, z 2 of 3×5×4, where the file stores it.
  std::string bytes = read_file(golden_path("volumes/uint8_le.nii"));
  std::fill(bytes.begin() + 352, bytes.end(), '\0');
  bytes[352 + (2 * 5 + 3) * 3 + 1] = 9;
  const TempDir dir;
  write_file(dir.file("v.nii"), bytes);
  const bg::Volume v = bg::load_volume(dir.file("v.nii"));
  for (size_t i = 0; i < v.voxels.size(); ++i) CHECK(v.voxels[i] == (i == (2 * 5 + 3) * 3 + 1 ? 9.0f : 0.0f));

  // And in the patches of 64×96×6 (nothing is resized): x 40, y 70, z 3 → pair 1, frame 1, block (2, 1), patch (0, 0) in it, pixel (6, 8).
  std::vector<float> x(64 * 96 * 6);
  x[(3 * 96 + 70) * 64 + 40] = 1000;
  const std::vector<float> p = patches_of({64, 96, 6, x.data()}, plain());
  const size_t patch = 1 * 24 + (2 * 2 + 1) * 4 + 0;
  int bright = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == -1.0f) continue;
    ++bright;
    CHECK(!(std::fabs(p[i] - 1.0f) > 1e-6f));
    CHECK(i / 1536 == patch);
    CHECK(i % 512 == (1 * 16 + 6) * 16 + 8);
  }
  CHECK(bright == 3);  // three channels
}

TEST_CASE("volume: sizes of the specification") {
  struct Case {
    int64_t n[3], prepared[3];
  };
  for (const Case& c : {Case{{512, 512, 300}, {384, 384, 48}}, Case{{512, 512, 600}, {328, 328, 48}}, Case{{320, 320, 60}, {384, 384, 48}}}) {
    const VolumeSteps s = bg::plan_volume(c.n[0], c.n[1], c.n[2], {});
    for (size_t i = 0; i < 3; ++i) CHECK(s.prepared[i] == c.prepared[i]);
  }
  const VolumeSteps s = bg::plan_volume(384, 384, 48, {});
  CHECK((s.grid.t == 24 && s.grid.h == 24 && s.grid.w == 24));
  CHECK(s.grid.patches() / 4 == 3456);
  // 1000 slices of 1000×1: sides never fall below 1 (0.384 rounds to 0), and such a picture is refused for its aspect.
  expect_error([] { bg::plan_volume(1000, 1, 1000, {}); }, Status::invalid_argument, "more than 200 times the other");
  CHECK(bg::plan_volume(1000, 1000, 1, {}).prepared[2] == 48);
  for (const int64_t d : {1, 2, 3, 4, 5, 45, 47, 48, 49, 600}) {
    CHECK(bg::plan_volume(64, 64, d, plain()).trilinear[2] == std::max<int64_t>(std::min<int64_t>(d, 48) / 3 * 3, 3));
  }
  CHECK(bg::plan_volume(64, 64, 47, plain()).grid.t == 23);
}

TEST_CASE("volume: area average of the specification") {
  const float x[5] = {0, 1, 2, 3, 4}, wanted[8] = {0, .5f, 1, 1.5f, 2.5f, 3, 3.5f, 4};
  float y[8];
  bg::area_slice(y, x, {5, 1}, {8, 1}, {0, 1});
  for (size_t i = 0; i < 8; ++i) CHECK(y[i] == wanted[i]);
  bg::area_slice(y, x, {1, 5}, {1, 8}, {0, 1});
  for (size_t i = 0; i < 8; ++i) CHECK(y[i] == wanted[i]);
}

TEST_CASE("volume: preparation equals torch's area averages exactly") {
  std::ifstream list(golden_path("volumes/prepare.txt"));
  int64_t nx = 0, ny = 0, nz = 0, px = 0, py = 0;
  std::string kind, hash;
  uint32_t seed = 0;
  int count = 0;
  while (list >> nx >> ny >> nz >> kind >> seed >> px >> py >> hash) {
    CAPTURE(seed);
    ++count;
    const std::vector<float> v = make(kind, nx, ny, nz, seed);
    const std::vector<int16_t> p = bg::prepare_volume({nx, ny, nz, v.data()}, {});
    CHECK(p.size() == size_t(px * py * 48));
    CHECK(bg::sha256_hex(p.data(), p.size() * sizeof(int16_t)) == hash);
    if (nx == 384) CHECK(std::equal(p.begin(), p.end(), v.begin()));  // the identity on what was prepared already
  }
  CHECK(count == 11);
}

// Bound, in units of the patch vectors (255 source values are 2), u = 2^-24. Positions are float32 and may be contracted differently by torch:
// - trilinear: a position x ≤ n is off by at most n·u, so its weight is, and an output by that times 255: 2·n·u, per axis; doubled for both roundings of x.
// - bicubic: the argument of the kernel is off by at most 2·n·u, |cubic'| ≤ 1.39, 4·fs taps, their sum fs: Σ|Δw| ≤ 11.2·n·u; Δw sums to 0, so an output
//   moves by half the range (1) of what goes in; the range is up to 1.25² of 2 after the other axis. 16·n·u per axis.
// - sums: at most 4·fs + 8 terms of size ≤ 1.25·2, each rounded: (4·fs + 8 + 8)·2.5·u, fs ≤ 1.5 here.
TEST_CASE("volume: patch vectors equal numpy + torch") {
  const double u = 0x1p-24;
  std::ifstream list(golden_path("volumes/steps.txt"));
  std::string name, kind;
  int64_t n[3], t[3];
  uint32_t seed = 0;
  bool prescale = false, window = false;
  double level = 0, width = 0, low = 0, high = 0;
  bg::Size frame;
  bg::Grid grid;
  int count = 0;
  while (list >> name >> n[0] >> n[1] >> n[2] >> kind >> seed >> prescale >> window >> level >> width >> t[0] >> t[1] >> t[2] >> frame.width >> frame.height >>
         grid.t >> grid.h >> grid.w >> low >> high) {
    CAPTURE(name);
    ++count;
    VolumeOptions o;
    o.prescale = prescale;
    o.has_window = window;
    o.level = level;
    o.width = width;
    const std::vector<float> v = make(kind, n[0], n[1], n[2], seed);
    VolumeSteps s;
    const std::vector<float> p = patches_of({n[0], n[1], n[2], v.data()}, o, &s);
    CHECK(std::equal(t, t + 3, s.trilinear));
    CHECK((s.frame.width == frame.width && s.frame.height == frame.height));
    CHECK((s.grid.t == grid.t && s.grid.h == grid.h && s.grid.w == grid.w));
    CHECK((s.low == low && s.high == high));
    CHECK(s.constant == (low == high));

    double bound = 0;
    for (size_t i = 0; i < 3; ++i) bound += s.prepared[i] == t[i] ? 0 : 4.0 * double(s.prepared[i]) * u;
    if (t[0] != frame.width) bound += 16.0 * double(t[0]) * u;
    if (t[1] != frame.height) bound += 16.0 * double(t[1]) * u;
    if (bound > 0) bound += 2 * 55 * u;
    const std::string golden = read_file(golden_path("volumes/" + name + ".f32"));
    REQUIRE(golden.size() == 4000 * sizeof(float));
    double worst = 0;
    for (size_t i = 0; i < 4000; ++i) {
      float g;
      std::memcpy(&g, &golden[4 * i], 4);
      const double err = std::fabs(double(p[i * 7919 % p.size()]) - double(g));
      worst = !(err <= worst) ? err : worst;
    }
    CAPTURE(worst);
    CAPTURE(bound);
    CHECK(worst <= bound);
  }
  CHECK(count == 15);
}

TEST_CASE("volume: constant, and windows") {
  const std::vector<float> v(64 * 64 * 6, 40.0f);
  VolumeSteps s;
  for (const float x : patches_of({64, 64, 6, v.data()}, plain(), &s)) REQUIRE(x == -1.0f);
  CHECK(s.constant);
  VolumeOptions o = plain();
  o.has_window = true;
  o.level = 0;
  o.width = 7;  // everything is above it
  patches_of({64, 64, 6, v.data()}, o, &s);
  CHECK((s.constant && s.low == 3 && s.high == 3));
}

TEST_CASE("volume: errors of the steps") {
  std::vector<float> v = make("int", 8, 8, 8, 1), out(size_t(1) << 16);
  const auto run = [&](const VolumeOptions& o) { return [&v, &out, o] { bg::preprocess_volume(out.data(), {8, 8, 8, v.data()}, o); }; };
  VolumeOptions o = plain();
  o.factor = 28;
  expect_error(run(o), Status::invalid_argument, "factor 28: patches are 16 pixels, merged 2 by 2; expected 32");
  o = plain();
  o.has_window = true;
  for (const double width : {1.9, -3.0, 2e30, double(NAN), double(INFINITY)}) {
    o.width = width;
    expect_error(run(o), Status::invalid_argument, "must be finite, below 1e30, the width 2 or more");
  }
  o.width = 2;
  o.level = NAN;
  expect_error(run(o), Status::invalid_argument, "window level nan");
  expect_error([] { bg::plan_volume(0, 1, 1, {}); }, Status::invalid_argument, "volume of 0x1x1 voxels: sides must be 1 ... 1048576");
  expect_error([] { bg::plan_volume(1, 1, (1 << 20) + 1, {}); }, Status::invalid_argument, "sides must be");
  expect_error([] { bg::plan_volume(2001, 10, 1, plain()); }, Status::invalid_argument, "more than 200 times the other");
  expect_error([] { bg::plan_volume(1999, 10, 1, plain()); }, Status::invalid_argument, "more than 200 times the other");  // 384×1 after truncation
  expect_error([&] { bg::preprocess_volume(out.data(), {8, 8, 8, nullptr}, plain()); }, Status::invalid_argument, "no voxels were given");

  v[3 * 64 + 2 * 8 + 5] = NAN;
  v[400] = INFINITY;
  for (const bool prescale : {false, true}) {
    o = plain();
    o.prescale = prescale;
    expect_error(run(o), Status::invalid_argument, "volume: 2 of 512 voxels are not finite numbers in float32, the first at x 5, y 2, z 3");
  }
  v = make("int", 8, 8, 8, 1);
  v[7] = 32768;
  expect_error(run({}), Status::invalid_argument, "are outside int16 (-32768 ... 32767); the unit is not the training data's");
  v[7] = -32769;
  expect_error(run({}), Status::invalid_argument, "are outside int16");
  for (float& x : v) x = x * 1e-6f;
  expect_error(run({}), Status::invalid_argument, "are fractions, which int16 truncates to 0");
  v[0] = 3e38f;
  v[1] = -3e38f;
  expect_error(run(plain()), Status::invalid_argument, "span more than float32 holds; give a window");
}

TEST_CASE("volume: planned memory") {
  // A large CT needs the prepared volume (328·328·48 int16) and a few slices.
  const size_t large = bg::volume_bytes(512, 512, 600, {});
  CHECK(large >= 328 * 328 * 48 * 2);
  CHECK(large <= 328 * 328 * 48 * 2 + 8 * 384 * 384 * 4);
  // What the allocator holds, looked at again and again during a run, stays below the bound. (Under a sanitizer it reports nothing.)
  for (const bool prescale : {true, false}) {
    VolumeOptions o;
    o.prescale = prescale;
    const std::vector<float> v = make("int", 300, 200, 40, 1);
    std::vector<float> out(size_t(bg::plan_volume(300, 200, 40, o).grid.patches()) * 1536);
    const auto held = [] {
      const auto m = mallinfo2();
      return m.uordblks + m.hblkhd;
    };
    std::atomic<bool> done = false;
    std::atomic<size_t> peak = 0;
    std::thread watcher([&] {
      while (!done) {
        peak = std::max(peak.load(), held());
        std::this_thread::yield();
      }
    });
    while (peak == 0 && held() > 0) std::this_thread::yield();
    const size_t before = held();
    bg::preprocess_volume(out.data(), {300, 200, 40, v.data()}, o);
    done = true;
    watcher.join();
    const size_t grown = peak > before ? peak - before : 0;
    CAPTURE(grown);
    CHECK(grown <= bg::volume_bytes(300, 200, 40, o) + 65536);
  }
}
