// Every score of a benchmark, from its records: item by item, added up over all items and by stage, modality, task, template, vendor and density, for
// the model and for the majority answer. In: records. Out: numbers. Not here: how they are written down (report.h).
#pragma once
#include <map>
#include <string>
#include <vector>

#include "tools/bench/boxes_metrics.h"
#include "tools/bench/fields.h"
#include "tools/bench/metrics.h"
#include "tools/bench/record.h"
#include "tools/bench/text_metrics.h"

namespace tool {

// What an item is scored as. Closed: the task closed_vqa, or options given with a task that is none of ours. Text: every other task but grounding;
// boxes in the texts are left out before they are compared. Grounding: every item with reference boxes, and the task grounding without (no box is due).
bool is_closed(const Record& r);
bool is_text(const Record& r);

struct FieldScore {
  Share agreed;                       // n: the reference states the field
  int64_t missing = 0, unasked = 0;   // stated by the reference only (these do not agree), by the prediction only (not in n)
  Mean size_error;                    // mm, |difference|, where both state a size
};

// Sums over items. Every quantity has its own n: the items (or boxes) that it applies to.
struct Scores {
  int64_t items = 0, cut_off = 0;     // answered; of these: the answer was cut off
  Share closed;                       // closed_equal
  Share option;                       // the most probable option is the correct one
  Mean iou, iou_2d, iou_3d;           // over reference boxes
  Mean iou_items;                     // over items: the mean over the item's reference boxes
  Share iou_half, iou_half_2d, iou_half_3d;  // IoU ≥ 0.5, over reference boxes
  Share parse_failures;               // a box was due, none was found in the answer
  Share no_box_due;                   // grounding items without a reference box: none was drawn
  int64_t extra_boxes = 0;            // more boxes than the reference has
  Share exact;                        // text items, SQuAD normal form
  Mean rouge_l, token_f1, sentence_bleu;
  BleuCounts bleu;                    // corpus BLEU-4 over the same items
  FieldScore fields[kFields];
  std::vector<Certainty> certain;     // closed items with option probabilities and a known correct option

  Scores& operator+=(const Scores& other);
};
Scores score_item(const Record& record);

// A quantity that is averaged in three ways.
struct Averages {
  double micro = 0;                             // over items (boxes)
  double macro_templates = 0, macro_tasks = 0;  // mean over the templates (tasks) where the quantity exists
  int64_t templates = 0, tasks = 0;             // how many those are; 0: the quantity does not exist
};

enum Axis { kStage, kModality, kTask, kTemplate, kVendor, kDensityAxis, kAxes };
const char* axis_name(int axis);
const std::string& axis_value(const Record& r, int axis);

struct Group {
  Scores model, majority;
};
struct BenchScores {
  std::vector<Record> records;                  // in the order of the benchmark; as read back from predictions.jsonl
  int64_t skipped = 0;
  Group overall;
  std::map<std::string, Group> by[kAxes];       // a group "" (not known) only where others are known
};

// Throws Failure{kFailed} when two records have the same index or one could not stand in predictions.jsonl.
BenchScores score_bench(const std::vector<Record>& records);

// The baseline: for each template (without one: each question text, markers of media left out) the most frequent reference answer of this very benchmark,
// the smallest text on a tie; and for each name of a box that at least half of the template's items have, the median box. The answers are not taken
// from training data, so the baseline is a little better than a constant answer can be on new data.
std::vector<Record> majority_answers(const std::vector<Record>& records);

// `value` returns whether the quantity exists in the scores, and it.
template <class Value>
Averages averages(const BenchScores& bench, bool majority, const Value& value) {
  Averages a;
  const auto mean = [&](const std::map<std::string, Group>& groups, double& result, int64_t& n) {
    double sum = 0, x = 0;
    for (const auto& [name, group] : groups)
      if (value(majority ? group.majority : group.model, x)) sum += x, ++n;
    if (n > 0) result = sum / double(n);
  };
  value(majority ? bench.overall.majority : bench.overall.model, a.micro);
  mean(bench.by[kTemplate], a.macro_templates, a.templates);
  mean(bench.by[kTask], a.macro_tasks, a.tasks);
  return a;
}

}  // namespace tool
