// report.json: every number of the report, rounded to nine decimals so that the last bits of logarithms on another machine do not show.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "tools/bench/report_tables.h"

namespace tool {
namespace {

using Json = nlohmann::ordered_json;

double rounded(double x) { return std::strtod(fixed(x, 9).c_str(), nullptr); }

Json share_json(const Share& s) {
  Json j = {{"k", s.k}, {"n", s.n}};
  if (s.n > 0) j["value"] = rounded(s.value()), j["wilson95"] = {rounded(s.low()), rounded(s.high())};
  return j;
}

Json scores_json(const Scores& s) {
  Json j;
  j["items"] = s.items;
  j["cut_off"] = s.cut_off;
  j["extra_boxes"] = s.extra_boxes;
  for (const Quantity& q : quantities()) {
    const Value v = q.of(s);
    if (v.n > 0) j[q.key] = v.share ? share_json(*v.share) : Json{{"n", v.n}, {"value", rounded(v.value)}};
  }
  for (int f = 0; f < kFields; ++f) {
    const FieldScore& field = s.fields[f];
    if (field.agreed.n == 0 && field.unasked == 0) continue;
    Json one = {{"agreed", share_json(field.agreed)}, {"stated_by_reference_only", field.missing}, {"stated_by_answer_only", field.unasked}};
    if (field.size_error.n > 0) one["mean_size_error_mm"] = {{"n", field.size_error.n}, {"value", rounded(field.size_error.value())}};
    j["fields"][field_name(f)] = one;
  }
  return j;
}

Json macro_json(const BenchScores& bench, bool majority) {
  Json j = Json::object();
  for (const Quantity& q : quantities()) {
    const Averages a = averages(bench, majority, [&](const Scores& s, double& x) { const Value v = q.of(s); x = v.value; return v.n > 0; });
    if (a.templates > 0) j[q.key]["over_templates"] = {{"templates", a.templates}, {"value", rounded(a.macro_templates)}};
    if (a.tasks > 0) j[q.key]["over_tasks"] = {{"tasks", a.tasks}, {"value", rounded(a.macro_tasks)}};
  }
  return j;
}

Json calibration_json(const std::vector<Certainty>& certain) {
  const Calibration c = calibrate(certain);
  const Abstention a = abstain(certain);
  Json j;
  for (const Bin& b : c.bins) j["bins"].push_back({{"n", b.n}, {"correct", b.correct}, {"mean_confidence", b.n > 0 ? Json(rounded(b.confidence_sum / double(b.n))) : Json()}});
  for (double accuracy : a.accuracy) j["accuracy_of_the_surest"].push_back(rounded(accuracy));
  return j;
}

}  // namespace

std::string report_json(const BenchInfo& info, const BenchScores& bench) {
  Json j;
  j["model"] = {{"file", info.model_file}, {"weights_sha256", info.weights_sha256}, {"type", info.model_type}, {"selector", info.selector}, {"weight_type", info.weight_type}};
  j["datasets"] = Json::array();
  for (const auto& [name, sha] : info.datasets) j["datasets"].push_back({{"file", name}, {"sha256", sha}});
  j["settings"] = Json::array();
  for (const auto& [name, value] : info.settings) j["settings"].push_back({{"name", name}, {"value", value}});
  j["items"] = {{"benchmark", info.items}, {"answered", bench.overall.model.items}, {"skipped", bench.skipped}};
  j["overall"] = {{"model", scores_json(bench.overall.model)}, {"majority", scores_json(bench.overall.majority)}};
  j["macro"] = {{"model", macro_json(bench, false)}, {"majority", macro_json(bench, true)}};
  if (!bench.overall.model.certain.empty()) j["calibration"] = calibration_json(bench.overall.model.certain);
  for (int axis = 0; axis < kAxes; ++axis)
    for (const auto& [name, group] : bench.by[axis]) j["by"][axis_name(axis)][name] = {{"model", scores_json(group.model)}, {"majority", scores_json(group.majority)}};
  j["skipped"] = Json::array();
  for (const Record& r : bench.records)
    if (!r.skipped.empty()) j["skipped"].push_back({{"index", r.index}, {"id", r.id}, {"why", r.skipped}});
  return j.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tool
