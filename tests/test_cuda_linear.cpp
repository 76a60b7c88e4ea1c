// Products of Precision::fast on the GPU's kernels (kernels/cuda/linear.h): the same bits for any number of rows, any split and either layout, across the kernels for
// one, few and many rows; sums over several chunks; several products in a launch; the bound of the sums alone; NaN and infinity.
#include <algorithm>
#include <array>

#include "tests/kernels_matrix.h"

using namespace kernels_test;
using bg::Layout;
using bg::Precision;
using bg::Product;
using bg::Then;

namespace {

const Type kTypes[] = {Type::bf16, Type::q8_0, Type::q4_k, Type::q6_k};

// Σ_j |terms|, where Q4_K's w counts as its two terms.
double terms(const Mat<float>& x, const Matrix& w, int64_t t, int64_t n) {
  double sum = 0;
  for (int64_t j = 0; j < w.cols; ++j) sum += std::fabs(double(x.at(t, j))) * w.terms(n, j);
  return sum;
}

std::vector<Backend>& tables() {
  static std::vector<Backend> all = [] {
    std::vector<Backend> list;
    list.push_back({"forward", std::unique_ptr<Ops>(bg::make_emulated_ops(1, Precision::fast))});
    list.push_back({"backward", std::unique_ptr<Ops>(bg::make_emulated_ops(2, Precision::fast, true))});
    return list;
  }();
  return all;
}

void multiply(Ops& ops, Mat<float>& y, Mat<float>& x, const Weight& w, int64_t first, int64_t rows) {
  const Product p{y.tensor().row_range(first, rows), w};
  ops.linear(x.tensor().row_range(first, rows), &p, 1);
}

}  // namespace

TEST_CASE("cuda linear: a row's bits depend neither on the other rows, nor on the split, nor on the layout") {
  const std::pair<Type, int64_t> shapes[] = {{Type::bf16, 1}, {Type::bf16, 563}, {Type::bf16, 4304}, {Type::q8_0, 544}, {Type::q4_k, 1280}, {Type::q6_k, 1280}};
  for (const auto& [type, D] : shapes) {
    const int64_t T = 130, N = 37;
    Matrix w(type, N, D);
    Mat<float> x = random(T, D), first(T, N);
    for (const Backend& b : tables()) {
      Mat<float> whole(T, N), parts(T, N), rows(T, N);
      multiply(*b.ops, whole, x, w.in_panels(), 0, T);
      if (b.label == "forward") first = whole;
      const std::string what = b.label + " " + bg::type_name(type) + " " + std::to_string(D);
      CHECK_MESSAGE(whole.guards_intact(), what);
      CHECK_MESSAGE(whole.same_bits(first), what);
      int64_t t = 0;
      for (const int64_t n : {1, 8, 9, 17, 64, 2, 29}) multiply(*b.ops, parts, x, w.in_panels(), t, n), t += n;
      REQUIRE(t == T);
      CHECK_MESSAGE(whole.same_bits(parts), what << ": in parts");
      multiply(*b.ops, parts, x, w.in_panels(), 0, 65);
      multiply(*b.ops, parts, x, w.in_panels(), 65, 65);
      CHECK_MESSAGE(whole.same_bits(parts), what << ": in halves");
      for (int64_t i = 0; i < 3; ++i) multiply(*b.ops, parts, x, w.in_panels(), 40 * i, 1);
      CHECK_MESSAGE(whole.same_bits(parts), what << ": one by one");
      if (D > 2000) continue;
      multiply(*b.ops, rows, x, w.in_rows(), 0, 1);
      multiply(*b.ops, rows, x, w.in_rows(), 1, T - 1);
      CHECK_MESSAGE(whole.same_bits(rows), what << ": in rows");
    }
  }
}

TEST_CASE("cuda linear: of inputs that bf16 holds the sums lie within 2u for each term") {
  const std::pair<Type, int64_t> shapes[] = {{Type::bf16, 77}, {Type::bf16, 1100}, {Type::q8_0, 96}, {Type::q8_0, 1088}, {Type::q4_k, 256}, {Type::q4_k, 1280}, {Type::q6_k, 256}, {Type::q6_k, 1280}};
  for (const auto& [type, D] : shapes) {
    const int64_t T = 9, N = 21;
    Matrix w(type, N, D);
    Mat<float> x = random(T, D);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t j = 0; j < D; ++j) x.at(t, j) = bg::bf16_to_float(bg::float_to_bf16(x.at(t, j)));
    Mat<double> exact(T, N), wide = widen(x);
    const Product product{exact.tensor(), w.in_rows()};
    truth()->linear(wide.tensor(), &product, 1);
    for (const Backend& b : tables()) {
      Mat<float> y(T, N);
      multiply(*b.ops, y, x, w.in_panels(), 0, 8);
      multiply(*b.ops, y, x, w.in_panels(), 8, 1);
      int wrong = 0;
      for (int64_t t = 0; t < T; ++t)
        for (int64_t n = 0; n < N; ++n) wrong += !(std::fabs(double(y.at(t, n)) - exact.at(t, n)) <= (2 * double(D) + 64) * u * terms(x, w, t, n));
      CHECK_MESSAGE(wrong == 0, (b.label + " " + bg::type_name(type) + " " + std::to_string(D)));
    }
  }
}

TEST_CASE("cuda linear: more chunks than are summed up at a time") {
  const int64_t D = 164001;
  Matrix w(Type::bf16, 3, D);
  Mat<float> x = random(2, D);
  for (const Backend& b : tables()) {
    Mat<float> one(2, 3), two(2, 3);
    multiply(*b.ops, one, x, w.in_panels(), 0, 1);
    multiply(*b.ops, one, x, w.in_panels(), 1, 1);
    multiply(*b.ops, two, x, w.in_panels(), 0, 2);
    CHECK_MESSAGE(one.same_bits(two), b.label);
  }
}

TEST_CASE("cuda linear: several products of one x in a call equal calls of their own, gated equals its parts") {
  const int64_t D = 768;
  Matrix weights[] = {{Type::q4_k, 40, D}, {Type::q4_k, 16, D}, {Type::q6_k, 17, D},  {Type::q4_k, 1, D}, {Type::bf16, 33, D},
                      {Type::q4_k, 31, D}, {Type::f16, 18, D},  {Type::q4_k, 100, D}, {Type::q4_k, 2, D}, {Type::q8_0, 7, D}};
  const Then thens[] = {Then::store, Then::add, Then::gelu_tanh, Then::gelu_erf};
  for (const int64_t T : {1, 3, 11, 20, 40}) {
    Mat<float> x = random(T, D, 0.1f);
    std::vector<float> bias(100);
    for (float& v : bias) v = normal();
    for (const Backend& b : tables()) {
      std::vector<Mat<float>> together, alone;
      for (const Matrix& w : weights) together.push_back(random(T, w.rows));
      alone = together;
      std::vector<Product> products;
      for (size_t i = 0; i < std::size(weights); ++i) {
        const Product p{together[i].tensor(), weights[i].in_panels(), i % 3 == 0 ? bias.data() : nullptr, thens[i % 4]};
        products.push_back(p);
        Product single = p;
        single.y = alone[i].tensor();
        b.ops->linear(x.tensor(), &single, 1);
      }
      b.ops->linear(x.tensor(), products.data(), int64_t(products.size()));
      for (size_t i = 0; i < std::size(weights); ++i) {
        CHECK_MESSAGE(together[i].same_bits(alone[i]), b.label << " T " << T << " product " << i);
        CHECK_MESSAGE(together[i].guards_intact(), b.label << " T " << T << " product " << i);
      }
      for (const Type type : kTypes) {
        Matrix gate(type, 19, D), up(type, 19, D);
        Mat<float> y(T, 19), in_rows(T, 19), g(T, 19), v(T, 19);
        b.ops->gated(y.tensor(), x.tensor(), gate.in_panels(), up.in_panels());
        b.ops->gated(in_rows.tensor(), x.tensor(), gate.in_rows(), up.in_rows());
        multiply(*b.ops, g, x, gate.in_panels(), 0, T);
        multiply(*b.ops, v, x, up.in_panels(), 0, T);
        b.ops->silu_mul(g.tensor(), g.tensor(), v.tensor());
        CHECK_MESSAGE((y.same_bits(g) && y.same_bits(in_rows) && y.guards_intact()), (b.label + " gated " + bg::type_name(type) + " T " + std::to_string(T)));
      }
    }
  }
}

TEST_CASE("cuda linear: NaN and infinity in x or w reach exactly the outputs they belong to") {
  for (const Type type : kTypes) {
    const int64_t D = bg::is_quantised(type) ? 768 : 579, N = 37, row = 21;
    Matrix w(type, N, D);
    const uint16_t inf = type == Type::bf16 ? 0x7f80 : 0x7c00;  // of the last block of a row: its d
    auto* const block = reinterpret_cast<char*>(w.bytes()) + bg::stored_bytes(type, (row + 1) * D) - bg::block_bytes(type);
    std::memcpy(block + (type == Type::q6_k ? 208 : 0), &inf, 2);
    w.pack();
    for (const int64_t T : {1, 5, 20, 40}) {
      for (const bool poisoned : {false, true}) {
        Mat<float> x = random(T, D);
        if (poisoned) x.at(T / 2, D - 1) = NAN;
        for (const Backend& b : tables()) {
          Mat<float> y(T, N);
          multiply(*b.ops, y, x, w.in_panels(), 0, T);
          int wrong = 0;
          for (int64_t t = 0; t < T; ++t)
            for (int64_t n = 0; n < N; ++n) wrong += poisoned && t == T / 2 ? !std::isnan(y.at(t, n)) : n == row ? std::isfinite(y.at(t, n)) : !std::isfinite(y.at(t, n));
          CHECK_MESSAGE(wrong == 0, (b.label + " " + bg::type_name(type) + " T " + std::to_string(T)));
        }
      }
    }
  }
}
