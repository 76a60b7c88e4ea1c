// Records to lines and back, scores of small benchmarks counted by hand, the report's files: the same bytes from any order, hostile text stays text.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "loaders/error.h"
#include "tests/support.h"
#include "tools/bench/report.h"
#include "tools/bench/scores.h"
#include "tools/options.h"

using namespace tool;
using Json = nlohmann::json;

namespace {

RecordBox square(double low, double high, const std::string& label = "mass") {
  RecordBox b;
  b.label = label;
  for (int i = 0; i < 2; ++i) b.low[i] = low, b.high[i] = high;
  return b;
}

Record closed_item(int64_t index, const std::string& template_id, const std::string& reference, const std::string& prediction, std::vector<double> probabilities) {
  Record r;
  r.index = index;
  r.id = "case-" + std::to_string(index);
  r.stage = "screening";
  r.modality = index % 2 ? "mri" : "ultrasound";
  r.task = "closed_vqa";
  r.template_id = template_id;
  r.question = "<image>Is there a mass?";
  r.options = {"yes", "no"};
  r.reference = reference;
  r.prediction = prediction;
  r.option_probabilities = std::move(probabilities);
  r.reference_option = reference == "yes" ? 0 : 1;
  r.stopped = 1;
  r.mean_logprob = -0.25;
  return r;
}

Record text_item(int64_t index, const std::string& task, const std::string& reference, const std::string& prediction) {
  Record r = closed_item(index, task + ".1", reference, prediction, {});
  r.task = task;
  r.options.clear();
  r.reference_option = -1;
  return r;
}

// Eight answered items and a skipped one.
std::vector<Record> small_benchmark() {
  std::vector<Record> all = {closed_item(0, "us.mass", "yes", "Yes.", {0.9, 0.1}), closed_item(1, "us.mass", "yes", "no", {0.55, 0.45}), closed_item(2, "us.mass", "no", "no", {0.75, 0.25}),
                             closed_item(3, "us.node", "no", "No", {0.125, 0.875}), text_item(4, "caption", "Mass of 12 mm, left. BI-RADS 4.", "A mass of 1.3 cm, right. BI-RADS 4"),
                             text_item(5, "report", "benign", "Benign, left"), text_item(6, "grounding", "mass", "<|box_start|>(0,0),(10,10)<|box_end|>"), text_item(7, "grounding", "mass", "nothing")};
  all[6].boxes = {square(0, 10), square(50, 60)};
  all[6].reference_boxes = {square(0, 10)};
  all[7].reference_boxes = {square(0, 20)};
  all[7].stopped = 0;
  Record skipped = closed_item(8, "us.mass", "yes", "", {});
  skipped.skipped = "a.png: not found";
  all.push_back(skipped);
  return all;
}

BenchInfo small_info() {
  BenchInfo info;
  info.model_file = "demo.gguf";
  info.weights_sha256 = "ab";
  info.datasets = {{"bench.jsonl", "cd"}};
  info.items = 9;
  info.settings = {{"max tokens", "64"}};
  return info;
}

void expect_failure(const std::string& line, const std::string& part) {
  CAPTURE(line.substr(0, 200));
  CAPTURE(part);
  try {
    record_from_json(line, "p.jsonl: line 3");
    FAIL_CHECK("no error");
  } catch (const Failure& f) {
    CHECK(f.code == kFailed);
    CHECK_MESSAGE(f.message.starts_with("p.jsonl: line 3: "), f.message);
    CHECK_MESSAGE(f.message.find(part) != std::string::npos, f.message);
  }
}

}  // namespace

TEST_CASE("bench records: to a line and back") {
  Record r = small_benchmark()[6];
  r.option_probabilities = {1.0 / 3, 2.0 / 3};
  r.options = {"a\n\"b\"", "\xC3\xA9"};
  r.reference_option = 1;
  r.boxes[0].dimensions = 3;
  r.boxes[0].high[2] = 7.25;
  r.boxes[1].medium = 2;
  r.mean_logprob = std::numeric_limits<double>::quiet_NaN();
  r.prediction = "bad \xFF byte";
  const std::string line = to_line(r);
  CHECK(line.find('\n') == std::string::npos);
  const Record back = record_from_json(line, "x");
  CHECK(to_line(back) == line);
  CHECK(back.prediction == "bad \xEF\xBF\xBD byte");
  CHECK(back.option_probabilities == r.option_probabilities);
  CHECK(std::isnan(back.mean_logprob));
  CHECK(back.boxes[0].dimensions == 3);
  CHECK(back.boxes[0].high[2] == 7.25);
  CHECK(back.boxes[1].medium == 2);
}

TEST_CASE("bench records: what is no record") {
  const std::string good = to_line(small_benchmark()[6]);
  const auto with = [&](const std::string& key, const Json& value) {
    Json j = Json::parse(good);
    j[key] = value;
    return j.dump();
  };
  expect_failure("", "not valid JSON");
  expect_failure(good.substr(0, good.size() / 2), "not valid JSON");
  expect_failure("[]", "expected a JSON object");
  expect_failure("{}", "\"index\" is missing");
  expect_failure(with("index", -1), "\"index\" must be a whole number");
  expect_failure(with("index", UINT64_MAX), "\"index\" must be a whole number");
  expect_failure(with("index", 1.5), "\"index\" must be a whole number");
  expect_failure(with("id", 7), "\"id\" must be a text");
  expect_failure(with("prediction", std::string(kMostRecordText + 1, 'x')), "\"prediction\" is longer than");
  expect_failure(with("options", "a"), "\"options\" must be a list");
  expect_failure(with("options", {1}), "\"options\" must be a text");
  expect_failure(with("option_probabilities", {0.5, 0.5}), "one per option");
  expect_failure(with("option_probabilities", {1.5}), "0 … 1");
  expect_failure(with("option_probabilities", {nullptr}), "finite numbers");
  expect_failure(with("reference_option", 0), "\"reference_option\" must be a whole number from -1 to -1");
  expect_failure(with("stopped", 2), "\"stopped\" must be");
  expect_failure(with("mean_logprob", "x"), "\"mean_logprob\" must hold finite numbers");
  expect_failure(with("boxes", {1}), "\"boxes\": expected a JSON object");
  const auto box = [&](const Json& corners) { return with("boxes", Json::array({{{"label", ""}, {"medium", 0}, {"box", corners}}})); };
  expect_failure(box({1, 2, 3}), "4 or 6 numbers");
  expect_failure(box({1, 2, 3, "4"}), "finite numbers");
  expect_failure(box({5, 2, 3, 4}), "low corner, high corner");
  expect_failure(box({1, 2, 3, 1e300}), "within ±1e9");
  expect_failure(std::string(100, '['), "nested deeper");
}

TEST_CASE("bench scores: counted by hand") {
  const BenchScores b = score_bench(small_benchmark());
  CHECK(b.skipped == 1);
  const Scores &m = b.overall.model, &base = b.overall.majority;
  CHECK(m.items == 8);
  CHECK(m.cut_off == 1);
  CHECK((m.closed.k == 3 && m.closed.n == 4));
  CHECK((m.option.k == 3 && m.option.n == 4));  // items 0, 1 and 3
  CHECK((base.closed.k == 3 && base.closed.n == 4));  // us.mass: yes
  CHECK(base.option.n == 0);
  // Boxes: 10×10 found exactly with one too many, the 20×20 not at all. Median of (0 … 10) and (0 … 20): 0 … 15.
  CHECK(m.iou.value() == 0.5);
  CHECK((m.iou_half.k == 1 && m.iou_half.n == 2));
  CHECK((m.parse_failures.k == 1 && m.parse_failures.n == 2));
  CHECK(m.extra_boxes == 1);
  CHECK(base.iou.value() == doctest::Approx((100.0 / 225 + 225.0 / 400) / 2));
  CHECK(base.parse_failures.k == 0);
  // Texts: caption and report. 12 mm against 13 mm agrees, left against right does not, BI-RADS does.
  CHECK(m.rouge_l.n == 2);
  CHECK((m.fields[kSize].agreed.k == 1 && m.fields[kSize].agreed.n == 1));
  CHECK(m.fields[kSize].size_error.value() == doctest::Approx(1));
  CHECK((m.fields[kLaterality].agreed.k == 0 && m.fields[kLaterality].agreed.n == 1 && m.fields[kLaterality].unasked == 1));
  CHECK((m.fields[kBirads].agreed.k == 1 && m.fields[kAssessment].agreed.k == 1));
  CHECK(base.rouge_l.value() == 1);  // one item per template: the baseline is its own reference
  // us.mass 2 of 3, us.node 1 of 1.
  const Averages a = averages(b, false, [](const Scores& s, double& x) { return s.closed.n > 0 && (x = s.closed.value(), true); });
  CHECK(a.micro == 0.75);
  CHECK(a.templates == 2);
  CHECK(a.macro_templates == doctest::Approx((2.0 / 3 + 1) / 2));
  CHECK(a.tasks == 1);
  CHECK(a.macro_tasks == 0.75);
  CHECK(b.by[kTask].size() == 4);
  CHECK(b.by[kVendor].empty());
  CHECK(b.by[kModality].at("ultrasound").model.closed.n == 2);
}

TEST_CASE("bench scores: the majority answer") {
  std::vector<Record> all = {text_item(0, "caption", "b", ""), text_item(1, "caption", "a", ""), text_item(2, "open_vqa", "x", ""), text_item(3, "open_vqa", "y", ""), text_item(4, "open_vqa", "y", "")};
  all[2].template_id = all[3].template_id = all[4].template_id = "";
  all[2].question = "<image>Why?";
  all[3].question = "Why? <video>";
  all[4].question = "How?";
  all[0].boxes = {square(1, 2)};
  for (int i : {0, 1}) all[size_t(i)].reference_boxes = {square(0, 10 + 10 * i)};
  all[1].reference_boxes.push_back(square(5, 6, "node"));
  const std::vector<Record> m = majority_answers(all);
  CHECK(m[0].prediction == "a");  // a tie: the smallest text
  CHECK(m[2].prediction == "x");  // the same question, markers left out
  CHECK(m[3].prediction == "x");
  CHECK(m[4].prediction == "y");
  REQUIRE(m[0].boxes.size() == 2);  // node: in half of the items
  CHECK(m[0].boxes[0].high[0] == 15);
  CHECK(m[0].boxes[1].label == "node");
  CHECK(m[2].boxes.empty());
}

TEST_CASE("bench scores: tasks that are not ours, and no box due") {
  Record r = closed_item(0, "", "yes", "yes", {});
  r.task = "";
  CHECK(is_closed(r));
  r.options.clear();
  r.reference_option = -1;
  CHECK(is_text(r));
  r.task = "grounding";
  r.prediction = "none";
  const Scores s = score_item(r);
  CHECK((s.no_box_due.k == 1 && s.no_box_due.n == 1 && s.parse_failures.n == 0 && s.rouge_l.n == 0));
  std::vector<Record> twice = {r, r};
  try {
    score_bench(twice);
    FAIL("no error");
  } catch (const Failure& f) {
    CHECK(f.message.find("two records have the index 0") != std::string::npos);
  }
}

TEST_CASE("bench report: the same bytes from any order; every number is there") {
  TempDir one, two;
  std::vector<Record> records = small_benchmark();
  write_report(one.path.string(), small_info(), records);
  std::reverse(records.begin(), records.end());
  write_report(two.path.string(), small_info(), records);
  for (const char* name : {"report.json", "report.md", "report.html"}) {
    CAPTURE(name);
    CHECK(!read_file(one.file(name)).empty());
    CHECK(read_file(one.file(name)) == read_file(two.file(name)));
  }
  CHECK(std::distance(std::filesystem::directory_iterator(one.path), std::filesystem::directory_iterator()) == 3);
  const Json j = Json::parse(read_file(one.file("report.json")));
  CHECK(j["items"] == Json({{"benchmark", 9}, {"answered", 8}, {"skipped", 1}}));
  const Json& overall = j["overall"]["model"];
  CHECK(overall["closed_accuracy"] == Json({{"k", 3}, {"n", 4}, {"value", 0.75}, {"wilson95", {0.300641843, 0.954412739}}}));
  CHECK(overall["mean_iou_boxes"] == Json({{"n", 2}, {"value", 0.5}}));
  CHECK(overall["fields"]["laterality"]["stated_by_answer_only"] == 1);
  CHECK(j["macro"]["model"]["closed_accuracy"]["over_templates"] == Json({{"templates", 2}, {"value", 0.833333333}}));
  CHECK(j["by"]["modality"]["mri"]["majority"]["closed_accuracy"]["n"] == 2);
  CHECK(j["by"].contains("vendor") == false);
  CHECK(j["skipped"][0]["why"] == "a.png: not found");
  CHECK(j["calibration"]["bins"].size() == 10);
  const std::string md = read_file(one.file("report.md"));
  CHECK(md.find("| closed\\_vqa | closed accuracy | 4 | 3/4 0.7500 | \\[0.3006, 0.9544\\] | 3/4 0.7500 | \\[0.3006, 0.9544\\] |") != std::string::npos);
  CHECK(md.find("## By template") != std::string::npos);
  CHECK(md.find("## By vendor") == std::string::npos);
  const std::string summary = summary_text(small_info(), records);
  CHECK(summary.find("8 of 9 items answered, 1 skipped\n") == 0);
  CHECK(summary.find("closed_vqa  closed accuracy") != std::string::npos);
}

TEST_CASE("bench report: hostile text stays text") {
  const std::string evil = "<script>alert(1)</script>\"'&<img src=x onerror=y>\n| [x](javascript:z) `\x1b[31m\x01";
  Record r = text_item(0, "caption", "reference " + evil, "prediction " + evil + "\xFF");
  r.id = r.stage = r.modality = r.template_id = r.vendor = r.density = evil;
  Record other = closed_item(1, evil, "yes", evil, {0.5, 0.5});
  other.vendor = "A";
  Record skipped = closed_item(2, "t", "yes", "", {});
  skipped.id = skipped.skipped = evil;
  BenchInfo info = small_info();
  info.model_file = info.selector = evil;
  info.datasets = {{evil, evil}};
  info.settings = {{evil, evil}};
  TempDir folder;
  write_report(folder.path.string(), info, {r, other, skipped});
  const std::string html = read_file(folder.file("report.html")), md = read_file(folder.file("report.md"));
  for (const std::string& text : {html, md}) {
    CHECK(text.find("<script") == std::string::npos);
    CHECK(text.find("<img") == std::string::npos);
    CHECK(text.find('\x1b') == std::string::npos);
    CHECK(text.find("&lt;script") != std::string::npos);
  }
  CHECK(md.find("[x](") == std::string::npos);
  for (size_t at = 0; (at = md.find("](", at)) != std::string::npos; ++at) CHECK(md[at - 1] == '\\');
  CHECK(html.find("http-equiv=\"Content-Security-Policy\"") != std::string::npos);
  CHECK(Json::accept(read_file(folder.file("report.json"))));
  const std::string summary = summary_text(info, {r, other, skipped});
  CHECK(summary.find('\x1b') == std::string::npos);
}

TEST_CASE("bench report: nothing answered, and a folder that is not there") {
  TempDir folder;
  write_report(folder.path.string(), small_info(), {});
  CHECK(Json::parse(read_file(folder.file("report.json")))["overall"]["model"]["items"] == 0);
  CHECK_THROWS_AS(write_report(folder.file("none"), small_info(), {}), bg::Error);
}
