// See text.h.
#include "tools/stage/text.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "loaders/cursor.h"
#include "tools/options.h"

namespace stage {
namespace {

constexpr size_t kMostProblems = 20;

// Steps (insert, delete, replace a byte) from a to b; names longer than 64 bytes are compared by their start.
size_t edit_distance(std::string_view a, std::string_view b) {
  a = a.substr(0, 64), b = b.substr(0, 64);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

void Problems::add(const std::string& message) {
  all_.push_back(message);
  if (all_.size() < kMostProblems) return;
  all_.push_back("stopped after " + std::to_string(kMostProblems) + " problems");
  stop_if_any();
}

void Problems::stop_if_any() const {
  if (all_.empty()) return;
  std::string lines;
  for (const std::string& p : all_) lines += (lines.empty() ? "" : "\n") + p;
  throw tool::Failure{tool::kFailed, lines};
}

std::string read_text(const std::string& path, uint64_t most_bytes) {
  const auto fail = [&](const std::string& what) { throw tool::Failure{tool::kFailed, path + ": " + what}; };
  std::error_code error;
  const auto kind = std::filesystem::status(path, error).type();
  if (kind == std::filesystem::file_type::not_found) fail("there is no such file");
  if (kind != std::filesystem::file_type::regular) fail("is not a regular file");
  const uint64_t size = std::filesystem::file_size(path, error);
  if (error) fail("cannot be read: " + error.message());
  if (size > most_bytes) fail("has " + std::to_string(size) + " bytes; at most " + std::to_string(most_bytes) + " are read");
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(std::string("cannot be opened: ") + std::strerror(errno));
  std::string text(size, '\0');
  in.read(text.data(), std::streamsize(size));
  if (uint64_t(in.gcount()) != size) fail("cannot be read to its end");
  if (text.find('\0') != std::string::npos) fail("contains zero bytes: UTF-16, or no text at all; save it as UTF-8 (in a spreadsheet: \"CSV UTF-8\")");
  if (const size_t at = invalid_utf8(text); at != std::string::npos)
    fail("line " + std::to_string(line_of(text, at)) + ": is not UTF-8; save the file as UTF-8 (in a spreadsheet: \"CSV UTF-8\")");
  return text.compare(0, 3, "\xEF\xBB\xBF") == 0 ? text.substr(3) : text;
}

// Unicode 3.9, table 3-7: no overlong form, no surrogate, nothing above U+10FFFF.
size_t invalid_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? uint8_t(text[i]) : uint8_t(0); };
  for (size_t i = 0; i < text.size();) {
    const uint8_t lead = byte(i), second = byte(i + 1);
    const size_t length = lead < 0x80 ? 1 : lead >= 0xC2 && lead <= 0xDF ? 2 : (lead & 0xF0) == 0xE0 ? 3 : lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
    if (length == 0) return i;
    for (size_t k = 1; k < length; ++k)
      if ((byte(i + k) & 0xC0) != 0x80) return i;
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) || (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) return i;
    i += length;
  }
  return std::string::npos;
}

size_t line_of(std::string_view text, size_t position) { return 1 + size_t(std::count(text.begin(), text.begin() + ptrdiff_t(position), '\n')); }

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return uint8_t(c) < 0x20 || c == 0x7F; });
}

const char* marker_in(std::string_view text) {
  if (text.find('<') == std::string_view::npos) return nullptr;
  for (const char* marker : {"<image>", "<video>", "<volume>", "<slide>", "<ref-object>", "<bbox>"})
    if (text.find(marker) != std::string_view::npos) return marker;
  return nullptr;
}

std::string quoted_list(const std::vector<std::string>& names) {
  std::string out;
  constexpr size_t most = 12;
  for (size_t i = 0; i < std::min(most, names.size()); ++i) out += (i ? ", " : "") + bg::shown(names[i]);
  return names.size() > most ? out + " and " + std::to_string(names.size() - most) + " more" : out;
}

std::string nearest(const std::string& name, const std::vector<std::string>& names) {
  std::vector<std::pair<size_t, size_t>> order;  // distance, position
  for (size_t i = 0; i < names.size(); ++i) order.emplace_back(edit_distance(name, names[i]), i);
  std::sort(order.begin(), order.end());
  std::vector<std::string> best;
  for (size_t i = 0; i < std::min<size_t>(3, order.size()); ++i) best.push_back(names[order[i].second]);
  return quoted_list(best);
}

}  // namespace stage
