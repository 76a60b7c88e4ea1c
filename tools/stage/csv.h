// The table of findings: RFC 4180, UTF-8, one header row, one row per case.
// In: a .csv file. Out: columns and rows of text. Not here: what a value means.
// Commas; semicolons or tabs where the header has more of those outside quotes (that is how many spreadsheets export).
// Lines end with LF or CR LF; empty lines are skipped; spaces belong to the value.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "tools/stage/text.h"

namespace stage {

struct Row {
  size_t line = 0;  // of the file, where the row begins
  std::vector<std::string> fields;
};

class Table {
 public:
  // Throws tool::Failure where the file cannot be cut into rows; adds what is wrong with single rows to `problems` and leaves those rows out.
  Table(const std::string& path, Problems& problems);

  const std::string& path() const { return path_; }
  const std::vector<std::string>& columns() const { return columns_; }
  const std::vector<Row>& rows() const { return rows_; }
  bool has(const std::string& column) const { return index_.count(column) > 0; }
  const std::string& value(const Row& row, const std::string& column) const;  // "" when there is no such column
  std::string where(const Row& row) const { return path_ + ": line " + std::to_string(row.line); }

 private:
  void check_header(size_t line);
  void add(Row row, Problems& problems);
  std::string path_;
  std::vector<std::string> columns_;
  std::map<std::string, size_t> index_;
  std::vector<Row> rows_;
  std::map<std::string, size_t> line_of_case_;
};

}  // namespace stage
