// The GPU's kernels for products with many rows, where the other kernel tests do not reach: float32 in tiles of 64 × 128 and `gated` in float32, several products in a
// launch, matrices in rows that do not fit the scratch (kernels/cuda/linear_float.cu); 64 and 128 rows × 128 outputs on tensor cores, `gated` too (linear_large.cu).
#include <algorithm>

#include "kernels/cuda/cuda.h"
#include "tests/kernels_matrix.h"

using namespace kernels_test;
using bg::Layout;
using bg::Precision;
using bg::Product;
using bg::Then;

namespace {

const Type kTypes[] = {Type::f32, Type::f16, Type::bf16, Type::q8_0, Type::q4_k, Type::q6_k};

// Large ones: quantising takes longer than multiplying.
Matrix matrix(Type type, int64_t rows, int64_t cols) { return bg::is_quantised(type) ? Matrix::of_any_codes(type, rows, cols) : Matrix(type, rows, cols); }

// Both orders of threads.
std::vector<Backend> tables(Precision precision) {
  std::vector<Backend> list;
  list.push_back({"forward", std::unique_ptr<Ops>(bg::make_emulated_ops(1, precision))});
  list.push_back({"backward", std::unique_ptr<Ops>(bg::make_emulated_ops(2, precision, true))});
  return list;
}

void multiply(Ops& ops, Tensor y, Tensor x, const Weight& w, const float* bias = nullptr, Then then = Then::store) {
  const Product p{y, w, bias, then};
  ops.linear(x, &p, 1);
}

// y in pieces of so many rows, over and over.
template <class Run>
void in_parts(std::initializer_list<int64_t> sizes, Mat<float>& y, Mat<float>& x, const Run& run) {
  for (int64_t t = 0, i = 0; t < x.rows; ++i) {
    const int64_t n = std::min(sizes.begin()[size_t(i) % sizes.size()], x.rows - t);
    run(y.tensor().row_range(t, n), x.tensor().row_range(t, n));
    t += n;
  }
}
void multiply_parts(Ops& ops, Mat<float>& y, Mat<float>& x, const Weight& w, std::initializer_list<int64_t> sizes) {
  in_parts(sizes, y, x, [&](Tensor part, Tensor of) { multiply(ops, part, of, w); });
}
void gated_parts(Ops& ops, Mat<float>& y, Mat<float>& x, const Weight& gate, const Weight& up, std::initializer_list<int64_t> sizes) {
  in_parts(sizes, y, x, [&](Tensor part, Tensor of) { ops.gated(part, of, gate, up); });
}

// Whether columns [first, first + part.cols) of `whole` are `part`.
bool columns_equal(const Mat<float>& whole, int64_t first, const Mat<float>& part) {
  for (int64_t t = 0; t < part.rows; ++t)
    if (std::memcmp(&whole.at(t, first), &part.at(t, 0), size_t(part.cols) * 4) != 0) return false;
  return true;
}

}  // namespace

TEST_CASE("cuda dense, float32: one, few and many rows, and the F32 matrix of the same values, give the same bits") {
  for (const Type type : kTypes) {
    const int64_t T = 50, N = 75, D = bg::is_quantised(type) ? 512 : 323;
    Matrix w = matrix(type, N, D), up = matrix(type, N, D);
    const Mat<float> x0 = random(T, D);
    Mat<float> wide = w.wide();
    for (const Backend& b : tables(Precision::float32)) {
      Mat<float> x = x0, whole(T, N), parts(T, N), exact(T, N);
      multiply(*b.ops, whole.tensor(), x.tensor(), w.in_panels());
      CHECK_MESSAGE(whole.guards_intact(), b.label << " " << bg::type_name(type));
      multiply_parts(*b.ops, parts, x, w.in_panels(), {1, 3, 16, 13, 17});
      CHECK_MESSAGE(whole.same_bits(parts), b.label << " " << bg::type_name(type) << ": in parts");
      b.ops->products(exact.tensor(), x.tensor(), wide.tensor());
      CHECK_MESSAGE(whole.same_bits(exact), b.label << " " << bg::type_name(type) << ": float32 of its values");

      Mat<float> u(T, N), y(T, N), few(T, N);
      multiply(*b.ops, u.tensor(), x.tensor(), up.in_panels());
      b.ops->silu_mul(u.tensor(), whole.tensor(), u.tensor());
      b.ops->gated(y.tensor(), x.tensor(), w.in_panels(), up.in_panels());
      CHECK_MESSAGE(y.guards_intact(), b.label << " " << bg::type_name(type));
      CHECK_MESSAGE(y.same_bits(u), b.label << " " << bg::type_name(type) << ": gated");
      gated_parts(*b.ops, few, x, w.in_panels(), up.in_panels(), {1, 16, 33});
      CHECK_MESSAGE(y.same_bits(few), b.label << " " << bg::type_name(type) << ": gated, in parts");
      b.ops->gated(few.tensor(), x.tensor(), w.in_rows(), up.in_rows());
      CHECK_MESSAGE(y.same_bits(few), b.label << " " << bg::type_name(type) << ": gated, in rows");
    }
  }
}

TEST_CASE("cuda dense, float32: tiles of 64 x 128, of several products in one launch") {
  const int64_t T = 65, D = 35, N[] = {8001, 40, 16, 300, 1, 17};  // six: two launches
  for (const Type type : {Type::f32, Type::f16}) {
    std::vector<Matrix> w;
    for (const int64_t n : N) w.emplace_back(type, n, D);
    Mat<float> x = random(T, D);
    std::vector<float> bias(8001);
    for (float& v : bias) v = uniform(-1, 1);
    const Backend b = std::move(tables(Precision::float32)[type == Type::f16]);
    std::vector<Mat<float>> y, wanted;
    std::vector<Product> products;
    for (size_t i = 0; i < w.size(); ++i) y.emplace_back(T, N[i]), wanted.emplace_back(T, N[i]);
    for (size_t i = 0; i < w.size(); ++i) products.push_back({y[i].tensor(), w[i].in_panels(), i % 2 == 0 ? bias.data() : nullptr, i == 3 ? Then::gelu_erf : Then::add});
    b.ops->linear(x.tensor(), products.data(), int64_t(products.size()));
    for (size_t i = 0; i < w.size(); ++i) {
      in_parts({16}, wanted[i], x, [&](Tensor part, Tensor of) { multiply(*b.ops, part, of, w[i].in_panels(), products[i].bias, products[i].then); });
      CHECK_MESSAGE(y[i].same_bits(wanted[i]), b.label << " " << bg::type_name(type) << ", product " << i);
    }
  }
}

TEST_CASE("cuda dense, float32: a matrix in rows that is larger than the scratch") {
  const int64_t T = 2, D = 1021, N = int64_t(bg::emulated::kScratchBytes / 4) / D + 40;
  std::vector<float> w(size_t(N * D)), bias(static_cast<size_t>(N));
  for (size_t i = 0; i < w.size(); ++i) w[i] = float(int(i * 2654435761u >> 12 & 1023) - 512);
  for (size_t n = 0; n < bias.size(); ++n) bias[n] = float(n % 7);
  Mat<float> x = random(T, D), y(T, N);
  std::unique_ptr<Ops> ops(bg::make_emulated_ops(2, Precision::float32));
  multiply(*ops, y.tensor(), x.tensor(), {w.data(), Type::f32, N, D}, bias.data());
  CHECK(y.guards_intact());
  for (const int64_t first : {int64_t(0), N / 2, N - 33}) {
    Mat<float> part(T, 33);
    multiply(*ops, part.tensor(), x.tensor(), {w.data() + first * D, Type::f32, 33, D}, bias.data() + first);
    CHECK(columns_equal(y, first, part));
  }
}

TEST_CASE("cuda dense, fast: 64 rows at a time give the bits of few") {
  for (const Type type : {Type::bf16, Type::q8_0, Type::q4_k, Type::q6_k}) {
    const int64_t T = 150, N = 150, D = type == Type::bf16 ? 547 : type == Type::q8_0 ? 608 : 768;  // more than one chunk
    Matrix w = matrix(type, N, D), up = matrix(type, N, D);
    const Mat<float> x0 = random(T, D);
    for (const Backend& b : tables(Precision::fast)) {
      const std::string what = b.label + " " + bg::type_name(type);
      Mat<float> x = x0, y(T, N), g(T, N), parts(T, N);
      multiply(*b.ops, y.tensor(), x.tensor(), w.in_panels());
      CHECK_MESSAGE(y.guards_intact(), what);
      multiply_parts(*b.ops, parts, x, w.in_panels(), {17, 70, 1, 16, 8});
      CHECK_MESSAGE(y.same_bits(parts), what << ": in parts");
      b.ops->gated(g.tensor(), x.tensor(), w.in_panels(), up.in_panels());
      CHECK_MESSAGE(g.guards_intact(), what);
      gated_parts(*b.ops, parts, x, w.in_panels(), up.in_panels(), {16, 1, 8, 65});
      CHECK_MESSAGE(g.same_bits(parts), what << ": gated, in parts");
    }
  }
}

TEST_CASE("cuda dense, fast: tiles of 128 x 128") {
  for (const Type type : {Type::bf16, Type::q8_0, Type::q4_k, Type::q6_k}) {
    const int64_t T = 130, N = 99 * 128 + 70, D = type == Type::q4_k || type == Type::q6_k ? 256 : 96;
    Matrix w = matrix(type, N, D);
    Mat<float> x = random(T, D), y(T, N);
    const Backend b = std::move(tables(Precision::fast)[type == Type::q4_k || type == Type::bf16]);  // each order for two of them: this is the longest test
    multiply(*b.ops, y.tensor(), x.tensor(), w.in_panels());
    CHECK_MESSAGE(y.guards_intact(), bg::type_name(type));
    for (const auto& [first, count] : std::initializer_list<std::pair<int64_t, int64_t>>{{0, 16}, {112, 32}, {N - 70 - 16, 86}}) {
      Mat<float> part(T, count);
      multiply_parts(*b.ops, part, x, w.of_panels(first, count), {16});
      CHECK_MESSAGE(columns_equal(y, first, part), b.label << " " << bg::type_name(type) << " from output " << first);
    }
  }
}

namespace {

// In place of cuBLASLt: the emulated device's memory is the host's.
struct PlainVendor : bg::Vendor {
  using Vendor::Vendor;
  int64_t calls = 0, most_rows = 0;
  void multiply(float* y, const uint16_t* x, const uint16_t* w, int64_t M, int64_t N, int64_t K, void*) override {
    ++calls;
    most_rows = std::max(most_rows, M);
    std::vector<float> wide(size_t(N * K)), row(static_cast<size_t>(K));
    for (size_t i = 0; i < wide.size(); ++i) wide[i] = bg::bf16_to_float(w[i]);
    for (int64_t t = 0; t < M; ++t) {
      for (int64_t j = 0; j < K; ++j) row[size_t(j)] = bg::bf16_to_float(x[t * K + j]);
      for (int64_t n = 0; n < N; ++n) {
        double sum = 0;
        for (int64_t j = 0; j < K; ++j) sum += double(row[size_t(j)]) * double(wide[size_t(n * K + j)]);
        y[t * N + n] = float(sum);
      }
    }
  }
};

}  // namespace

TEST_CASE("cuda dense: with a vendor's product, what is around it lies within the bound") {
  const std::unique_ptr<bg::Device> device = bg::make_emulated_device(2, false);
  char* const fixed = static_cast<char*>(device->allocate(bg::emulated::kIndexBytes + bg::emulated::kScratchBytes));
  {
    PlainVendor vendor(*device);
    bg::emulated::Context c{*device, Precision::fast, fixed, fixed + bg::emulated::kIndexBytes};
    c.vendor = &vendor;
    for (const Type type : {Type::bf16, Type::q8_0, Type::q4_k, Type::q6_k}) {
      const int64_t T = 259, N = 37, D = type == Type::bf16 ? 77 : type == Type::q8_0 ? 96 : 256;
      Matrix w = matrix(type, N, D), up = matrix(type, N, D);
      Mat<float> x = random(T, D), y = random(T, N), g(T, N), sums(T, N), before = y, wide = w.wide(), wide_up = up.wide();
      const auto dot = [&](const Mat<float>& m, int64_t t, int64_t n) {
        double sum = 0, terms = 0;
        for (int64_t j = 0; j < D; ++j) sum += double(x.at(t, j)) * double(m.at(n, j)), terms += std::fabs(double(x.at(t, j)) * double(m.at(n, j)));
        return std::pair(sum, terms);
      };
      const double rounding = (type == Type::bf16 ? 0x1p-8 : 0x1p-7 * (1 + 0x1p-9)) + (2 * double(D) + 66) * u;
      std::vector<float> bias(static_cast<size_t>(N));
      for (float& v : bias) v = normal();
      const Product products[] = {{y.tensor(), w.in_panels(), bias.data(), Then::add}, {sums.tensor(), up.in_panels()}};
      const int64_t calls = vendor.calls;
      bg::emulated::linear(c, x.tensor(), products, 2);
      bg::emulated::gated(c, g.tensor(), x.tensor(), w.in_panels(), up.in_panels());
      CHECK(vendor.calls == calls + 3);
      CHECK(vendor.most_rows == T);
      int wrong = 0;
      for (int64_t t = 0; t < T; ++t) {
        for (int64_t n = 0; n < N; ++n) {
          const auto [p, terms] = dot(wide, t, n);
          const auto [q, up_terms] = dot(wide_up, t, n);
          const double b = double(bias[size_t(n)]), old = double(before.at(t, n)), silu = p / (1 + std::exp(-p));
          wrong += !(std::fabs(double(y.at(t, n)) - (old + p + b)) <= rounding * terms + u * (std::fabs(p + b) + std::fabs(old + p + b)) * 1.01);
          wrong += !(std::fabs(double(sums.at(t, n)) - q) <= rounding * up_terms);
          // |silu'| ≤ 1.1
          wrong += !(std::fabs(double(g.at(t, n)) - silu * q) <= 1.1 * rounding * terms * (std::fabs(q) + rounding * up_terms) + std::fabs(silu) * rounding * up_terms + 16 * u * std::fabs(silu * q) * 1.1);
        }
      }
      CHECK_MESSAGE(wrong == 0, bg::type_name(type));
      CHECK((y.guards_intact() && g.guards_intact() && sums.guards_intact()));
      // In pieces of two panels, of one of gate and up, and of 128 and 3 rows.
      const size_t room = size_t((D + 31) / 32 * 32) * 2 * 32;
      PlainVendor little(*device, room, 128 * 32 * 4);
      c.vendor = &little;
      Mat<float> sums_again(T, N), g_again(T, N);
      const Product again{sums_again.tensor(), up.in_panels()};
      bg::emulated::linear(c, x.tensor(), &again, 1);
      bg::emulated::gated(c, g_again.tensor(), x.tensor(), w.in_panels(), up.in_panels());
      c.vendor = &vendor;
      CHECK(little.calls == 2 * 3 + 3 * 3);
      CHECK((sums_again.same_bits(sums) && g_again.same_bits(g)));
      // Fewer rows are ours.
      bg::emulated::linear(c, x.tensor().row_range(0, 255), products + 1, 1);
      CHECK(vendor.calls == calls + 3);
    }
  }
  device->release(fixed);
  CHECK_THROWS_WITH_AS(bg::emulated::make_vendor(*device), "cuBLAS: an emulated GPU has none; run without the vendor's products", bg::DeviceError);
}

TEST_CASE("cuda dense: weights that stay with the host come in pieces, each byte once, with the same bits") {
  const std::unique_ptr<bg::Device> device = bg::make_emulated_device(2, false);
  char* const fixed = static_cast<char*>(device->allocate(bg::emulated::kIndexBytes + bg::emulated::kScratchBytes));
  const auto with_host = [&](Weight w) {  // the same matrix in host memory of the device's
    const size_t bytes = bg::weight_bytes(w.type, w.rows, w.cols, w.layout);
    void* const p = device->allocate_host(bytes);
    std::memcpy(p, w.data, bytes);
    w.data = p;
    return w;
  };
  for (const Precision precision : {Precision::fast, Precision::float32}) {
    bg::emulated::Context c{*device, precision, fixed, fixed + bg::emulated::kIndexBytes};
    for (const Type type : {Type::bf16, Type::q8_0, Type::q4_k, Type::q6_k, Type::f16, Type::f32}) {
      CAPTURE(bg::type_name(type));
      const int64_t T = 70, N = 85, D = type == Type::q8_0 ? 96 : bg::is_quantised(type) ? 256 : 77;  // six panels, the last with five rows
      Matrix w = matrix(type, N, D), up = matrix(type, N, D);
      Mat<float> x = random(T, D), y = random(T, N), plain(T, N), g(T, N);
      std::vector<float> bias(static_cast<size_t>(N));
      for (float& v : bias) v = normal();
      const Weight host_w = with_host(w.in_panels()), host_up = with_host(up.in_panels());
      const auto run = [&](const Weight& a, const Weight& b, int64_t rows) {
        std::vector<Mat<float>> out = {y, plain, g};
        const Product products[] = {{out[0].tensor().row_range(0, rows), a, bias.data(), Then::add}, {out[1].tensor().row_range(0, rows), up.in_panels()}};
        bg::emulated::linear(c, x.tensor().row_range(0, rows), products, 2);
        bg::emulated::gated(c, out[2].tensor().row_range(0, rows), x.tensor().row_range(0, rows), a, b);
        for (const Mat<float>& m : out) CHECK(m.guards_intact());
        return out;
      };
      const auto same = [](const std::vector<Mat<float>>& a, const std::vector<Mat<float>>& b) {
        return a[0].same_bits(b[0]) && a[1].same_bits(b[1]) && a[2].same_bits(b[2]);
      };
      const size_t panel = bg::panel_bytes(type, D), bytes = 6 * panel;
      const auto expected = run(w.in_panels(), up.in_panels(), T), few = run(w.in_panels(), up.in_panels(), 32);
      bg::emulated_piece_bytes();
      CHECK(same(run(host_w, host_up, T), expected));
      CHECK(bg::emulated_piece_bytes() == 0);
      for (const size_t panels : {2, 5}) {  // of a piece: so many, half of them each of gate and up
        c.piece_bytes = panels * ((panel + 255) / 256 * 256);
        c.pieces = static_cast<char*>(device->allocate(bg::kHostPieces * c.piece_bytes));
        CHECK(same(run(host_w, host_up, T), expected));
        CHECK(bg::emulated_piece_bytes() == 3 * bytes);
        CHECK(same(run(w.in_panels(), up.in_panels(), T), expected));
        CHECK(same(run(host_w, host_up, 32), few));
        CHECK(bg::emulated_piece_bytes() == 0);
        device->release(c.pieces);
        c.pieces = nullptr;
      }
      device->release_host(const_cast<void*>(host_w.data));
      device->release_host(const_cast<void*>(host_up.data));
    }
  }
  device->release(fixed);
}

TEST_CASE("cuda dense: a device knows the host memory that it gave") {
  const std::unique_ptr<bg::Device> device = bg::make_emulated_device(1, false), other = bg::make_emulated_device(1, false);
  char *const host = static_cast<char*>(device->allocate_host(100)), *const own = static_cast<char*>(device->allocate(100));
  CHECK((other->is_host(host) && other->is_host(host + 99)));
  CHECK((!other->is_host(host + 100) && !other->is_host(own)));
  CHECK_THROWS_WITH_AS(device->copy_piece(0, own, own, 1), "a piece of weights that are not the host's", bg::DeviceError);
  device->release_host(host);
  CHECK(!device->is_host(host));
  device->release(own);
}
