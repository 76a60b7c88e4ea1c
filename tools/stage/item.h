// One row as one template sees it: whether the template applies, and the item of the published format that comes of both.
// In: a row, a template. Out: JSON. Not here: which items are kept (build.h).
// A template applies when the modality is its own, "when" holds, some part of the answer is left, and every medium and every column of a placeholder
// is filled in (in all wordings of the question, whichever is taken, and in the parts of the answer that are left).
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tools/stage/csv.h"
#include "tools/stage/templates.h"

namespace stage {

struct Settings {
  std::string root;                          // put before every path, or ""
  std::map<std::string, std::string> roles;  // stage → system message; none: no system message
  int64_t seed = 0;
  int64_t per_template = 0;  // at most so many items of each template; 0: all
};

class Item {
 public:
  using Json = nlohmann::ordered_json;  // keys in the order of the published format

  Item(const Table& table, const Row& row, const Template& t, const Settings& settings) : table_(table), row_(row), t_(t), settings_(settings) {}

  bool meant() const;                // modality, "when" and parts
  std::string empty_column() const;  // the first column that must be filled in and is not; "" when the template applies
  std::string pick() const;          // the items of least pick() are kept
  Json json();                       // throws Wrong

 private:
  const std::string& value(const std::string& column) const { return table_.value(row_, column); }
  bool holds(const std::vector<Condition>& when) const;
  std::string empty_column(const Text& text) const;
  std::string hash(const char* purpose) const;
  void add(std::string& out, const Text& text);
  std::string worded(const Piece& p) const;
  Json box(const std::string& column) const;
  void read_media();
  std::string path(const std::string& column, const std::string& cell, size_t start, size_t end) const;
  std::string question();
  std::string answer();
  Json objects() const;
  Json meta() const;

  const Table& table_;
  const Row& row_;
  const Template& t_;
  const Settings& settings_;
  std::string markers_;                              // one per file, in order
  Json images_, videos_;                             // paths
  std::vector<std::pair<std::string, Json>> boxes_;  // name, numbers; of the question, then of the answer
};

}  // namespace stage
