// The safetensors reader: files made by hand here, one for every way of lying; and a golden written by the public package.
#include <doctest/doctest.h>

#include <cstring>

#include "loaders/error.h"
#include "loaders/safetensors.h"
#include "tests/support.h"

using namespace bg;

namespace {

std::string file_bytes(const std::string& header, size_t data_bytes) {
  const uint64_t n = header.size();
  std::string s(reinterpret_cast<const char*>(&n), 8);
  s += header;
  for (size_t i = 0; i < data_bytes; ++i) s += char(i);
  return s;
}

template <class F>
std::string said_by(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::string complaint(const std::string& bytes) {
  const TempDir dir;
  write_file(dir.file("x.safetensors"), bytes);
  return said_by([&] { Safetensors(dir.file("x.safetensors")); });
}

std::string complaint(const std::string& header, size_t data_bytes) { return complaint(file_bytes(header, data_bytes)); }

#define CHECK_SAYS(expression, words)                                   \
  do {                                                                  \
    const std::string message_ = (expression);                            \
    CHECK_MESSAGE(message_.find(words) != std::string::npos, "said: ", message_); \
  } while (0)

const char good[] = R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},"a":{"dtype":"I64","shape":[],"data_offsets":[0,8]}})";

}  // namespace

TEST_CASE("safetensors: names, types, shapes, data, metadata") {
  const TempDir dir;
  write_file(dir.file("x.safetensors"), file_bytes(good, 20));
  const Safetensors f(dir.file("x.safetensors"));
  REQUIRE(f.tensors().size() == 2);
  const SafetensorsTensor *a = f.find("a"), *b = f.find("b");
  REQUIRE(a);
  REQUIRE(b);
  CHECK(f.find("c") == nullptr);
  CHECK(a->dtype == "I64");
  CHECK(a->shape.empty());
  CHECK(a->bytes == 8);
  CHECK(a->data[7] == 7);
  CHECK(b->dtype == "BF16");
  CHECK(b->shape == std::vector<int64_t>{2, 3});
  CHECK(b->bytes == 12);
  CHECK(b->data[0] == 8);
  CHECK(b->offset == 8 + std::strlen(good) + 8);
  CHECK(f.metadata().at("format") == "pt");
  CHECK(complaint(R"({"e":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]}})", 0) == "");
  CHECK(complaint("{}   ", 0) == "");
}

TEST_CASE("safetensors: a file cut at any byte is refused; any byte changed is an error or can be read") {
  const TempDir dir;
  const std::string whole = file_bytes(good, 20);
  for (size_t n = 0; n < whole.size(); ++n) {
    write_file(dir.file("x.safetensors"), whole.substr(0, n));
    CHECK_THROWS_AS(Safetensors(dir.file("x.safetensors")), Error);
  }
  unsigned sum = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const int change : {0x01, 0x08, 0x80}) {
      std::string bytes = whole;
      bytes[i] = char(bytes[i] ^ change);
      write_file(dir.file("x.safetensors"), bytes);
      said_by([&] {
        const Safetensors f(dir.file("x.safetensors"));
        for (const SafetensorsTensor& t : f.tensors())
          for (uint64_t k = 0; k < t.bytes; ++k) sum += t.data[k];
      });
    }
  }
  CHECK(sum > 0);
}

TEST_CASE("safetensors: headers that lie") {
  const auto entry = [](const std::string& fields) { return R"({"t":{)" + fields + "}}"; };
  CHECK_SAYS(complaint(std::string(8, '\xff')), "at most 100000000 are allowed");
  CHECK_SAYS(complaint(std::string("\x40\0\0\0\0\0\0\0{}", 10)), "truncated");
  CHECK_SAYS(complaint(" {}", 0), "does not start with '{'");
  CHECK_SAYS(complaint("", 0), "does not start with '{'");
  CHECK_SAYS(complaint("{\"t\":", 0), "JSON header is damaged");
  CHECK_SAYS(complaint("{}x", 0), "JSON header is damaged");
  CHECK_SAYS(complaint("{\"t\":1}", 0), "has a number where none belongs");
  CHECK_SAYS(complaint("{\"t\":[]}", 0), "has an array where none belongs");
  CHECK_SAYS(complaint("{\"t\":null}", 0), "has null where none belongs");
  CHECK_SAYS(complaint("{\"t\":true}", 0), "has a bool where none belongs");
  CHECK_SAYS(complaint("{\"t\":\"x\"}", 0), "has a string where none belongs");
  CHECK_SAYS(complaint("{\"t\":{\"dtype\":{}}}", 0), "has an object where none belongs");
  CHECK_SAYS(complaint("{\"t\":{\"shape\":[[" + std::string(100000, '['), 0), "has an array where none belongs");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), 4), "the negative number -1");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])"), 4), "the number \"1.5\"");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4])"), 4), "is too large");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4])"), 4), "sizes overflow");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])"), 4), "more than 8 dimensions");
  CHECK_SAYS(complaint(entry(R"("dtype":"Q4","shape":[1],"data_offsets":[0,4])"), 4), "dtype \"Q4\" is not known");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[1])"), 4), "is missing");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), 4), "exactly two");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])"), 4), "exactly two");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1)"), 4), "unknown field \"more\"");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4])"), 4), "key \"dtype\" appears twice");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), 4), "do not lie in order");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"), 4), "do not lie in order inside the 4 bytes");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4), "needs 8 bytes, data_offsets give 4");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), 8), "starts at 4 of the data, expected 0");
  CHECK_SAYS(complaint(entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), 8), "end at 4, but there are 8");
  CHECK_SAYS(complaint(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8), "\"b\" starts at 4 of the data, expected 8");
  CHECK_SAYS(complaint(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2), "name \"a\" appears twice");
  CHECK_SAYS(complaint(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "key \"a\" appears twice");
  CHECK_SAYS(complaint(R"({"__metadata__":{"a":1}})", 0), "has a number where none belongs");
}

TEST_CASE("safetensors: shards by index, and indices that lie") {
  const std::string one = file_bytes(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2);
  const std::string two = file_bytes(R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", 3);
  const TempDir dir;
  const std::string index = dir.file("model.safetensors.index.json");
  const auto says = [&](const std::string& json) {
    write_file(index, json);
    return said_by([&] { Safetensors(dir.path.string()); });
  };
  CHECK_SAYS(said_by([&] { Safetensors(dir.path.string()); }), "has neither model.safetensors nor");
  write_file(dir.file("1.safetensors"), one);
  write_file(dir.file("2.safetensors"), two);
  CHECK(says(R"({"metadata":{},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})") == "");
  const Safetensors both(dir.path.string());
  CHECK(both.files().size() == 2);
  CHECK(both.find("b")->file == 1);
  CHECK(both.index_path() == index);
  CHECK_SAYS(says("{"), "is not valid JSON");
  CHECK_SAYS(says("[]"), "has no object \"weight_map\"");
  CHECK_SAYS(says(R"({"weight_map":[]})"), "has no object \"weight_map\"");
  CHECK_SAYS(says(R"({"weight_map":{}})"), "is empty");
  CHECK_SAYS(says(R"({"weight_map":{"a":3}})"), "the shard of \"a\" is not a string");
  CHECK_SAYS(says(R"({"weight_map":{"a":"1.safetensors","a":"2.safetensors"}})"), "JSON key \"a\" appears twice");
  CHECK_SAYS(says(R"({"x":)" + std::string(100, '[') + std::string(100, ']') + "}"), "nested deeper than 64");
  CHECK_SAYS(says(std::string((16 << 20) + 1, ' ')), "bytes of JSON; at most");
  for (const char* name : {"../1.safetensors", "/etc/passwd", "..", ".", "", "x/1.safetensors", "a\\\\b", "1\\u0000"})
    CHECK_SAYS(says(R"({"weight_map":{"a":")" + std::string(name) + "\"}}"), "is not the plain name of a file");
  CHECK_SAYS(says(R"({"weight_map":{"a":"3.safetensors"}})"), "3.safetensors: cannot be opened");
  CHECK_SAYS(says(R"({"weight_map":{"a":"2.safetensors"}})"), "tensor \"b\" is not listed for this shard");
  CHECK_SAYS(says(R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors"}})"), "tensor \"c\" is not in its shard");
  write_file(dir.file("2.safetensors"), one);
  CHECK_SAYS(says(R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})"), "tensor \"a\" is also in another shard");
}

TEST_CASE("safetensors: a golden of the public package") {
  const Safetensors f(golden_path("tiny-8b"));
  CHECK(f.files().size() >= 2);
  const SafetensorsTensor* t = f.find("model.visual.patch_embed.proj.weight");
  REQUIRE(t);
  CHECK(t->dtype == "BF16");
  REQUIRE(t->shape.size() == 5);
  CHECK(t->bytes == uint64_t(t->shape[0]) * 1536 * 2);
}
