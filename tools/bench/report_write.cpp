// The report's files, and the short table for the terminal.
#include <algorithm>

#include "loaders/new_file.h"
#include "tools/bench/report.h"
#include "tools/bench/report_tables.h"

namespace tool {
namespace {

// Columns as wide as their widest cell, in code points.
size_t width_of(const std::string& s) {
  size_t n = 0;
  for (char c : s) n += (uint8_t(c) & 0xC0) != 0x80;
  return n;
}

}  // namespace

void write_report(const std::string& folder, const BenchInfo& info, const std::vector<Record>& records) {
  const BenchScores bench = score_bench(records);
  const std::vector<Table> tables = report_tables(info, bench);
  const std::string json = report_json(info, bench), markdown = report_markdown(tables), html = report_html(bench, tables);
  bg::NewFile json_file(folder + "/report.json"), markdown_file(folder + "/report.md"), html_file(folder + "/report.html");
  json_file.append(json.data(), json.size());
  markdown_file.append(markdown.data(), markdown.size());
  html_file.append(html.data(), html.size());
  json_file.commit();
  markdown_file.commit();
  html_file.commit();
}

std::string summary_text(const BenchInfo& info, const std::vector<Record>& records) {
  const BenchScores bench = score_bench(records);
  const Table t = task_table(bench, true);
  std::vector<std::vector<std::string>> rows = {t.header};
  rows.insert(rows.end(), t.rows.begin(), t.rows.end());
  std::vector<size_t> widths(t.header.size(), 0);
  for (std::vector<std::string>& row : rows) {
    row[0] = cut(row[0], 24);
    for (char& c : row[0])
      if (uint8_t(c) < 0x20 || c == 0x7F) c = '?';  // a terminal obeys control characters
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string out = std::to_string(bench.overall.model.items) + " of " + std::to_string(info.items) + " items answered, " + std::to_string(bench.skipped) + " skipped\n";
  for (const std::vector<std::string>& row : rows) {
    std::string text;
    for (size_t i = 0; i < row.size(); ++i) text += row[i] + std::string(widths[i] - width_of(row[i]) + 2, ' ');
    out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

}  // namespace tool
