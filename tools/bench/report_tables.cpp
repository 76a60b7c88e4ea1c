#include "tools/bench/report_tables.h"

#include <algorithm>
#include <cstdio>

namespace tool {
namespace {

Value of_share(const Share& s) { return s.n > 0 ? Value{s.n, s.value(), s} : Value{}; }
Value of_mean(const Mean& m) { return m.n > 0 ? Value{m.n, m.value(), {}} : Value{}; }
template <class F>
Value of_certain(const Scores& s, F f) {
  return s.certain.empty() ? Value{} : Value{int64_t(s.certain.size()), f(s.certain), {}};
}

const std::string kDash = "–";

std::string interval(const Share& s) { return "[" + fixed(s.low()) + ", " + fixed(s.high()) + "]"; }
std::string number(const Value& v) {
  if (v.n == 0) return kDash;
  return (v.share ? std::to_string(v.share->k) + "/" + std::to_string(v.n) + " " : "") + fixed(v.value);
}
std::string named(const std::string& group) { return group.empty() ? "(not known)" : group; }

Table run_table(const BenchInfo& info, const BenchScores& bench) {
  Table t{"Run", "", {"what", "value"}, {}};
  t.rows = {{"model file", info.model_file}, {"sha256 of the weights", info.weights_sha256}, {"model type", info.model_type}, {"selector", info.selector},
            {"weight type", info.weight_type}};
  for (const auto& [name, sha] : info.datasets) t.rows.push_back({"benchmark file", name + " (sha256 " + sha + ")"});
  for (const auto& [name, value] : info.settings) t.rows.push_back({name, value});
  t.rows.push_back({"items in the benchmark", std::to_string(info.items)});
  t.rows.push_back({"answered", std::to_string(bench.overall.model.items)});
  t.rows.push_back({"skipped", std::to_string(bench.skipped)});
  t.rows.push_back({"not reached", std::to_string(info.items - int64_t(bench.records.size()))});
  t.rows.push_back({"answers cut off before their end", std::to_string(bench.overall.model.cut_off)});
  return t;
}

Table averages_table(const BenchScores& bench) {
  Table t{"All averages", "Micro: over all items (boxes, where the name says so). Macro: the mean over templates, or over tasks, of each one's own value; in brackets how many have one.",
          {"quantity", "n", "micro", "macro over templates", "macro over tasks", "majority micro", "majority macro over templates", "majority macro over tasks"}, {}};
  for (const Quantity& q : quantities()) {
    const Value v = q.of(bench.overall.model);
    if (v.n == 0) continue;
    std::vector<std::string> row = {q.name, std::to_string(v.n), number(v)};
    for (bool majority : {false, true}) {
      const auto value = [&](const Scores& s, double& x) { const Value y = q.of(s); x = y.value; return y.n > 0; };
      const Averages a = averages(bench, majority, value);
      if (majority) row.push_back(number(q.of(bench.overall.majority)));
      row.push_back(a.templates > 0 ? fixed(a.macro_templates) + " (" + std::to_string(a.templates) + ")" : kDash);
      row.push_back(a.tasks > 0 ? fixed(a.macro_tasks) + " (" + std::to_string(a.tasks) + ")" : kDash);
    }
    t.rows.push_back(row);
  }
  return t;
}

Table fields_table(const BenchScores& bench) {
  Table t{"Field agreement", "Values found in answer and reference by fixed rules. n: items whose reference states the field; sizes agree within 1 mm.",
          {"field", "agreed k/n", "95 % interval", "majority k/n", "stated by the reference only", "stated by the answer only", "mean size error, mm (n)"}, {}};
  for (int f = 0; f < kFields; ++f) {
    const FieldScore &m = bench.overall.model.fields[f], &b = bench.overall.majority.fields[f];
    if (m.agreed.n == 0 && m.unasked == 0) continue;
    t.rows.push_back({field_name(f), number(of_share(m.agreed)), m.agreed.n > 0 ? interval(m.agreed) : kDash, number(of_share(b.agreed)), std::to_string(m.missing),
                      std::to_string(m.unasked), m.size_error.n > 0 ? fixed(m.size_error.value()) + " (" + std::to_string(m.size_error.n) + ")" : kDash});
  }
  return t;
}

Table calibration_table(const std::vector<Certainty>& certain) {
  const Calibration c = calibrate(certain);
  Table t{"Calibration of closed answers",
          "Confidence: the largest option probability. ECE " + fixed(c.ece) + ", Brier score (sum over options, 0 … 2) " + fixed(c.brier) + ", n " + std::to_string(certain.size()) + ".",
          {"confidence", "n", "mean confidence", "accuracy k/n", "95 % interval"}, {}};
  for (int i = 0; i < kBins; ++i) {
    const Bin& b = c.bins[size_t(i)];
    if (b.n == 0) continue;
    const Share s{b.correct, b.n};
    t.rows.push_back({(i == 0 ? "[" : "(") + fixed(i / 10.0, 1) + ", " + fixed((i + 1) / 10.0, 1) + "]", std::to_string(b.n),
                      fixed(b.confidence_sum / double(b.n)), number(of_share(s)), interval(s)});
  }
  return t;
}

Table abstention_table(const std::vector<Certainty>& certain) {
  const Abstention a = abstain(certain);
  Table t{"Abstention",
          "Only the surest closed items answered, by the margin between the two most probable options. Area under the risk–coverage curve " + fixed(a.aurc) + ".",
          {"coverage", "items", "accuracy"}, {}};
  for (size_t tenth = 1; tenth <= 10; ++tenth) {
    const size_t n = (a.accuracy.size() * tenth + 9) / 10;
    t.rows.push_back({std::to_string(tenth * 10) + " %", std::to_string(n), fixed(a.accuracy[n - 1])});
  }
  return t;
}

// Columns that are empty in every group are left out.
Table axis_table(const BenchScores& bench, int axis) {
  Table t{std::string("By ") + axis_name(axis), "Maj.: the majority answer.", {axis_name(axis), "items"}, {}};
  for (const auto& [name, group] : bench.by[axis]) t.rows.push_back({named(name), std::to_string(group.model.items)});
  for (const Quantity& q : quantities()) {
    for (bool majority : {false, true}) {
      std::vector<std::string> column;
      bool any = false;
      for (const auto& [name, group] : bench.by[axis]) {
        const Value v = q.of(majority ? group.majority : group.model);
        any = any || q.of(group.model).n > 0;
        column.push_back(v.share && !majority ? shown_share(*v.share) : number(v));
      }
      if (!any || (majority && std::all_of(column.begin(), column.end(), [](const std::string& c) { return c == kDash; }))) continue;
      t.header.push_back((majority ? "maj. " : "") + std::string(q.name));
      for (size_t i = 0; i < column.size(); ++i) t.rows[i].push_back(column[i]);
    }
  }
  return t;
}

}  // namespace

const std::vector<Quantity>& quantities() {
  static const std::vector<Quantity> list = {
      {"closed_accuracy", "closed accuracy", [](const Scores& s) { return of_share(s.closed); }, true},
      {"option_likelihood_accuracy", "option-likelihood accuracy", [](const Scores& s) { return of_share(s.option); }, true},
      {"ece", "ECE", [](const Scores& s) { return of_certain(s, [](const auto& c) { return calibrate(c).ece; }); }},
      {"brier", "Brier score", [](const Scores& s) { return of_certain(s, [](const auto& c) { return calibrate(c).brier; }); }},
      {"aurc", "AURC", [](const Scores& s) { return of_certain(s, [](const auto& c) { return abstain(c).aurc; }); }},
      {"mean_iou_boxes", "mean IoU (boxes)", [](const Scores& s) { return of_mean(s.iou); }, true},
      {"mean_iou_boxes_2d", "mean IoU (2-D boxes)", [](const Scores& s) { return of_mean(s.iou_2d); }},
      {"mean_iou_boxes_3d", "mean IoU (3-D boxes)", [](const Scores& s) { return of_mean(s.iou_3d); }},
      {"mean_iou_items", "mean IoU (items)", [](const Scores& s) { return of_mean(s.iou_items); }},
      {"iou_at_half", "IoU ≥ 0.5 (boxes)", [](const Scores& s) { return of_share(s.iou_half); }, true},
      {"iou_at_half_2d", "IoU ≥ 0.5 (2-D boxes)", [](const Scores& s) { return of_share(s.iou_half_2d); }},
      {"iou_at_half_3d", "IoU ≥ 0.5 (3-D boxes)", [](const Scores& s) { return of_share(s.iou_half_3d); }},
      {"parse_failures", "no box found (items)", [](const Scores& s) { return of_share(s.parse_failures); }, true},
      {"no_box_where_none_due", "no box drawn where none is due (items)", [](const Scores& s) { return of_share(s.no_box_due); }},
      {"exact_match", "exact match", [](const Scores& s) { return of_share(s.exact); }},
      {"rouge_l", "ROUGE-L F1", [](const Scores& s) { return of_mean(s.rouge_l); }, true},
      {"token_f1", "token F1", [](const Scores& s) { return of_mean(s.token_f1); }, true},
      {"bleu4_corpus", "corpus BLEU-4 (0–100)", [](const Scores& s) { return s.rouge_l.n > 0 ? Value{s.rouge_l.n, bleu(s.bleu, false), {}} : Value{}; }, true},
      {"bleu4_sentence_mean", "mean sentence BLEU-4 (0–100)", [](const Scores& s) { return of_mean(s.sentence_bleu); }},
  };
  return list;
}

std::string fixed(double x, int digits) {
  char out[64];
  std::snprintf(out, sizeof out, "%.*f", digits, x);
  const std::string s = out;
  return s[0] == '-' && s.find_first_not_of("-0.") == std::string::npos ? s.substr(1) : s;
}

std::string shown_share(const Share& s) { return number(of_share(s)) + " " + interval(s); }

std::string cut(const std::string& text, size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (uint8_t(text[most]) & 0xC0) == 0x80) --most;
  return text.substr(0, most) + "…";
}

Table task_table(const BenchScores& bench, bool short_list) {
  Table t{"Model and majority answer, by task", "The majority answer is, for each template, the most frequent reference of this benchmark (for boxes: the median box).",
          {"task", "quantity", "n", "model", "95 % interval", "majority", "95 % interval"}, {}};
  for (const auto& [name, group] : bench.by[kTask]) {
    for (const Quantity& q : quantities()) {
      const Value m = q.of(group.model), b = q.of(group.majority);
      if (m.n > 0 && (q.short_list || !short_list))
        t.rows.push_back({named(name), q.name, std::to_string(m.n), number(m), m.share ? interval(*m.share) : kDash, number(b), b.share ? interval(*b.share) : kDash});
    }
  }
  return t;
}

std::vector<Table> report_tables(const BenchInfo& info, const BenchScores& bench) {
  std::vector<Table> tables = {run_table(info, bench), task_table(bench, false), averages_table(bench), fields_table(bench)};
  if (!bench.overall.model.certain.empty()) {
    tables.push_back(calibration_table(bench.overall.model.certain));
    tables.push_back(abstention_table(bench.overall.model.certain));
  }
  for (int axis = 0; axis < kAxes; ++axis)
    if (!bench.by[axis].empty()) tables.push_back(axis_table(bench, axis));
  Table skipped{"Skipped items", "Not answered, in no score.", {"index", "id", "why"}, {}};
  for (const Record& r : bench.records)
    if (!r.skipped.empty()) skipped.rows.push_back({std::to_string(r.index), r.id, cut(r.skipped, 500)});
  tables.push_back(skipped);
  tables.erase(std::remove_if(tables.begin(), tables.end(), [](const Table& t) { return t.rows.empty(); }), tables.end());
  return tables;
}

}  // namespace tool
