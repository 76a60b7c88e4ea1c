// Rows × templates → items, one JSON object per line: rows in the table's order, for each row the templates in theirs.
// In: a table and templates. Out: JSONL and counts. Not here: reading files, the item itself (item.h).
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tools/stage/item.h"

namespace stage {

struct Summary {
  size_t items = 0;
  std::map<std::string, size_t> stages, modalities, tasks;  // items of each
  std::map<std::string, size_t> empty;                      // column → rows that some template skipped because it is empty there
  std::map<std::string, size_t> unused;                     // modality → rows to which no template applies
  std::vector<std::string> unmatched;                       // templates that apply to no row
};

// Takes out the templates that name a column which the table does not have, and returns their names.
std::vector<std::string> leave_out_lacking(const Table& table, std::vector<Template>& templates);

// What is wrong goes to `problems`; any of it ends in tool::Failure before the first line. `write` gets each line with its line end; without it only the
// counts are made.
Summary build(const Table& table, const std::vector<Template>& templates, const Settings& settings, Problems& problems,
              const std::function<void(const std::string&)>& write);

}  // namespace stage
