#include "tools/bench/metrics.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "tools/bench/text_metrics.h"

namespace tool {
namespace {

// Bounds of the p with |k/n − p| ≤ z·√(p(1−p)/n):  (k/n + z²/2n ± z·√(k/n·(1−k/n)/n + z²/4n²)) / (1 + z²/n).
double wilson(int64_t k, int64_t n, double sign) {
  constexpr double z = 1.959963984540054;  // Φ(z) = 0.975
  const double p = double(k) / double(n), m = double(n);
  const double bound = (p + z * z / (2 * m) + sign * z * std::sqrt(p * (1 - p) / m + z * z / (4 * m * m))) / (1 + z * z / m);
  return std::clamp(bound, 0.0, 1.0);
}

std::string joined(const std::vector<std::string>& words, size_t from = 0, size_t to = std::string::npos) {
  std::string out;
  for (size_t i = from; i < std::min(to, words.size()); ++i) out += (i > from ? " " : "") + words[i];
  return out;
}

// "B", "B.", "(B)", "(B) text", "B) text", "B: text": the letter and the rest.
struct Lettered {
  int letter = -1;  // 0 for A
  std::string rest;
};
Lettered lettered(const std::string& answer) {
  const std::string s = joined(split_spaces(answer));
  const size_t at = !s.empty() && s[0] == '(' ? 1 : 0;
  if (at >= s.size()) return {};
  const char c = char(s[at] | 0x20);
  if (c < 'a' || c > 'z') return {};
  const std::string after = s.substr(at + 1);
  if (at == 0 && after.empty()) return {c - 'a', ""};
  const bool marked = !after.empty() && (after[0] == ')' || (at == 0 && (after[0] == '.' || after[0] == ':')));
  // "A.M." and "e.g." are no letters of options: the mark ends the answer or a blank follows.
  if (!marked || (after.size() > 1 && after[1] != ' ' && !(after[0] == ')' && after[1] == '.' && after.size() == 2))) return {};
  return {c - 'a', after.size() > 2 ? after.substr(2) : ""};
}

// Normal forms of the lettered options, by letter; empty when there are none. An option that is a letter alone has the text "".
std::vector<std::string> lettered_options(const std::vector<std::string>& options, const std::string& question) {
  std::vector<std::string> texts;
  for (const std::string& o : options) {
    const Lettered l = lettered(o);
    if (l.letter != int(texts.size())) break;
    texts.push_back(closed_normal_form(l.rest));
  }
  const bool bare = std::all_of(texts.begin(), texts.end(), [](const std::string& t) { return t.empty(); });
  if (texts.size() == options.size() && texts.size() >= 2 && !bare) return texts;
  // In the question: a word "A." or "A)" or "(A)" or "A:", later "B.", and so on; the text goes up to the next one.
  std::vector<std::string> words = split_spaces(question), found;
  size_t start = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string mark(1, char('A' + found.size()));
    const bool next = found.size() < 26 && (words[i] == mark + "." || words[i] == mark + ")" || words[i] == mark + ":" || words[i] == "(" + mark + ")");
    if (!next) continue;
    if (!found.empty()) found.back() = closed_normal_form(joined(words, start, i));
    found.emplace_back();
    start = i + 1;
  }
  if (found.size() < 2) return texts.size() == options.size() && texts.size() >= 2 ? texts : std::vector<std::string>{};
  found.back() = closed_normal_form(joined(words, start));
  return found;
}

// Which of the lettered options an answer names, −1: none of them.
int named_option(const std::string& answer, const std::vector<std::string>& texts) {
  const std::string whole = closed_normal_form(answer);
  const auto found = std::find(texts.begin(), texts.end(), whole);
  if (!whole.empty() && found != texts.end()) return int(found - texts.begin());
  const Lettered l = lettered(answer);
  if (l.letter < 0 || l.letter >= int(texts.size())) return -1;
  const std::string rest = closed_normal_form(l.rest), &text = texts[size_t(l.letter)];
  return rest.empty() || text.empty() || rest == text ? l.letter : -1;
}

}  // namespace

double Share::low() const { return wilson(k, n, -1); }
double Share::high() const { return wilson(k, n, 1); }

std::string closed_normal_form(const std::string& answer) {
  const auto unpunctuated = [](std::string text) {
    while (!text.empty() && std::string_view(" .,;:!?").find(text.back()) != std::string_view::npos) text.pop_back();
    return text;
  };
  std::string s = unpunctuated(joined(split_spaces(lower_case(answer))));
  if (s.size() >= 2 && s.front() == s.back() && (s.front() == '"' || s.front() == '\'')) s = unpunctuated(joined(split_spaces(s.substr(1, s.size() - 2))));
  for (const char* article : {"a ", "an ", "the "})
    if (s.starts_with(article)) return s.substr(std::string(article).size());
  return s;
}

bool closed_equal(const std::string& prediction, const std::string& reference, const std::vector<std::string>& options, const std::string& question) {
  const std::string a = closed_normal_form(prediction);
  if (a.empty()) return false;
  if (a == closed_normal_form(reference)) return true;
  const std::vector<std::string> texts = lettered_options(options, question);
  const int named = named_option(prediction, texts);
  return named >= 0 && named == named_option(reference, texts);
}

size_t best_option(const std::vector<double>& probabilities) { return size_t(std::max_element(probabilities.begin(), probabilities.end()) - probabilities.begin()); }

Certainty certainty(const std::vector<double>& probabilities, int64_t correct_option) {
  const size_t best = best_option(probabilities);
  double second = 0;
  Certainty c;
  for (size_t i = 0; i < probabilities.size(); ++i) {
    const double wrong = probabilities[i] - (int64_t(i) == correct_option);
    c.brier += wrong * wrong;
    if (i != best) second = std::max(second, probabilities[i]);
  }
  c.confidence = probabilities[best];
  c.margin = c.confidence - second;
  c.correct = int64_t(best) == correct_option;
  return c;
}

Calibration calibrate(const std::vector<Certainty>& items) {
  Calibration result;
  result.bins.resize(kBins);
  for (const Certainty& c : items) {
    int i = 0;
    while (i < kBins - 1 && c.confidence > (i + 1) * 0.1) ++i;
    Bin& bin = result.bins[size_t(i)];
    ++bin.n;
    bin.correct += c.correct;
    bin.confidence_sum += c.confidence;
    result.brier += c.brier;
  }
  result.brier /= double(items.size());
  for (const Bin& b : result.bins) result.ece += std::fabs(double(b.correct) - b.confidence_sum) / double(items.size());
  return result;
}

Abstention abstain(const std::vector<Certainty>& items) {
  std::vector<Certainty> sorted = items;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Certainty& a, const Certainty& b) { return a.margin > b.margin; });
  Abstention result;
  double before = 0;  // correct ones among the groups passed
  for (size_t start = 0, end; start < sorted.size(); start = end) {
    int64_t correct = 0;
    for (end = start; end < sorted.size() && sorted[end].margin == sorted[start].margin; ++end) correct += sorted[end].correct;
    for (size_t i = start; i < end; ++i) {
      const double expected = before + double(correct) * double(i + 1 - start) / double(end - start);
      result.accuracy.push_back(expected / double(i + 1));
      result.aurc += 1 - result.accuracy.back();
    }
    before += double(correct);
  }
  result.aurc /= double(sorted.size());
  return result;
}

}  // namespace tool
