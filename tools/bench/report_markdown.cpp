// report.md: the tables, one after the other. Text from records cannot become markup: every mark of Markdown and HTML in it is escaped.
#include "tools/bench/report_tables.h"

namespace tool {
namespace {

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (uint8_t(c) < 0x20 || c == 0x7F) out += ' ';
    else if (std::string("\\`*_[]|~#!").find(c) != std::string::npos) out += '\\', out += c;
    else out += c;
  }
  return out;
}

void row(std::string& out, const std::vector<std::string>& cells) {
  out += '|';
  for (const std::string& c : cells) out += ' ' + escaped(c) + " |";
  out += '\n';
}

}  // namespace

std::string report_markdown(const std::vector<Table>& tables) {
  std::string out = "# Benchmark report\n\nShares are k/n with the Wilson score interval at 95 %.\n";
  for (const Table& t : tables) {
    out += "\n## " + escaped(t.title) + "\n\n";
    if (!t.note.empty()) out += escaped(t.note) + "\n\n";
    row(out, t.header);
    out += '|';
    for (size_t i = 0; i < t.header.size(); ++i) out += "---|";
    out += '\n';
    for (const std::vector<std::string>& r : t.rows) row(out, r);
  }
  return out;
}

}  // namespace tool
