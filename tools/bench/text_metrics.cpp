#include "tools/bench/text_metrics.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_map>

namespace tool {
namespace {

bool ascii_digit(char c) { return c >= '0' && c <= '9'; }
bool ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// The code point at `at` and its length in bytes; −1 and 1 for a byte that is no UTF-8.
struct CodePoint {
  int32_t value;
  size_t bytes;
};
CodePoint code_point(std::string_view text, size_t at) {
  utf8proc_int32_t value = -1;
  const utf8proc_ssize_t n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at, utf8proc_ssize_t(text.size() - at), &value);
  return n > 0 ? CodePoint{value, size_t(n)} : CodePoint{-1, 1};
}

bool is_space(int32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

// \w of Python's re: letters, numbers, underscore.
bool is_word(int32_t c) {
  if (c < 0) return false;
  const utf8proc_category_t k = utf8proc_category(c);
  return c == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) || (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

// Equal words, equal numbers.
class Vocabulary {
 public:
  std::vector<int> ids(const std::vector<std::string>& words) {
    std::vector<int> out;
    for (const std::string& w : words) out.push_back(numbers_.emplace(w, int(numbers_.size())).first->second);
    return out;
  }
  size_t size() const { return numbers_.size(); }

 private:
  std::unordered_map<std::string, int> numbers_;
};

// Length of the longest common subsequence, 64 positions of `a` at a time (Hyyrö 2004): bit i of V is 0 where the row of the table steps up at i.
//   V ← (V + (V & M)) | (V & ~M),  M: where a holds the word of b.
// Words frequent in `a` have their M kept (at most 64 of them), the others are set and cleared again, so both time and memory stay below |a|·|b|/16.
int64_t common_subsequence(const std::vector<int>& a, const std::vector<int>& b, size_t vocabulary) {
  const size_t blocks = (a.size() + 63) / 64;
  std::vector<std::vector<uint32_t>> where(vocabulary);
  for (size_t i = 0; i < a.size(); ++i) where[size_t(a[i])].push_back(uint32_t(i));
  std::vector<std::vector<uint64_t>> kept(vocabulary);
  std::vector<uint64_t> v(blocks, ~uint64_t(0)), scratch(blocks, 0);
  const auto flip = [](std::vector<uint64_t>& mask, const std::vector<uint32_t>& bits) {
    for (uint32_t i : bits) mask[i / 64] ^= uint64_t(1) << (i % 64);
  };
  for (int word : b) {
    const std::vector<uint32_t>& bits = where[size_t(word)];
    if (bits.empty()) continue;
    const bool frequent = bits.size() > blocks;
    std::vector<uint64_t>& mask = frequent ? kept[size_t(word)] : scratch;
    if (frequent && mask.empty()) mask.assign(blocks, 0), flip(mask, bits);
    if (!frequent) flip(mask, bits);
    uint64_t carry = 0;
    for (size_t i = 0; i < blocks; ++i) {
      const uint64_t hit = v[i] & mask[i], sum = v[i] + hit, full = sum + carry;
      carry = uint64_t(sum < hit) | uint64_t(full < sum);
      v[i] = full | (v[i] & ~mask[i]);
    }
    if (!frequent) flip(mask, bits);
  }
  int64_t length = 0;
  for (size_t i = 0; i < a.size(); ++i) length += !(v[i / 64] >> (i % 64) & 1);
  return length;
}

double f1(int64_t common, size_t predicted, size_t reference) {
  if (common == 0) return 0;
  const double precision = double(common) / double(predicted), recall = double(common) / double(reference);
  return 2 * precision * recall / (precision + recall);
}

// Runs of [a-z0-9] of the lower-cased text. Two characters outside ASCII have an ASCII letter as (the start of) their lower case: K (Kelvin), İ.
std::vector<std::string> rouge_tokens(const std::string& text) {
  std::vector<std::string> tokens;
  bool open = false;
  const auto put = [&](char c) {
    if (!open) tokens.emplace_back();
    tokens.back() += c;
    open = true;
  };
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point(text, at);
    at += c.bytes;
    if (c.value == 0x212A) put('k');
    else if (c.value == 0x130) put('i'), open = false;
    else if (c.value >= 0 && c.value < 128 && (ascii_digit(char(c.value)) || ascii_letter(char(c.value)))) put(char(c.value >= 'A' && c.value <= 'Z' ? c.value + 32 : c.value));
    else open = false;
  }
  return tokens;
}

// The three steps of mteval-v13a that look at neighbours, in its order; each reads what the one before wrote, matches do not overlap.
std::vector<std::string> bleu_tokens(const std::string& raw) {
  size_t end = 0;  // str.rstrip(): after the last that is no white space
  for (size_t at = 0; at < raw.size();) {
    const CodePoint c = code_point(raw, at);
    at += c.bytes;
    if (!is_space(c.value)) end = at;
  }
  std::string s = raw.substr(0, end);
  s = replaced(s, "<skipped>", "");
  s = replaced(s, "-\n", "");
  s = replaced(s, "\n", " ");
  s = replaced(s, "&quot;", "\"");
  s = replaced(s, "&amp;", "&");
  s = replaced(s, "&lt;", "<");
  s = replaced(s, "&gt;", ">");
  s = " " + s + " ";
  const auto stop = [](char c) { return c == '.' || c == ','; };
  std::string out;
  for (char c : s) {  // [{-~[-` -&(-+:-@/]: ASCII punctuation but for ' , - .
    const bool apart = (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
    if (apart) out += ' ', out += c, out += ' ';
    else out += c;
  }
  s.swap(out), out.clear();
  for (size_t i = 0; i < s.size(); ++i) {  // ([^0-9])([.,]) → \1 \2 .
    out += s[i];
    if (!ascii_digit(s[i]) && i + 1 < s.size() && stop(s[i + 1])) out += ' ', out += s[++i], out += ' ';
  }
  s.swap(out), out.clear();
  for (size_t i = 0; i < s.size(); ++i) {  // ([.,])([^0-9]) → . \1 \2
    if (stop(s[i]) && i + 1 < s.size() && !ascii_digit(s[i + 1])) out += ' ', out += s[i], out += ' ', out += s[++i];
    else out += s[i];
  }
  s.swap(out), out.clear();
  for (size_t i = 0; i < s.size(); ++i) {  // ([0-9])(-) → \1 \2 .
    out += s[i];
    if (ascii_digit(s[i]) && i + 1 < s.size() && s[i + 1] == '-') out += " - ", ++i;
  }
  return split_spaces(out);
}

std::vector<std::string> squad_tokens(const std::string& text) {
  std::string bare;
  for (char c : lower_case(text)) {
    const bool punctuation = (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
    if (!punctuation) bare += c;
  }
  std::string out;  // \b(a|an|the)\b → space: words are runs of \w, so an article beside a dash or an invalid byte counts
  for (size_t at = 0; at < bare.size();) {
    size_t end = at;
    for (CodePoint c; end < bare.size() && is_word((c = code_point(bare, end)).value);) end += c.bytes;
    const std::string word = bare.substr(at, end - at);
    if (word.empty()) end += code_point(bare, at).bytes, out.append(bare, at, end - at);
    else out += word == "a" || word == "an" || word == "the" ? " " : word;
    at = end;
  }
  return split_spaces(out);
}

}  // namespace

std::string replaced(const std::string& text, std::string_view what, std::string_view with) {
  std::string out;
  size_t at = 0;
  for (size_t found; (found = text.find(what, at)) != std::string::npos; at = found + what.size()) out.append(text, at, found - at).append(with);
  return out.append(text, at);
}

std::string lower_case(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point(text, at);
    if (c.value < 0) out += text[at];
    else if (c.value == 0x130) out += "i\xCC\x87";  // İ: the only one whose lower case is two code points
    else {
      utf8proc_uint8_t bytes[4];
      out.append(reinterpret_cast<char*>(bytes), size_t(utf8proc_encode_char(utf8proc_tolower(c.value), bytes)));
    }
    at += c.bytes;
  }
  return out;
}

std::vector<std::string> split_spaces(std::string_view text) {
  std::vector<std::string> pieces;
  bool open = false;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point(text, at);
    if (is_space(c.value)) open = false;
    else {
      if (!open) pieces.emplace_back();
      pieces.back().append(text, at, c.bytes);
      open = true;
    }
    at += c.bytes;
  }
  return pieces;
}

std::string without_boxes(const std::string& text) {
  const std::string start = "<|box_start|>", stop = "<|box_end|>";
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(start, at), text.size());
    out.append(text, at, found - at);
    const size_t end = found < text.size() ? text.find(stop, found) : text.size();
    at = end >= text.size() ? text.size() : end + stop.size();
  }
  out = replaced(out, "<|object_ref_start|>", "");
  out = replaced(out, "<|object_ref_end|>", "");
  return out;
}

double rouge_l(const std::string& reference, const std::string& prediction) {
  Vocabulary words;
  const std::vector<int> a = words.ids(rouge_tokens(reference)), b = words.ids(rouge_tokens(prediction));
  return f1(common_subsequence(a, b, words.size()), b.size(), a.size());
}

BleuCounts& BleuCounts::operator+=(const BleuCounts& other) {
  predicted += other.predicted;
  reference += other.reference;
  for (int n = 0; n < 4; ++n) matches[n] += other.matches[n], total[n] += other.total[n];
  return *this;
}

BleuCounts bleu_counts(const std::string& reference, const std::string& prediction) {
  Vocabulary words;
  const std::vector<int> a = words.ids(bleu_tokens(reference)), b = words.ids(bleu_tokens(prediction));
  BleuCounts counts;
  counts.reference = int64_t(a.size());
  counts.predicted = int64_t(b.size());
  for (size_t n = 1; n <= 4; ++n) {
    std::map<std::vector<int>, int64_t> in_reference;
    for (size_t i = 0; i + n <= a.size(); ++i) ++in_reference[{a.begin() + ptrdiff_t(i), a.begin() + ptrdiff_t(i + n)}];
    for (size_t i = 0; i + n <= b.size(); ++i) {
      const auto found = in_reference.find({b.begin() + ptrdiff_t(i), b.begin() + ptrdiff_t(i + n)});
      if (found != in_reference.end() && found->second-- > 0) ++counts.matches[n - 1];
      ++counts.total[n - 1];
    }
  }
  return counts;
}

double bleu(const BleuCounts& c, bool effective_order) {
  if (!(c.matches[0] > 0)) return 0;  // no word in common: no n-gram either
  // BLEU = BP · exp(1/N Σ ln p_n), BP = min(1, exp(1 − r/c)); "exp": the k-th p_n that is 0 becomes 1/(2^k · total).
  const double penalty = c.predicted < c.reference ? std::exp(1 - double(c.reference) / double(c.predicted)) : 1;
  double halves = 1, sum = 0;
  int orders = 0;
  for (; orders < 4 && c.total[orders] > 0; ++orders) {
    const double total = double(c.total[orders]);
    sum += std::log(c.matches[orders] > 0 ? 100.0 * double(c.matches[orders]) / total : 100.0 / ((halves *= 2) * total));
  }
  if (orders < 4 && !effective_order) return 0;
  return penalty * std::exp(sum / orders);
}

double token_f1(const std::string& reference, const std::string& prediction) {
  const std::vector<std::string> a = squad_tokens(reference), b = squad_tokens(prediction);
  if (a.empty() || b.empty()) return a == b;
  std::unordered_map<std::string, int64_t> left;
  for (const std::string& w : a) ++left[w];
  int64_t common = 0;
  for (const std::string& w : b) common += left[w]-- > 0;
  return f1(common, b.size(), a.size());
}

bool exact_match(const std::string& reference, const std::string& prediction) { return squad_tokens(reference) == squad_tokens(prediction); }

}  // namespace tool
