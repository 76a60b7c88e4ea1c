// See labels.h.
#include "tools/bench/labels.h"

#include <algorithm>
#include <utility>

namespace tool {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::string trimmed(const std::string& text, const char* more = "") {
  const auto dropped = [&](char c) { return is_space(c) || std::string(more).find(c) != std::string::npos; };
  size_t first = 0, end = text.size();
  while (first < end && is_space(text[first])) ++first;
  while (end > first && dropped(text[end - 1])) --end;
  return text.substr(first, end - first);
}

struct Mark {
  size_t at, end;  // bytes of "A. "
};

// The marks A, B, C … of one style in the order of the alphabet, each at the start of a word and followed by a space.
std::vector<Mark> find_marks(const std::string& text, const std::string& before, const std::string& after) {
  std::vector<Mark> marks;
  for (char letter = 'A'; letter <= 'Z'; ++letter) {
    const std::string mark = before + letter + after;
    size_t at = marks.empty() ? 0 : marks.back().end;
    for (at = text.find(mark, at); at != std::string::npos; at = text.find(mark, at + 1)) {
      const size_t end = at + mark.size();
      const bool starts = at == 0 || is_space(text[at - 1]) || text[at - 1] == '>' || text[at - 1] == '(';
      if (starts && end < text.size() && is_space(text[end])) break;
    }
    if (at == std::string::npos) break;
    marks.push_back({at, at + mark.size()});
  }
  return marks;
}

struct Listed {
  std::vector<std::string> letters, whole, texts;
};

// The last text ends with its line, the others where the next mark begins.
Listed read_list(const std::string& question, const std::vector<Mark>& marks) {
  Listed list;
  for (size_t i = 0; i < marks.size(); ++i) {
    const bool last = i + 1 == marks.size();
    const size_t line = question.find('\n', question.find_first_not_of(" \t\r\n", marks[i].end));
    const size_t end = last ? std::min(line, question.size()) : marks[i + 1].at;
    const std::string text = question.substr(marks[i].end, end - marks[i].end);
    list.letters.push_back(std::string(1, char('A' + int(i))));
    list.whole.push_back(trimmed(question.substr(marks[i].at, marks[i].end - marks[i].at) + text, ",;"));
    list.texts.push_back(trimmed(text, ",;"));
  }
  return list;
}

bool offers(const std::vector<std::string>& options, const std::string& answer) {
  for (size_t i = 0; i < options.size(); ++i)
    if (options[i].empty() || std::count(options.begin(), options.end(), options[i]) > 1) return false;
  return std::find(options.begin(), options.end(), answer) != options.end();
}

// "Yes." → {"Yes.", "No."}
std::vector<std::string> yes_or_no(const std::string& answer) {
  for (const char* stop : {"", "."})
    for (const auto& [yes, no] : {std::pair("yes", "no"), std::pair("Yes", "No"), std::pair("YES", "NO")})
      if (answer == std::string(yes) + stop || answer == std::string(no) + stop) return {std::string(yes) + stop, std::string(no) + stop};
  return {};
}

}  // namespace

std::vector<std::string> offered_options(const std::string& question, const std::string& reference) {
  const std::string answer = trimmed(reference);
  static const std::pair<const char*, const char*> styles[] = {{"(", ")"}, {"", "."}, {"", ")"}, {"", ":"}};
  for (const auto& [before, after] : styles) {
    const std::vector<Mark> marks = find_marks(question, before, after);
    if (marks.size() < 2) continue;
    const Listed list = read_list(question, marks);
    for (const std::vector<std::string>* form : {&list.letters, &list.whole, &list.texts})
      if (offers(*form, answer)) return *form;
  }
  return yes_or_no(answer);
}

}  // namespace tool
