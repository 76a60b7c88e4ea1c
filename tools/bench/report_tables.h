// The report as tables of text, once for Markdown, HTML and the terminal; the list of quantities, once for these and for JSON.
// Not here: escaping, files.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/bench/report.h"
#include "tools/bench/scores.h"

namespace tool {

struct Value {
  int64_t n = 0;               // items or boxes it is taken over; 0: it does not exist
  double value = 0;
  std::optional<Share> share;  // of a share: k, n and the interval
};
struct Quantity {
  const char* key;   // in report.json
  const char* name;  // in tables
  Value (*of)(const Scores&);
  bool short_list = false;  // also in the table for the terminal
};
const std::vector<Quantity>& quantities();

struct Table {
  std::string title, note;  // note: a sentence below the title, or ""
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // as many cells as the header has
};
std::vector<Table> report_tables(const BenchInfo& info, const BenchScores& bench);
Table task_table(const BenchScores& bench, bool short_list);

std::string fixed(double x, int digits = 4);  // "0.1250"; never "-0.0000"
std::string shown_share(const Share& s);      // "3/4 0.7500 [0.3006, 0.9544]"
// At most so many bytes, cut at a character, then "…".
std::string cut(const std::string& text, size_t most);

// The three files.
std::string report_json(const BenchInfo& info, const BenchScores& bench);
std::string report_markdown(const std::vector<Table>& tables);
std::string report_html(const BenchScores& bench, const std::vector<Table>& tables);

}  // namespace tool
