// Weights in panels, rounded activations and fused products: the way into panels and back, equal bits wherever the contract says so, the bounds of
// Precision::fast, and what a product does in the same pass.
#include <algorithm>
#include <array>
#include <map>

#include "tests/kernels_matrix.h"

using namespace kernels_test;
using bg::Layout;
using bg::Phase;
using bg::Precision;
using bg::Product;
using bg::Then;

namespace {

const Type kTypes[] = {Type::f32, Type::f16, Type::bf16, Type::q8_0, Type::q4_k, Type::q6_k};

bool is_gpu(const std::string& name) { return name == "cuda" || name == "emulated"; }

// ops.h, linear: float32 and what rounding the activations adds. The rounded sums are float32 sums of the rounded factors: (D + 2)·u·Σ|terms| again, of terms
// that are larger by at most the rounding; a GPU's tensor cores cut what they add, (2·D + 64)·u·Σ|terms|, and bf16 is within 2^−8 (kernels/cuda/linear.h).
double linear_bound(const Ops& ops, Precision precision, Phase phase, const Mat<float>& x, const Matrix& w, int64_t t, int64_t n) {
  double sum = 0, rounding = 0;
  const bool amx = std::string(ops.name()) == "cpu/amx", quantised = bg::is_quantised(w.type);
  const bool dp = amx || std::string(ops.name()) == "cpu/avx512bf16", plain = std::string(ops.name()) == "cpu/portable" || std::string(ops.name()) == "ref";
  for (int64_t j = 0; j < w.cols; ++j) sum += std::fabs(double(x.at(t, j))) * w.terms(n, j);
  if (precision == Precision::fast && is_gpu(ops.name()) && (w.type == Type::bf16 || quantised)) {
    rounding = 0x1p-8 * sum;
    return (2 * double(w.cols) + 64) * u * (sum + rounding) + rounding;
  }
  if (precision == Precision::fast && !plain) {
    if (w.type == Type::bf16 && dp) {
      rounding = 0x1p-8 * sum;
    } else if (quantised && amx && phase == Phase::prompt) {
      rounding = 0x1p-7 * (1 + 0x1p-9) * sum;
    } else if (quantised) {
      const int64_t block = w.type == Type::q8_0 ? 32 : 256;
      for (int64_t b = 0; b < w.cols; b += block) {
        double most = 0, weights = 0;
        for (int64_t j = b; j < b + block; ++j) most = std::max(most, std::fabs(double(x.at(t, j)))), weights += w.terms(n, j);
        rounding += most / 127 / 2 * (1 + 0x1p-15) * weights;
      }
    }
  }
  return (double(w.cols) + 2) * u * (sum + rounding) + rounding;
}

void multiply(Ops& ops, Mat<float>& y, Mat<float>& x, const Weight& w, Phase phase, Then then = Then::store, const float* bias = nullptr) {
  const Product p{y.tensor(), w, bias, then};
  ops.linear(x.tensor(), &p, 1, phase);
}

}  // namespace

TEST_CASE("panels: into panels and back is bit-exact, and a row reads the same from both layouts") {
  for (const Type type : kTypes) {
    const int64_t step = bg::block_values(type);
    for (const int64_t rows : {1, 15, 16, 17, 33})
      for (const int64_t blocks : {1, 2, 3, 5}) {
        const int64_t cols = step == 1 ? 37 * blocks : step * blocks;
        Matrix m(type, rows, cols);
        const size_t row = bg::stored_bytes(type, cols);
        std::vector<char> back(row);
        std::vector<float> values(static_cast<size_t>(cols));
        int wrong = 0;
        for (int64_t n = 0; n < rows; ++n) {
          bg::unpack_row(back.data(), m.in_panels(), n);
          wrong += std::memcmp(back.data(), reinterpret_cast<const char*>(m.bytes()) + size_t(n) * row, row) != 0;
          bg::read_row(values.data(), m.in_panels(), n);
          wrong += std::memcmp(values.data(), m.values.data() + n * cols, size_t(cols) * 4) != 0;
        }
        CHECK_MESSAGE(wrong == 0, bg::type_name(type) << " " << rows << "x" << cols);
      }
  }
}

TEST_CASE("panels: both layouts give the same bits, whole or row by row, within the bound of their precision") {
  for (const Type type : kTypes) {
    const int64_t step = bg::block_values(type);
    std::vector<std::array<int64_t, 3>> shapes = {{1, 1, 1}, {1, 33, 41}, {2, 17, 3}, {3, 66, 9}, {7, 130, 2}, {17, 49, 5}, {37, 35, 7}, {70, 80, 4}};
    for (auto [T, N, blocks] : shapes) {
      const int64_t D = step == 1 ? 57 * blocks : step * blocks;
      Mat<float> x = random(T, D);
      for (int64_t j = 0; j < D; j += 37) x.at(T / 2, j) *= 30;  // a row with outliers
      Matrix w(type, N, D);
      Mat<double> exact(T, N), wide = widen(x);
      truth()->linear(wide.tensor(), std::array{Product{exact.tensor(), w.in_rows()}}.data(), 1);
      for (const Precision precision : {Precision::float32, Precision::fast}) {
        for (const Phase phase : {Phase::prompt, Phase::step}) {
          std::map<std::string, Mat<float>> first;  // by instruction set
          for (const Backend& b : precision == Precision::fast ? fast_backends() : backends()) {
            const std::string what = b.label + " " + bg::type_name(type) + " " + std::to_string(T) + "x" + std::to_string(N) + "x" + std::to_string(D);
            Mat<float> y(T, N), z(T, N);
            multiply(*b.ops, y, x, w.in_panels(), phase);
            multiply(*b.ops, z, x, w.in_rows(), phase);
            CHECK_MESSAGE(y.same_bits(z), what << ": rows against panels");
            CHECK_MESSAGE(y.guards_intact(), what);
            Mat<float> parts(T, N);
            for (int64_t t = 0; t < T;) {
              const int64_t rows = std::min<int64_t>(T - t, t % 3 == 0 ? 1 : 18);
              const Product p{parts.tensor().row_range(t, rows), w.in_panels()};
              b.ops->linear(x.tensor().row_range(t, rows), &p, 1, phase);
              t += rows;
            }
            CHECK_MESSAGE(y.same_bits(parts), what << ": in parts");
            int wrong = 0;
            for (int64_t t = 0; t < T; ++t)
              for (int64_t n = 0; n < N; ++n) wrong += !(std::fabs(double(y.at(t, n)) - exact.at(t, n)) <= linear_bound(*b.ops, precision, phase, x, w, t, n));
            CHECK_MESSAGE(wrong == 0, what << ": " << wrong << " outside the bound");
            const auto [at, made] = first.emplace(b.ops->name(), y);
            if (!made) CHECK_MESSAGE(y.same_bits(at->second), what << ": threads");
          }
          // What has fused multiply-adds gives the same bits, but for bf16 activations. A GPU has an order of its own.
          const bool same = precision == Precision::float32 || type == Type::f32 || type == Type::f16 || (bg::is_quantised(type) && phase == Phase::step);
          const Mat<float>* reference = nullptr;
          for (const auto& [name, y] : first) {
            if (name == "ref" || name == "cpu/portable" || is_gpu(name) || !same) continue;
            if (reference != nullptr) CHECK_MESSAGE(y.same_bits(*reference), name << " " << bg::type_name(type) << " against another instruction set");
            reference = &y;
          }
        }
      }
    }
  }
}

TEST_CASE("panels: the largest codes times the largest activations stay within what sums are kept in") {
  const std::pair<Type, unsigned char> codes[] = {{Type::q8_0, 0x80}, {Type::q8_0, 0x7f}, {Type::q4_k, 0xff}, {Type::q4_k, 0}, {Type::q6_k, 0}, {Type::q6_k, 0xff}};
  for (const auto& [type, code] : codes) {
    const int64_t T = 7, N = 17, D = 1280;
    Mat<float> x(T, D);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t j = 0; j < D; ++j) x.at(t, j) = t == 0 ? 1.0f : t == 1 ? -1.0f : t == 2 ? (j % 2 == 0 ? 1.0f : -1.0f) : t == 3 ? (j / 2 % 2 == 0 ? 1.0f : -1.0f) : uniform(0, 1) < 0.5f ? -1.0f : 1.0f;
    Matrix w = Matrix::of_code(type, N, D, code);
    Mat<double> exact(T, N), wide = widen(x);
    truth()->linear(wide.tensor(), std::array{Product{exact.tensor(), w.in_rows()}}.data(), 1);
    for (const Backend& b : fast_backends()) {
      for (const int64_t rows : {int64_t(1), T}) {
        Mat<float> y(T, N);
        for (int64_t t = 0; t < T; t += rows) {
          const Product p{y.tensor().row_range(t, rows), w.in_panels()};
          b.ops->linear(x.tensor().row_range(t, rows), &p, 1, Phase::step);
        }
        int wrong = 0;
        for (int64_t t = 0; t < T; ++t)
          for (int64_t n = 0; n < N; ++n) wrong += !(std::fabs(double(y.at(t, n)) - exact.at(t, n)) <= linear_bound(*b.ops, Precision::fast, Phase::step, x, w, t, n));
        CHECK_MESSAGE(wrong == 0, b.label << " " << bg::type_name(type) << " code " << int(code) << ", " << rows << " rows: " << wrong << " outside the bound");
      }
    }
  }
}

TEST_CASE("panels: several products of one x, and what is done to them in the same pass, equal the operations one by one") {
  for (const Precision precision : {Precision::float32, Precision::fast}) {
    for (const Backend& b : precision == Precision::fast ? fast_backends() : backends()) {
      if (b.label == "ref") continue;  // fuses nothing
      for (const int64_t T : {1, 5, 40}) {
        const int64_t D = 512, N = 83;
        Mat<float> x = random(T, D);
        Matrix one(Type::q4_k, N, D), two(Type::q6_k, 2 * N, D), three(Type::bf16, N, D), four(Type::f32, 1, D);
        std::vector<float> bias(static_cast<size_t>(N));
        for (float& v : bias) v = normal();
        const Mat<float> before = random(T, N);
        Mat<float> y1 = before, y2(T, 2 * N), y3(T, N), y4(T, 1), p1(T, N), p2(T, 2 * N), p3(T, N), p4(T, 1);
        const Product products[] = {{y1.tensor(), one.in_panels(), bias.data(), Then::add}, {y2.tensor(), two.in_panels(), nullptr, Then::store},
                                    {y3.tensor(), three.in_rows(), bias.data(), Then::gelu_tanh}, {y4.tensor(), four.in_panels(), nullptr, Then::gelu_erf}};
        b.ops->linear(x.tensor(), products, 4, Phase::step);
        multiply(*b.ops, p1, x, one.in_panels(), Phase::step, Then::store, bias.data());
        multiply(*b.ops, p2, x, two.in_panels(), Phase::step);
        multiply(*b.ops, p3, x, three.in_panels(), Phase::step, Then::store, bias.data());
        multiply(*b.ops, p4, x, four.in_panels(), Phase::step);
        Mat<float> sum = before;
        b.ops->add(sum.tensor(), p1.tensor());
        b.ops->gelu_tanh(p3.tensor(), p3.tensor());
        b.ops->gelu_erf(p4.tensor(), p4.tensor());
        CHECK_MESSAGE((y1.same_bits(sum) && y2.same_bits(p2) && y3.same_bits(p3) && y4.same_bits(p4)), b.label);

        Matrix gate(Type::q8_0, N, D), up(Type::q8_0, N, D);
        Mat<float> y(T, N), g(T, N), v(T, N);
        b.ops->gated(y.tensor(), x.tensor(), gate.in_panels(), up.in_panels(), Phase::prompt);
        multiply(*b.ops, g, x, gate.in_rows(), Phase::prompt);
        multiply(*b.ops, v, x, up.in_rows(), Phase::prompt);
        b.ops->silu_mul(g.tensor(), g.tensor(), v.tensor());
        CHECK_MESSAGE(y.same_bits(g), b.label);
      }
    }
  }
}

TEST_CASE("panels: gate and up of one row, with more panels in a call than sums of both have room for in a row") {
  const int64_t D = 64, N = 1500;  // of a thread alone, calls of 24 panels
  Mat<float> x = random(1, D);
  Matrix gate(Type::q8_0, N, D), up(Type::q8_0, N, D);
  for (const Backend& b : fast_backends()) {
    Mat<float> y(1, N), g(1, N), v(1, N);
    b.ops->gated(y.tensor(), x.tensor(), gate.in_panels(), up.in_panels(), Phase::step);
    multiply(*b.ops, g, x, gate.in_panels(), Phase::step);
    multiply(*b.ops, v, x, up.in_panels(), Phase::step);
    b.ops->silu_mul(g.tensor(), g.tensor(), v.tensor());
    CHECK_MESSAGE(y.same_bits(g), b.label);
  }
}

TEST_CASE("panels: with rounded activations a NaN or an infinity reaches its row, and a zero row gives zeros") {
  for (const Type type : {Type::bf16, Type::q8_0, Type::q4_k, Type::q6_k}) {
    Matrix w(type, 33, 512);
    for (const Backend& b : fast_backends()) {
      for (const Phase phase : {Phase::prompt, Phase::step}) {
        Mat<float> x = random(19, 512), y(19, 33);
        x.at(3, 77) = NAN;
        x.at(11, 300) = INFINITY;
        for (int64_t j = 0; j < 512; ++j) x.at(7, j) = 0;
        multiply(*b.ops, y, x, w.in_panels(), phase);
        int wrong = 0;
        for (int64_t t = 0; t < 19; ++t)
          for (int64_t n = 0; n < 33; ++n) wrong += t == 3 ? !std::isnan(y.at(t, n)) : t == 11 ? std::isfinite(y.at(t, n)) && w.value(n, 300) != 0 : t == 7 ? y.at(t, n) != 0 : !std::isfinite(y.at(t, n));
        CHECK_MESSAGE(wrong == 0, b.label << " " << bg::type_name(type));
      }
    }
  }
}
