// SHA-256 against the values of FIPS 180-4's example documents and of coreutils' sha256sum; the portable path against the processor's.
#include <doctest/doctest.h>

#include <string>

#include "loaders/sha256.h"

using namespace bg;

static std::string hash_of(const std::string& text, Sha256Path path) {
  Sha256 hash(path);
  hash.update(text.data(), text.size());
  return hash.hex();
}

TEST_CASE("sha256: published values, both paths") {
  // The last two: `python3 -c 'import sys; sys.stdout.buffer.write(bytes(i*7%256 for i in range(1000)))' | sha256sum` and 64 letters x.
  std::string ramp;
  for (int i = 0; i < 1000; ++i) ramp += char(i * 7 % 256);
  const std::pair<std::string, const char*> cases[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
       "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
      {std::string(1'000'000, 'a'), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
      {ramp, "89f4ff56a25dd1db06a4ce6033603775d705fb96f30f8693733fef602a1ca532"},
      {std::string(64, 'x'), "7ce100971f64e7001e8fe5a51973ecdfe1ced42befe7ee8d5fd6219506b5393c"},
  };
  for (const auto& [text, expected] : cases) {
    CHECK(hash_of(text, Sha256Path::portable) == expected);
    CHECK(hash_of(text, Sha256Path::best) == expected);
    CHECK(sha256_hex(text.data(), text.size()) == expected);
  }
  if (!Sha256::has_instructions()) MESSAGE("this processor has no SHA instructions: only the portable path was tested");
}

TEST_CASE("sha256: every length around the block size, whole and in pieces, both paths equal") {
  std::string text;
  for (int i = 0; i < 300; ++i) text += char(i * 31 + i / 7);
  for (size_t n = 0; n <= text.size(); ++n) {
    const std::string part = text.substr(0, n);
    const std::string expected = hash_of(part, Sha256Path::portable);
    CHECK(hash_of(part, Sha256Path::best) == expected);
    for (const size_t piece : {size_t(1), size_t(17), size_t(64), size_t(65)}) {
      Sha256 hash;
      for (size_t i = 0; i < n; i += piece) hash.update(part.data() + i, std::min(piece, n - i));
      CHECK(hash.hex() == expected);
    }
  }
}
