// One bounded byte cursor for every binary format that we parse ourselves: little-endian numbers and byte ranges, each checked against the end.
// In: bytes in memory and the name that starts its messages. Not here: what the bytes mean.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

namespace bg {

static_assert(std::endian::native == std::endian::little, "files are little-endian and are used in place");

class Cursor {
 public:
  Cursor(const uint8_t* data, uint64_t size, std::string where) : data_(data), size_(size), where_(std::move(where)) {}

  uint64_t position() const { return position_; }  // bytes from the start
  uint64_t left() const { return size_ - position_; }
  const std::string& where() const { return where_; }

  // The next n bytes. `what` names them in the message of the Error{bad_file} that a short file gives.
  const uint8_t* take(uint64_t n, const char* what);

  template <class T>
  T number(const char* what) {
    static_assert(std::is_arithmetic_v<T>);
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }

  // Throws Error{bad_file} unless `count` items of at least `least` bytes each can still follow: the check before any loop or allocation.
  void expect(uint64_t count, uint64_t least, const char* what) const;

 private:
  const uint8_t* data_;
  uint64_t size_;
  uint64_t position_ = 0;
  std::string where_;
};

// Text from a file as it may stand in a message: in quotes, control characters as '?', at most 100 bytes.
std::string shown(std::string_view text);

// a·b and a+b, or Error{bad_file, "where: what: …"} when the result needs more than 63 bits.
uint64_t checked_multiply(uint64_t a, uint64_t b, const std::string& where);
uint64_t checked_add(uint64_t a, uint64_t b, const std::string& where);

}  // namespace bg
