// See tokenizer_json.h.
#include "weights_convert/tokenizer_json.h"

#include <map>
#include <string_view>

#include "loaders/json_text.h"
#include "loaders/mapped_file.h"

namespace bg {
namespace {

using Json = nlohmann::json;

// MODEL.md §5. The runtime implements this pattern by hand (runtime/tokenizer.cpp), so no other can be accepted.
constexpr const char* kPattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

constexpr size_t kListed = 10;  // of a longer list, only so many are named in a message

std::string shown_value(const Json& value) {
  return value.is_string() ? shown(value.get_ref<const std::string&>()) : value.dump(-1, ' ', true).substr(0, 100);
}

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {}

  TokenizerTables read() {
    const MappedFile file(path_);
    const Json root = parse_json({reinterpret_cast<const char*>(file.data()), file.size()}, path_);
    if (!root.is_object()) bad("is not a JSON object");
    check_pipeline(root);
    check_model(member(root, "model", "the file"));
    read_vocabulary(root);
    read_merges(member(root["model"], "merges", "model"));
    return std::move(tables_);
  }

 private:
  [[noreturn]] void bad(const std::string& what) const { throw Error(Status::bad_file, path_ + ": " + what + "; copy the checkpoint again"); }

  [[noreturn]] void refuse(const std::string& setting, const std::string& found, const std::string& expected) const {
    const std::string what = path_ + ": " + setting + " is " + found + ", expected " + expected;
    throw Error(Status::unsupported, what + "; this is not a tokenizer of the Qwen3 family");
  }

  const Json& member(const Json& object, const char* name, const std::string& of) const {
    const auto found = object.is_object() ? object.find(name) : object.end();
    if (!object.is_object() || found == object.end()) bad(of + " has no \"" + name + "\"");
    return *found;
  }

  // A setting must have one of the values; one that is absent counts as null.
  void expect(const Json& object, const char* name, const std::string& of, std::initializer_list<Json> values) const {
    const Json found = object.is_object() && object.contains(name) ? object[name] : Json();
    std::string expected;
    for (const Json& value : values) {
      if (found == value) return;
      expected += (expected.empty() ? "" : " or ") + value.dump();
    }
    refuse(of + "." + name, shown_value(found), expected);
  }

  void check_pipeline(const Json& root) const {
    expect(member(root, "normalizer", "the file"), "type", "normalizer", {"NFC"});

    const Json& pre = member(root, "pre_tokenizer", "the file");
    expect(pre, "type", "pre_tokenizer", {"Sequence"});
    const Json& steps = member(pre, "pretokenizers", "pre_tokenizer");
    if (!steps.is_array() || steps.size() != 2) refuse("pre_tokenizer.pretokenizers", shown_value(steps), "two steps, Split and ByteLevel");
    expect(steps[0], "type", "pre_tokenizer step 1", {"Split"});
    expect(member(steps[0], "pattern", "pre_tokenizer step 1"), "Regex", "pre_tokenizer step 1.pattern", {kPattern});
    expect(steps[0], "behavior", "pre_tokenizer step 1", {"Isolated"});
    expect(steps[0], "invert", "pre_tokenizer step 1", {false});
    expect(steps[1], "type", "pre_tokenizer step 2", {"ByteLevel"});
    expect(steps[1], "add_prefix_space", "pre_tokenizer step 2", {false});
    expect(steps[1], "use_regex", "pre_tokenizer step 2", {false});

    // Only what adds tokens would matter: ByteLevel moves offsets, which nobody reads here.
    const auto post = root.find("post_processor");
    if (post != root.end() && !post->is_null()) expect(*post, "type", "post_processor", {"ByteLevel"});
    expect(member(root, "decoder", "the file"), "type", "decoder", {"ByteLevel"});
  }

  void check_model(const Json& model) const {
    expect(model, "type", "model", {"BPE"});
    expect(model, "dropout", "model", {nullptr, 0});
    expect(model, "unk_token", "model", {nullptr});
    expect(model, "continuing_subword_prefix", "model", {nullptr, ""});
    expect(model, "end_of_word_suffix", "model", {nullptr, ""});
    expect(model, "byte_fallback", "model", {nullptr, false});
    expect(model, "ignore_merges", "model", {nullptr, false});
  }

  struct Entry {
    std::string text;
    int32_t type;
  };

  int64_t id_of(const Json& value, const std::string& text) const {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= INT32_MAX) {
      bad("token " + shown(text) + " has id " + shown_value(value) + ", expected 0 … 2^31 − 2");
    }
    return value.get<int64_t>();
  }

  void read_vocabulary(const Json& root) {
    const Json& vocab = member(root["model"], "vocab", "model");
    if (!vocab.is_object()) bad("model.vocab is not an object");
    std::multimap<int64_t, Entry> by_id;
    for (const auto& [text, id] : vocab.items()) by_id.emplace(id_of(id, text), Entry{text, 1});

    const Json& added = member(root, "added_tokens", "the file");
    if (!added.is_array()) bad("added_tokens is not a list");
    std::map<std::string, int64_t> known;
    for (size_t i = 0; i < added.size(); ++i) {
      const std::string of = "added_tokens[" + std::to_string(i) + "]";
      const Json& content = member(added[i], "content", of);
      if (!content.is_string()) bad(of + ".content is not text");
      const std::string text = content.get<std::string>();
      const int64_t id = id_of(member(added[i], "id", of), text);
      for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) expect(added[i], flag, of, {false});
      expect(added[i], "special", of, {false, true});
      const auto [place, is_new] = known.emplace(text, id);
      if (!is_new) bad("token " + shown(text) + " is added twice, as " + std::to_string(place->second) + " and " + std::to_string(id));
      // The base vocabulary may hold the same token under the same id; then the added one says what it is.
      if (const auto base = vocab.find(text); base != vocab.end()) {
        if (*base != id) bad("token " + shown(text) + " is " + base->dump() + " in model.vocab and " + std::to_string(id) + " in added_tokens");
        erase_base(by_id, id, text);
      }
      by_id.emplace(id, Entry{text, added[i]["special"].get<bool>() ? 3 : 4});
    }
    place(by_id);
  }

  static void erase_base(std::multimap<int64_t, Entry>& by_id, int64_t id, const std::string& text) {
    const auto [begin, end] = by_id.equal_range(id);
    for (auto i = begin; i != end; ++i) {
      if (i->second.text == text) {
        by_id.erase(i);
        return;
      }
    }
  }

  // Nothing is allocated by an id: every id from 0 to the last one must come exactly once, or a message that lists what is wrong.
  void place(const std::multimap<int64_t, Entry>& by_id) {
    std::string missing, twice;
    size_t gaps = 0, missing_count = 0, twice_count = 0;
    int64_t next = 0;
    const Entry* previous = nullptr;
    for (const auto& [id, entry] : by_id) {
      if (id < next) {
        if (++twice_count <= kListed) {
          twice += (twice.empty() ? "" : ", ") + std::to_string(id) + " (" + shown(previous->text) + " and " + shown(entry.text) + ")";
        }
      } else if (id > next) {
        missing_count += size_t(id - next);
        if (++gaps <= kListed) {
          missing += (missing.empty() ? "" : ", ") + std::to_string(next) + (id - next > 1 ? " … " + std::to_string(id - 1) : "");
        }
      }
      next = id + 1;
      previous = &entry;
    }
    std::string wrong;
    if (missing_count > 0) wrong += std::to_string(missing_count) + " ids without a token: " + missing;
    if (twice_count > 0) wrong += (wrong.empty() ? "" : "; ") + std::to_string(twice_count) + " ids used twice: " + twice;
    if (by_id.empty()) wrong = "the vocabulary is empty";
    if (!wrong.empty()) bad(wrong);
    for (const auto& [id, entry] : by_id) {
      tables_.tokens.push_back(entry.text);
      tables_.types.push_back(entry.type);
    }
  }

  void read_merges(const Json& merges) {
    if (!merges.is_array()) bad("model.merges is not a list");
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const Json& merge = merges[rank];
      const bool pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
      if (!pair && !merge.is_string()) {
        bad("merge " + std::to_string(rank) + " is " + shown_value(merge) + ", expected \"left right\" or [\"left\", \"right\"]");
      }
      std::string text = pair ? merge[0].get<std::string>() + " " + merge[1].get<std::string>() : merge.get<std::string>();
      const size_t space = text.find(' ');
      if (space == std::string::npos || space == 0 || space + 1 == text.size() || text.find(' ', space + 1) != std::string::npos) {
        bad("merge " + std::to_string(rank) + " is " + shown_value(merge) + ", expected two tokens without a space in them");
      }
      tables_.merges.push_back(std::move(text));
    }
  }

  std::string path_;
  TokenizerTables tables_;
};

}  // namespace

TokenizerTables read_tokenizer_json(const std::string& path) { return Reader(path).read(); }

}  // namespace bg
