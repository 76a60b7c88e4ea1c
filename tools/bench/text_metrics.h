// Texts against texts: ROUGE-L, BLEU-4, token F1, exact match, each with exactly the tokenisation of a public implementation (named beside it).
// In: UTF-8. Out: numbers. Not here: which records are compared.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tool {

std::string replaced(const std::string& text, std::string_view what, std::string_view with);  // every occurrence, from the left
// Unicode lower case, one code point at a time. Bytes that are no UTF-8 stay as they are.
std::string lower_case(std::string_view text);
// Pieces between runs of white space (Unicode White_Space and U+001C … U+001F, as Python's str.split()).
std::vector<std::string> split_spaces(std::string_view text);
// The words of an answer: boxes (<|box_start|> … <|box_end|>) and the marks of names are left out, the names stay.
std::string without_boxes(const std::string& text);

// F1 of the longest common subsequence; rouge-score 0.1.2, rougeL, use_stemmer=False.
double rouge_l(const std::string& reference, const std::string& prediction);

// The sufficient statistics of BLEU, to be added up over a corpus; sacrebleu 2.5.1, tokenizer 13a, one reference.
struct BleuCounts {
  int64_t predicted = 0, reference = 0;  // lengths in tokens
  int64_t matches[4] = {}, total[4] = {};  // n-grams, n = 1 … 4
  BleuCounts& operator+=(const BleuCounts& other);
};
BleuCounts bleu_counts(const std::string& reference, const std::string& prediction);
// 0 … 100, smoothing "exp". effective_order: for one sentence, the orders that it is too short for are left out.
double bleu(const BleuCounts& counts, bool effective_order);

// SQuAD 1.1: lower case, no ASCII punctuation, no a/an/the. F1 over the bags of words; equality of the texts.
double token_f1(const std::string& reference, const std::string& prediction);
bool exact_match(const std::string& reference, const std::string& prediction);

}  // namespace tool
