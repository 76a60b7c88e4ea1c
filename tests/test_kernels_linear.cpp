// The matrix product: bound, all weight types, odd sizes, splits of the rows, NaN.
#include <array>

#include "tests/kernels_support.h"

using namespace kernels_test;

namespace {

Bound linear_bound(const Mat<float>& x, const WeightData& w, const std::vector<float>& bias) {
  return [&](int64_t t, int64_t n, double) {
    double terms = bias.empty() ? 0 : std::fabs(double(bias[size_t(n)]));
    for (int64_t j = 0; j < w.cols; ++j) terms += std::fabs(x.at(t, j) * w.values[size_t(n * w.cols + j)]);
    return (double(w.cols) + 2) * u * terms;
  };
}

}  // namespace

TEST_CASE("linear: within the bound for odd sizes and all weight types") {
  const std::vector<std::array<int64_t, 3>> shapes = {{1, 1, 1},   {1, 3, 7},    {2, 5, 8},    {3, 4, 17},   {4, 13, 31},  {5, 47, 64},    {7, 50, 96},
                                                      {8, 12, 72}, {9, 49, 19},  {17, 97, 33}, {130, 7, 24}, {133, 47, 5}, {11, 53, 1031}, {3, 10, 1039}, {1, 101, 1153}};
  for (const auto& [T, N, D] : shapes) {
    for (const Type type : {Type::f32, Type::f16, Type::bf16}) {
      const Mat<float> x = random(T, D), empty(T, N);
      const WeightData w(type, N, D);
      std::vector<float> bias;
      if (N % 2 == 1) {
        for (int64_t n = 0; n < N; ++n) bias.push_back(normal());
      }
      const std::string what = "linear " + std::to_string(T) + "x" + std::to_string(N) + "x" + std::to_string(D) + " " + bg::type_name(type);
      const float* b = bias.empty() ? nullptr : bias.data();
      check_operation(what, empty, {x}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.linear(y, in[0], w.weight(), b); },
                      linear_bound(x, w, bias));
    }
  }
}

TEST_CASE("linear: a row's bits do not depend on the other rows of the call") {
  for (const Type type : {Type::f32, Type::f16, Type::bf16}) {
    for (const int64_t D : {29, 520, 1031}) {
      const WeightData w(type, 59, D);
      check_rows_alone(w.weight());
    }
  }
}

TEST_CASE("linear: NaN and infinity in x or w reach exactly the outputs they belong to") {
  const int64_t T = 13, N = 17, D = 27;
  for (const int64_t at : {0, 8, 26}) {
    for (const Backend& b : backends()) {
      Mat<float> x = random(T, D), y(T, N);
      std::vector<float> w(size_t(N * D), 1.0f);
      x.at(5, at) = NAN;
      w[size_t(3 * D + at)] = INFINITY;
      b.ops->linear(y.tensor(), x.tensor(), {w.data(), Type::f32, N, D}, nullptr);
      int wrong = 0;
      for (int64_t t = 0; t < T; ++t)
        for (int64_t n = 0; n < N; ++n) wrong += t == 5 ? !std::isnan(y.at(t, n)) : n == 3 ? !std::isinf(y.at(t, n)) : !std::isfinite(y.at(t, n));
      CHECK_MESSAGE(wrong == 0, b.label);
    }
  }
}

TEST_CASE("linear: the reference gives a known value, and no rows are no work") {
  Mat<double> x(1, 3), y(1, 2);
  for (int64_t j = 0; j < 3; ++j) x.at(0, j) = double(j + 1);
  const float w[6] = {1, 10, 100, -1, 0, 2}, bias[2] = {0.5f, -1};
  truth()->linear(y.tensor(), x.tensor(), {w, Type::f32, 2, 3}, bias);
  CHECK(y.at(0, 0) == 321.5);
  CHECK(y.at(0, 1) == 4);
  for (const Backend& b : backends()) {
    Mat<float> none(0, 3), out(0, 2);
    b.ops->linear(out.tensor(), none.tensor(), {w, Type::f32, 2, 3}, bias);
    CHECK(out.guards_intact());
  }
}
