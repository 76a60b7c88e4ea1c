// Numbers that scores are made of: shares with their interval, means, the equality of closed answers, calibration, abstention.
// In: single results. Not here: which records count (scores.h).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace tool {

// k of n, with the Wilson score interval at 95 %.
struct Share {
  int64_t k = 0, n = 0;
  void add(bool hit) { k += hit, ++n; }
  void operator+=(const Share& other) { k += other.k, n += other.n; }
  double value() const { return double(k) / double(n); }  // n > 0
  double low() const;
  double high() const;
};

struct Mean {
  double sum = 0;
  int64_t n = 0;
  void add(double x) { sum += x, ++n; }
  void operator+=(const Mean& other) { sum += other.sum, n += other.n; }
  double value() const { return sum / double(n); }  // n > 0
};

// Does a closed answer equal the reference? Normal form: lower case, white space to single blanks, none at the ends, no .,;:!? at the end, no quotes
// around (one pair), no leading a/an/the before another word. Where the options (or else the question) are lettered (A. … B. …), an answer may also name an option by
// its letter ("B", "B.", "(B)"), by both ("(B) text", "B. text", "B: text") or by its text; a letter with another option's text is no answer.
bool closed_equal(const std::string& prediction, const std::string& reference, const std::vector<std::string>& options, const std::string& question);
std::string closed_normal_form(const std::string& answer);

// The most probable option (the first on a tie).
size_t best_option(const std::vector<double>& probabilities);

// One closed item with option probabilities and a known correct option.
struct Certainty {
  double confidence = 0;  // probability of the most probable option
  double margin = 0;      // to the second most probable; to 0 with a single option
  double brier = 0;       // Σ over options (p − [correct])²: 0 … 2
  bool correct = false;   // the most probable option is the correct one
};
Certainty certainty(const std::vector<double>& probabilities, int64_t correct_option);

constexpr int kBins = 10;
struct Bin {  // of confidence: (i/10, (i+1)/10], the first with 0
  int64_t n = 0, correct = 0;
  double confidence_sum = 0;
};
struct Calibration {
  std::vector<Bin> bins;
  double ece = 0;    // Σ bins n/N · |accuracy − mean confidence|
  double brier = 0;  // mean of Certainty::brier
};
Calibration calibrate(const std::vector<Certainty>& items);  // not empty

// Answering only the items with the largest margins. accuracy[i]: of the i+1 surest, items of equal margin sharing their errors evenly.
struct Abstention {
  std::vector<double> accuracy;
  double aurc = 0;  // area under risk over coverage: mean of 1 − accuracy[i]
};
Abstention abstain(const std::vector<Certainty>& items);  // not empty

}  // namespace tool
