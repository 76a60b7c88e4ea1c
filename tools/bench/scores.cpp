#include "tools/bench/scores.h"

#include <algorithm>

#include "tools/options.h"

namespace tool {
namespace {

bool due_a_box(const Record& r) { return !r.reference_boxes.empty() || r.task == "grounding"; }

void add_boxes(Scores& s, const Record& r) {
  s.extra_boxes += std::max<int64_t>(0, int64_t(r.boxes.size()) - int64_t(r.reference_boxes.size()));
  if (r.reference_boxes.empty()) {
    s.no_box_due.add(r.boxes.empty());
    return;
  }
  s.parse_failures.add(r.boxes.empty());
  const std::vector<double> iou = paired_iou(r.reference_boxes, r.boxes);
  Mean item;
  for (size_t i = 0; i < iou.size(); ++i) {
    const bool flat = r.reference_boxes[i].dimensions == 2, hit = iou[i] >= 0.5;
    item.add(iou[i]);
    s.iou.add(iou[i]);
    (flat ? s.iou_2d : s.iou_3d).add(iou[i]);
    s.iou_half.add(hit);
    (flat ? s.iou_half_2d : s.iou_half_3d).add(hit);
  }
  s.iou_items.add(item.value());
}

void add_text(Scores& s, const Record& r) {
  const std::string reference = without_boxes(r.reference), prediction = without_boxes(r.prediction);
  const BleuCounts counts = bleu_counts(reference, prediction);
  s.exact.add(exact_match(reference, prediction));
  s.rouge_l.add(rouge_l(reference, prediction));
  s.token_f1.add(token_f1(reference, prediction));
  s.sentence_bleu.add(bleu(counts, true));
  s.bleu += counts;
  const FieldValues a = find_fields(reference, r.question), b = find_fields(prediction, r.question);
  for (int f = 0; f < kFields; ++f) {
    const bool asked = !a.stated[f].empty(), given = !b.stated[f].empty();
    if (asked) s.fields[f].agreed.add(given && fields_agree(f, a, b));
    s.fields[f].missing += asked && !given;
    s.fields[f].unasked += given && !asked;
    if (f == kSize && asked && given) s.fields[f].size_error.add(std::abs(a.size_mm - b.size_mm));
  }
}

// The question with the markers of media and white space at its ends left out: the same for every case.
std::string bare_question(std::string text) {
  for (const char* marker : {"<image>", "<video>", "<volume>", "<slide>"}) text = replaced(text, marker, "");
  const size_t first = text.find_first_not_of(" \t\r\n");
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") + 1 - first);
}

struct Ballot {
  int64_t items = 0;
  std::map<std::string, int64_t> answers;
  std::map<std::pair<std::string, int>, std::vector<RecordBox>> boxes;  // by name and dimension
  std::map<std::pair<std::string, int>, int64_t> items_with;
};

}  // namespace

bool is_closed(const Record& r) {
  static const char* others[] = {"open_vqa", "grounding", "grounded_caption", "caption", "report"};
  const bool other = std::any_of(std::begin(others), std::end(others), [&](const char* t) { return r.task == t; });
  return r.task == "closed_vqa" || (!other && !r.options.empty());
}

bool is_text(const Record& r) { return !is_closed(r) && r.task != "grounding"; }

Scores score_item(const Record& r) {
  Scores s;
  s.items = 1;
  s.cut_off = r.stopped == 0;
  if (is_closed(r)) {
    s.closed.add(closed_equal(r.prediction, r.reference, r.options, r.question));
    if (!r.option_probabilities.empty() && r.reference_option >= 0) {
      s.certain.push_back(certainty(r.option_probabilities, r.reference_option));
      s.option.add(s.certain.back().correct);
    }
  }
  if (due_a_box(r)) add_boxes(s, r);
  if (is_text(r)) add_text(s, r);
  return s;
}

Scores& Scores::operator+=(const Scores& o) {
  items += o.items, cut_off += o.cut_off;
  closed += o.closed, option += o.option;
  iou += o.iou, iou_2d += o.iou_2d, iou_3d += o.iou_3d, iou_items += o.iou_items;
  iou_half += o.iou_half, iou_half_2d += o.iou_half_2d, iou_half_3d += o.iou_half_3d;
  parse_failures += o.parse_failures, no_box_due += o.no_box_due, extra_boxes += o.extra_boxes;
  exact += o.exact, rouge_l += o.rouge_l, token_f1 += o.token_f1, sentence_bleu += o.sentence_bleu, bleu += o.bleu;
  for (int f = 0; f < kFields; ++f) {
    fields[f].agreed += o.fields[f].agreed;
    fields[f].missing += o.fields[f].missing, fields[f].unasked += o.fields[f].unasked;
    fields[f].size_error += o.fields[f].size_error;
  }
  certain.insert(certain.end(), o.certain.begin(), o.certain.end());
  return *this;
}

const char* axis_name(int axis) {
  static const char* names[kAxes] = {"stage", "modality", "task", "template", "vendor", "density"};
  return names[axis];
}

const std::string& axis_value(const Record& r, int axis) {
  const std::string* values[kAxes] = {&r.stage, &r.modality, &r.task, &r.template_id, &r.vendor, &r.density};
  return *values[axis];
}

std::vector<Record> majority_answers(const std::vector<Record>& records) {
  const auto key = [](const Record& r) { return std::pair(r.template_id, r.template_id.empty() ? bare_question(r.question) : ""); };
  std::map<std::pair<std::string, std::string>, Ballot> ballots;
  for (const Record& r : records) {
    Ballot& b = ballots[key(r)];
    ++b.items;
    ++b.answers[without_boxes(r.reference)];
    std::map<std::pair<std::string, int>, int64_t> here;
    for (const RecordBox& box : r.reference_boxes) {
      b.boxes[{box.label, box.dimensions}].push_back(box);
      here[{box.label, box.dimensions}] = 1;
    }
    for (const auto& [name, one] : here) b.items_with[name] += one;
  }
  struct Answer {
    std::string text;
    std::vector<RecordBox> boxes;
  };
  std::map<std::pair<std::string, std::string>, Answer> answers;
  for (const auto& [name, b] : ballots) {
    Answer& a = answers[name];
    // max_element keeps the first of equals, and the map is in order of the texts.
    a.text = std::max_element(b.answers.begin(), b.answers.end(), [](const auto& x, const auto& y) { return x.second < y.second; })->first;
    for (const auto& [box, all] : b.boxes)
      if (2 * b.items_with.at(box) >= b.items) a.boxes.push_back(median_box(all));
  }
  std::vector<Record> result = records;
  for (Record& r : result) {
    const Answer& a = answers.at(key(r));
    r.prediction = a.text;
    r.boxes = a.boxes;
    r.option_probabilities.clear();
    r.stopped = 1;
  }
  return result;
}

BenchScores score_bench(const std::vector<Record>& records) {
  BenchScores bench;
  // Through the text form: a report made from memory and one made from predictions.jsonl are the same bytes.
  for (const Record& r : records) bench.records.push_back(record_from_json(to_line(r), "record " + std::to_string(r.index)));
  std::sort(bench.records.begin(), bench.records.end(), [](const Record& a, const Record& b) { return a.index < b.index; });
  std::vector<Record> answered;
  for (size_t i = 0; i < bench.records.size(); ++i) {
    const Record& r = bench.records[i];
    if (i > 0 && r.index == bench.records[i - 1].index)
      throw Failure{kFailed, "two records have the index " + std::to_string(r.index) + " (ids " + bench.records[i - 1].id + " and " + r.id + "); keep one of them"};
    if (r.skipped.empty()) answered.push_back(r);
    else ++bench.skipped;
  }
  const std::vector<Record> majority = majority_answers(answered);
  bool known[kAxes] = {};
  for (const Record& r : answered)
    for (int axis = 0; axis < kAxes; ++axis) known[axis] = known[axis] || !axis_value(r, axis).empty();
  for (size_t i = 0; i < answered.size(); ++i) {
    const Scores model = score_item(answered[i]), baseline = score_item(majority[i]);
    const auto add = [&](Group& g) { g.model += model, g.majority += baseline; };
    add(bench.overall);
    for (int axis = 0; axis < kAxes; ++axis)
      if (known[axis]) add(bench.by[axis][axis_value(answered[i], axis)]);
  }
  return bench;
}

}  // namespace tool
