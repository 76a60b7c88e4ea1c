// Boxes in text: all forms, what is no box, hostile texts in linear time, 400 generated texts against a parser of regular expressions
// (tests/oracle/boxes.py), and the way to source units and back for all sizes; evidence cells.
#include <doctest/doctest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <sstream>

#include "loaders/error.h"
#include "runtime/boxes.h"
#include "runtime/evidence.h"
#include "tests/support.h"

using bg::Box;
using bg::Error;
using bg::EvidenceCell;
using bg::Status;
using bg::find_boxes;

namespace {

std::string numbers(const Box& b) {
  std::ostringstream out;
  for (int i = 0; i < b.dimensions; ++i) out << b.low[i] << ' ';
  for (int i = 0; i < b.dimensions; ++i) out << b.high[i] << (i + 1 < b.dimensions ? " " : "");
  return out.str();
}

// Every box as "label: low high flags", joined by "; ".
std::string found(const std::string& text) {
  std::string out;
  for (const Box& b : find_boxes(text)) {
    out += (out.empty() ? "" : "; ") + b.label + ": " + numbers(b) + (b.point ? " point" : "") + (b.swapped ? " swapped" : "") + (b.outside ? " outside" : "");
  }
  return out;
}

template <class Call>
void expect_error(const Call& call, const std::string& part) {
  CAPTURE(part);
  try {
    call();
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.status() == Status::invalid_argument);
    CHECK_MESSAGE(std::string(e.what()).find(part) != std::string::npos, e.what());
  }
}

std::string unescape(const std::string& s) {
  std::string out;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '\\') out += s[++i] == 'n' ? '\n' : s[i] == 't' ? '\t' : s[i];
    else out += s[i];
  }
  return out;
}

struct Expected {
  size_t at = 0, length = 0;
  int dimensions = 0;
  std::string flags, label;
  double low[3] = {}, high[3] = {};
};

Expected parse_expected(const std::string& line) {
  Expected e;
  const size_t bar = line.find('|');
  std::istringstream in(line.substr(1, bar - 1));
  in >> e.at >> e.length >> e.dimensions >> e.flags;
  for (int i = 0; i < e.dimensions; ++i) in >> e.low[i];
  for (int i = 0; i < e.dimensions; ++i) in >> e.high[i];
  e.label = unescape(line.substr(bar + 1));
  return e;
}

}  // namespace

TEST_CASE("boxes: the forms") {
  CHECK(found("<|box_start|>(10,20),(30,40)<|box_end|>") == ": 10 20 30 40");
  CHECK(found("<|box_start|>(10,20)<|box_end|>") == ": 10 20 10 20 point");
  CHECK(found("<|box_start|>(1,2,3),(4,5,6)<|box_end|>") == ": 1 2 3 4 5 6");
  CHECK(found("<|box_start|>(1,2,3)<|box_end|>") == ": 1 2 3 1 2 3 point");
  CHECK(found("[1, 2, 3, 4]") == ": 1 2 3 4");
  CHECK(found("[1,2,3,4,5,6]") == ": 1 2 3 4 5 6");
  CHECK(found("a box (1,2),(3,4).") == ": 1 2 3 4");
  CHECK(found("(1,2,3) , (4,5,6)") == ": 1 2 3 4 5 6");
  CHECK(found("<|box_start|> ( 1 , 2 ) ,\n( 3 , 4 )\t<|box_end|>") == ": 1 2 3 4");
  CHECK(found("{\"bbox_2d\": [1, 2, 3, 4], \"label\": \"mass\"}") == ": 1 2 3 4");
  CHECK(found("[[1,2,3,4],[5,6,7,8]]") == ": 1 2 3 4; : 5 6 7 8");
  CHECK(found("(1,2),(3,4),(5,6),(7,8)") == ": 1 2 3 4; : 5 6 7 8");
  CHECK(found("<|box_start|>[1,2,3,4]<|box_end|>") == ": 1 2 3 4");
  CHECK(found("<|box_start|>(1,2),(3,4),(5,6),(7,8)<|box_end|>") == ": 1 2 3 4; : 5 6 7 8");
}

TEST_CASE("boxes: names") {
  const std::string a = "<|object_ref_start|>a<|object_ref_end|>", b = "<|object_ref_start|> b c\n<|object_ref_end|>";
  const std::string one = "<|box_start|>(1,2),(3,4)<|box_end|>", two = "<|box_start|>(5,6)<|box_end|>";
  CHECK(found(a + one) == "a: 1 2 3 4");
  CHECK(found(a + one + two + " , " + one) == "a: 1 2 3 4; a: 5 6 5 6 point; a: 1 2 3 4");
  CHECK(found(a + one + b + two) == "a: 1 2 3 4; b c: 5 6 5 6 point");
  CHECK(found(a + " at " + one) == ": 1 2 3 4");
  CHECK(found(a + one + " and " + two) == "a: 1 2 3 4; : 5 6 5 6 point");
  CHECK(found(a + "[1,2,3,4]") == "a: 1 2 3 4");
  CHECK(found(a + "[[1,2,3,4], [5,6,7,8]]") == "a: 1 2 3 4; a: 5 6 7 8");
  CHECK(found(a + "(1,2),(3,4)") == "a: 1 2 3 4");
  CHECK(found(a + "[1,2,3] " + one) == ": 1 2 3 4");
  CHECK(found("<|object_ref_start|>x [1,2,3,4]<|object_ref_end|>" + two) == "x [1,2,3,4]: 5 6 5 6 point");
  CHECK(found("<|object_ref_start|>x<|object_ref_start|>y<|object_ref_end|>" + two) == "y: 5 6 5 6 point");
  CHECK(found("<|object_ref_start|>x" + two) == ": 5 6 5 6 point");
  CHECK(found("<|object_ref_start|><|object_ref_end|>" + two) == ": 5 6 5 6 point");

  // A long name is cut at a character, so that many boxes after it stay small.
  std::string name = "a";
  for (int i = 0; i < 200; ++i) name += "\xC3\xA9";
  const std::vector<Box> boxes = find_boxes("<|object_ref_start|>" + name + "<|object_ref_end|>" + two);
  REQUIRE(boxes.size() == 1);
  CHECK(boxes[0].label == name.substr(0, 255));
}

TEST_CASE("boxes: what is no box") {
  for (const char* text :
       {"", "(3,4)", "[1, 2, 3]", "[1,2,3,4,5]", "[1,2,3,4,5,6,7]", "[1,2,3,4", "(1,2),(3,4", "2024-03-05", "ratio 3:4", "(1,2),(3,4),(5,6)", "(1,2)(3,4)",
        "(1,2),(3,4,5)", "(1,2,3,4)", "[1 2 3 4]", "[1,,2,3]", "[a,b,c,d]", "[1,2,3,4.]", "[.1,2,3,4]", "[1e1,2,3,4]", "[+1,2,3,4]", "[--1,2,3,4]",
        "(1),(2)", "<|box_start|><|box_end|>", "<|box_start|>(1,2)", "(1,2)<|box_end|>", "<|box_start|>(1,2),(3,4),(5,6)<|box_end|>",
        "<|box_start|>(1,2),<|box_end|>", "<|box_start|>(1,2) x<|box_end|>", "<|box_start>(1,2)<|box_end|>", "[1,2,3,10000000000000000]",
        "((1,2)),((3,4))", "<|box_start|>(1,2),(3<|box_end|>,4)"}) {
    CHECK_MESSAGE(found(text).empty(), text);
  }
}

TEST_CASE("boxes: numbers, order, flags, place") {
  CHECK(found("[30,40,10,20]") == ": 10 20 30 40 swapped");
  CHECK(found("[30,20,10,40]") == ": 10 20 30 40 swapped");
  CHECK(found("[-5,20,1000,1001]") == ": -5 20 1000 1001 outside");
  CHECK(found("[1.5, 2.25, 3.125, 4]") == ": 1.5 2.25 3.125 4");
  CHECK(found("[0,0,1000,1000]") == ": 0 0 1000 1000");
  CHECK(found("[007,2,3,999999999999999]") == ": 3 2 7 1e+15 swapped outside");
  CHECK(!std::signbit(find_boxes("[-0,0,1,1]").at(0).low[0]));

  const std::string text = "x <|object_ref_start|>a<|object_ref_end|><|box_start|>(1,2)<|box_end|> y (1,2), (3,4)z[1,2,3,4]";
  const std::vector<Box> boxes = find_boxes(text);
  REQUIRE(boxes.size() == 3);
  CHECK(text.substr(boxes[0].at, boxes[0].length) == "<|box_start|>(1,2)<|box_end|>");
  CHECK(text.substr(boxes[1].at, boxes[1].length) == "(1,2), (3,4)");
  CHECK(text.substr(boxes[2].at, boxes[2].length) == "[1,2,3,4]");
}

TEST_CASE("boxes: not taken twice, unbalanced tokens") {
  CHECK(found("<|box_start|>(1,2),(3,4)<|box_end|>(5,6),(7,8)") == ": 1 2 3 4; : 5 6 7 8");
  CHECK(found("<|box_start|>(1,2),(3,4)") == ": 1 2 3 4");
  CHECK(found("(1,2),(3,4)<|box_end|>") == ": 1 2 3 4");
  CHECK(found("<|box_start|><|box_start|>(1,2)<|box_end|><|box_end|>") == ": 1 2 1 2 point");
  CHECK(found("(9,9),<|box_start|>(1,2)<|box_end|>,(3,4)") == ": 1 2 1 2 point");
  CHECK(found("<|box_end|>(1,2)<|box_start|>") == "");
}

TEST_CASE("boxes: generated texts, as a parser of regular expressions finds them") {
  std::istringstream in(read_file(golden_path("boxes/texts.txt")));
  std::string text, line;
  std::vector<Box> boxes;
  size_t texts = 0, total = 0, next = 0;
  while (std::getline(in, line)) {
    if (line[0] == 'T') {
      CHECK_MESSAGE(next == boxes.size(), text);
      text = unescape(line.substr(1));
      boxes = find_boxes(text);
      next = 0;
      ++texts;
      continue;
    }
    const Expected e = parse_expected(line);
    CAPTURE(text);
    REQUIRE(next < boxes.size());
    const Box& b = boxes[next++];
    ++total;
    CHECK(b.at == e.at);
    CHECK(b.length == e.length);
    CHECK(b.label == e.label);
    REQUIRE(b.dimensions == e.dimensions);
    CHECK(b.point == (e.flags.find('p') != std::string::npos));
    CHECK(b.swapped == (e.flags.find('s') != std::string::npos));
    CHECK(b.outside == (e.flags.find('o') != std::string::npos));
    for (int i = 0; i < b.dimensions; ++i) {
      CHECK(b.low[i] == e.low[i]);
      CHECK(b.high[i] == e.high[i]);
    }
  }
  CHECK(next == boxes.size());
  CHECK(texts >= 300);
  CHECK(total >= 300);
}

TEST_CASE("boxes: hostile texts take linear time") {
  for (const char* part : {"(", "[", "<|", "<|box_start|>", "<|object_ref_start|>", "(1,", "[1,", "(1,2),", "(1,2),(3,4),", "1", "-", "[1,2,3,4", "( ",
                           "(1,2) ", " ", ",", "[1.", "\x80", "[9999999999999999,", "<|box_start|>(1,2)<|box_end|>", "<|box_start|>((((", "[1,2,3,4]"}) {
    std::string text = "<|object_ref_start|>" + std::string(100'000, 'n') + "<|object_ref_end|>";  // a name for every box
    while (text.size() < 1'100'000) text += part;
    CAPTURE(part);
    const auto start = std::chrono::steady_clock::now();
    const std::vector<Box> boxes = find_boxes(text);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    CHECK(boxes.size() <= text.size() / 9);
    CHECK(seconds < 5);  // a quadratic pass takes minutes
  }
}

TEST_CASE("boxes: to source units") {
  const int64_t size[3] = {640, 480, 32};
  const bg::SourceBox flat = bg::to_source(find_boxes("[250,500,750,1000]").at(0), size);
  CHECK(flat.low[0] == 160);
  CHECK(flat.high[0] == 480);
  CHECK(flat.low[1] == 240);
  CHECK(flat.high[1] == 480);
  CHECK(flat.low[2] == 0);  // through all slices
  CHECK(flat.high[2] == 32);
  const bg::SourceBox deep = bg::to_source(find_boxes("[0,0,250,1000,1000,500]").at(0), size);
  CHECK(deep.low[2] == 8);
  CHECK(deep.high[2] == 16);
  CHECK(bg::to_source(find_boxes("[-100,0,2000,1]").at(0), size).high[0] == 1280);

  const int64_t none[3] = {640, 0, 0};
  expect_error([&] { bg::to_source(find_boxes("[1,2,3,4]").at(0), none); }, "axis 1 of the medium has size 0");
  expect_error([&] { bg::to_thousandths(3, 0); }, "size 0 has no thousandths");
  expect_error([&] { bg::to_thousandths(std::nan(""), 10); }, "expected a finite position");
  expect_error([&] { bg::to_thousandths(std::numeric_limits<double>::infinity(), 10); }, "expected a finite position");
  expect_error([&] { bg::to_thousandths(1e300, 10); }, "expected a finite position");
}

TEST_CASE("boxes: thousandths round half to even, as Python's round(v / size * 1000)") {
  CHECK(bg::to_thousandths(0.5, 1000) == 0);
  CHECK(bg::to_thousandths(1.5, 1000) == 2);
  CHECK(bg::to_thousandths(2.5, 1000) == 2);
  CHECK(bg::to_thousandths(-1.5, 1000) == -2);
  CHECK(bg::to_thousandths(-2.5, 1000) == -2);
  CHECK(bg::to_thousandths(1, 2000) == 0);
  CHECK(bg::to_thousandths(3, 2000) == 2);
  CHECK(bg::to_thousandths(10, 384) == 26);
  CHECK(bg::to_thousandths(384, 384) == 1000);
}

// |back − v| ≤ size/2000 (half a thousandth of the side) + rounding: v/size, ·1000, /1000, ·size each add at most u = 2⁻⁵³ of a value ≤ size, and u more for
// the second order. For size ≤ 1000 this is half a source pixel.
TEST_CASE("boxes: round trip for all sizes, hence all aspect ratios") {
  const auto trip = [](double v, int64_t size) {
    Box box;
    box.low[0] = box.high[0] = double(bg::to_thousandths(v, size));
    box.dimensions = 1;
    const int64_t sizes[3] = {size, 1, 1};
    return bg::to_source(box, sizes).low[0];
  };
  int64_t failed = 0, moved = 0;
  for (int64_t size = 1; size <= 5000; ++size) {
    const double bound = double(size) / 2000 + 5 * std::ldexp(1, -53) * double(size);
    const int64_t step = size <= 1000 ? 1 : size / 487 + 1;
    for (int64_t v = 0; v <= size; v += step) {
      for (const double part : {0.0, 0.3}) {
        if (!(std::fabs(trip(double(v) + part, size) - double(v) - part) <= bound)) ++failed;
      }
    }
    for (int64_t n = size % 7; n <= 1000; n += 7) {  // what the model writes is kept exactly
      if (bg::to_thousandths(double(n) / 1000 * double(size), size) != n) ++moved;
    }
  }
  CHECK(failed == 0);
  CHECK(moved == 0);
}

TEST_CASE("evidence: cells of an image and of a volume") {
  const int64_t image[3] = {640, 480, 1};
  const std::vector<EvidenceCell> cells = bg::evidence_cells({0, 21, 299}, {3, 1, 0}, {1, 15, 20, 2}, image);
  REQUIRE(cells.size() == 3);
  CHECK(cells[1].token == 21);  // row 1, column 1
  CHECK(cells[1].at.low[0] == 32);
  CHECK(cells[1].at.high[0] == 64);
  CHECK(cells[1].at.low[1] == 32);
  CHECK(cells[1].at.high[1] == 64);
  CHECK(cells[1].at.low[2] == 0);
  CHECK(cells[1].at.high[2] == 1);
  CHECK(cells[2].at.high[0] == 640);
  CHECK(cells[2].at.high[1] == 480);
  CHECK(cells[0].weight == 0.75);
  CHECK(cells[1].weight == 0.25);
  CHECK(cells[2].weight == 0);
  CHECK(cells[0].gain == 3);

  // 9 frames of 36 slices make 5 pairs, the last of one frame only.
  const int64_t volume[3] = {40, 30, 36};
  const std::vector<EvidenceCell> deep = bg::evidence_cells({0, 4 * 12 + 7}, {}, {5, 3, 4, 9}, volume);
  CHECK(deep[0].at.low[2] == 0);
  CHECK(deep[0].at.high[2] == 8);
  CHECK(deep[1].at.low[2] == doctest::Approx(32));
  CHECK(deep[1].at.high[2] == 36);
  CHECK(deep[1].at.low[0] == 30);  // row 1, column 3
  CHECK(deep[1].at.low[1] == 10);
  CHECK(deep[0].weight == 0.5);  // no gains: equal shares
  CHECK(bg::evidence_cells({3, 4}, {0, 0}, {1, 2, 3, 2}, image)[1].weight == 0.5);
  CHECK(bg::evidence_cells({}, {}, {1, 2, 3, 2}, image).empty());
}

TEST_CASE("evidence: tiles of a slide, and a thumbnail's pixels") {
  const std::vector<EvidenceCell> cells = bg::scaled_cells(bg::slide_cells({1}, {2}, {0, 0, 4096, 1024}, 512), 0.25, 0.5);
  REQUIRE(cells.size() == 1);
  CHECK(cells[0].at.low[0] == 1024);
  CHECK(cells[0].at.high[0] == 1152);
  CHECK(cells[0].at.low[1] == 512);
  CHECK(cells[0].at.high[1] == 768);
  CHECK(cells[0].weight == 1);
}

TEST_CASE("evidence: every error") {
  const int64_t size[3] = {640, 480, 1}, none[3] = {640, 480, 0};
  const bg::EvidenceGrid grid{1, 15, 20, 2};
  expect_error([&] { bg::evidence_cells({1, 2}, {1}, grid, size); }, "2 kept tokens but 1 gains");
  expect_error([&] { bg::evidence_cells({300}, {1}, grid, size); }, "kept token 300 is not among the 300 tokens");
  expect_error([&] { bg::evidence_cells({-1}, {1}, grid, size); }, "kept token -1");
  expect_error([&] { bg::evidence_cells({1}, {-1}, grid, size); }, "gain 0 is -1");
  expect_error([&] { bg::evidence_cells({1}, {std::nan("")}, grid, size); }, "expected 0 or more");
  expect_error([&] { bg::evidence_cells({1, 2}, {1.5e308, 1.5e308}, grid, size); }, "too large to be added");
  expect_error([&] { bg::evidence_cells({1}, {1}, {0, 15, 20, 0}, size); }, "a token grid of 0x15x20 does not exist");
  expect_error([&] { bg::evidence_cells({1}, {1}, {1, int64_t(1) << 62, 20, 2}, size); }, "does not exist");
  expect_error([&] { bg::evidence_cells({1}, {1}, {2, 15, 20, 5}, size); }, "5 frames do not make 2 pairs");
  expect_error([&] { bg::evidence_cells({1}, {1}, grid, none); }, "axis 2 of the source has size 0");
  expect_error([&] { bg::slide_cells({0}, {1}, {0, 0}, 0); }, "side in level-0 pixels is unknown");
  expect_error([&] { bg::slide_cells({0}, {1}, {}, 512); }, "has no coordinates");
  expect_error([&] { bg::slide_cells({0}, {1}, {1, 2, 3}, 512); }, "has no coordinates");
  expect_error([&] { bg::slide_cells({1}, {1}, {0, 0}, 512); }, "kept token 1 is not among the 1 tokens");
}
