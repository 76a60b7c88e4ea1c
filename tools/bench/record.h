// One answered (or skipped) item of a benchmark: a line of predictions.jsonl. The runner writes it, the report is computed from it and from nothing
// else. Not here: reading benchmarks, running the model, metrics.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace tool {

// Most bytes of one text in a record: the comparison of two texts stays fast. The longest answers are a few kilobytes.
constexpr size_t kMostRecordText = 256 << 10;

struct RecordBox {
  std::string label;           // name before the box, or ""
  int dimensions = 2;          // 2 or 3
  double low[3] = {0, 0, 0};   // x, y, z: 0 … 1000 of the medium's size; kept as written when outside
  double high[3] = {0, 0, 0};  // low ≤ high; z of a 2-D box is 0
  int64_t medium = -1;         // index of what it lies on: images, then videos; −1: not known
};

struct Record {
  int64_t index = 0;                         // position in the benchmark, from 0
  std::string id, stage, modality, task;     // task: closed_vqa | open_vqa | grounding | grounded_caption | caption | report
  std::string template_id, vendor, density;  // "": not known
  std::string question;                      // the user text
  std::string reference, prediction;
  std::vector<std::string> options;          // closed questions: the possible answers
  std::vector<double> option_probabilities;  // of option-likelihood scoring, one per option; empty when there was none
  int64_t reference_option = -1;             // index of the correct option, −1: not known
  int stopped = 0;                           // 1: the model ended its answer, 0: it was cut off
  double mean_logprob = 0;                   // of the produced tokens; NaN when there are none (null in JSON)
  std::vector<RecordBox> boxes, reference_boxes;
  std::string skipped;                       // why it was not answered; "": answered. Skipped records are listed and counted, never scored
};

nlohmann::ordered_json to_json(const Record& record);
// One line of predictions.jsonl, without the line break. Bytes that are no UTF-8 become U+FFFD.
std::string to_line(const Record& record);
// Throws Failure{kFailed, where + ": " + what is wrong}; `where` names file and line.
Record record_from_json(const std::string& line, const std::string& where);

}  // namespace tool
