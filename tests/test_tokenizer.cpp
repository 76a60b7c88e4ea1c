// Tokenizer, Unicode helpers and tokenizer.json reader against the `tokenizers` package: goldens of tests/oracle/tokenizer.py, which describes their
// format. Also every error, hostile bytes, and the streaming decoder.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "loaders/error.h"
#include "runtime/tokenizer.h"
#include "runtime/unicode.h"
#include "tests/support.h"
#include "weights_convert/tokenizer_json.h"

using namespace bg;

namespace {

Tokenizer make(const TokenizerTables& tables) {
  std::vector<TokenType> types;
  for (const int32_t type : tables.types) types.push_back(TokenType(type));
  return Tokenizer({tables.tokens.begin(), tables.tokens.end()}, types, {tables.merges.begin(), tables.merges.end()});
}

std::string small_path() { return golden_path("tokenizer/small.json"); }

const Tokenizer& small_tokenizer() {
  static const Tokenizer tokenizer = make(read_tokenizer_json(small_path()));
  return tokenizer;
}

// Qwen3's own with <|histo_pad|>; null where the shared data are absent.
const Tokenizer* real_tokenizer() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    const std::string path = shared_data("tokenizer/tokenizer.json");
    if (path.empty()) return std::unique_ptr<Tokenizer>();
    TokenizerTables tables = read_tokenizer_json(path);
    REQUIRE(tables.tokens.size() == 151669);
    tables.tokens.push_back("<|histo_pad|>");
    tables.types.push_back(3);
    return std::make_unique<Tokenizer>(make(tables));
  }();
  if (!tokenizer) MESSAGE("skipped: ../shared/data/tokenizer/tokenizer.json is absent (BG_SHARED_DATA names another folder)");
  return tokenizer.get();
}

uint64_t fnv(std::string_view bytes) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char c : bytes) hash = (hash ^ uint8_t(c)) * 0x100000001B3;
  return hash;
}

uint64_t fnv(const std::vector<int32_t>& ids) { return fnv({reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)}); }

struct Golden {
  std::string bytes;
  size_t at = 0;
  explicit Golden(const std::string& name) : bytes(read_file(golden_path("tokenizer/" + name))) { REQUIRE(!bytes.empty()); }
  std::string text(size_t size) {
    REQUIRE(size <= bytes.size() - at);
    at += size;
    return bytes.substr(at - size, size);
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, text(sizeof(T)).data(), sizeof(T));
    return value;
  }
};

struct Case {
  std::string text;
  uint64_t ids[2];  // of the real and of the small tokenizer
  uint64_t decoded;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    Golden golden("strings.golden");
    std::vector<Case> out(golden.number<uint32_t>());
    for (Case& c : out) {
      const size_t size = golden.number<uint16_t>(), repeat = golden.number<uint16_t>();
      const std::string part = golden.text(size);
      for (size_t i = 0; i < repeat; ++i) c.text += part;
      for (uint64_t& hash : c.ids) hash = golden.number<uint64_t>();
      c.decoded = golden.number<uint64_t>();
    }
    CHECK(golden.at == golden.bytes.size());
    return out;
  }();
  return all;
}

void check_strings(const Tokenizer& tokenizer, int which) {
  REQUIRE(cases().size() >= 20000);
  Golden first("first.golden");
  size_t wrong_ids = 0, wrong_text = 0;
  for (size_t i = 0; i < cases().size(); ++i) {
    const Case& c = cases()[i];
    CAPTURE(i);
    CAPTURE(c.text.substr(0, 100));
    const std::vector<int32_t> ids = tokenizer.encode(c.text);
    if (i < 300) {
      for (int k = 0; k < 2; ++k) {
        std::vector<int32_t> expected(first.number<uint16_t>());
        for (int32_t& id : expected) id = first.number<int32_t>();
        if (k == which) CHECK(ids == expected);
      }
    }
    std::vector<int32_t> both = ids;
    both.push_back(-1);
    const std::vector<int32_t> special = tokenizer.encode_with_special(c.text);
    both.insert(both.end(), special.begin(), special.end());
    wrong_ids += fnv(both) != c.ids[which];
    wrong_text += fnv(tokenizer.decode(ids, false)) != c.decoded;
    if (fnv(both) != c.ids[which] && wrong_ids < 10) CHECK_MESSAGE(false, "ids differ");
    for (const int32_t id : ids) {
      if (tokenizer.is_control(id)) CHECK_MESSAGE(false, "a control token was made from text");
    }
  }
  CHECK(wrong_ids == 0);
  CHECK(wrong_text == 0);
}

void check_decode(const Tokenizer& tokenizer, int which) {
  Golden golden("decode.golden");
  golden.at = size_t(which) * 1000 * 16;
  const uint64_t size = uint64_t(tokenizer.size());
  uint64_t state = size;
  const auto next = [&] {  // splitmix64
    uint64_t z = state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
  };
  for (int i = 0; i < 1000; ++i) {
    std::vector<int32_t> ids(next() % 17);
    for (int32_t& id : ids) {
      const uint64_t r = next(), value = r >> 3;
      id = int32_t((r & 7) < 4 ? value % 256 : (r & 7) == 4 ? size - 27 + value % 27 : value % size);
    }
    CAPTURE(i);
    CHECK(fnv(tokenizer.decode(ids, false)) == golden.number<uint64_t>());
    CHECK(fnv(tokenizer.decode(ids, true)) == golden.number<uint64_t>());
    Utf8Stream stream;
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(tokenizer.bytes(id));
    CHECK(streamed + stream.finish() == tokenizer.decode(ids, false));
  }
}

// Byte → its printable character.
std::vector<std::string> printable_bytes() {
  std::vector<std::string> out(256);
  int32_t next = 256;
  for (int32_t b = 0; b < 256; ++b) {
    const bool own = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    append_utf8(out[size_t(b)], own ? b : next++);
  }
  return out;
}

// pairs_tokenizer() of the oracle: a, space and ' with a byte above 127, and such a byte with a.
TokenizerTables pairs_tables() {
  const std::vector<std::string> printable = printable_bytes();
  TokenizerTables tables{printable, {}, {}};
  const auto merge = [&](size_t a, size_t b) {
    tables.merges.push_back(printable[a] + " " + printable[b]);
    tables.tokens.push_back(printable[a] + printable[b]);
  };
  for (const char a : {'a', ' ', '\''}) {
    for (size_t b = 128; b < 256; ++b) merge(size_t(a), b);
  }
  for (size_t b = 128; b < 256; ++b) merge(b, 'a');
  tables.types.assign(tables.tokens.size(), 1);
  return tables;
}

// The vocabulary of single bytes and `added` tokens behind it.
TokenizerTables bytes_and(const std::vector<std::pair<std::string, int32_t>>& added) {
  TokenizerTables tables{printable_bytes(), std::vector<int32_t>(256, 1), {}};
  for (const auto& [text, type] : added) {
    tables.tokens.push_back(text);
    tables.types.push_back(type);
  }
  return tables;
}

void check_error(const std::function<void()>& action, Status status, const std::string& part) {
  CAPTURE(part);
  try {
    action();
    FAIL_CHECK("no error");
  } catch (const Error& e) {
    CAPTURE(std::string(e.what()));
    CHECK(e.status() == status);
    CHECK(std::string(e.what()).find(part) != std::string::npos);
  }
}

double seconds(const std::function<void()>& action) {
  const auto start = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// What Python's bytes.decode(errors="replace") gives, written down from the Unicode standard's table 3-8 and Python itself.
const std::pair<std::string, std::string> kInvalid[] = {
    {"\x80", "�"}, {"\xBF\x80", "��"}, {"\xC0\x80", "��"}, {"\xC1\xBF", "��"}, {"\xC3", "�"}, {"\xC3(", "�("}, {"\xE2\x82", "�"}, {"\xE2\x82x", "�x"},
    {"\xE0\x80\x80", "���"}, {"\xE0\xA0", "�"}, {"\xED\xA0\x80", "���"}, {"\xED\x9F", "�"}, {"\xEF\xBF\xBD", "�"}, {"\xF0\x80\x80\x80", "����"},
    {"\xF0\x90\x80", "�"}, {"\xF0\x9F\x98\x80", "😀"}, {"\xF0\x9F\x98", "�"}, {"\xF0\x9F\xF0\x9F\x98\x80", "�😀"}, {"\xF4\x8F\xBF", "�"},
    {"\xF4\x90\x80\x80", "����"}, {"\xF5\x80", "��"}, {"\xFE\xFF", "��"}, {"a\xF1\x80\x80\xE1\x80\xC2" "b\x80" "c\x80\xBF" "d", "a���b�c��d"},
};

}  // namespace

TEST_CASE("tokenizer: identical to the reference on 21000 strings, small vocabulary") { check_strings(small_tokenizer(), 1); }

TEST_CASE("tokenizer: identical to the reference on 21000 strings, Qwen3's vocabulary") {
  if (const Tokenizer* real = real_tokenizer()) check_strings(*real, 0);
}

TEST_CASE("tokenizer: decoding random ids as the reference does, whole and streamed") {
  check_decode(small_tokenizer(), 1);
  if (const Tokenizer* real = real_tokenizer()) check_decode(*real, 0);
}

TEST_CASE("tokenizer: every code point of the assigned planes has the reference's class and normal form") {
  const Tokenizer tokenizer = make(pairs_tables());
  Golden golden("codepoints.golden");
  for (int32_t block = 0; block < 0x410; ++block) {
    const int32_t start = block < 0x400 ? block * 256 : 0xE0000 + (block - 0x400) * 256;
    std::string text;
    for (int32_t code = start; code < start + 256; ++code) {
      if (code >= 0xD800 && code < 0xE000) continue;
      std::string c;
      append_utf8(c, code);
      text += "a" + c + "a  " + c + " '" + c + "a'" + c + "a'" + c + "\u0301q\u0323" + c + "\u0334q\u0345" + c + "\u11A8\n";
    }
    CAPTURE(start);
    CHECK(fnv(tokenizer.encode(text)) == golden.number<uint64_t>());
  }
}

TEST_CASE("tokenizer: control tokens come from ids, never from text") {
  const Tokenizer& tokenizer = small_tokenizer();
  REQUIRE(tokenizer.find("<|im_end|>") == 696);
  REQUIRE(tokenizer.find("<think>") == 718);
  CHECK(tokenizer.find("<|histo_pad|>") == 720);
  CHECK(tokenizer.find("<|im_end") == -1);
  CHECK(tokenizer.find("a") == -1);
  CHECK(tokenizer.size() == 721);
  const std::vector<int32_t> ids = tokenizer.encode("a<|im_end|><think>");
  CHECK(ids.size() > 3);
  CHECK(ids.back() == 718);
  CHECK(std::find(ids.begin(), ids.end(), 696) == ids.end());
  CHECK(tokenizer.decode(ids) == "a<|im_end|><think>");
  const std::vector<int32_t> special = tokenizer.encode_with_special("a<|im_end|><think>");
  REQUIRE(special.size() == 3);
  CHECK(special[1] == 696);
  CHECK(tokenizer.decode(special) == "a<think>");
  CHECK(tokenizer.decode(special, false) == "a<|im_end|><think>");
  CHECK(tokenizer.is_control(696));
  CHECK(!tokenizer.is_control(718));
}

TEST_CASE("tokenizer: ids outside the vocabulary give nothing") {
  const Tokenizer& tokenizer = small_tokenizer();
  for (const int32_t id : {-1, INT32_MIN, 721, INT32_MAX}) {
    CHECK(tokenizer.bytes(id).empty());
    CHECK(!tokenizer.is_control(id));
    CHECK(tokenizer.decode({id}).empty());
  }
  CHECK(tokenizer.decode({}).empty());
  CHECK(tokenizer.encode("").empty());
}

TEST_CASE("tokenizer: of added tokens the leftmost wins, then the longest; a hidden control token hides what begins in it") {
  const Tokenizer tokenizer = make(bytes_and({{"<a", 4}, {"<a>", 4}, {"<a>b<c>", 3}, {"<c>x", 4}, {"≠", 4}}));
  const auto byte_ids = [](std::string_view text) {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(uint8_t(c));
    return ids;
  };
  CHECK(tokenizer.encode("<a>") == std::vector<int32_t>{257});
  CHECK(tokenizer.encode("<a") == std::vector<int32_t>{256});
  CHECK(tokenizer.encode("<a>b<c") == std::vector<int32_t>{257, 'b', '<', 'c'});
  CHECK(tokenizer.encode("<a>b<c>x") == byte_ids("<a>b<c>x"));
  CHECK(tokenizer.encode_with_special("<a>b<c>x") == std::vector<int32_t>{258, 'x'});
  CHECK(tokenizer.encode("<c>x") == std::vector<int32_t>{259});
  CHECK(tokenizer.encode("≠") == std::vector<int32_t>{260});
  CHECK(tokenizer.encode("=\u0338") == byte_ids("\xE2\x89\xA0"));  // matched before NFC
}

TEST_CASE("tokenizer: a megabyte of one letter, one mark, one sign takes no quadratic time") {
  // Quadratic work on 2^20 symbols would take minutes; the limit leaves room for sanitizers and a busy machine.
  const auto repeat = [](const std::string& part) {
    std::string text;
    while (text.size() < (1 << 20)) text += part;
    return text;
  };
  for (const std::string part : {"a", " ", "!", "\n", "in", "\u0301\u0323", "<", "<|im_end", "\x80", "<think>"}) {
    const std::string text = repeat(part);
    CAPTURE(part);
    std::vector<int32_t> ids;
    CHECK(seconds([&] { ids = small_tokenizer().encode(text); }) < 20);
    std::string normal;
    for (const int32_t code : nfc(text)) append_utf8(normal, code);
    CHECK(small_tokenizer().decode(ids) == normal);
  }
}

TEST_CASE("tokenizer: invalid UTF-8 becomes U+FFFD as in Python; NUL is a character") {
  for (const auto& [bytes, expected] : kInvalid) {
    CAPTURE(expected);
    CHECK(valid_utf8(bytes) == expected);
    CHECK(small_tokenizer().encode(bytes) == small_tokenizer().encode(expected));
    CHECK(small_tokenizer().encode("<think>" + bytes + "<think>") == small_tokenizer().encode("<think>" + expected + "<think>"));
  }
  const std::string nul("a\0b\0", 4);
  CHECK(small_tokenizer().decode(small_tokenizer().encode(nul)) == nul);
}

TEST_CASE("tokenizer: a stream fed byte by byte gives the whole decode, and only whole characters") {
  std::string all;
  for (const auto& [bytes, expected] : kInvalid) all += bytes;
  for (size_t i = 0; i < 3000; ++i) all += cases()[i].text.substr(0, 101);
  for (const size_t step : {1, 2, 3, 5}) {
    Utf8Stream stream;
    std::string out;
    for (size_t i = 0; i < all.size(); i += step) {
      const std::string part = stream.push(std::string_view(all).substr(i, step));
      if (valid_utf8(part) != part) CHECK_MESSAGE(false, "half a character at " << i);
      out += part;
    }
    CHECK(out + stream.finish() == valid_utf8(all));
  }
  Utf8Stream stream;
  CHECK(stream.push("\xE2\x82").empty());
  CHECK(stream.push("\xAC") == "€");
  CHECK(stream.push("\xF0\x9F\x98").empty());
  CHECK(stream.finish() == "�");
  CHECK(stream.finish().empty());
  CHECK(stream.push("x") == "x");
}

// Such a file would otherwise take the square of its size to open.
TEST_CASE("tokenizer: a vocabulary made to fall on one place of the hash table is refused") {
  std::vector<std::pair<std::string, int>> tokens;
  for (int i = 0; tokens.size() < 1100; ++i) {  // 1,356 with the bytes: a table of 2,048
    const std::string token = "t" + std::to_string(i);
    if (std::hash<std::string_view>()(token) % 2048 == 77) tokens.push_back({token, 1});
  }
  check_error([&] { make(bytes_and(tokens)); }, Status::bad_file, "1024 tokens fall on one place of the hash table");
}

TEST_CASE("tokenizer: every error of the vocabulary") {
  const auto fails = [](const TokenizerTables& tables, const std::string& part) { check_error([&] { make(tables); }, Status::bad_file, part); };
  TokenizerTables tables = pairs_tables();
  tables.types.pop_back();
  fails(tables, "768 tokens but 767 token types");
  fails(bytes_and({{"", 1}}), "token 256 is empty");
  fails(bytes_and({{"a b", 1}}), "token 256 \"a b\" is not bytes in printable form");
  fails(bytes_and({{"\u0150", 1}}), "is not bytes in printable form");
  fails(bytes_and({{"\xC4", 1}}), "is not bytes in printable form");
  fails(bytes_and({{"<x>", 2}}), "has type 2, expected 1 (normal), 3 (control) or 4 (user-defined)");
  fails(bytes_and({{std::string(257, 'x'), 3}}), "an added token of 257 bytes, at most 256");
  fails(bytes_and({{"<\xFF>", 4}}), "an added token that is not UTF-8");
  fails(bytes_and({{"<x>", 4}, {"<x>", 3}}), "token 257 \"<x>\" is also token 256");
  fails({}, "no token for the single byte 0");
  tables = bytes_and({});
  tables.tokens[200] = "aa";
  fails(tables, "no token for the single byte 200");

  const auto merge_fails = [&](const std::string& merge, const std::string& part) {
    TokenizerTables t = pairs_tables();
    t.merges.push_back(merge);
    fails(t, part);
  };
  const std::string rank = "merge 512 ";
  merge_fails("ab", rank + "\"ab\" is not two tokens with one space between");
  merge_fails("a b c", "is not two tokens with one space between");
  merge_fails("aa b", "needs the token \"aa\", which the vocabulary does not have");
  merge_fails("a bb", "needs the token \"bb\", which");
  merge_fails("a b", "needs the token \"ab\", which");
  merge_fails(" b", "needs the token \"\", which");
  merge_fails(pairs_tables().merges[7], "is also merge 7");
  tables = bytes_and({{"ab", 4}});
  tables.merges = {"a b"};
  fails(tables, "needs the token \"ab\", which");  // an added token is not a merge's result
  check_error([] { small_tokenizer().encode(std::string((64 << 20) + 1, 'a')); }, Status::too_large, "at most 67108864 are encoded at once");
}

TEST_CASE("tokenizer.json: the small file as written, pairs and strings of merges alike") {
  const TokenizerTables tables = read_tokenizer_json(small_path());
  REQUIRE(tables.tokens.size() == 721);
  CHECK(tables.merges.size() == 438);
  CHECK(tables.types[0] == 1);
  CHECK(tables.types[696] == 3);
  CHECK(tables.types[718] == 4);
  nlohmann::json json = nlohmann::json::parse(read_file(small_path()));
  for (auto& merge : json["model"]["merges"]) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  json["model"]["vocab"]["<think>"] = 718;  // some files name the added tokens in the base vocabulary too
  TempDir dir;
  write_file(dir.file("t.json"), json.dump());
  const TokenizerTables again = read_tokenizer_json(dir.file("t.json"));
  CHECK(again.tokens == tables.tokens);
  CHECK(again.types == tables.types);
  CHECK(again.merges == tables.merges);
}

TEST_CASE("tokenizer.json: every error") {
  const nlohmann::json good = nlohmann::json::parse(read_file(small_path()));
  TempDir dir;
  const std::string path = dir.file("tokenizer.json");
  const auto text_fails = [&](const std::string& text, const std::string& part) {
    write_file(path, text);
    check_error([&] { read_tokenizer_json(path); }, Status::bad_file, part);
  };
  const auto fails = [&](Status status, const std::string& part, const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json json = good;
    change(json);
    write_file(path, json.dump());
    check_error([&] { read_tokenizer_json(path); }, status, part);
  };
  const auto bad = [&](const std::string& part, const std::function<void(nlohmann::json&)>& change) { fails(Status::bad_file, part, change); };
  const auto refused = [&](const std::string& part, const std::function<void(nlohmann::json&)>& change) { fails(Status::unsupported, part, change); };
  using J = nlohmann::json;

  check_error([&] { read_tokenizer_json(dir.file("absent.json")); }, Status::not_found, "absent.json");
  text_fails("", path);
  text_fails("{\"model\": ", path);
  text_fails("[]", "is not a JSON object");
  text_fails(std::string(100000, '['), path);

  for (const char* name : {"normalizer", "pre_tokenizer", "decoder", "model", "added_tokens"}) {
    bad("the file has no \"" + std::string(name) + "\"", [&](J& j) { j.erase(name); });
  }
  bad("model has no \"vocab\"", [](J& j) { j["model"].erase("vocab"); });
  bad("model has no \"merges\"", [](J& j) { j["model"].erase("merges"); });
  bad("pre_tokenizer has no \"pretokenizers\"", [](J& j) { j["pre_tokenizer"].erase("pretokenizers"); });
  bad("pre_tokenizer step 1 has no \"pattern\"", [](J& j) { j["pre_tokenizer"]["pretokenizers"][0].erase("pattern"); });
  bad("model has no \"vocab\"", [](J& j) { j["model"] = {{"type", "BPE"}}; });

  refused("normalizer.type is \"NFKC\", expected \"NFC\"", [](J& j) { j["normalizer"]["type"] = "NFKC"; });
  refused("normalizer.type is null", [](J& j) { j["normalizer"] = nullptr; });
  refused("pre_tokenizer.type is", [](J& j) { j["pre_tokenizer"]["type"] = "ByteLevel"; });
  refused("expected two steps, Split and ByteLevel", [](J& j) { j["pre_tokenizer"]["pretokenizers"].erase(1); });
  const auto step = [&](const std::string& part, int i, const char* name, const J& value) {
    refused("pre_tokenizer step " + std::to_string(i + 1) + part, [&](J& j) { j["pre_tokenizer"]["pretokenizers"][size_t(i)][name] = value; });
  };
  step(".type is", 0, "type", "Digits");
  step(".pattern.Regex is", 0, "pattern", {{"Regex", "\\p{N}{1,3}"}});
  step(".pattern.Regex is null", 0, "pattern", {{"String", " "}});
  step(".behavior is", 0, "behavior", "Removed");
  step(".invert is", 0, "invert", true);
  step(".type is", 1, "type", "Metaspace");
  step(".add_prefix_space is", 1, "add_prefix_space", true);
  step(".use_regex is", 1, "use_regex", true);
  refused("post_processor.type is \"TemplateProcessing\"", [](J& j) { j["post_processor"]["type"] = "TemplateProcessing"; });
  refused("decoder.type is", [](J& j) { j["decoder"]["type"] = "Metaspace"; });
  const std::pair<const char*, J> settings[] = {{"type", "Unigram"}, {"dropout", 0.1}, {"unk_token", "<unk>"}, {"continuing_subword_prefix", "##"},
                                                {"end_of_word_suffix", "</w>"}, {"byte_fallback", true}, {"ignore_merges", true}};
  for (const auto& [name, value] : settings) {
    refused("model." + std::string(name) + " is ", [&name = name, &value = value](J& j) { j["model"][name] = value; });
  }
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) {
    refused("added_tokens[3]." + std::string(flag) + " is true, expected false", [&](J& j) { j["added_tokens"][3][flag] = true; });
  }
  refused("added_tokens[3].special is null, expected false or true", [](J& j) { j["added_tokens"][3].erase("special"); });

  bad("model.vocab is not an object", [](J& j) { j["model"]["vocab"] = J::array(); });
  bad("the vocabulary is empty", [](J& j) { j["model"]["vocab"] = J::object(), j["added_tokens"] = J::array(); });
  for (const J& id : {J(-1), J(1.5), J("7"), J(nullptr), J(2147483647), J(UINT64_MAX)}) {
    bad("token \"a\" has id ", [&](J& j) { j["model"]["vocab"]["a"] = id; });
  }
  bad("2147482925 ids without a token: 721 … 2147483645", [](J& j) { j["model"]["vocab"]["new"] = 2147483646; });
  bad("1 ids without a token: 64; 1 ids used twice: 65 (", [](J& j) { j["model"]["vocab"]["a"] = 65; });
  bad("2 ids without a token: 100, 300", [](J& j) {
    for (const int id : {100, 300}) {
      for (auto i = j["model"]["vocab"].begin(); i != j["model"]["vocab"].end(); ++i) {
        if (*i == id) {
          j["model"]["vocab"].erase(i);
          break;
        }
      }
    }
  });
  bad("added_tokens is not a list", [](J& j) { j["added_tokens"] = 1; });
  bad("added_tokens[0] has no \"content\"", [](J& j) { j["added_tokens"][0] = 1; });
  bad("added_tokens[0].content is not text", [](J& j) { j["added_tokens"][0]["content"] = 1; });
  bad("added_tokens[0] has no \"id\"", [](J& j) { j["added_tokens"][0].erase("id"); });
  bad("token \"<|im_start|>\" is added twice, as 694 and 695", [](J& j) { j["added_tokens"][0]["content"] = "<|im_start|>"; });
  bad("token \"a\" is 64 in model.vocab and 694 in added_tokens", [](J& j) { j["added_tokens"][0]["content"] = "a"; });
  bad("model.merges is not a list", [](J& j) { j["model"]["merges"] = 1; });
  for (const J& merge : {J(1), J::array({"a"}), J::array({"a", "b", "c"}), J::array({"a", 1})}) {
    bad("merge 2 is ", [&](J& j) { j["model"]["merges"][2] = merge; });
  }
  for (const J& merge : {J("ab"), J(" b"), J("a "), J("a b c"), J::array({"a b", "c"}), J::array({"", "b"})}) {
    bad("expected two tokens without a space in them", [&](J& j) { j["model"]["merges"][2] = merge; });
  }
}
