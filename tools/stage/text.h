// What the readers of breastgpt-stage share: the list of problems, a text file read with limits, UTF-8, names for messages.
// Not here: what a table (csv.h) or a template (templates.h) is.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stage {

// What is wrong with one template, or with one row for one template: ends the work on that one, not on the rest.
struct Wrong {
  std::string message;
};

// Problems are gathered, so that a table of a thousand rows is not mended one run at a time.
class Problems {
 public:
  void add(const std::string& message);  // throws tool::Failure with all of them once they are many
  size_t count() const { return all_.size(); }
  void stop_if_any() const;  // throws tool::Failure: one line per problem

 private:
  std::vector<std::string> all_;
};

// A whole regular file, UTF-8 without its byte order mark. Throws tool::Failure naming the file, and the line of the first byte that is not UTF-8.
std::string read_text(const std::string& path, uint64_t most_bytes);

size_t invalid_utf8(std::string_view text);  // position of the first byte that is not UTF-8, or npos
size_t line_of(std::string_view text, size_t position);  // 1, 2, …
bool has_control(std::string_view text);  // a character below space, or DEL

// Texts of the published format that stand for a medium or a box: in a wording or a cell they would shift all that follow. nullptr when there is none.
const char* marker_in(std::string_view text);

std::string quoted_list(const std::vector<std::string>& names);  // "a", "b", at most the first 12
std::string nearest(const std::string& name, const std::vector<std::string>& names);  // the three of least edit distance, as a quoted list

}  // namespace stage
