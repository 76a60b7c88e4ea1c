// What the tokenizer needs to know of Unicode: UTF-8 with the usual replacement of invalid parts, NFC, and the classes of its pattern.
// In: bytes. Out: code points or UTF-8. Not here: tokens.
// The classes and NFC are those of the reference tokenizer, not of one Unicode version: its pattern engine knows the letters of Unicode 16, its
// NFC only the marks of Unicode 9. utf8proc 2.8 stands between (Unicode 15), so unicode.cpp carries a table for each side.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bg {

constexpr int32_t kReplacement = 0xFFFD;

// The first part of a text: a character, or a maximal invalid part (Unicode 3.9, Python's errors="replace"), which stands for one U+FFFD.
struct Utf8Part {
  int32_t code = kReplacement;
  int32_t size = 1;         // bytes, 1 … 4
  bool valid = false;
  bool incomplete = false;  // invalid only because the text ends: more bytes could make it a character
};
Utf8Part first_utf8(std::string_view text);  // text not empty

void append_utf8(std::string& out, int32_t code);
std::string valid_utf8(std::string_view text);  // invalid parts → U+FFFD

// UTF-8 (invalid parts → U+FFFD) → code points in NFC. O(n log n) for any order of marks.
std::vector<int32_t> nfc(std::string_view text);

enum class CharClass : uint8_t { letter, number, newline, space, other };  // \p{L}, \p{N}, [\r\n], the rest of \s, everything else
CharClass char_class(int32_t code);

}  // namespace bg
