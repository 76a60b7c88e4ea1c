// See build.h.
#include "tools/stage/build.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "loaders/cursor.h"
#include "tools/options.h"

namespace stage {
namespace {

std::set<std::string> columns_of(const Template& t) {
  std::set<std::string> out(t.media.begin(), t.media.end());
  const auto add = [&](const std::vector<Condition>& when) {
    for (const Condition& c : when) out.insert(c.column);
  };
  const auto add_text = [&](const Text& text) {
    for (const Piece& p : text)
      if (p.kind != Piece::literal) out.insert(p.text);
  };
  add(t.when);
  for (const Text& wording : t.ask) add_text(wording);
  for (const Part& part : t.answer) add(part.when), add_text(part.text);
  return out;
}

void stop_if_interrupted() {
  if (tool::interrupted()) throw tool::Failure{tool::kInterrupted, "interrupted; nothing was written"};
}

// The columns that a template names must be in the table, unless no row is of its modality: then it cannot apply anyway.
void check_columns(const Table& table, const std::vector<Template>& templates, Problems& problems) {
  std::set<std::string> modalities;
  for (const Row& row : table.rows()) modalities.insert(table.value(row, "modality"));
  std::map<std::string, std::vector<const Template*>> users;  // of each column that is missing
  for (const Template& t : templates)
    if (modalities.count(t.modality))
      for (const std::string& c : columns_of(t))
        if (!table.has(c)) users[c].push_back(&t);
  for (const auto& [column, by] : users)
    problems.add(by[0]->where() + (by.size() > 1 ? " and " + std::to_string(by.size() - 1) + " more" : "") + ": column " + bg::shown(column) + " is not in " +
                 table.path() + "; nearest: " + nearest(column, table.columns()) + "; correct the name, add the column, or leave such templates out with --skip-missing");
}

// The rows that each template gives an item of; with per_template those of least pick().
std::vector<std::set<size_t>> choose(const Table& table, const std::vector<Template>& templates, const Settings& settings, Problems& problems, Summary& summary) {
  std::vector<std::set<std::pair<std::string, size_t>>> chosen(templates.size());  // pick, row
  for (size_t r = 0; r < table.rows().size(); ++r) {
    stop_if_interrupted();
    const Row& row = table.rows()[r];
    std::set<std::string> empty;
    bool used = false;
    for (size_t i = 0; i < templates.size(); ++i) {
      Item item(table, row, templates[i], settings);
      if (!item.meant()) continue;
      if (const std::string column = item.empty_column(); !column.empty()) {
        empty.insert(column);
        continue;
      }
      used = true;
      try {
        const auto unwritten = item.json();
      } catch (const Wrong& w) {
        problems.add(table.where(row) + ": case " + bg::shown(table.value(row, "case")) + ", " + templates[i].where() + ": " + w.message);
      }
      chosen[i].emplace(settings.per_template ? item.pick() : "", r);
      if (settings.per_template && chosen[i].size() > size_t(settings.per_template)) chosen[i].erase(std::prev(chosen[i].end()));
    }
    for (const std::string& column : empty) ++summary.empty[column];
    if (!used) ++summary.unused[table.value(row, "modality")];
  }
  std::vector<std::set<size_t>> rows(templates.size());
  for (size_t i = 0; i < templates.size(); ++i)
    for (const auto& [pick, r] : chosen[i]) rows[i].insert(r);
  return rows;
}

}  // namespace

std::vector<std::string> leave_out_lacking(const Table& table, std::vector<Template>& templates) {
  std::vector<std::string> left;
  std::erase_if(templates, [&](const Template& t) {
    const std::set<std::string> columns = columns_of(t);
    const bool lacking = std::any_of(columns.begin(), columns.end(), [&](const std::string& c) { return !table.has(c); });
    if (lacking) left.push_back(t.id);
    return lacking;
  });
  return left;
}

Summary build(const Table& table, const std::vector<Template>& templates, const Settings& settings, Problems& problems,
              const std::function<void(const std::string&)>& write) {
  check_columns(table, templates, problems);
  problems.stop_if_any();
  Summary summary;
  const std::vector<std::set<size_t>> rows = choose(table, templates, settings, problems, summary);
  problems.stop_if_any();
  for (size_t i = 0; i < templates.size(); ++i) {
    const Template& t = templates[i];
    if (rows[i].empty()) {
      summary.unmatched.push_back(t.id);
      continue;
    }
    summary.items += rows[i].size();
    summary.stages[t.stage] += rows[i].size();
    summary.modalities[t.modality] += rows[i].size();
    summary.tasks[t.task] += rows[i].size();
  }
  for (size_t r = 0; write && r < table.rows().size(); ++r) {
    stop_if_interrupted();
    for (size_t i = 0; i < templates.size(); ++i)
      if (rows[i].count(r)) write(Item(table, table.rows()[r], templates[i], settings).json().dump() + "\n");
  }
  return summary;
}

}  // namespace stage
