// The committed demo model (weights_convert/demo) on the held-out phantoms: PyTorch's answers, and the scores that were committed, for each weight type. A change of the runtime
// that spoils answers without breaking any tensor's tolerance ends here.
#include <doctest/doctest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/ops.h"
#include "tests/cli.h"

namespace {

using nlohmann::json;

const std::string kModel = "weights_convert/demo/breastgpt-demo.gguf";

// Under a sanitizer a part of the benchmark: the scores need all of it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool whole = false;
#else
constexpr bool whole = true;
#endif

// The relative error that every stage may have in float32 (README, Numbers), once for each side: two tokens closer than this are a near-tie.
constexpr double near_tie = 2 * 1e-5;

std::vector<json> lines_of(const std::string& path) {
  std::istringstream in(read_file(path));
  std::vector<json> all;
  for (std::string line; std::getline(in, line);) all.push_back(json::parse(line));
  return all;
}

// What is gated of a task, better when larger.
const char* const kScores[] = {"closed_accuracy", "option_likelihood_accuracy", "mean_iou_boxes", "mean_iou_boxes_2d", "mean_iou_boxes_3d", "iou_at_half",
                               "exact_match", "rouge_l", "token_f1"};

// The one that a task is judged by.
const std::map<std::string, std::string> kHeadline = {{"closed_vqa", "closed_accuracy"}, {"open_vqa", "rouge_l"}, {"grounding", "mean_iou_boxes"},
                                                      {"grounded_caption", "mean_iou_boxes"}, {"caption", "rouge_l"}, {"report", "rouge_l"}};

json committed(const std::string& name) { return json::parse(read_file(golden_path("phantoms/" + name))); }

// The whole benchmark, or what a sanitizer has time for, with more options.
void answer_all(const std::string& model, const std::string& out, const std::vector<std::string>& more) {
  std::vector<std::string> command = {"bench", "-m", model, golden_path("phantoms/bench.jsonl"), "-o", out, "--max-tokens", "160"};
  command.insert(command.end(), more.begin(), more.end());
  if (!whole) command.insert(command.end(), {"--limit", "40"});
  const CliResult run = breastgpt(command);
  REQUIRE_MESSAGE(run.code == 0, run.err);
}

void check_answers(const std::vector<json>& ours) {
  std::map<std::string, json> theirs;
  for (json& line : lines_of(golden_path("phantoms/answers-pytorch.jsonl"))) theirs[line["id"].get<std::string>()] = line;
  size_t equal = 0;
  for (const json& record : ours) {
    const std::string id = record["id"];
    REQUIRE_MESSAGE(theirs.count(id) == 1, id);
    const json& other = theirs[id];
    if (record["prediction"] == other["text"]) {
      ++equal;
      continue;
    }
    CHECK_MESSAGE(other["gap"].get<double>() <= near_tie, id, ": \"", record["prediction"].get<std::string>(), "\", PyTorch: \"",
                  other["text"].get<std::string>(), "\"");
  }
  MESSAGE(equal << " of " << ours.size() << " answers equal PyTorch's");
  CHECK(double(equal) >= 0.995 * double(ours.size()));
}

// Not below the committed score by more than one item: another instruction set may decide a near-tie otherwise.
void check_scores(const json& ours, const json& wanted) {
  REQUIRE(ours["items"] == wanted["items"]);
  for (const auto& [task, group] : wanted["by"]["task"].items()) {
    const json& found = ours["by"]["task"][task];
    for (const char* name : kScores) {
      if (!group["model"].contains(name)) continue;
      const double was = group["model"][name]["value"], is = found["model"][name]["value"], one = 1.0 / group["model"][name]["n"].get<double>();
      CHECK_MESSAGE(is >= was - one, task, " ", name, ": ", is, ", committed ", was);
    }
    const std::string headline = kHeadline.at(task);
    const double model = found["model"][headline]["value"], majority = found["majority"][headline]["value"];
    CHECK_MESSAGE(model > majority, task, " ", headline, ": ", model, ", majority answer ", majority);
    MESSAGE(task << ": " << headline << " " << model << ", majority answer " << majority);
  }
}

}  // namespace

TEST_CASE("demo model: in float32, held-out phantoms get PyTorch's answers and the committed scores") {
  const TempDir dir;
  answer_all(kModel, dir.file("out"), {"--precision", "float32"});
  const std::vector<json> ours = lines_of(dir.file("out/predictions.jsonl"));
  if (whole) REQUIRE(ours.size() == lines_of(golden_path("phantoms/answers-pytorch.jsonl")).size());
  check_answers(ours);
  if (whole) check_scores(json::parse(read_file(dir.file("out/report.json"))), committed("report.json"));
}

// A part: some thousand times slower than a GPU.
TEST_CASE("demo model: in float32, a GPU's kernels emulated give PyTorch's answers") {
  if (!whole) return;
  const TempDir dir;
  const CliResult run = breastgpt({"bench", "-m", kModel, golden_path("phantoms/bench.jsonl"), "-o", dir.file("out"), "--max-tokens", "160", "--limit", "15", "--precision", "float32", "--backend", "emulated"});
  REQUIRE_MESSAGE(run.code == 0, run.err);
  const std::vector<json> ours = lines_of(dir.file("out/predictions.jsonl"));
  CHECK(ours.size() == 15);
  check_answers(ours);
}

// The committed files are made by: tests/phantoms/reports.sh build/release
// With int8 activations and attention in floats every instruction set that fuses multiply and add gives the same bits, so one of them speaks for all; two round more to bf16.
#if defined(__aarch64__)
const std::string kInt8 = "cpu/neon";
#else
const std::string kInt8 = "cpu/avx2";
#endif

TEST_CASE("demo model: fast, BF16 and quantised, it keeps the committed scores of its type") {
  if (!whole) return;
  for (const std::string type : {"bf16", "q8_0", "q4_k_m"}) {
    CAPTURE(type);
    const TempDir dir;
    const CliResult converted = program("breastgpt-convert", {kModel, "-o", dir.file("demo.gguf"), "--type", type});
    REQUIRE_MESSAGE(converted.code == 0, converted.err);
    if (type != "bf16" && (bg::runs(bg::Isa::avx2) || bg::runs(bg::Isa::neon))) {  // BF16 is floats there, gated above
      answer_all(dir.file("demo.gguf"), dir.file("int8"), {"--backend", kInt8});
      check_scores(json::parse(read_file(dir.file("int8/report.json"))), committed("report-" + type + ".json"));
    }
    for (const bg::Isa isa : {bg::Isa::avx512bf16, bg::Isa::amx}) {
      const std::string name = bg::isa_name(isa);
      if (!bg::runs(isa)) {
        MESSAGE("this machine has no " << name << ": not tested");
        continue;
      }
      answer_all(dir.file("demo.gguf"), dir.file(name), {"--backend", "cpu/" + name});
      check_scores(json::parse(read_file(dir.file(name + "/report.json"))), committed("report-" + type + "-" + name + ".json"));
    }
  }
}

TEST_CASE("demo model: the file is whole and within its size") {
  const CliResult r = breastgpt({"verify", kModel});
  CHECK_MESSAGE(r.code == 0, r.err);
  CHECK(read_file(kModel).size() <= 12'000'000);
}
