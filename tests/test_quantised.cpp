// Quantised weights: what a stored block means (golden from the public gguf package, tests/oracle/quantised.py), products and rows of quantised
// matrices on every backend, and how good our quantisers are at least (the bounds derived in weights_convert/quantise.h).
#include <algorithm>
#include <array>

#include "kernels/blocks.h"
#include "loaders/safetensors.h"
#include "tests/kernels_support.h"
#include "tests/support.h"
#include "weights_convert/elements.h"
#include "weights_convert/quantise.h"

using namespace kernels_test;

namespace {

const Type kinds[] = {Type::q8_0, Type::q4_k, Type::q6_k};

std::vector<float> floats_of(Type type, const void* blocks, int64_t n) {
  std::vector<float> y(static_cast<size_t>(n));
  if (type == Type::q8_0) bg::floats_of_q8_0(y.data(), static_cast<const bg::BlockQ8_0*>(blocks), n);
  if (type == Type::q4_k) bg::floats_of_q4_k(y.data(), static_cast<const bg::BlockQ4_K*>(blocks), n);
  if (type == Type::q6_k) bg::floats_of_q6_k(y.data(), static_cast<const bg::BlockQ6_K*>(blocks), n);
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) { return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0; }

// A random quantised matrix at an address that is a multiple of 2 and of nothing more, and the F32 matrix of its values.
struct Quantised {
  std::vector<uint16_t> bytes;
  std::vector<float> values;
  Type type;
  int64_t rows, cols;
  Quantised(Type type_, int64_t rows_, int64_t cols_) : type(type_), rows(rows_), cols(cols_) {
    std::vector<float> x(size_t(rows * cols));
    for (float& v : x) v = normal();
    bytes.resize(bg::stored_bytes(type, rows * cols) / 2 + 1);
    bg::quantise(bytes.data() + 1, type, x.data(), rows * cols);
    values = floats_of(type, bytes.data() + 1, rows * cols);
  }
  Weight weight() const { return {bytes.data() + 1, type, rows, cols}; }
  Weight wide() const { return {values.data(), Type::f32, rows, cols}; }
};

// Quantised and back.
std::vector<float> stored(Type type, const std::vector<float>& x) {
  std::vector<uint16_t> blocks(bg::stored_bytes(type, int64_t(x.size())) / 2);
  bg::quantise(blocks.data(), type, x.data(), int64_t(x.size()));
  return floats_of(type, blocks.data(), int64_t(x.size()));
}

// The smallest f16 not below x ≥ 0.
double up(double x) {
  uint16_t h = 0;
  const float f = float(x);
  bg::convert_elements(&h, Type::f16, &f, Type::f32, 1);
  while (double(bg::f16_to_float(h)) < x) ++h;
  return bg::f16_to_float(h);
}

// Σ(x − x̂)² of a block may be so large (quantise.h), with a hundred thousandth for the rounding of sums.
double error_bound(Type type, const float* x) {
  double widest = 0, most = 0, sum = 0;
  const int n = type == Type::q4_k ? 32 : 16;
  std::vector<double> range;
  for (int b = 0; b < 256; b += n) {
    const double low = std::min(0.0f, *std::min_element(x + b, x + b + n)), high = std::max(0.0f, *std::max_element(x + b, x + b + n));
    range.push_back(type == Type::q4_k ? high - low : std::max(high, -low));
    widest = std::max(widest, range.back()), most = std::max(most, -low);
  }
  const double dmin = type == Type::q4_k ? up(most / 63) : 0, steps = type == Type::q4_k ? 15 : 31, d = up((widest + dmin) / (type == Type::q4_k ? 945 : 3937));
  for (const double r : range) sum += n * std::pow((r + dmin) / steps + d, 2) / 4;
  return sum * (1 + 1e-5);
}

}  // namespace

TEST_CASE("quantised: a stored block is the floats of the public package, bit for bit") {
  const bg::Safetensors golden(golden_path("quantised.safetensors"));
  const char* names[] = {"q8_0", "q4_k", "q6_k"};
  for (int k = 0; k < 3; ++k) {
    const Type type = kinds[k];
    const bg::SafetensorsTensor *blocks = golden.find(std::string(names[k]) + ".blocks"), *values = golden.find(std::string(names[k]) + ".values");
    REQUIRE(blocks);
    REQUIRE(values);
    REQUIRE(blocks->shape[1] == int64_t(bg::block_bytes(type)));
    REQUIRE(values->shape[1] == bg::block_values(type));
    const int64_t rows = blocks->shape[0], cols = values->shape[1], n = rows * cols;
    std::vector<uint16_t> bytes(blocks->bytes / 2);
    std::vector<float> wanted(static_cast<size_t>(n));
    std::memcpy(bytes.data(), blocks->data, blocks->bytes);
    std::memcpy(wanted.data(), values->data, values->bytes);
    CHECK(same_bits(floats_of(type, bytes.data(), n), wanted));
    // And as every backend sees it: one row per id.
    std::vector<int32_t> ids(static_cast<size_t>(rows));
    for (int64_t i = 0; i < rows; ++i) ids[size_t(i)] = int32_t(i);
    for (const Backend& b : backends()) {
      Mat<float> y(rows, cols);
      b.ops->embed(y.tensor(), {bytes.data(), type, rows, cols}, ids.data());
      int wrong = 0;
      for (int64_t i = 0; i < n; ++i) wrong += std::memcmp(&y.at(i / cols, i % cols), &wanted[size_t(i)], 4) != 0;
      CHECK_MESSAGE(wrong == 0, b.label);
    }
    Mat<double> y(rows, cols);
    truth()->embed(y.tensor(), {bytes.data(), type, rows, cols}, ids.data());
    int wrong = 0;
    for (int64_t i = 0; i < n; ++i) wrong += y.at(i / cols, i % cols) != double(wanted[size_t(i)]);
    CHECK(wrong == 0);
  }
}

TEST_CASE("quantised: linear lies within the bound and equals the F32 matrix of the same values bit for bit") {
  for (const Type type : kinds) {
    const int64_t step = bg::block_values(type);
    const std::vector<std::array<int64_t, 3>> shapes = {{1, 1, step}, {1, 53, 2 * step}, {2, 5, step}, {3, 49, 5 * step}, {8, 97, step}, {9, 50, 3 * step}, {133, 49, 3 * step}};
    for (const auto& [T, N, D] : shapes) {
      const Mat<float> x = random(T, D), empty(T, N);
      const Quantised w(type, N, D);
      std::vector<float> bias;
      for (int64_t n = 0; n < N && N % 2 == 1; ++n) bias.push_back(normal());
      const float* b = bias.empty() ? nullptr : bias.data();
      const std::string what = std::string("linear ") + bg::type_name(type) + " " + std::to_string(T) + "x" + std::to_string(N) + "x" + std::to_string(D);
      check_operation(what, empty, {x}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.linear(y, in[0], w.weight(), b); },
                      [&](int64_t t, int64_t n, double) {
                        double terms = b ? std::fabs(double(b[n])) : 0;
                        for (int64_t j = 0; j < w.cols; ++j) terms += std::fabs(double(x.at(t, j)) * w.values[size_t(n * w.cols + j)]);
                        return (double(w.cols) + 2) * u * terms;
                      });
      for (const Backend& backend : backends()) {
        Mat<float> in = x, narrow(T, N), wide(T, N);
        backend.ops->linear(narrow.tensor(), in.tensor(), w.weight(), b);
        backend.ops->linear(wide.tensor(), in.tensor(), w.wide(), b);
        CHECK_MESSAGE(narrow.same_bits(wide), what << ", " << backend.label);
      }
    }
  }
}

TEST_CASE("quantised: a row's bits do not depend on the other rows of the call") {
  for (const Type type : kinds) {
    const Quantised w(type, 101, 768);
    check_rows_alone(w.weight());
  }
}

TEST_CASE("quantised: learned positions may be quantised too") {
  for (const Type type : kinds) {
    const Quantised w(type, 7, 256);
    const int32_t index[] = {0, 6, 3, 3, 5, 1, 2, 4};
    const float weight[] = {0.25f, 0.5f, 0.125f, 0.125f, 0.1f, 0.2f, 0.3f, 0.4f};
    for (const Backend& b : backends()) {
      Mat<float> narrow(2, 256), wide(2, 256);
      b.ops->add_interpolated(narrow.tensor(), w.weight(), index, weight);
      b.ops->add_interpolated(wide.tensor(), w.wide(), index, weight);
      CHECK_MESSAGE(narrow.same_bits(wide), b.label);
    }
  }
}

TEST_CASE("quantise: the error of Q8_0 is at most half a step, of Q4_K and Q6_K at most that of codes that cover the ranges") {
  const auto laplace = [] { return normal() * std::sqrt(-2 * std::log(uniform(1e-6f, 1))); };
  const std::function<float(int)> shapes[] = {
      [](int) { return normal(0.02f); }, [&](int) { return 0.02f * laplace(); }, [](int i) { return i % 97 == 0 ? 0.6f * normal() : 0.02f * normal(); },
      [](int) { return uniform(0, 1); },  [](int) { return uniform(-3, -2); },     [](int i) { return i % 10 == 0 ? normal() : 0.0f; },
      [](int) { return normal(3e-5f); },  [](int) { return normal(1e-7f); },        [](int) { return uniform(-65504, 65504); },
      [](int i) { return i % 256 == 17 ? 1000.0f : normal(1e-3f); }, [](int i) { return std::ldexp(normal(), -(i / 32 % 8) * 3); }};
  for (const auto& shape : shapes) {
    std::vector<float> x(256 * 40);
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::clamp(shape(int(i)), -65504.0f, 65504.0f);
    const std::vector<float> y = stored(Type::q8_0, x);
    int wrong = 0;
    for (size_t b = 0; b < x.size(); b += 32) {
      double largest = 0;
      for (size_t i = b; i < b + 32; ++i) largest = std::max(largest, std::fabs(double(x[i])));
      const double half = up(largest / 127) / 2 * (1 + 1e-4) + 0x1p-17;  // the code of x times the rounded 1/d
      for (size_t i = b; i < b + 32; ++i) wrong += !(std::fabs(double(x[i]) - y[i]) <= half);
    }
    CHECK(wrong == 0);
    for (const Type type : {Type::q4_k, Type::q6_k}) {
      const std::vector<float> z = stored(type, x);
      for (size_t b = 0; b < x.size(); b += 256) {
        double error = 0;
        for (size_t i = b; i < b + 256; ++i) error += (double(x[i]) - z[i]) * (double(x[i]) - z[i]);
        wrong += !(error <= error_bound(type, x.data() + b));
      }
      CHECK_MESSAGE(wrong == 0, bg::type_name(type));
    }
  }
}

TEST_CASE("quantise: what a type holds exactly comes back exactly; nothing comes of nothing") {
  std::vector<float> zero(256, 0.0f), minus(256, -0.0f), constant(256, -1.5f), grid(256), signs(256);
  for (int i = 0; i < 256; ++i) grid[size_t(i)] = 0.25f * float((i * 7) % 16 - 4), signs[size_t(i)] = i % 3 == 0 ? 1.0f : -1.0f;
  for (const Type type : kinds) {
    for (const float v : stored(type, zero)) CHECK(v == 0);
    for (const float v : stored(type, minus)) CHECK(v == 0);
    double error = 0;
    const std::vector<float> c = stored(type, constant), s = stored(type, signs);
    for (size_t i = 0; i < 256; ++i) error = std::max({error, std::fabs(double(c[i]) + 1.5), std::fabs(double(s[i]) - signs[i])});
    CHECK(error <= 2e-3);  // rounding of a f16 scale, 2^-11, in d and in dmin
  }
  const std::vector<float> g = stored(Type::q4_k, grid);
  for (size_t i = 0; i < 256; ++i) CHECK(std::fabs(g[i] - grid[i]) <= 2e-3);
}

TEST_CASE("quantise: known relative errors of a Gauss tensor, and each block alone") {
  std::vector<float> x(256 * 256);
  for (float& v : x) v = normal(0.02f);
  const std::pair<Type, double> most[] = {{Type::q8_0, 5.45e-3}, {Type::q6_k, 1.70e-2}, {Type::q4_k, 7.00e-2}};  // the public quantiser: 5.37e-3, 1.78e-2, 7.14e-2
  for (const auto& [type, bound] : most) {
    const std::vector<float> y = stored(type, x);
    double error = 0, norm = 0;
    for (size_t i = 0; i < x.size(); ++i) error += std::pow(double(x[i]) - y[i], 2), norm += std::pow(double(x[i]), 2);
    CHECK_MESSAGE(std::sqrt(error / norm) < bound, bg::type_name(type) << " " << std::sqrt(error / norm));
    for (const int64_t block : {0, 100, 255}) {
      const std::vector<float> alone = stored(type, {x.begin() + 256 * block, x.begin() + 256 * (block + 1)});
      CHECK(std::equal(alone.begin(), alone.end(), y.begin() + 256 * block));
    }
  }
}
