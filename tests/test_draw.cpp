// Pictures that we paint: spans of pixels, boxes and tags at chosen pixels, masks, contact sheets, evidence, GeoJSON, and PNG files read back.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "loaders/error.h"
#include "loaders/geojson.h"
#include "loaders/image.h"
#include "loaders/new_file.h"
#include "loaders/png_write.h"
#include "loaders/sheet.h"
#include "tests/expect_error.h"
#include "tests/support.h"

using bg::Canvas;
using bg::Colour;
using bg::EvidenceLevel;
using bg::MarkedBox;
using bg::Span;
using bg::Status;
using bg::Voxels;

namespace {

constexpr Colour kGrey = {90, 90, 90};

Colour at(const Canvas& c, int64_t x, int64_t y) {
  const size_t i = size_t(y * c.width + x) * 3;
  return {c.rgb.at(i), c.rgb.at(i + 1), c.rgb.at(i + 2)};
}

int64_t count(const Canvas& c, Colour colour) {
  int64_t n = 0;
  for (int64_t y = 0; y < c.height; ++y)
    for (int64_t x = 0; x < c.width; ++x) n += at(c, x, y) == colour;
  return n;
}

bg::SourceBox source(double x0, double y0, double x1, double y1, double z0 = 0, double z1 = 1) { return {{x0, y0, z0}, {x1, y1, z1}}; }

size_t files_in(const TempDir& dir) { return size_t(std::distance(std::filesystem::directory_iterator(dir.path), {})); }

}  // namespace

TEST_CASE("draw: pixels of an interval") {
  const auto is = [](Span s, int64_t begin, int64_t end) { return s.begin == begin && s.end == end; };
  CHECK(is(bg::span_of(2, 5, 10), 2, 5));
  CHECK(is(bg::span_of(2.4, 4.6, 10), 2, 5));
  CHECK(is(bg::span_of(2.6, 4.4, 10), 3, 4));
  CHECK(is(bg::span_of(3.2, 3.3, 10), 3, 4));  // at least one
  CHECK(is(bg::span_of(0, 0, 10), 0, 1));
  CHECK(is(bg::span_of(10, 10, 10), 9, 10));  // the last edge
  CHECK(is(bg::span_of(-3, 12, 10), -3, 12));
  CHECK(bg::span_of(-1e300, 1e300, 10).begin < -1'000'000);
  CHECK(bg::span_of(std::nan(""), std::nan(""), 10).end <= 0);
}

TEST_CASE("draw: whole pixels survive thousandths below a side of 1000") {
  for (int64_t size = 1; size < 1000; size += 1 + size / 40) {
    int64_t moved = 0;
    const int64_t sizes[3] = {size, 1, 1};
    for (int64_t a = 0; a < size; ++a) {
      const int64_t b = a + 1 + (a * 7919) % (size - a);
      bg::Box box;
      box.low[0] = double(bg::to_thousandths(double(a), size));
      box.high[0] = double(bg::to_thousandths(double(b), size));
      const bg::SourceBox back = bg::to_source(box, sizes);
      const Span s = bg::span_of(back.low[0], back.high[0], size);
      moved += s.begin != a || s.end != b;
    }
    CHECK_MESSAGE(moved == 0, size);
  }
}

TEST_CASE("draw: a box, cut off at the picture's edge, with its tag") {
  Canvas c = bg::blank(200, 160, kGrey);
  const std::vector<bg::Mark> marks = bg::marks_of({{source(50, 60, 100, 120), false, "m"}});
  CHECK(marks[0].tag == "m");
  bg::draw_marks(c, marks);
  const Colour colour = marks[0].colour;
  for (const int64_t x : {50, 51, 98, 99}) CHECK(at(c, x, 90) == colour);  // two pixels inside each edge, a dark rim on both sides
  for (const int64_t x : {49, 52, 97, 100}) CHECK(at(c, x, 90) == Colour{0, 0, 0});
  for (const int64_t x : {48, 53, 75, 96, 101}) CHECK(at(c, x, 90) == kGrey);
  for (const int64_t y : {60, 61, 118, 119}) CHECK(at(c, 75, y) == colour);
  CHECK(at(c, 75, 120) == Colour{0, 0, 0});
  // The tag: 8 × 9 pixels above the box; 'm' has its left stem in column 0 of the glyph.
  CHECK(at(c, 50, 51) == colour);
  CHECK(at(c, 51, 57) == Colour{0, 0, 0});
  CHECK(at(c, 52, 54) == Colour{0, 0, 0});
  CHECK(at(c, 52, 58) == colour);
  CHECK(at(c, 50, 50) == kGrey);

  Canvas half = bg::blank(200, 160, kGrey);
  bg::draw_marks(half, bg::marks_of({{source(150, -40, 300, 80), false, ""}}));
  CHECK(at(half, 150, 40) == colour);
  CHECK(at(half, 180, 79) == colour);
  CHECK(at(half, 180, 0) == kGrey);  // the upper and right edges are outside
  CHECK(at(half, 199, 40) == kGrey);

  Canvas outside = bg::blank(200, 160, kGrey);
  bg::draw_marks(outside, bg::marks_of({{source(300, 300, 400, 400), false, "far"}, {source(-1e12, -1e12, -1e11, -1e11), true, "far"}}));
  CHECK(count(outside, kGrey) == 200 * 160);
}

TEST_CASE("draw: points, tiny pictures, many boxes") {
  Canvas c = bg::blank(200, 160, kGrey);
  const std::vector<bg::Mark> marks = bg::marks_of({{source(100, 80, 100, 80), true, ""}});
  CHECK(marks[0].tag.empty());
  bg::draw_marks(c, marks);
  CHECK(at(c, 100, 80) == marks[0].colour);
  CHECK(at(c, 92, 80) == marks[0].colour);
  CHECK(at(c, 100, 88) == marks[0].colour);
  CHECK(at(c, 95, 75) == kGrey);

  Canvas dot = bg::blank(1, 1, kGrey);
  bg::draw_marks(dot, bg::marks_of({{source(0, 0, 1, 1), false, "a very long label"}, {source(1, 1, 1, 1), true, "b"}}));
  CHECK(dot.rgb.size() == 3);

  std::vector<MarkedBox> many;
  for (int i = 0; i < 20'000; ++i) many.push_back({source(i % 90, i % 70, i % 90 + 9, i % 70 + 9), false, std::to_string(i)});
  Canvas busy = bg::blank(100, 80, kGrey);
  bg::draw_marks(busy, bg::marks_of(many));
}

TEST_CASE("draw: colours and numbers of labels") {
  const bg::SourceBox box = source(0, 0, 1, 1);
  const std::vector<bg::Mark> marks = bg::marks_of({{box, false, "mass"}, {box, false, "node"}, {box, false, "mass"}, {box, false, ""}});
  CHECK(marks[0].colour == marks[2].colour);
  CHECK(marks[0].colour != marks[1].colour);
  CHECK(marks[3].colour != marks[1].colour);
  CHECK(marks[2].tag == "3 mass");
  CHECK(marks[3].tag == "4");
  for (size_t i = 0; i < 12; ++i)
    for (size_t j = 0; j < i; ++j) CHECK(bg::palette_colour(i) != bg::palette_colour(j));
  CHECK(bg::palette_colour(12) == bg::palette_colour(0));
}

TEST_CASE("draw: text") {
  Canvas c = bg::blank(40, 12, kGrey);
  bg::draw_text(c, 1, 1, 1, "1\xC3\xA9\n", {255, 255, 255}, {0, 0, 0});  // a digit, a box for é, a space
  CHECK(bg::text_width("1\xC3\xA9\n", 1) == 19);
  CHECK(at(c, 4, 2) == Colour{255, 255, 255});  // the stem of the 1
  CHECK(at(c, 2, 2) == Colour{0, 0, 0});
  CHECK(at(c, 8, 5) == Colour{255, 255, 255});  // the box's left side
  CHECK(at(c, 10, 5) == Colour{0, 0, 0});
  CHECK(at(c, 20, 5) == kGrey);
  bg::draw_text(c, 30, 10, 2, "cut off at the edge", {255, 255, 255}, {0, 0, 0});
  bg::draw_text(c, -30, -5, 2, "cut off at the edge", {255, 255, 255}, {0, 0, 0});
}

TEST_CASE("draw: grey values through a window") {
  CHECK(bg::windowed(0, 0, 255) == 0);
  CHECK(bg::windowed(255, 0, 255) == 255);
  CHECK(bg::windowed(127.5, 0, 255) == 128);
  CHECK(bg::windowed(-1e9, 0, 255) == 0);
  CHECK(bg::windowed(1e300, 0, 255) == 255);
  CHECK(bg::windowed(5, 5, 5) == 0);
  CHECK(bg::windowed(std::nan(""), 0, 255) == 0);
  bg::Image image;
  image.width = 2;
  image.height = 1;
  image.grey16 = {1000, 3000};
  CHECK(bg::canvas_of(image, 1000, 3000).rgb == std::vector<uint8_t>{0, 0, 0, 255, 255, 255});
}

TEST_CASE("draw: masks") {
  const int64_t size[3] = {5, 4, 3};
  std::vector<uint8_t> mask(60, 0);
  bg::fill_mask(mask, size, source(1, 1, 3, 2, 2, 9), 7);
  for (int64_t z = 0; z < 3; ++z)
    for (int64_t y = 0; y < 4; ++y)
      for (int64_t x = 0; x < 5; ++x) CHECK(int(mask[size_t((z * 4 + y) * 5 + x)]) == (x >= 1 && x < 3 && y == 1 && z == 2 ? 7 : 0));
  bg::fill_mask(mask, size, source(-1e30, -1e30, 1e30, 1e30, -1e30, 1e30), 1);
  CHECK(std::count(mask.begin(), mask.end(), 1) == 60);
  bg::fill_mask(mask, size, source(90, 90, 99, 99), 9);
  CHECK(std::count(mask.begin(), mask.end(), 1) == 60);
  const int64_t wrong[3] = {5, 4, 4}, none[3] = {5, 0, 3}, vast[3] = {int64_t(1) << 62, int64_t(1) << 62, 16};
  for (const int64_t* s : {wrong, none, vast}) expect_error([&] { bg::fill_mask(mask, s, source(0, 0, 1, 1), 1); }, Status::invalid_argument, "60 bytes do not fit");
  expect_error([] { bg::blank(0, 5, {0, 0, 0}); }, Status::invalid_argument, "0x5 pixels; expected at least 1x1");
  expect_error([] { bg::blank(int64_t(1) << 40, int64_t(1) << 40, {0, 0, 0}); }, Status::too_large, "too many to draw");
}

TEST_CASE("draw: a contact sheet shows the box's slices") {
  const int64_t n = 100;
  std::vector<float> x(size_t(n * n * 40));
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(i / size_t(n * n));  // each slice its index
  const Voxels v{n, n, 40, x.data()};
  // Slices 10 … 13: four panels, 2 × 2, each enlarged three times (320 / 100), under a caption of 18 pixels, 6 pixels apart.
  const Canvas sheet = bg::box_sheet(v, 0, 39, {{source(20, 20, 80, 80, 10, 14), false, ""}});
  CHECK(sheet.width == 2 * 306 + 6);
  CHECK(sheet.height == 2 * (300 + 18 + 6) + 6);
  const auto grey = [](int64_t z) { return Colour{bg::windowed(double(z), 0, 39), bg::windowed(double(z), 0, 39), bg::windowed(double(z), 0, 39)}; };
  CHECK(at(sheet, 6 + 5, 6 + 18 + 5) == grey(10));
  CHECK(at(sheet, 6 + 306 + 5, 6 + 18 + 5) == grey(11));
  CHECK(at(sheet, 6 + 5, 6 + 324 + 18 + 5) == grey(12));
  CHECK(at(sheet, 6 + 306 + 150, 6 + 324 + 18 + 150) == grey(13));
  CHECK(at(sheet, 6 + 60, 6 + 18 + 150) == bg::palette_colour(0));  // the box's left edge, 20 voxels × 3
  CHECK(at(sheet, 6 + 57, 6 + 18 + 150) == grey(10));

  // A box in two slices of 40 far apart from another; no box at all: 16 spread over all, the first and the last among them.
  CHECK(bg::box_sheet(v, 0, 39, {{source(0, 0, 9, 9, 1, 2), false, ""}, {source(0, 0, 9, 9, 38, 39), false, ""}}).width == 2 * 306 + 6);
  const Canvas all = bg::box_sheet(v, 0, 39, {});
  CHECK(all.width == 4 * 306 + 6);
  CHECK(at(all, 10, 30) == grey(0));
  CHECK(at(all, all.width - 10, all.height - 10) == grey(39));
}

TEST_CASE("draw: sheets stay within 2048 pixels, large panels are means") {
  std::vector<float> x(size_t(4100 * 3 * 2));
  for (size_t i = 0; i < x.size(); ++i) x[i] = i % 2 == 0 ? 0.f : 100.f;
  const Canvas wide = bg::box_sheet({4100, 3, 2, x.data()}, 0, 100, {});
  CHECK(wide.width <= 2048);
  CHECK(wide.width > 1200);
  const Colour middle = at(wide, 100, 6 + 18);
  CHECK(middle[0] > 90);
  CHECK(middle[0] < 165);
  CHECK(bg::box_sheet({3, 4100, 2, x.data()}, 0, 100, {}).height <= 2048);
  CHECK(bg::evidence_picture(bg::blank(5000, 1, kGrey), {{"top", {}}, {"a", {}}, {"b", {}}}).width <= 2048);
  const float one = 5;
  CHECK(bg::box_sheet({1, 1, 1, &one}, 0, 10, {{source(0, 0, 1, 1), false, "x"}}).width == 320 + 12);

  expect_error([] { bg::box_sheet({0, 1, 1, nullptr}, 0, 1, {}); }, Status::invalid_argument, "has no voxels");
  expect_error([&] { bg::evidence_sheet({1, 1, 1, &one}, 0, 1, {}); }, Status::invalid_argument, "no evidence to draw");
  expect_error([] { bg::evidence_picture(bg::blank(5, 5, kGrey), {}); }, Status::invalid_argument, "no evidence or no picture");
  expect_error([&] { bg::evidence_sheet({1, 1, 1, &one}, 0, 1, std::vector<EvidenceLevel>(2000)); }, Status::invalid_argument, "panels are too many");
}

TEST_CASE("draw: evidence over a picture") {
  const int64_t size[3] = {400, 400, 1};
  const bg::EvidenceGrid grid{1, 4, 4, 2};
  const std::vector<EvidenceLevel> levels = {{"top", bg::evidence_cells({0, 5}, {4, 1}, grid, size)}, {"deepstack 1", bg::evidence_cells({15}, {}, grid, size)}};
  const Canvas sheet = bg::evidence_picture(bg::blank(400, 400, {100, 100, 100}), levels);
  CHECK(sheet.width == 2 * 406 + 6);
  const auto tinted = [](double share) {
    Colour c = bg::heat_colour(share);
    const double alpha = 0.15 + 0.40 * share;
    for (uint8_t& v : c) v = uint8_t(100 * (1 - alpha) + v * alpha + 0.5);
    return c;
  };
  CHECK(at(sheet, 6 + 50, 24 + 50) == tinted(1));
  CHECK(at(sheet, 6 + 150, 24 + 150) == tinted(0.25));
  CHECK(at(sheet, 6 + 250, 24 + 150) == Colour{100, 100, 100});
  CHECK(at(sheet, 6 + 406 + 50, 24 + 50) == Colour{100, 100, 100});  // the other level keeps another cell
  CHECK(at(sheet, 6 + 406 + 350, 24 + 350) == tinted(1));
  CHECK(bg::heat_colour(0) != bg::heat_colour(1));
  CHECK(bg::heat_colour(-3) == bg::heat_colour(0));
  CHECK(bg::heat_colour(7) == bg::heat_colour(1));
}

TEST_CASE("draw: evidence over a volume takes the pairs with most weight") {
  std::vector<float> x(size_t(320 * 320 * 20));
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(i / (320 * 320));
  const int64_t size[3] = {320, 320, 20};
  // 10 pairs of 2 × 2 tokens; seven pairs have weight, pairs 0 and 9 the least of them.
  std::vector<int64_t> kept;
  std::vector<double> gains;
  for (const int64_t pair : {0, 1, 3, 4, 6, 8, 9}) {
    kept.push_back(pair * 4);
    gains.push_back(pair == 0 || pair == 9 ? 0.5 : double(pair));
  }
  const Canvas sheet = bg::evidence_sheet({320, 320, 20, x.data()}, 0, 19, {{"top", bg::evidence_cells(kept, gains, {10, 2, 2, 20}, size)}});
  CHECK(sheet.width == 5 * 326 + 6);
  const int64_t shown[5] = {2, 6, 8, 12, 16};  // the first of each pair's two slices
  for (int64_t i = 0; i < 5; ++i) {
    const uint8_t v = bg::windowed(double(shown[i]), 0, 19);
    CHECK(at(sheet, 6 + i * 326 + 240, 24 + 240) == Colour{v, v, v});
    CHECK(at(sheet, 6 + i * 326 + 80, 24 + 80) != Colour{v, v, v});
  }
}

TEST_CASE("draw: PNG files are read back as they were") {
  const TempDir dir;
  std::mt19937 random(5);
  for (const auto& [width, height] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {17, 1}, {640, 480}, {1, 3000}, {700, 701}}) {
    for (const int kind : {0, 1, 2}) {  // noise, a ramp, one colour
      std::vector<uint8_t> rgb(size_t(width * height * 3));
      for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = uint8_t(kind == 0 ? random() >> 13 : kind == 1 ? i / 9 + i % 3 * 40 : 200);
      const std::string path = dir.file("a.png");
      bg::save_png(path, width, height, rgb);
      const bg::Image image = bg::load_image(path);
      CHECK(image.width == width);
      CHECK(image.height == height);
      CHECK(image.format == "PNG");
      CHECK(image.rgb == rgb);
      CHECK(files_in(dir) == 1);
    }
  }
  const std::vector<uint8_t> rgb(12);
  const std::string first = (bg::save_png(dir.file("a.png"), 2, 2, rgb), read_file(dir.file("a.png")));
  bg::save_png(dir.file("b.png"), 2, 2, rgb);
  CHECK(first == read_file(dir.file("b.png")));
}

TEST_CASE("draw: every error of writing, and nothing is left behind") {
  const TempDir dir;
  const std::vector<uint8_t> rgb(12);
  for (const auto& [w, h] : {std::pair<int64_t, int64_t>{0, 4}, {2, 3}, {-2, -2}, {int64_t(1) << 62, 4}}) {
    expect_error([&] { bg::save_png(dir.file("a.png"), w, h, rgb); }, Status::invalid_argument, "does not fit 12 bytes of RGB");
  }
  expect_error([&] { bg::save_png(dir.file("none/a.png"), 2, 2, rgb); }, Status::io, "cannot be created");
  expect_error([&] { bg::save_png(dir.path.string(), 2, 2, rgb); }, Status::io, "is not a regular file");
  CHECK(files_in(dir) == 0);
  { bg::NewFile abandoned(dir.file("half")); }
  CHECK(files_in(dir) == 0);
  bg::NewFile file(dir.file("x"));
  std::filesystem::create_directory(dir.file("x"));
  expect_error([&] { file.commit(); }, Status::io, "cannot be renamed into place");
}

TEST_CASE("draw: GeoJSON of a slide's tiles") {
  const std::vector<int64_t> coords = {0, 0, 1024, 2048, 3072, 0};
  const std::vector<EvidenceLevel> levels = {{"top", bg::slide_cells({1, 2}, {3, 1}, coords, 1024)}, {"deep \"1\"\x80", bg::slide_cells({0}, {0.5}, coords, 1024)}};
  const std::string text = bg::geojson(levels);
  CHECK(text == bg::geojson(levels));
  const nlohmann::json j = nlohmann::json::parse(text);
  CHECK(j["type"] == "FeatureCollection");
  REQUIRE(j["features"].size() == 3);
  const nlohmann::json& f = j["features"][0];
  CHECK(f["type"] == "Feature");
  CHECK(f["geometry"]["type"] == "Polygon");
  CHECK(f["geometry"]["coordinates"].dump() == "[[[1024,2048],[2048,2048],[2048,3072],[1024,3072],[1024,2048]]]");
  const nlohmann::json& p = f["properties"];
  CHECK(p["objectType"] == "annotation");
  CHECK(p["name"] == "top 1");
  CHECK(p["level"] == "top");
  CHECK(p["tile"] == 1);
  CHECK(p["gain"] == 3);
  CHECK(p["weight"] == 0.75);
  CHECK(p["measurements"][0]["value"] == 3);
  const Colour c = bg::palette_colour(0);
  CHECK(p["classification"]["colorRGB"] == int64_t(c[0]) * 65536 + c[1] * 256 + c[2] - 16'777'216);  // 0xFFrrggbb as a signed number
  CHECK(p["classification"]["color"] == nlohmann::json({c[0], c[1], c[2]}));
  CHECK(j["features"][2]["properties"]["level"] == "deep \"1\"\xEF\xBF\xBD");  // bytes that are no UTF-8
  CHECK(nlohmann::json::parse(bg::geojson({}))["features"].empty());

  const TempDir dir;
  bg::save_geojson(dir.file("e.geojson"), levels);
  CHECK(read_file(dir.file("e.geojson")) == text);
  CHECK(files_in(dir) == 1);
  std::vector<EvidenceLevel> bad = levels;
  bad[0].cells[0].at.low[0] = std::numeric_limits<double>::infinity();
  expect_error([&] { bg::save_geojson(dir.file("f.geojson"), bad); }, Status::invalid_argument, "not finite");
  CHECK(files_in(dir) == 1);
}
