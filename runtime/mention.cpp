// See mention.h.
#include "runtime/mention.h"

namespace bg {
namespace {

bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool digit(char c) { return c >= '0' && c <= '9'; }

// `word` at `at`, ASCII case ignored.
bool word_at(std::string_view text, size_t at, std::string_view word) {
  if (text.size() - at < word.size()) return false;
  for (size_t i = 0; i < word.size(); ++i)
    if ((text[at + i] | 0x20) != word[i]) return false;
  return true;
}

}  // namespace

int64_t mentioned_medium(std::string_view text, size_t box_at, int64_t media) {
  int64_t named = 1;
  for (size_t at = 0; at < box_at && at < text.size(); ++at) {
    if (at > 0 && letter(text[at - 1])) continue;
    for (std::string_view word : {std::string_view("image"), std::string_view("picture"), std::string_view("volume"), std::string_view("slide")}) {
      if (!word_at(text, at, word)) continue;
      size_t i = at + word.size();
      if (i < text.size() && text[i] == ' ') ++i;
      // At most nine digits: larger numbers name nothing that is there.
      int64_t n = 0;
      size_t digits = 0;
      for (; i < box_at && digit(text[i]) && digits < 9; ++i, ++digits) n = 10 * n + (text[i] - '0');
      if (digits > 0) named = n;
    }
  }
  return named >= 1 && named <= media ? named - 1 : -1;
}

}  // namespace bg
