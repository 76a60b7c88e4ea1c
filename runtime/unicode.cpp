// See unicode.h. Out of utf8proc come the general categories, canonical decompositions, combining classes and compositions.
#include "runtime/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

namespace bg {
namespace {

struct Range {
  int32_t first, last;  // both included
};

// Letters and numbers of Unicode 15.1 and 16, which the reference's \p{L} and \p{N} know and utf8proc 2.8 does not. Found by comparing all code
// points; tests/test_tokenizer.cpp compares them again.
constexpr Range kNewLetters[] = {
    {0x1C89, 0x1C8A}, {0xA7CB, 0xA7CD}, {0xA7DA, 0xA7DC}, {0x105C0, 0x105F3}, {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4},
    {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3},
    {0x11BC0, 0x11BE0}, {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0},
    {0x2EBF0, 0x2EE5D},
};
constexpr Range kNewNumbers[] = {
    {0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139}, {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA},
};

// Code points that NFC moves or composes since Unicode 10 (the letters and marks of five new blocks taken whole), but not in the reference: there
// they have combining class 0 and compose with nothing, so text on both sides is normalised by itself. And U+11A7, the place before the first
// final jamo, which utf8proc 2.8 takes for a final jamo and swallows.
constexpr Range kInert[] = {
    {0x05C8, 0x05C9}, {0x07FD, 0x07FD}, {0x0897, 0x089F}, {0x08CA, 0x08D3}, {0x09FE, 0x09FE}, {0x0C3C, 0x0C3C}, {0x0D3B, 0x0D3C},
    {0x0EBA, 0x0EBA}, {0x11A7, 0x11A7}, {0x1715, 0x1715}, {0x1ABF, 0x1AF0}, {0x1DF6, 0x1DFA}, {0xA82C, 0xA82C}, {0x105C0, 0x105FF},
    {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC}, {0x10ECB, 0x10ECF}, {0x10EF0, 0x10EFB}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x11380, 0x113FF}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11900, 0x1195F},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
    {0x11F41, 0x11F42}, {0x16100, 0x1613F}, {0x16D40, 0x16D7F}, {0x16FF0, 0x16FF1}, {0x1D127, 0x1D128}, {0x1D250, 0x1D252}, {0x1D25B, 0x1D25C},
    {0x1D25F, 0x1D25F}, {0x1D280, 0x1D281}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
    {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5},
};

template <size_t N>
bool within(const Range (&ranges)[N], int32_t code) {
  const Range* range = std::upper_bound(std::begin(ranges), std::end(ranges), code, [](int32_t c, const Range& r) { return c < r.first; });
  return range != std::begin(ranges) && code <= range[-1].last;
}

int combining_class(int32_t code) { return utf8proc_get_property(code)->combining_class; }

// Decomposed code points from `begin` to the end → canonical order, then composed, in place.
void order_and_compose(std::vector<int32_t>& codes, size_t begin) {
  // utf8proc's own ordering is an insertion sort, quadratic in a run of marks.
  for (size_t at = begin; at < codes.size();) {
    size_t end = at;
    while (end < codes.size() && combining_class(codes[end]) != 0) ++end;
    if (end - at > 1) {
      std::stable_sort(codes.begin() + at, codes.begin() + end, [](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    }
    at = end + 1;
  }
  if (begin == codes.size()) return;
  const auto options = utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t size = utf8proc_normalize_utf32(codes.data() + begin, utf8proc_ssize_t(codes.size() - begin), options);
  codes.resize(begin + size_t(size));
}

}  // namespace

Utf8Part first_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return uint8_t(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {};  // a continuation, an overlong form, or beyond U+10FFFF
  const int32_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte decides about overlong forms, surrogates and the end of Unicode.
  uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  int32_t code = lead & (0xFF >> (size + 1));
  for (int32_t i = 1; i < size; ++i) {
    if (size_t(i) == text.size()) return {kReplacement, i, false, true};
    if (byte(size_t(i)) < low || byte(size_t(i)) > high) return {kReplacement, i, false, false};
    code = code << 6 | (byte(size_t(i)) & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {code, size, true, false};
}

void append_utf8(std::string& out, int32_t code) {
  utf8proc_uint8_t bytes[4];
  out.append(reinterpret_cast<const char*>(bytes), size_t(utf8proc_encode_char(code, bytes)));
}

std::string valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Part part = first_utf8(text);
    if (part.valid) {
      out.append(text.substr(0, size_t(part.size)));
    } else {
      append_utf8(out, kReplacement);
    }
    text.remove_prefix(size_t(part.size));
  }
  return out;
}

std::vector<int32_t> nfc(std::string_view text) {
  std::vector<int32_t> codes;
  codes.reserve(text.size());
  bool plain = true;
  while (!text.empty()) {
    const Utf8Part part = first_utf8(text);
    codes.push_back(part.code);
    plain = plain && part.code < 0x300;  // below the first mark nothing composes, moves or decomposes for good
    text.remove_prefix(size_t(part.size));
  }
  if (plain) return codes;

  std::vector<int32_t> out;
  out.reserve(codes.size());
  size_t begin = 0;  // of the text since the last inert code point, in out
  for (const int32_t code : codes) {
    if (within(kInert, code)) {
      order_and_compose(out, begin);
      out.push_back(code);
      begin = out.size();
      continue;
    }
    int32_t parts[32];  // Unicode promises at most 4
    int boundary = 0;
    const auto options = utf8proc_option_t(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
    const utf8proc_ssize_t size = utf8proc_decompose_char(code, parts, std::size(parts), options, &boundary);
    out.insert(out.end(), parts, parts + size);
  }
  order_and_compose(out, begin);
  return out;
}

CharClass char_class(int32_t code) {
  if (code == '\r' || code == '\n') return CharClass::newline;
  if (code == ' ' || (code >= 0x09 && code <= 0x0D) || code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
      code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000) {
    return CharClass::space;
  }
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::number;
    case UTF8PROC_CATEGORY_CN:
      return within(kNewLetters, code) ? CharClass::letter : within(kNewNumbers, code) ? CharClass::number : CharClass::other;
    default:
      return CharClass::other;
  }
}

}  // namespace bg
