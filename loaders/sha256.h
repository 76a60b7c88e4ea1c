// SHA-256 (FIPS 180-4). Own code because the core links no cryptography library; uses the processor's SHA instructions where it has them.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace bg {

enum class Sha256Path { best, portable };  // best: the processor's SHA instructions where it has them

class Sha256 {
 public:
  explicit Sha256(Sha256Path path = Sha256Path::best);
  void update(const void* data, size_t bytes);
  std::string hex();  // finishes; 64 lower-case digits
  static bool has_instructions();  // whether `best` differs from `portable` on this machine

 private:
  void compress(const uint8_t* blocks, size_t count);
  bool instructions_;
  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> block_;
  uint64_t bytes_ = 0;  // so far; bytes_ mod 64 of them wait in block_
};

std::string sha256_hex(const void* data, size_t bytes);

}  // namespace bg
