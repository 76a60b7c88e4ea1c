// See csv.h.
#include "tools/stage/csv.h"

#include <algorithm>

#include "loaders/cursor.h"
#include "tools/options.h"

namespace stage {
namespace {

constexpr uint64_t kMostBytes = 64 << 20;
constexpr size_t kMostRows = 1'000'000, kMostColumns = 1000, kMostField = 64 << 10;  // a cell of bytes: longer ones are a quote gone wrong

// Cuts text into rows. Throws tool::Failure where the quoting is broken: nothing after that can be trusted.
class Reader {
 public:
  Reader(const std::string& path, const std::string& text, char separator) : path_(path), text_(text), separator_(separator) {}

  bool next(Row& row) {
    while (at_ < text_.size() && line_end()) end_line();  // empty lines
    if (at_ == text_.size()) return false;
    row = {line_, {}};
    while (true) {
      row.fields.push_back(at_ < text_.size() && text_[at_] == '"' ? quoted() : plain());
      if (row.fields.size() > kMostColumns) fail(row.line, "more than " + std::to_string(kMostColumns) + " fields");
      if (at_ == text_.size()) return true;
      if (line_end()) {
        end_line();
        return true;
      }
      ++at_;  // the separator
    }
  }

 private:
  [[noreturn]] void fail(size_t line, const std::string& what) const { throw tool::Failure{tool::kFailed, path_ + ": line " + std::to_string(line) + ": " + what}; }

  bool line_end() const { return text_[at_] == '\n' || (text_[at_] == '\r' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n'); }
  void end_line() {
    at_ += text_[at_] == '\r' ? 2 : 1;
    ++line_;
  }

  std::string plain() {
    const size_t start = at_;
    while (at_ < text_.size() && text_[at_] != separator_ && !line_end()) {
      if (text_[at_] == '"') fail(line_, "a quote inside a field that does not begin with one; write the field as \"...\" and a quote in it as \"\"");
      if (text_[at_] == '\r') fail(line_, "a carriage return without a line feed; save the file with line ends LF or CR LF");
      ++at_;
    }
    if (at_ - start > kMostField) fail(line_, "a field of " + std::to_string(at_ - start) + " bytes; at most " + std::to_string(kMostField));
    return text_.substr(start, at_ - start);
  }

  std::string quoted() {
    const size_t opened = line_;
    std::string field;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '"') {
        if (at_ + 1 == text_.size() || text_[at_ + 1] != '"') {
          ++at_;
          if (at_ < text_.size() && text_[at_] != separator_ && !line_end())
            fail(line_, "text after a closing quote (the field opened on line " + std::to_string(opened) + "); a quote inside a field is written \"\"");
          return field;
        }
        ++at_;
      }
      if (text_[at_] == '\n') ++line_;
      field += text_[at_];
      if (field.size() > kMostField)
        fail(opened, "the quoted field that opens here is longer than " + std::to_string(kMostField) + " bytes; is its closing quote missing?");
    }
    fail(opened, "the quote that opens here is never closed");
  }

  const std::string& path_;
  const std::string& text_;
  char separator_;
  size_t at_ = 0, line_ = 1;
};

char separator_of(const std::string& text) {
  std::map<char, size_t> found;
  bool quoted = false, named = false;
  for (size_t i = 0; i < text.size() && !(text[i] == '\n' && named && !quoted); ++i) {
    if (text[i] == '"') quoted = !quoted;
    if (!quoted) ++found[text[i]];
    named = named || (text[i] != '\n' && text[i] != '\r');
  }
  return found[';'] > found[','] && found[';'] >= found['\t'] ? ';' : found['\t'] > found[','] ? '\t' : ',';
}

}  // namespace

Table::Table(const std::string& path, Problems& problems) : path_(path) {
  const std::string text = read_text(path, kMostBytes);
  Reader reader(path_, text, separator_of(text));
  Row row;
  if (!reader.next(row)) throw tool::Failure{tool::kFailed, path + ": is empty; expected a header row with case, modality and the findings"};
  columns_ = row.fields;
  check_header(row.line);
  while (reader.next(row)) add(std::move(row), problems);
  if (rows_.empty() && problems.count() == 0) throw tool::Failure{tool::kFailed, path + ": has a header and no rows"};
}

void Table::check_header(size_t line) {
  const std::string where = path_ + ": line " + std::to_string(line) + ": ";
  for (size_t i = 0; i < columns_.size(); ++i) {
    if (columns_[i].empty()) throw tool::Failure{tool::kFailed, where + "column " + std::to_string(i + 1) + " of the header has no name; name it or delete it"};
    if (!index_.emplace(columns_[i], i).second) throw tool::Failure{tool::kFailed, where + "the header has the column " + bg::shown(columns_[i]) + " twice"};
  }
  for (const char* name : {"case", "modality"})
    if (!has(name))
      throw tool::Failure{tool::kFailed, where + "the header has no column \"" + name + "\"; nearest: " + nearest(name, columns_) +
                                             (columns_.size() == 1 ? " (one column in all: fields are separated by commas, semicolons or tabs)" : "")};
}

void Table::add(Row row, Problems& problems) {
  if (rows_.size() >= kMostRows) throw tool::Failure{tool::kFailed, where(row) + ": more than " + std::to_string(kMostRows) + " rows; split the table"};
  const size_t before = problems.count();
  if (row.fields.size() != columns_.size()) {
    problems.add(where(row) + ": " + std::to_string(row.fields.size()) + " fields, the header has " + std::to_string(columns_.size()) +
                 "; a field with a separator or a line end in it must be quoted");
    return;
  }
  const std::string& name = value(row, "case");
  if (name.empty()) problems.add(where(row) + ": column \"case\" is empty; every row needs a name of its own");
  if (has_control(name)) problems.add(where(row) + ": column \"case\" has a line end or another control character in it");
  if (value(row, "modality").empty()) problems.add(where(row) + ": column \"modality\" is empty; write for example ultrasound, mammography, ct, mri or pathology");
  const auto [seen, is_new] = line_of_case_.emplace(name, row.line);
  if (!is_new && !name.empty())
    problems.add(where(row) + ": case " + bg::shown(name) + " was already on line " + std::to_string(seen->second) + "; one row is one case");
  if (problems.count() == before) rows_.push_back(std::move(row));
}

const std::string& Table::value(const Row& row, const std::string& column) const {
  static const std::string none;
  const auto found = index_.find(column);
  return found == index_.end() ? none : row.fields[found->second];
}

}  // namespace stage
