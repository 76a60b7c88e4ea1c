// The report of a benchmark: report.json (every number), report.md (tables), report.html (tables, plots, worst cases; one file, nothing loaded, no
// scripts). The same records and info give the same bytes: no times, no host names, fixed number formats, groups in order of their names.
// In: records. Out: files. Not here: the scores (scores.h), the drawing (plots.h).
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tools/bench/record.h"

namespace tool {

struct BenchInfo {
  std::string model_file;      // its name, without folders
  std::string weights_sha256, model_type, selector, weight_type;
  std::vector<std::pair<std::string, std::string>> datasets;  // file name, sha256
  int64_t items = 0;                                          // of the whole benchmark, answered or not
  std::vector<std::pair<std::string, std::string>> settings;  // of generation: name, value
};

// Writes the three files into the folder, which exists; each is written whole or not at all.
// Throws Failure{kFailed} for records that do not go together (scores.h), bg::Error{io}.
void write_report(const std::string& folder, const BenchInfo& info, const std::vector<Record>& records);

// A short table for the terminal: by task, model beside majority answer.
std::string summary_text(const BenchInfo& info, const std::vector<Record>& records);

}  // namespace tool
