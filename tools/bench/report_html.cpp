// report.html: plots, tables, worst cases, in one file that loads nothing and runs nothing (a content policy says so to the browser as well).
#include <algorithm>
#include <cmath>

#include "tools/bench/plots.h"
#include "tools/bench/report_tables.h"

namespace tool {
namespace {

const char* const kHead = R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Benchmark report</title>
<style>
body { font: 14px/1.45 sans-serif; color: #1e293b; margin: 2em auto; max-width: 1200px; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin: 2em 0 .3em; }
p { margin: .3em 0 .6em; color: #475569; max-width: 60em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #e2e8f0; padding: .25em .7em; text-align: left; vertical-align: top; }
th { background: #f8fafc; font-weight: 600; }
.numbers td { white-space: nowrap; }
.plots { display: flex; flex-wrap: wrap; gap: 1em 2em; }
figure { margin: 1em 0; } figcaption { font-weight: 600; }
svg { max-width: 100%; height: auto; }
</style>
</head>
<body>
<h1>Benchmark report</h1>
<p>Shares are k/n with the Wilson score interval at 95 %. Research software: not a medical device.</p>
)";

std::string figure(const std::string& caption, const std::string& svg) { return "<figure><figcaption>" + html_escaped(caption) + "</figcaption>\n" + svg + "</figure>\n"; }

std::string table(const Table& t, const char* kind) {
  std::string out = "<h2>" + html_escaped(t.title) + "</h2>\n";
  if (!t.note.empty()) out += "<p>" + html_escaped(t.note) + "</p>\n";
  const auto row = [&](const std::vector<std::string>& cells, const std::string& tag) {
    out += "<tr>";
    for (const std::string& c : cells) out += "<" + tag + ">" + html_escaped(c) + "</" + tag + ">";
    out += "</tr>\n";
  };
  out += std::string("<div class=\"wide\"><table class=\"") + kind + "\">\n";
  row(t.header, "th");
  for (const std::vector<std::string>& r : t.rows) row(r, "td");
  return out + "</table></div>\n";
}

// One section per axis with more than one group that has the quantity.
std::string group_bars(const BenchScores& bench, const char* key, const std::string& caption) {
  const auto& list = quantities();
  const Quantity& q = *std::find_if(list.begin(), list.end(), [&](const Quantity& x) { return std::string(x.key) == key; });
  std::vector<BarSection> sections = {{"", {}}};
  const auto add = [&](BarSection& section, const std::string& name, const Group& group) {
    const Value m = q.of(group.model), b = q.of(group.majority);
    if (m.n == 0) return;
    section.bars.push_back({name, m.value, m.share ? m.share->low() : -1, m.share ? m.share->high() : -1, b.n > 0 ? b.value : -1, m.n});
  };
  add(sections[0], "all items", bench.overall);
  if (sections[0].bars.empty()) return "";
  for (int axis : {kStage, kModality, kTask, kVendor, kDensityAxis, kTemplate}) {  // the longest list last
    BarSection section{std::string("by ") + axis_name(axis), {}};
    for (const auto& [name, group] : bench.by[axis]) add(section, name, group);
    if (section.bars.size() > 1) sections.push_back(section);
  }
  return figure(caption, bars_svg(sections));
}

// The ten with the smallest `value` among those that have one; on a tie the first in the benchmark.
template <class F>
Table worst(const BenchScores& bench, const std::string& title, const std::string& note, const F& value) {
  std::vector<std::pair<double, const Record*>> found;
  for (const Record& r : bench.records)
    if (double v = 0; r.skipped.empty() && value(r, v)) found.emplace_back(v, &r);
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  found.resize(std::min<size_t>(found.size(), 10));
  Table t{title, note, {"item", "template", "question", "reference", "answer", "value"}, {}};
  for (const auto& [v, r] : found) t.rows.push_back({r->id, r->template_id, cut(r->question, 300), cut(r->reference, 300), cut(r->prediction, 300), fixed(v)});
  return t;
}

std::vector<Table> worst_cases(const BenchScores& bench) {
  return {worst(bench, "Wrong closed answers, surest first", "Value: mean log probability of the answer's tokens, turned round.",
                [](const Record& r, double& v) {
                  v = -r.mean_logprob;
                  return std::isfinite(v) && is_closed(r) && !closed_equal(r.prediction, r.reference, r.options, r.question);
                }),
          worst(bench, "Worst boxes", "Value: mean IoU of the item's reference boxes.",
                [](const Record& r, double& v) {
                  for (double x : paired_iou(r.reference_boxes, r.boxes)) v += x / double(r.reference_boxes.size());
                  return !r.reference_boxes.empty();
                }),
          worst(bench, "Worst texts", "Value: ROUGE-L F1, boxes left out.",
                [](const Record& r, double& v) { return is_text(r) && (v = rouge_l(without_boxes(r.reference), without_boxes(r.prediction)), true); })};
}

}  // namespace

std::string report_html(const BenchScores& bench, const std::vector<Table>& tables) {
  std::string out = kHead;
  for (size_t i = 0; i < std::min<size_t>(tables.size(), 2); ++i) out += table(tables[i], "numbers");
  out += "<h2>Plots</h2>\n<p>Bars: the model, with 95 % intervals where the quantity is a share. Orange mark: the majority answer.</p>\n";
  out += group_bars(bench, "closed_accuracy", "Closed accuracy");
  out += group_bars(bench, "iou_at_half", "IoU ≥ 0.5 (boxes)");
  out += group_bars(bench, "rouge_l", "ROUGE-L F1");
  out += "<div class=\"plots\">\n";
  if (!bench.overall.model.certain.empty()) {
    out += figure("Reliability of option probabilities", reliability_svg(calibrate(bench.overall.model.certain)));
    out += figure("Abstention: accuracy over coverage", abstention_svg(abstain(bench.overall.model.certain)));
  }
  std::vector<double> iou;
  for (const Record& r : bench.records)
    if (r.skipped.empty())
      for (double x : paired_iou(r.reference_boxes, r.boxes)) iou.push_back(x);
  if (!iou.empty()) out += figure("IoU of reference boxes", histogram_svg(iou, "IoU"));
  out += "</div>\n";
  for (size_t i = 2; i < tables.size(); ++i) out += table(tables[i], "numbers");
  for (const Table& t : worst_cases(bench))
    if (!t.rows.empty()) out += table(t, "cases");
  return out + "</body>\n</html>\n";
}

}  // namespace tool
