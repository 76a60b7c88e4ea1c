#include "tools/bench/fields.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "tools/bench/text_metrics.h"

namespace tool {
namespace {

constexpr size_t kFilling = 10;  // most tokens from the name of a field to its value

// A word (ASCII letters, lower-cased), a number ("4", "1.2", "1,2" is 1.2) or one other character.
struct Token {
  enum Kind { word, number, other } kind;
  std::string text;
  double value = 0;
  bool joined = false;  // no white space before it
};

bool digit(char c) { return c >= '0' && c <= '9'; }
bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::vector<Token> tokens_of(const std::string& text) {
  std::vector<Token> tokens;
  bool joined = false;
  for (size_t at = 0; at < text.size();) {
    size_t end = at + 1;
    Token t{Token::other, "", 0, joined};
    if (space(text[at])) {
      joined = false;
      at = end;
      continue;
    }
    if (letter(text[at])) {
      while (end < text.size() && letter(text[end])) ++end;
      t.kind = Token::word;
      t.text = lower_case(std::string_view(text).substr(at, end - at));
    } else if (digit(text[at])) {
      while (end < text.size() && digit(text[end])) ++end;
      if (end + 1 < text.size() && (text[end] == '.' || text[end] == ',') && digit(text[end + 1]))
        for (++end; end < text.size() && digit(text[end]);) ++end;
      t.kind = Token::number;
      t.text = text.substr(at, end - at);
      std::replace(t.text.begin(), t.text.end(), ',', '.');
      t.value = end - at <= 12 ? std::strtod(t.text.c_str(), nullptr) : INFINITY;
    } else {
      // × and ² are two bytes each and matter below; the other bytes of a character stand alone and mean nothing.
      if (text.compare(at, 2, "\xC3\x97") == 0) ++end, t.text = "x";
      else if (text.compare(at, 2, "\xC2\xB2") == 0 || text.compare(at, 2, "\xC2\xB3") == 0) ++end, t.text = "^";
      else t.text = text[at];
    }
    tokens.push_back(t);
    joined = true;
    at = end;
  }
  return tokens;
}

class Finder {
 public:
  Finder(const std::string& text, const std::string& question) : t_(tokens_of(text)), q_(tokens_of(question)) {}

  FieldValues find() {
    for (size_t i = 0; i < t_.size(); ++i) {
      birads(i);
      density(i);
      if (t_[i].kind != Token::word) continue;
      const std::string& w = t_[i].text;
      if (w == "left" || w == "right") out_.stated[kLaterality].insert(w);
      const bool both = w == "both" && (word(i + 1) == "breasts" || word(i + 1) == "sides");
      if (w == "bilateral" || w == "bilaterally" || both) out_.stated[kLaterality].insert({"left", "right"});
      if (w == "benign" && !negated(i)) out_.stated[kAssessment].insert("benign");
      if ((w == "malignant" || w == "malignancy") && !negated(i)) out_.stated[kAssessment].insert("malignant");
    }
    for (size_t i = 0; i < t_.size() && out_.stated[kSize].empty(); ++i) size(i);
    bare_answer();
    return out_;
  }

 private:
  static bool one_of(const std::string& w, std::initializer_list<const char*> list) {
    return std::any_of(list.begin(), list.end(), [&](const char* x) { return w == x; });
  }
  bool at_word(const std::vector<Token>& t, size_t i) const { return i < t.size() && t[i].kind == Token::word; }
  std::string word(size_t i) const { return at_word(t_, i) ? t_[i].text : ""; }
  std::string text(size_t i) const { return i < t_.size() ? t_[i].text : ""; }

  // Tokens that "BI-RADS" takes at i: birads | bi rads | bi - rads; 0 where it does not stand.
  static size_t birads_length(const std::vector<Token>& t, size_t i) {
    if (i >= t.size() || t[i].kind != Token::word) return 0;
    if (t[i].text == "birads") return 1;
    if (t[i].text != "bi") return 0;
    const size_t next = i + 1 < t.size() && t[i + 1].text == "-" ? i + 2 : i + 1;
    return next < t.size() && t[next].text == "rads" ? next + 1 - i : 0;
  }

  // The value of a BI-RADS category at i, "" where there is none.
  std::string category(size_t i) const {
    if (i >= t_.size()) return "";
    if (t_[i].kind == Token::word) {
      static const char* roman[] = {"i", "ii", "iii", "iv", "v", "vi"};
      for (int n = 0; n < 6; ++n)
        if (t_[i].text == roman[n]) return std::to_string(n + 1);
      return "";
    }
    if (t_[i].kind != Token::number || t_[i].text.size() != 1 || t_[i].text[0] > '6') return "";
    const bool sub = t_[i].text == "4" && i + 1 < t_.size() && t_[i + 1].joined && one_of(t_[i + 1].text, {"a", "b", "c"});
    return t_[i].text + (sub ? t_[i + 1].text : "");
  }

  void birads(size_t i) {
    const size_t length = birads_length(t_, i);
    if (length == 0) return;
    size_t at = i + length;
    while (at < std::min(t_.size(), i + kFilling) && one_of(t_[at].text, {"category", "categories", "assessment", "score", "final", "class", "classification", "grade", "is", "of",
                                                                               ":", "=", "-", "(", ",", "*"}))
      ++at;
    const std::string value = category(at);
    if (!value.empty()) out_.stated[kBirads].insert(value);
  }

  void density(size_t i) {
    const std::string w = word(i);
    std::set<std::string>& found = out_.stated[kDensity];
    if (w == "fatty") found.insert("a");
    if (w == "scattered" && (word(i + 1) == "fibroglandular" || (word(i + 1) == "areas" && word(i + 2) == "of" && word(i + 3) == "fibroglandular"))) found.insert("b");
    if (word(i + 1) == "dense" && w == "heterogeneously") found.insert("c");
    if (word(i + 1) == "dense" && w == "extremely") found.insert("d");
    if (w != "density" && w != "acr") return;
    size_t at = i + 1;
    bool announced = w == "acr";  // a word before the letter that no article follows
    for (; at < std::min(t_.size(), i + kFilling) && one_of(t_[at].text, {"category", "type", "class", "grade", "acr", "is", "of", ":", "=", "-", "(", "*"}); ++at)
      announced = one_of(t_[at].text, {"category", "type", "class", "grade", "acr"}) || (announced && t_[at].kind != Token::word);
    if (!one_of(word(at), {"a", "b", "c", "d"})) return;
    const bool article = t_[at].text == "a" && !announced && at_word(t_, at + 1);
    if (!article) found.insert(t_[at].text);
  }

  // 1 for mm, 10 for cm, 0 for anything else at i; "12-mm" and "12 mm" alike.
  double unit(size_t i) const {
    if (text(i) == "-") ++i;
    const bool area = i + 1 < t_.size() && t_[i + 1].joined && (t_[i + 1].kind == Token::number || t_[i + 1].text == "^");
    if (area) return 0;
    if (one_of(word(i), {"mm", "millimeter", "millimeters", "millimetre", "millimetres"})) return 1;
    return one_of(word(i), {"cm", "centimeter", "centimeters", "centimetre", "centimetres"}) ? 10 : 0;
  }

  // number [unit] (x number [unit])*, the last with a unit, which the ones without share.
  void size(size_t i) {
    double largest = 0, pending = 0;
    for (; i < t_.size() && t_[i].kind == Token::number && t_[i].value <= 10000; ++i) {
      pending = std::max(pending, t_[i].value);
      const double scale = unit(i + 1);
      if (scale > 0) {
        largest = std::max(largest, pending * scale);
        pending = 0;
        i += text(i + 1) == "-" ? 2 : 1;
      }
      if (!one_of(text(i + 1), {"x", "*", "by"})) break;
      ++i;
    }
    if (largest <= 0 || pending > 0) return;
    char value[32];
    std::snprintf(value, sizeof value, "%.1f", largest);
    out_.stated[kSize] = {value};
    out_.size_mm = largest;
  }

  bool negated(size_t i) const {
    for (size_t back = 1; back <= 4 && back <= i; ++back) {
      const std::string& w = t_[i - back].text;
      if (one_of(w, {".", ";", "!", "?"})) return false;
      if (one_of(w, {"no", "not", "without", "negative", "exclude", "excludes", "non"})) return true;
    }
    return false;
  }

  void bare_answer() {
    size_t n = t_.size();
    while (n > 0 && t_[n - 1].text == ".") --n;
    const size_t start = n > 1 && one_of(text(0), {"category", "type", "class"}) ? 1 : 0;
    if (n == start || n > start + 2) return;
    bool about_birads = false, about_density = false;
    for (size_t i = 0; i < q_.size(); ++i) {
      about_birads = about_birads || birads_length(q_, i) > 0;
      about_density = about_density || q_[i].text == "density";
    }
    const std::string value = category(start);
    if (about_birads && !value.empty() && n - start == 1 + size_t(value.size() == 2 && digit(value[0]))) out_.stated[kBirads].insert(value);
    if (about_density && n == start + 1 && one_of(word(start), {"a", "b", "c", "d"})) out_.stated[kDensity].insert(word(start));
  }

  std::vector<Token> t_, q_;
  FieldValues out_;
};

}  // namespace

const char* field_name(int field) {
  static const char* names[kFields] = {"BI-RADS category", "laterality", "size", "density", "benign or malignant"};
  return names[field];
}

FieldValues find_fields(const std::string& text, const std::string& question) { return Finder(text, question).find(); }

bool fields_agree(int field, const FieldValues& reference, const FieldValues& prediction) {
  // The margin is for sizes that were written in cm: 1.2 cm − 1.1 cm is not exactly 1 mm.
  if (field == kSize) return std::fabs(reference.size_mm - prediction.size_mm) <= 1 + 1e-9;
  return reference.stated[field] == prediction.stated[field];
}

}  // namespace tool
