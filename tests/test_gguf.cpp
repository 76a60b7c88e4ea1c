// The GGUF reader against files made by hand here, byte by byte: good ones, and one for every way of lying. The whole list of messages is provoked.
#include <doctest/doctest.h>

#include <cstring>

#include "loaders/error.h"
#include "loaders/gguf.h"
#include "tests/support.h"

using namespace bg;

namespace {

enum : uint32_t { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

struct Bytes {
  std::string s;
  template <class T>
  Bytes& put(T v) {
    s.append(reinterpret_cast<const char*>(&v), sizeof v);
    return *this;
  }
  Bytes& text(const std::string& t) {
    put<uint64_t>(t.size());
    s += t;
    return *this;
  }
  Bytes& key(const std::string& name, uint32_t type) { return text(name).put(type); }
  Bytes& array(const std::string& name, uint32_t element, uint64_t count) { return key(name, ARRAY).put(element).put(count); }
  Bytes& tensor(const std::string& name, std::vector<uint64_t> sizes, uint32_t type, uint64_t offset) {  // sizes as in the file: fastest first
    text(name).put(uint32_t(sizes.size()));
    for (const uint64_t n : sizes) put(n);
    return put(type).put(offset);
  }
  Bytes& pad() {
    s.resize((s.size() + 31) / 32 * 32, '\0');
    return *this;
  }
  Bytes& data(size_t n) {
    for (size_t i = 0; i < n; ++i) s += char(i);
    return pad();
  }
};

Bytes header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  Bytes b;
  b.s = "GGUF";
  return b.put(version).put(tensors).put(keys);
}

// Two tensors and every kind of value.
std::string good_file() {
  Bytes b = header(2, 17);
  b.key("u8", U8).put<uint8_t>(200).key("i8", I8).put<int8_t>(-5).key("u16", U16).put<uint16_t>(60000).key("i16", I16).put<int16_t>(-300);
  b.key("u32", U32).put<uint32_t>(4000000000u).key("i32", I32).put<int32_t>(-70000).key("u64", U64).put<uint64_t>(1ull << 40);
  b.key("big", U64).put<uint64_t>(UINT64_MAX).key("i64", I64).put<int64_t>(-(1ll << 40)).key("f32", F32).put(0.5f).key("f64", F64).put(0.1);
  b.key("yes", BOOL).put<uint8_t>(1).key("text", STRING).text("Brust");
  b.array("ints", I32, 3).put<int32_t>(1).put<int32_t>(-2).put<int32_t>(3).array("texts", STRING, 3).text("a").text("").text("ccc");
  b.array("bools", BOOL, 2).put<uint8_t>(0).put<uint8_t>(1).array("none", I32, 0);
  b.tensor("a", {3, 2}, 0, 0).tensor("b", {5}, 30, 32).pad();
  b.data(24).data(10);
  return b.s;
}

// What the reader says about these bytes; "" when it takes them.
std::string complaint(const std::string& bytes, Status* status = nullptr) {
  const TempDir dir;
  write_file(dir.file("x.gguf"), bytes);
  try {
    Gguf file(dir.file("x.gguf"));
    return "";
  } catch (const Error& e) {
    if (status) *status = e.status();
    CHECK(std::string(e.what()).find("x.gguf") != std::string::npos);
    return e.what();
  }
}

#define CHECK_SAYS(expression, words)                                   \
  do {                                                                  \
    const std::string message_ = (expression);                            \
    CHECK_MESSAGE(message_.find(words) != std::string::npos, "said: ", message_); \
  } while (0)

template <class F>
std::string said_by(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("gguf: every kind of value and tensor") {
  const TempDir dir;
  write_file(dir.file("x.gguf"), good_file());
  const Gguf f(dir.file("x.gguf"));
  CHECK(f.file_bytes() == good_file().size());
  CHECK(f.integer("u8") == 200);
  CHECK(f.integer("i8") == -5);
  CHECK(f.integer("u16") == 60000);
  CHECK(f.integer("i16") == -300);
  CHECK(f.integer("u32") == 4000000000);
  CHECK(f.integer("i32") == -70000);
  CHECK(f.integer("u64") == int64_t(1) << 40);
  CHECK(f.integer("i64") == -(int64_t(1) << 40));
  CHECK(f.real("f32") == 0.5);
  CHECK(f.real("f64") == 0.1);
  CHECK(f.boolean("yes"));
  CHECK(f.text("text") == "Brust");
  CHECK(f.integers("ints") == std::vector<int64_t>{1, -2, 3});
  CHECK(f.integers("none").empty());
  CHECK(f.texts("texts") == std::vector<std::string_view>{"a", "", "ccc"});
  CHECK(f.has("bools"));
  CHECK_FALSE(f.has("nothing"));

  REQUIRE(f.tensors().size() == 2);
  const GgufTensor* a = f.find("a");
  const GgufTensor* b = f.find("b");
  REQUIRE(a);
  REQUIRE(b);
  CHECK(f.find("c") == nullptr);
  CHECK(a->shape == std::vector<int64_t>{2, 3});
  CHECK(a->type == Type::f32);
  CHECK(a->bytes == 24);
  CHECK(b->shape == std::vector<int64_t>{5});
  CHECK(b->type == Type::bf16);
  CHECK(b->bytes == 10);
  CHECK(uintptr_t(a->data) % 32 == 0);
  CHECK(a->data[23] == 23);
  CHECK(b->data == a->data + 32);
  CHECK(b->data[9] == 9);
}

TEST_CASE("gguf: a wrong or missing key names file, key, expected and found") {
  const TempDir dir;
  write_file(dir.file("x.gguf"), good_file());
  const Gguf f(dir.file("x.gguf"));
  CHECK_SAYS(said_by([&] { f.integer("nothing"); }), "x.gguf: key \"nothing\" is missing, expected an integer");
  CHECK_SAYS(said_by([&] { f.integer("f32"); }), "key \"f32\" is a f32, expected an integer");
  CHECK_SAYS(said_by([&] { f.integer("big"); }), "key \"big\" is a u64, expected an integer below 2^63");
  CHECK_SAYS(said_by([&] { f.integer("ints"); }), "is an array of i32, expected an integer");
  CHECK_SAYS(said_by([&] { f.real("u8"); }), "is a u8, expected an f32 or f64");
  CHECK_SAYS(said_by([&] { f.boolean("u8"); }), "is a u8, expected a bool");
  CHECK_SAYS(said_by([&] { f.text("ints"); }), "is an array of i32, expected a string");
  CHECK_SAYS(said_by([&] { f.integers("texts"); }), "is an array of string, expected an array of integers");
  CHECK_SAYS(said_by([&] { f.integers("bools"); }), "is an array of bool, expected an array of integers");
  CHECK_SAYS(said_by([&] { f.integers("u8"); }), "is a u8, expected an array of integers");
  CHECK_SAYS(said_by([&] { f.texts("ints"); }), "is an array of i32, expected an array of strings");
}

TEST_CASE("gguf: a file cut at any byte is refused") {
  const TempDir dir;
  const std::string whole = good_file();
  int accepted = 0;
  for (size_t n = 0; n < whole.size(); ++n) {
    write_file(dir.file("x.gguf"), whole.substr(0, n));
    try {
      Gguf f(dir.file("x.gguf"));
      ++accepted;
    } catch (const Error& e) {
      CHECK((e.status() == Status::bad_file));
    }
  }
  CHECK(accepted == 0);
}

TEST_CASE("gguf: any single byte changed is an error or a file that can be read to its end") {
  const TempDir dir;
  const std::string whole = good_file();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const int change : {0x01, 0x80, 0xff}) {
      std::string bytes = whole;
      bytes[i] = char(bytes[i] ^ change);
      write_file(dir.file("x.gguf"), bytes);
      try {
        const Gguf f(dir.file("x.gguf"));
        unsigned sum = 0;
        for (const GgufTensor& t : f.tensors())
          for (uint64_t k = 0; k < t.bytes; ++k) sum += t.data[k];
        for (const char* key : {"texts", "ints", "text", "u8"}) {
          said_by([&] { sum += unsigned(f.texts(key).size()); });
          said_by([&] { sum += unsigned(f.integers(key).size()); });
        }
        CHECK(sum > 0);
      } catch (const Error&) {
      }
    }
  }
}

TEST_CASE("gguf: headers that lie") {
  Status status;
  CHECK_SAYS(complaint(""), "truncated");
  CHECK_SAYS(complaint("PK\3\4 and so on, long enough for a header"), "not a GGUF file");
  CHECK_SAYS(complaint(header(0, 0, 2).s, &status), "GGUF version 2, expected 3");
  CHECK((status == Status::unsupported));
  CHECK_SAYS(complaint(header(0, 0, 0x03000000).s), "big-endian");
  CHECK_SAYS(complaint(header(0, 1ull << 62).s), "keys announced");
  CHECK_SAYS(complaint(header(UINT64_MAX, 0).s), "tensors announced");
  CHECK_SAYS(complaint(header(0, 70000).data(70000 * 14).s, &status), "70000 keys; at most 65536");
  CHECK((status == Status::too_large));
  CHECK_SAYS(complaint(header(270000, 0).data(270000 * 33).s), "270000 tensors; at most 262144");
}

TEST_CASE("gguf: keys that lie") {
  CHECK_SAYS(complaint(header(0, 1).put<uint64_t>(1ull << 63).data(64).s), "truncated");
  CHECK_SAYS(complaint(header(0, 1).key("", U8).put<uint8_t>(1).data(32).s), "key has 0 bytes");
  CHECK_SAYS(complaint(header(0, 1).key(std::string(65536, 'k'), U8).put<uint8_t>(1).s), "key has 65536 bytes");
  CHECK_SAYS(complaint(header(0, 1).key("k", 13).data(64).s), "key \"k\": value type 13 is not a GGUF type");
  CHECK_SAYS(complaint(header(0, 1).key("k", STRING).put<uint64_t>(UINT64_MAX - 3).data(64).s), "string value at byte");
  CHECK_SAYS(complaint(header(0, 1).key("k", BOOL).put<uint8_t>(2).data(64).s), "a bool is 2");
  CHECK_SAYS(complaint(header(0, 1).array("k", BOOL, 2).put<uint8_t>(1).put<uint8_t>(9).data(64).s), "a bool is 9");
  CHECK_SAYS(complaint(header(0, 1).array("k", ARRAY, 1).put<uint32_t>(U8).put<uint64_t>(1).data(64).s), "an array of arrays");
  CHECK_SAYS(complaint(header(0, 1).array("k", 77, 1).data(64).s), "array element type 77");
  CHECK_SAYS(complaint(header(0, 1).array("k", U64, UINT64_MAX / 8).data(64).s), "array elements announced");
  CHECK_SAYS(complaint(header(0, 1).array("k", STRING, 1000).data(64).s), "array elements announced");
  CHECK_SAYS(complaint(header(0, 1).array("k", STRING, 2).text("a").put<uint64_t>(1000).data(64).s), "string in an array");
  CHECK_SAYS(complaint(header(0, 1).array("k", U8, (1 << 24) + 1).data((1 << 24) + 1).s), "at most 16777216 are read");
  CHECK_SAYS(complaint(header(0, 2).key("k", U8).put<uint8_t>(1).key("k", U8).put<uint8_t>(1).data(32).s), "key \"k\": appears twice");
  CHECK_SAYS(complaint(header(0, 1).key("a\x1b[2Jb", 99).data(32).s), "key \"a?[2Jb\"");  // no terminal controls in a message
  for (const uint32_t alignment : {0u, 8u, 48u, 131072u})
    CHECK_SAYS(complaint(header(0, 1).key("general.alignment", U32).put(alignment).data(32).s), "expected a power of two");
  CHECK(complaint(header(0, 0).s) == "");
}

TEST_CASE("gguf: tensors that lie") {
  CHECK_SAYS(complaint(header(1, 0).tensor("t", {}, 0, 0).pad().data(64).s), "0 dimensions, expected 1 to 4");
  CHECK_SAYS(complaint(header(1, 0).tensor("t", {1, 1, 1, 1, 1}, 0, 0).pad().data(64).s), "5 dimensions");
  CHECK_SAYS(complaint(header(1, 0).tensor("t", {3, 0}, 0, 0).pad().data(64).s), "a size of 0");
  CHECK_SAYS(complaint(header(1, 0).tensor("t", {1ull << 33, 1ull << 33}, 0, 0).pad().data(64).s), "sizes overflow");
  CHECK_SAYS(complaint(header(1, 0).tensor("t", {1ull << 62}, 0, 0).pad().data(64).s), "sizes overflow");
  CHECK_SAYS(complaint(header(1, 0).tensor("t", {UINT64_MAX}, 0, 0).pad().data(64).s), "sizes overflow");
  for (const uint32_t type : {2u, 9u, 11u, 13u, 15u, 29u, 31u, UINT32_MAX})
    CHECK_SAYS(complaint(header(1, 0).tensor("t", {256}, type, 0).pad().data(1024).s), "tensor type " + std::to_string(type) + " is not one of F32, F16, BF16, F64, Q8_0, Q4_K, Q6_K");
  CHECK_SAYS(complaint(header(1, 0).tensor("t", {8}, 0, 16).pad().data(64).s), "offset 16 is not a multiple");
  CHECK_SAYS(complaint(header(1, 0).tensor("t", {17}, 0, 0).pad().data(64).s), "goes beyond the 64 bytes");
  CHECK_SAYS(complaint(header(1, 0).tensor("t", {8}, 0, 1ull << 62).pad().data(64).s), "goes beyond");
  CHECK_SAYS(complaint(header(1, 0).tensor("t", {8}, 0, UINT64_MAX - 31).pad().data(64).s), "goes beyond");
  CHECK_SAYS(complaint(header(2, 0).tensor("a", {9}, 0, 0).tensor("b", {8}, 0, 32).pad().data(96).s), "\"b\": overlaps another tensor");
  CHECK_SAYS(complaint(header(2, 0).tensor("a", {8}, 0, 32).tensor("b", {8}, 0, 32).pad().data(96).s), "overlaps another tensor");
  CHECK_SAYS(complaint(header(2, 0).tensor("a", {8}, 0, 0).tensor("a", {8}, 0, 32).pad().data(64).s), "tensor \"a\" appears twice");
  CHECK_SAYS(complaint(header(1, 0).tensor("", {8}, 0, 0).pad().data(64).s), "tensor name has 0 bytes");
  CHECK(complaint(header(2, 0).tensor("a", {8}, 0, 64).tensor("b", {8}, 0, 0).pad().data(96).s) == "");  // any order, and a gap
}

TEST_CASE("gguf: quantised tensors are whole blocks, and their bytes are counted in blocks") {
  struct Kind {
    uint32_t type;
    uint64_t values, bytes;
    const char* name;
  };
  for (const Kind& k : {Kind{8, 32, 34, "Q8_0"}, Kind{12, 256, 144, "Q4_K"}, Kind{14, 256, 210, "Q6_K"}}) {
    CAPTURE(k.name);
    const auto file = [&](std::vector<uint64_t> sizes, uint64_t bytes) { return header(1, 0).tensor("t", sizes, k.type, 0).pad().data(bytes).s; };
    const TempDir dir;
    write_file(dir.file("x.gguf"), file({3 * k.values, 5}, 15 * k.bytes));
    const Gguf f(dir.file("x.gguf"));
    CHECK((f.tensors()[0].type == Type(k.type)));
    CHECK(f.tensors()[0].bytes == 15 * k.bytes);
    CHECK(f.tensors()[0].shape == std::vector<int64_t>{5, int64_t(3 * k.values)});
    // Rows that end inside a block, also where all values together would be whole blocks.
    const std::string words = "are not whole " + std::string(k.name) + " blocks of " + std::to_string(k.values);
    for (const uint64_t row : {uint64_t(1), k.values - 1, k.values + 1, k.values / 2, k.values / 2 * 3})
      CHECK_SAYS(complaint(file({row, 2 * k.values}, 8 * k.values * k.bytes)), "rows of " + std::to_string(row) + " values " + words);
    CHECK_SAYS(complaint(file({k.values, 5}, 5 * k.bytes - 32)), "goes beyond");
    // Sizes near the ends of 64 bits: more bytes than values (Q8_0), or fewer.
    CHECK_SAYS(complaint(file({(1ull << 63) - k.values}, 64)), k.type == 8 ? "sizes overflow" : "goes beyond");
    CHECK_SAYS(complaint(file({1ull << 63}, 64)), "overflow");
    CHECK_SAYS(complaint(file({UINT64_MAX / k.values * k.values}, 64)), "overflow");
    CHECK_SAYS(complaint(file({1ull << 33, 1ull << 33}, 64)), "sizes overflow");
  }
}

TEST_CASE("gguf: matrices in panels have marked types, start at multiples of 64, and are whole panels") {
  const auto panels = [](uint32_t type) { return 0x42470000 + type; };
  const auto file = [&](std::vector<uint64_t> sizes, uint32_t type, uint64_t bytes, uint32_t alignment = 64) {
    Bytes b = header(1, 1).key("general.alignment", U32).put(alignment).tensor("t", sizes, panels(type), 0);
    b.s.resize((b.s.size() + alignment - 1) / alignment * alignment, '\0');
    b.s.append((bytes + alignment - 1) / alignment * alignment, 'x');
    return b.s;
  };
  struct Kind {
    uint32_t type;
    uint64_t cols, bytes;  // of a panel
  };
  for (const Kind& k : {Kind{0, 3, 192}, Kind{1, 3, 128}, Kind{30, 33, 2048}, Kind{8, 96, 2176}, Kind{12, 512, 4608}, Kind{14, 256, 3392}}) {
    CAPTURE(k.type);
    const TempDir dir;
    write_file(dir.file("x.gguf"), file({k.cols, 17}, k.type, 2 * k.bytes));
    const Gguf f(dir.file("x.gguf"));
    const GgufTensor& t = f.tensors()[0];
    CHECK((t.type == Type(k.type) && t.layout == Layout::panels));
    CHECK(t.bytes == 2 * k.bytes);
    CHECK(t.elements() == int64_t(17 * k.cols));
    CHECK(reinterpret_cast<uintptr_t>(t.data) % 64 == 0);
    CHECK_SAYS(complaint(file({k.cols, 17}, k.type, 2 * k.bytes - 64)), "goes beyond");
    CHECK_SAYS(complaint(file({k.cols, 33}, k.type, 2 * k.bytes)), "goes beyond");
    CHECK_SAYS(complaint(file({16 * k.cols}, k.type, 2 * k.bytes)), "1 dimensions in panels, expected 2");
    CHECK_SAYS(complaint(file({k.cols, 2, 2}, k.type, 2 * k.bytes)), "3 dimensions in panels");
    CHECK_SAYS(complaint(file({k.cols, 17}, k.type, 2 * k.bytes, 32)), "expected at least 64");
    // Sizes whose bytes would wrap 64 bits.
    for (const uint64_t rows : {uint64_t(1) << 41, (uint64_t(1) << 63) / k.cols, (uint64_t(1) << 62) / k.cols})
      CHECK_SAYS(complaint(file({k.cols, rows}, k.type, 64)), "sizes overflow");
    CHECK_SAYS(complaint(file({k.cols << 41, 1}, k.type, 64)), "sizes overflow");
    CHECK_SAYS(complaint(file({k.cols << 28, uint64_t(1) << 40}, k.type, 64)), "sizes overflow");
  }
  CHECK_SAYS(complaint(file({8, 2}, 28, 1024)), "F64 in panels");
  CHECK_SAYS(complaint(file({31, 2}, 8, 4096)), "not whole Q8_0 blocks");
  for (const uint32_t type : {2u, 13u, 31u, 0xffffu})
    CHECK_SAYS(complaint(file({256, 2}, type, 1024)), "tensor type " + std::to_string(panels(type)) + " is not one of");
}

TEST_CASE("gguf: a path that is no file") {
  const TempDir dir;
  CHECK_SAYS(said_by([&] { Gguf(dir.file("absent")); }), "cannot be opened: No such file");
  CHECK_SAYS(said_by([&] { Gguf(dir.path.string()); }), "not a regular file");
}
