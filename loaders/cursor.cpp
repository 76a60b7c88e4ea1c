// The bounded cursor's refusals. See cursor.h.
#include "loaders/cursor.h"

#include "loaders/error.h"

namespace bg {

const uint8_t* Cursor::take(uint64_t n, const char* what) {
  if (n > left())
    throw Error(Status::bad_file, where_ + ": truncated or damaged: " + what + " at byte " + std::to_string(position_) + " needs " + std::to_string(n) +
                                      " bytes, " + std::to_string(left()) + " are left; copy or make the file again");
  const uint8_t* at = data_ + position_;
  position_ += n;
  return at;
}

void Cursor::expect(uint64_t count, uint64_t least, const char* what) const {
  if (count > left() / least)
    throw Error(Status::bad_file, where_ + ": truncated or damaged: " + std::to_string(count) + " " + what + " announced before byte " +
                                      std::to_string(position_) + ", but only " + std::to_string(left()) +
                                      " bytes are left; copy or make the file again");
}

std::string shown(std::string_view text) {
  constexpr size_t longest = 100;
  std::string s = "\"";
  for (const char c : text.substr(0, longest)) s += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return s + (text.size() > longest ? "…\"" : "\"");
}

uint64_t checked_multiply(uint64_t a, uint64_t b, const std::string& where) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product) || product > INT64_MAX)
    throw Error(Status::bad_file, where + ": sizes overflow: " + std::to_string(a) + " x " + std::to_string(b) + "; the file is damaged");
  return product;
}

uint64_t checked_add(uint64_t a, uint64_t b, const std::string& where) {
  uint64_t sum;
  if (__builtin_add_overflow(a, b, &sum) || sum > INT64_MAX)
    throw Error(Status::bad_file, where + ": sizes overflow: " + std::to_string(a) + " + " + std::to_string(b) + "; the file is damaged");
  return sum;
}

}  // namespace bg
