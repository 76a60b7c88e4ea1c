// See templates.h.
#include "tools/stage/templates.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "loaders/json_text.h"
#include "tools/options.h"

namespace stage {
namespace {

using nlohmann::json;

constexpr uint64_t kMostBytes = 4 << 20;
constexpr size_t kMostTemplates = 10'000, kMostText = 16 << 10, kMostEntries = 1000;  // templates in all; bytes of a text; entries of a list

bool contains(const std::vector<std::string>& names, const std::string& name) { return std::find(names.begin(), names.end(), name) != names.end(); }

// Possibly empty: the wording of a value, or a value that "when" allows, may be.
std::string any_text(const json& v, const std::string& what) {
  if (!v.is_string()) throw Wrong{what + ": expected a text in quotes"};
  const std::string text = v.get<std::string>();
  if (text.size() > kMostText) throw Wrong{what + ": " + std::to_string(text.size()) + " bytes; at most " + std::to_string(kMostText)};
  if (const char* marker = marker_in(text)) throw Wrong{what + ": contains " + marker + "; media come from \"media\", boxes from {box:column}"};
  return text;
}

std::string text_of(const json& v, const std::string& what) {
  const std::string text = any_text(v, what);
  if (text.empty()) throw Wrong{what + ": is empty"};
  return text;
}

std::vector<std::string> list_of(const json& v, const std::string& what, std::string (*entry)(const json&, const std::string&) = text_of) {
  if (!v.is_array() || v.empty()) throw Wrong{what + ": expected a list of texts that is not empty"};
  if (v.size() > kMostEntries) throw Wrong{what + ": " + std::to_string(v.size()) + " entries; at most " + std::to_string(kMostEntries)};
  std::vector<std::string> out;
  for (const json& x : v) {
    out.push_back(entry(x, what));
    if (std::count(out.begin(), out.end(), out.back()) > 1) throw Wrong{what + ": has " + bg::shown(out.back()) + " twice"};
  }
  return out;
}

void only_keys(const json& object, const std::vector<std::string>& known, const std::string& what) {
  for (const auto& [key, ignored] : object.items())
    if (!contains(known, key)) throw Wrong{what + "unknown key " + bg::shown(key) + "; known: " + quoted_list(known)};
}

class File {
 public:
  File(const std::string& path, const json& root) : path_(path) {
    if (!root.is_object()) throw Wrong{"expected an object with \"templates\""};
    only_keys(root, {"words", "templates"}, "");
    if (root.contains("words")) read_words(root["words"]);
    if (!root.contains("templates") || !root["templates"].is_array() || root["templates"].empty())
      throw Wrong{"\"templates\" must be a list with at least one template"};
  }

  Template read(const json& t) const {
    only_keys(t, {"id", "stage", "modality", "task", "media", "when", "ask", "options", "answer", "ref"}, "");
    Template out;
    out.file = path_;
    out.id = t["id"].get<std::string>();
    out.stage = one_of(t, "stage", stages());
    out.task = one_of(t, "task", tasks());
    out.modality = text_of(need(t, "modality"), "\"modality\"");
    if (has_control(out.modality) || out.modality.find(' ') != std::string::npos) throw Wrong{"\"modality\": expected one word, such as ultrasound"};
    out.media = list_of(need(t, "media"), "\"media\"");
    for (const std::string& m : out.media)
      if (m != "image" && m != "slide" && m != "volume") throw Wrong{"\"media\": " + bg::shown(m) + " is none of \"image\", \"slide\", \"volume\""};
    if (t.contains("when")) out.when = conditions(t["when"], "\"when\"");
    if (t.contains("ref")) read_ref(t["ref"], out.ref);
    for (const std::string& wording : list_of(need(t, "ask"), "\"ask\"")) out.ask.push_back(parse(wording, out, "\"ask\""));
    read_answer(need(t, "answer"), out);
    read_options(t, out);
    return out;
  }

 private:
  static const json& need(const json& t, const char* key) {
    if (!t.contains(key)) throw Wrong{"\"" + std::string(key) + "\" is missing"};
    return t[key];
  }

  static std::string one_of(const json& t, const char* key, const std::vector<std::string>& known) {
    const std::string what = "\"" + std::string(key) + "\"", name = text_of(need(t, key), what);
    if (!contains(known, name)) throw Wrong{what + ": " + bg::shown(name) + " is none of " + quoted_list(known)};
    return name;
  }

  void read_words(const json& words) {
    if (!words.is_object()) throw Wrong{"\"words\": expected an object of maps"};
    for (const auto& [name, map] : words.items()) {
      const std::string what = "\"words\": " + bg::shown(name);
      if (!map.is_object() || map.empty()) throw Wrong{what + ": expected an object from values to wordings"};
      Words out;
      for (const auto& [value, wording] : map.items()) out[value] = any_text(wording, what + ": " + bg::shown(value));
      words_[name] = std::make_shared<const Words>(std::move(out));
    }
  }

  static std::vector<Condition> conditions(const json& when, const std::string& what) {
    if (!when.is_object()) throw Wrong{what + ": expected an object from columns to lists of values"};
    std::vector<Condition> out;
    for (const auto& [column, allowed] : when.items()) out.push_back({column, list_of(allowed, what + ": " + bg::shown(column), any_text)});
    return out;
  }

  static void read_ref(const json& ref, std::map<std::string, std::string>& out) {
    if (!ref.is_object()) throw Wrong{"\"ref\": expected an object from box columns to names"};
    for (const auto& [column, name] : ref.items()) out[column] = text_of(name, "\"ref\": " + bg::shown(column));
  }

  void read_answer(const json& answer, Template& t) const {
    if (!answer.is_string() && !(answer.is_array() && !answer.empty())) throw Wrong{"\"answer\": expected a text or a list of parts"};
    if (answer.size() > kMostEntries) throw Wrong{"\"answer\": " + std::to_string(answer.size()) + " parts; at most " + std::to_string(kMostEntries)};
    for (const json& part : answer.is_array() ? answer : json::array({answer})) {
      if (part.is_string()) {
        t.answer.push_back({{}, parse(text_of(part, "\"answer\""), t, "\"answer\"")});
        continue;
      }
      if (!part.is_object() || !part.contains("when") || !part.contains("text"))
        throw Wrong{"\"answer\": a part is a text or {\"when\": {...}, \"text\": \"...\"}"};
      only_keys(part, {"when", "text"}, "\"answer\": ");
      t.answer.push_back({conditions(part["when"], "\"answer\": \"when\""), parse(text_of(part["text"], "\"answer\": \"text\""), t, "\"answer\"")});
    }
  }

  static void read_options(const json& t, Template& out) {
    if (out.task != "closed_vqa") {
      if (t.contains("options")) throw Wrong{"\"options\" belong to task closed_vqa; this one is " + out.task};
      return;
    }
    if (!t.contains("options")) throw Wrong{"\"options\" is missing: a closed_vqa lists its possible answers"};
    out.options = list_of(t["options"], "\"options\"");
    if (out.options.size() < 2) throw Wrong{"\"options\": expected at least two"};
  }

  Text parse(const std::string& text, const Template& t, const std::string& what) const {
    Text out;
    std::string literal;
    const auto flush = [&] {
      if (!literal.empty()) out.push_back({Piece::literal, literal, "", nullptr});
      literal.clear();
    };
    for (size_t i = 0; i < text.size(); ++i) {
      const bool brace = text[i] == '{' || text[i] == '}';
      if (brace && i + 1 < text.size() && text[i + 1] == text[i]) ++i;  // {{ and }}
      else if (text[i] == '}') throw Wrong{what + ": } at byte " + std::to_string(i + 1) + " closes nothing; a brace in the text is written }}"};
      else if (text[i] == '{') {
        const size_t close = text.find_first_of("{}", i + 1);
        if (close == std::string::npos || text[close] == '{')
          throw Wrong{what + ": { at byte " + std::to_string(i + 1) + " is not closed; a brace in the text is written {{"};
        flush();
        out.push_back(placeholder(text.substr(i + 1, close - i - 1), t, what));
        i = close;
        continue;
      }
      literal += text[i];
    }
    flush();
    return out;
  }

  Piece placeholder(const std::string& inside, const Template& t, const std::string& what) const {
    const auto fail = [&](const std::string& why) { throw Wrong{what + ": placeholder " + bg::shown("{" + inside + "}") + " " + why}; };
    const bool box = inside.compare(0, 4, "box:") == 0;
    const size_t bar = inside.find('|');
    Piece p{box ? Piece::box : Piece::value, box ? inside.substr(4) : inside.substr(0, bar), "", nullptr};
    if (box) {
      if (p.text.empty()) fail("names no column; expected {box:column}");
      if (!t.ref.count(p.text)) fail("has no name: add \"ref\": {" + bg::shown(p.text) + ": \"mass\"} or what the box is to be called");
      return p;
    }
    if (p.text.empty()) fail("names no column; expected {column}, {column|map} or {box:column}");
    if (bar == std::string::npos) return p;
    p.map = inside.substr(bar + 1);
    const auto found = words_.find(p.map);
    std::vector<std::string> known;
    for (const auto& [name, ignored] : words_) known.push_back(name);
    if (found == words_.end())
      fail("uses a map that is not in \"words\" of this file; " + (known.empty() ? std::string("there are none") : "nearest: " + nearest(p.map, known)));
    p.words = found->second;
    return p;
  }

  std::string path_;
  std::map<std::string, std::shared_ptr<const Words>> words_;
};

std::vector<std::string> files_of(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return {path};
  std::vector<std::string> out;
  for (auto it = std::filesystem::directory_iterator(path, error); !error && it != std::filesystem::directory_iterator(); it.increment(error))
    if (it->path().extension() == ".json") out.push_back(it->path().string());
  if (error) throw tool::Failure{tool::kFailed, path + ": cannot be listed: " + error.message()};
  if (out.empty()) throw tool::Failure{tool::kFailed, path + ": has no .json file; name the folder of the templates"};
  std::sort(out.begin(), out.end());
  return out;
}

json read_json(const std::string& path) {
  const std::string text = read_text(path, kMostBytes);
  try {
    const json tree = json::parse(text);  // for the line of a mistake, which parse_json does not tell
  } catch (const json::parse_error& e) {
    const size_t at = std::min(text.size(), e.byte == 0 ? 0 : e.byte - 1);
    throw tool::Failure{tool::kFailed, path + ": line " + std::to_string(line_of(text, at)) + ": is not valid JSON from here;" +
                                           " look for a missing comma, quote or bracket before it"};
  } catch (const json::exception&) {
    throw tool::Failure{tool::kFailed, path + ": is not valid JSON: a number is out of range"};
  }
  return bg::parse_json(text, path);
}

bool is_id_character(char c) { return std::isalnum(uint8_t(c)) || c == '.' || c == '-' || c == '_'; }

// The id is half of an item's name "case/template" and part of what is hashed.
std::string id_of(const json& t, size_t number) {
  const std::string what = "template " + std::to_string(number);
  if (!t.is_object()) throw Wrong{what + ": expected an object"};
  if (!t.contains("id") || !t["id"].is_string()) throw Wrong{what + ": \"id\" is missing or no text"};
  const std::string id = t["id"].get<std::string>();
  const bool good = !id.empty() && id.size() <= 100 && std::all_of(id.begin(), id.end(), is_id_character);
  if (!good) throw Wrong{what + ": id " + bg::shown(id) + ": expected 1 to 100 letters, digits, dots, hyphens and underscores"};
  return id;
}

// Adds the templates of one file. `taken`: the file of each id so far.
void read_file(const std::string& file, std::vector<Template>& out, std::map<std::string, std::string>& taken, Problems& problems) {
  const json root = read_json(file);
  const File reader(file, root);
  size_t number = 0;
  for (const json& t : root["templates"]) {
    if (out.size() >= kMostTemplates) throw tool::Failure{tool::kFailed, file + ": more than " + std::to_string(kMostTemplates) + " templates in all"};
    std::string where = file + ": ";
    try {
      const std::string id = id_of(t, ++number);
      where += "template " + id + ": ";
      const auto [first, is_new] = taken.emplace(id, file);
      if (!is_new) throw Wrong{"this id is taken in " + (first->second == file ? "this file" : first->second) + "; every template needs its own"};
      out.push_back(reader.read(t));
    } catch (const Wrong& w) {
      problems.add(where + w.message);
    }
  }
}

}  // namespace

std::string Template::where() const { return file + ": template " + id; }

const std::vector<std::string>& stages() {
  static const std::vector<std::string> names = {"screening", "diagnosis", "treatment"};
  return names;
}

const std::vector<std::string>& tasks() {
  static const std::vector<std::string> names = {"closed_vqa", "open_vqa", "grounding", "grounded_caption", "caption", "report"};
  return names;
}

std::vector<Template> read_templates(const std::vector<std::string>& paths, Problems& problems, size_t& files) {
  std::vector<Template> out;
  std::map<std::string, std::string> taken;
  files = 0;
  for (const std::string& path : paths)
    for (const std::string& file : files_of(path)) {
      ++files;
      try {
        read_file(file, out, taken, problems);
      } catch (const Wrong& w) {  // outside its templates
        problems.add(file + ": " + w.message);
      }
    }
  return out;
}

}  // namespace stage
