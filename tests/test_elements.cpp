// Rounding of weights by its definition: the stored value is the nearest representable one, the even one on a tie. And every refused value.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/half.h"
#include "weights_convert/elements.h"

using namespace bg;

namespace {

float decode(Type type, uint16_t bits) { return type == Type::bf16 ? bf16_to_float(bits) : f16_to_float(bits); }

// Checks x → 16 bits against the neighbours: |x − y| is not above the distance to the next lower or higher value, and on a tie y is even.
bool nearest_even(Type type, float x) {
  uint16_t y;
  if (convert_elements(&y, type, &x, Type::f32, 1) != -1) return false;
  if (std::signbit(decode(type, y)) != std::signbit(x)) return false;
  const double distance = std::abs(double(x) - decode(type, y));
  for (const int step : {-1, 1}) {
    const uint16_t magnitude = y & 0x7fff;
    if (magnitude == 0 && step < 0) continue;
    const uint16_t other = uint16_t(y + step);
    // Beyond the largest finite value stands the value the format would have next: halfway to it rounds up to infinity.
    const double there = std::abs(std::isfinite(decode(type, other)) ? double(decode(type, other)) : type == Type::f16 ? 65536.0 : std::ldexp(1.0, 128));
    const double far = std::abs(std::abs(double(x)) - there);
    if (far < distance || (far == distance && (y & 1))) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("elements: nearest even at, beside and between all 16-bit values") {
  for (const Type type : {Type::f16, Type::bf16}) {
    int wrong = 0;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      const float v = decode(type, uint16_t(bits));
      if (!std::isfinite(v)) continue;
      const float next = decode(type, uint16_t(bits + 1));
      uint16_t same;
      wrong += convert_elements(&same, type, &v, Type::f32, 1) != -1 || same != bits;
      if (!std::isfinite(next) || (bits & 0x7fff) == 0x7fff) continue;
      const float middle = float((double(v) + double(next)) / 2);
      for (const float x : {middle, std::nextafter(middle, v), std::nextafter(middle, next), std::nextafter(v, next)}) wrong += !nearest_even(type, x);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("elements: 16 bits to 32 is exact, equal types are copied") {
  for (const Type type : {Type::f16, Type::bf16}) {
    std::vector<uint16_t> in;
    for (uint32_t bits = 0; bits < 0x10000; ++bits)
      if (std::isfinite(decode(type, uint16_t(bits)))) in.push_back(uint16_t(bits));
    std::vector<float> wide(in.size());
    std::vector<uint16_t> back(in.size()), copy(in.size());
    CHECK(convert_elements(wide.data(), Type::f32, in.data(), type, int64_t(in.size())) == -1);
    CHECK(convert_elements(back.data(), type, wide.data(), Type::f32, int64_t(in.size())) == -1);
    CHECK(convert_elements(copy.data(), type, in.data(), type, int64_t(in.size())) == -1);
    CHECK(back == in);
    CHECK(copy == in);
    for (size_t i = 0; i < in.size(); ++i)
      if (std::bit_cast<uint32_t>(wide[i]) != std::bit_cast<uint32_t>(decode(type, in[i]))) FAIL("differs at ", i);
  }
}

TEST_CASE("elements: values that cannot be stored are found, wherever they stand") {
  const float largest = std::numeric_limits<float>::max(), infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  struct Case {
    Type to;
    float value;
    bool refused;
  };
  const Case cases[] = {{Type::f16, 65504, false},   {Type::f16, 65519.996f, false}, {Type::f16, 65520, true}, {Type::f16, -65520, true}, {Type::f16, 1e30f, true},
                        {Type::bf16, 3.38e38f, false}, {Type::bf16, largest, true},    {Type::bf16, -largest, true}, {Type::f32, largest, false}, {Type::f32, infinity, true},
                        {Type::bf16, -infinity, true}, {Type::f16, nan, true},         {Type::f32, nan, true},  {Type::bf16, nan, true}};
  for (const Case& c : cases) {
    for (const size_t position : {size_t(0), size_t(255), size_t(256), size_t(699)}) {
      std::vector<float> x(700, 0.25f), y(700);
      x[position] = c.value;
      CHECK(convert_elements(y.data(), c.to, x.data(), Type::f32, 700) == (c.refused ? int64_t(position) : -1));
    }
  }
  const uint16_t half_nan = 0x7e01, brain_infinity = 0xff80, brain_large = 0x4780;  // the last: 65536
  float wide;
  uint16_t narrow;
  CHECK(convert_elements(&wide, Type::f32, &half_nan, Type::f16, 1) == 0);
  CHECK(convert_elements(&narrow, Type::bf16, &brain_infinity, Type::bf16, 1) == 0);
  CHECK(convert_elements(&narrow, Type::f16, &brain_large, Type::bf16, 1) == 0);
  CHECK(element_value(&brain_large, Type::bf16, 0) == 65536);
}
