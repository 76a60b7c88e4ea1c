// See dataset.h. A file is cut into entries by counting brackets outside of strings; each entry is then parsed on its own, so that the memory for a parsed
// tree is that of one entry, and a message can say which.
#include "tools/bench/dataset.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string_view>

#include "loaders/error.h"
#include "loaders/json_text.h"
#include "loaders/mapped_file.h"
#include "loaders/sha256.h"
#include "tools/options.h"

namespace tool {
namespace {

constexpr size_t kMostItems = 1'000'000;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

struct Source {
  std::string path;
  std::string_view text;

  [[noreturn]] void fail(size_t at, const std::string& what) const {
    const auto line = 1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(std::min(at, text.size())), '\n');
    throw Failure{kFailed, path + ": line " + std::to_string(line) + ", byte " + std::to_string(at + 1) + ": " + what};
  }
  size_t skip_space(size_t at) const {
    while (at < text.size() && is_space(text[at])) ++at;
    return at;
  }
};

// Where the JSON of an entry breaks: bytes from its beginning, 0 when no byte is to blame.
size_t broken_at(std::string_view text) {
  try {
    // Nothing is kept of what is read: this only looks for the place.
    [[maybe_unused]] const auto nothing = nlohmann::json::parse(text.begin(), text.end(), [](int, nlohmann::json::parse_event_t, nlohmann::json&) { return false; });
  } catch (const nlohmann::json::parse_error& e) {
    return e.byte > 0 ? std::min(e.byte, text.size()) - 1 : 0;
  } catch (const nlohmann::json::exception&) {
  }
  return 0;
}

using Take = std::function<bool(const nlohmann::json&)>;  // false: enough

bool parse_entry(const Source& source, size_t at, size_t end, const Take& take) {
  const std::string_view text = source.text.substr(at, end - at);
  nlohmann::json entry;
  try {
    entry = bg::parse_json(text, "an entry");
  } catch (const bg::Error& e) {
    const std::string why = e.what();
    if (why.find("not valid JSON") == std::string::npos) source.fail(at, why);
    source.fail(at + broken_at(text), "not valid JSON; expected an array of entries, or one entry on each line");
  }
  return take(entry);
}

void read_lines(const Source& source, size_t at, const Take& take) {
  while ((at = source.skip_space(at)) < source.text.size()) {
    const size_t end = std::min(source.text.find('\n', at), source.text.size());
    if (!parse_entry(source, at, end, take)) return;
    at = end;
  }
}

// at: right after the array's '['.
void read_array(const Source& source, size_t at, const Take& take) {
  const std::string_view text = source.text;
  at = source.skip_space(at);
  bool more = at >= text.size() || text[at] != ']';
  while (more) {
    const size_t first = source.skip_space(at);
    int64_t depth = 0;
    bool quoted = false;
    size_t end = first;
    for (; end < text.size(); ++end) {
      const char c = text[end];
      if (quoted && c == '\\')
        ++end;
      else if (c == '"')
        quoted = !quoted;
      else if (!quoted && depth == 0 && (c == ',' || c == ']'))
        break;
      else if (!quoted && (c == '{' || c == '['))
        ++depth;
      else if (!quoted && (c == '}' || c == ']') && --depth < 0)
        source.fail(end, "not valid JSON; a closing bracket without its opening one");
    }
    if (end >= text.size()) source.fail(first, "the file ends inside this entry or before the closing bracket of the array; copy the file again");
    if (!parse_entry(source, first, end, take)) return;
    more = text[end] == ',';
    at = end + more;
  }
  if (const size_t rest = source.skip_space(at + 1); rest < text.size()) source.fail(rest, "text after the end of the array");
}

void read_file(const std::string& path, const Labels& labels, const Roots& roots, size_t limit, Dataset& out) {
  try {
    const bg::MappedFile file(path);
    Source source{path, {reinterpret_cast<const char*>(file.data()), file.size()}};
    const std::filesystem::path full(path);
    const std::string name = full.filename().string(), folder = full.parent_path().string();
    out.files.push_back({name, bg::sha256_hex(file.data(), file.size())});
    size_t at = source.text.substr(0, 3) == "\xEF\xBB\xBF" ? 3 : 0;
    at = source.skip_space(at);
    if (at == source.text.size() || (source.text[at] != '[' && source.text[at] != '{')) source.fail(at, "expected a JSON array of entries, or one entry {...} on each line");
    int64_t number = 0;
    const Take take = [&](const nlohmann::json& entry) {
      if (out.items.size() == limit) return false;
      if (out.items.size() == kMostItems) throw Failure{kFailed, path + ": more than " + std::to_string(kMostItems) + " entries in all; run the files one by one"};
      Item item = read_item(entry, name + "#" + std::to_string(++number), folder, labels, roots);
      item.index = int64_t(out.items.size());
      out.items.push_back(std::move(item));
      return true;
    };
    if (source.text[at] == '[')
      read_array(source, at + 1, take);
    else
      read_lines(source, at, take);
  } catch (const bg::Error& e) {
    throw Failure{kFailed, e.what()};
  }
}

}  // namespace

Dataset read_dataset(const std::vector<std::string>& paths, const Labels& labels, const Roots& roots, int64_t limit) {
  Dataset out;
  for (const std::string& path : paths) read_file(path, labels, roots, limit > 0 ? size_t(limit) : SIZE_MAX, out);
  if (out.items.empty()) throw Failure{kFailed, paths.front() + ": holds no entry"};
  return out;
}

}  // namespace tool
