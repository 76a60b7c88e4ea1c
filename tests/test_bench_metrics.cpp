// Metrics of the benchmark against public implementations (tests/oracle/metrics.py says which) to 1e-9, and what no generated case shows.
#include <doctest/doctest.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/support.h"
#include "tools/bench/boxes_metrics.h"
#include "tools/bench/fields.h"
#include "tools/bench/metrics.h"
#include "tools/bench/text_metrics.h"

using namespace tool;
using Json = nlohmann::json;

namespace {

Json golden(const std::string& name) { return Json::parse(read_file(golden_path("metrics/" + name + ".json"))); }

bool close(double a, double b) { return std::fabs(a - b) <= 1e-9 * std::max(1.0, std::fabs(b)); }

RecordBox box_of(const std::vector<double>& v) {
  RecordBox b;
  b.dimensions = int(v.size() / 2);
  for (int i = 0; i < b.dimensions; ++i) b.low[i] = v[size_t(i)], b.high[i] = v[size_t(i + b.dimensions)];
  return b;
}

std::vector<RecordBox> boxes_of(const Json& list) {
  std::vector<RecordBox> boxes;
  for (const Json& b : list) boxes.push_back(box_of(b));
  return boxes;
}

double seconds(const std::function<void()>& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("bench metrics: texts as rouge-score, sacrebleu and SQuAD have them") {
  const Json all = golden("texts");
  const Json& pairs = all["pairs"];
  REQUIRE(pairs.size() > 300);
  for (size_t i = 0; i < pairs.size(); ++i) {
    const std::string reference = pairs[i]["reference"], prediction = pairs[i]["prediction"];
    CAPTURE(i);
    CHECK(close(rouge_l(reference, prediction), pairs[i]["rouge_l"]));
    CHECK(close(bleu(bleu_counts(reference, prediction), true), pairs[i]["bleu"]));
    CHECK(close(token_f1(reference, prediction), pairs[i]["f1"]));
    CHECK(exact_match(reference, prediction) == (pairs[i]["exact"] == 1));
  }
  for (const Json& group : all["corpus"]) {
    BleuCounts sum;
    for (size_t i = group["from"]; i < group["to"].get<size_t>(); ++i) sum += bleu_counts(pairs[i]["reference"], pairs[i]["prediction"]);
    CAPTURE(group.dump());
    CHECK(close(bleu(sum, false), group["bleu"]));
  }
}

TEST_CASE("bench metrics: hostile texts take no more than linear memory and little time") {
  constexpr size_t most = 256 << 10;
  std::string same, varied, quotes(most, '"'), invalid(most, char(0xFF));
  for (size_t i = 0; same.size() < most; ++i) same += i % 2 ? "b " : "a ", varied += std::to_string(i % 300) + " ";
  std::string reports, densities;
  while (densities.size() < most) densities += "density bi-rads ", reports += "<|box_start|>";
  CHECK(seconds([&] { CHECK(rouge_l(same, "b " + same) > 0.99); }) < 5);
  CHECK(seconds([&] { CHECK(rouge_l(varied, varied) == 1); }) < 5);
  for (const std::string& text : {same, varied, quotes, invalid, reports, densities}) {
    CHECK(seconds([&] {
            bleu_counts(text, text);
            CHECK(exact_match(text, text));
            find_fields(text, text);
            closed_equal(text, "x", {"A. x", "B. y"}, text);
            without_boxes(text);
          }) < 5);
  }
  CHECK(lower_case("\xC3\x89\xFFZ") == "\xC3\xA9\xFFz");
}

TEST_CASE("bench metrics: boxes are no words") {
  CHECK(without_boxes("A <|object_ref_start|>mass<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|> here.") == "A mass here.");
  CHECK(without_boxes("cut <|box_start|>(1,2),(3") == "cut ");
  CHECK(without_boxes("") == "");
}

TEST_CASE("bench metrics: Wilson interval as statsmodels has it") {
  for (const Json& c : golden("shares")) {
    const Share s{c[0], c[1]};
    CAPTURE(c.dump());
    CHECK(close(s.low(), c[2]));
    CHECK(close(s.high(), c[3]));
  }
}

TEST_CASE("bench metrics: calibration and abstention as scikit-learn and the definitions have them") {
  for (const Json& c : golden("certainty")) {
    std::vector<Certainty> items;
    for (size_t i = 0; i < c["correct"].size(); ++i) items.push_back(certainty(c["probabilities"][i], c["correct"][i]));
    const Calibration got = calibrate(items);
    CHECK(close(got.ece, c["ece"]));
    CHECK(close(got.brier, c["brier"]));
    size_t filled = 0;  // scikit-learn leaves empty bins out
    for (size_t i = 0; i < size_t(kBins); ++i) {
      const Bin& b = got.bins[i];
      CHECK(b.n == c["counts"][i].get<int64_t>());
      if (b.n == 0) continue;
      CHECK(close(double(b.correct) / double(b.n), c["true"][filled]));
      CHECK(close(b.confidence_sum / double(b.n), c["mean"][filled++]));
    }
    const Abstention curve = abstain(items);
    REQUIRE(curve.accuracy.size() == c["accuracy"].size());
    for (size_t i = 0; i < curve.accuracy.size(); ++i) CHECK(close(curve.accuracy[i], c["accuracy"][i]));
    CHECK(close(curve.aurc, c["aurc"]));
  }
}

TEST_CASE("bench metrics: boxes against unit cells and scipy's assignment") {
  for (const Json& c : golden("boxes")) {
    const std::vector<RecordBox> reference = boxes_of(c["reference"]), predicted = boxes_of(c["predicted"]);
    for (size_t i = 0; i < reference.size(); ++i)
      for (size_t j = 0; j < predicted.size(); ++j) CHECK(close(box_iou(reference[i], predicted[j]), c["table"][i][j]));
    double sum = 0;
    const std::vector<double> paired = paired_iou(reference, predicted);
    REQUIRE(paired.size() == reference.size());
    for (double x : paired) sum += x;
    CHECK(close(sum, c["best_sum"]));
    const RecordBox middle = median_box(reference), expected = box_of(c["median"]);
    for (int i = 0; i < middle.dimensions; ++i) CHECK((middle.low[i] == expected.low[i] && middle.high[i] == expected.high[i]));
  }
}

TEST_CASE("bench metrics: boxes on different media, points, many boxes") {
  RecordBox a = box_of({0, 0, 10, 10}), b = a;
  CHECK(box_iou(a, b) == 1);
  a.medium = 0;
  CHECK(box_iou(a, b) == 1);  // one is not known
  b.medium = 1;
  CHECK(box_iou(a, b) == 0);
  CHECK(box_iou(box_of({5, 5, 5, 5}), box_of({5, 5, 5, 5})) == 0);
  CHECK(box_iou(box_of({0, 0, 10, 10}), box_of({0, 0, 0, 10, 10, 10})) == 0);
  const std::vector<RecordBox> many(5000, box_of({0, 0, 10, 10}));
  std::vector<double> paired;
  CHECK(seconds([&] { paired = paired_iou(many, many); }) < 5);
  REQUIRE(paired.size() == 5000);
  CHECK(paired[199] == 1);
  CHECK(paired[200] == 0);
}

TEST_CASE("bench metrics: closed answers") {
  for (const Json& c : golden("closed")) {
    CAPTURE(c.dump());
    CHECK(closed_equal(c[0], c[1], c[2], c[3]) == (c[4] == 1));
  }
  CHECK(closed_normal_form(" The \"Oval\"  mass. ") == "\"oval\" mass");
  CHECK(closed_normal_form("a") == "a");
  CHECK(closed_normal_form("...") == "");
}

TEST_CASE("bench metrics: fields stated in texts") {
  for (const Json& c : golden("fields")) {
    CAPTURE(c.dump());
    const FieldValues found = find_fields(c[0], c[1]);
    for (int f = 0; f < kFields; ++f) {
      CAPTURE(field_name(f));
      const std::set<std::string> expected = c[2][size_t(f)];
      CHECK(found.stated[f] == expected);
    }
  }
  const auto agree = [](int field, const std::string& a, const std::string& b) { return fields_agree(field, find_fields(a, ""), find_fields(b, "")); };
  CHECK(agree(kSize, "1.2 cm", "11 mm"));
  CHECK(agree(kSize, "1.1 cm", "1.2 cm"));
  CHECK(!agree(kSize, "12 mm", "13.1 mm"));
  CHECK(agree(kLaterality, "both breasts", "right and left"));
  CHECK(!agree(kLaterality, "left", "left and right"));
  CHECK(!agree(kBirads, "BI-RADS 4", "BI-RADS 4A"));
}
