// Elementwise operations, norms, rotation, rows by index, memory, number formats.
#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/threads.h"
#include "kernels/half.h"
#include "tests/kernels_support.h"

using namespace kernels_test;

namespace {

const std::vector<std::pair<int64_t, int64_t>> kShapes = {{1, 1}, {1, 3}, {3, 17}, {17, 8}, {5, 31}, {2, 1153}, {67, 640}};

std::vector<float> random_vector(int64_t n, float scale = 1) {
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = normal(scale);
  return v;
}

}  // namespace

TEST_CASE("kernels: 16-bit floats become floats exactly") {
  CHECK(bg::f16_to_float(0x0001) == 0x1p-24f);
  CHECK(bg::f16_to_float(0x03ff) == 1023 * 0x1p-24f);
  CHECK(bg::f16_to_float(0x0400) == 0x1p-14f);
  CHECK(bg::f16_to_float(0x3c00) == 1.0f);
  CHECK(bg::f16_to_float(0xc000) == -2.0f);
  CHECK(bg::f16_to_float(0x7bff) == 65504.0f);
  CHECK(bg::f16_to_float(0x7c00) == INFINITY);
  CHECK(bg::f16_to_float(0xfc00) == -INFINITY);
  CHECK(std::isnan(bg::f16_to_float(0x7e00)));
  CHECK(std::signbit(bg::f16_to_float(0x8000)));
  CHECK(bg::bf16_to_float(0x3f80) == 1.0f);
  CHECK(bg::bf16_to_float(0x0001) == 0x1p-133f);
  CHECK(bg::bf16_to_float(0xff80) == -INFINITY);
  CHECK(std::isnan(bg::bf16_to_float(0x7fc0)));
  int wrong = 0;
  for (int h = 0; h < 0x7c00; ++h) {  // every finite positive f16 by its definition
    const int e = h >> 10, m = h & 1023;
    const float expected = e == 0 ? std::ldexp(float(m), -24) : std::ldexp(float(1024 + m), e - 25);
    wrong += bg::f16_to_float(uint16_t(h)) != expected || bg::f16_to_float(uint16_t(h | 0x8000)) != -expected;
  }
  CHECK(wrong == 0);
}

TEST_CASE("kernels: every 16-bit weight, whole vectors and tails, is read as its exact value") {
  for (const Type type : {Type::f16, Type::bf16}) {
    std::vector<uint16_t> bits(65536);
    for (size_t i = 0; i < bits.size(); ++i) bits[i] = uint16_t(i);
    const int64_t D = 11;  // x = (0 … 1 … 0): y_n = w_n,j exactly, unless the row holds an infinity or a NaN
    const int64_t N = 65536 / D;
    for (int64_t j = 0; j < D; ++j) {
      Mat<float> x(1, D), y(1, N);
      x.at(0, j) = 1;
      for (const Backend& b : backends()) {
        if (b.label.find("8 threads") != std::string::npos) continue;
        b.ops->linear(y.tensor(), x.tensor(), {bits.data(), type, N, D}, nullptr);
        int wrong = 0;
        for (int64_t n = 0; n < N; ++n) {
          bool finite = true;
          for (int64_t i = 0; i < D; ++i) {
            const uint16_t h = bits[size_t(n * D + i)];
            finite = finite && std::isfinite(type == Type::f16 ? bg::f16_to_float(h) : bg::bf16_to_float(h));
          }
          const uint16_t h = bits[size_t(n * D + j)];
          const float value = type == Type::f16 ? bg::f16_to_float(h) : bg::bf16_to_float(h);
          wrong += finite ? y.at(0, n) != value : std::isfinite(y.at(0, n));
        }
        CHECK_MESSAGE(wrong == 0, b.label);
      }
    }
  }
}

TEST_CASE("kernels: e^x of the vector code lies within 3u") {
  const auto check = [](void (*kernel)(float*, const float*, int64_t)) {
    std::vector<float> x, y;
    for (int i = 0; i <= 2000000; ++i) x.push_back(-86.5f * float(i) / 2000000.0f);
    for (int i = 0; i < 100000; ++i) x.push_back(-std::exp(uniform(-30, 4)));
    for (float& value : x) value = value < -86.5f ? -86.5f : value;
    y.resize(x.size());
    kernel(y.data(), x.data(), int64_t(x.size()));
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(double(x[i])), err = std::fabs(y[i] - exact) / exact;
      if (!(err <= worst)) worst = err;
    }
    CHECK_MESSAGE(worst <= 3 * u, (worst / u) << " u");
    const float special[4] = {0.0f, -INFINITY, NAN, -1000.0f};
    float out[4];
    kernel(out, special, 4);
    CHECK(out[0] == 1.0f);
    CHECK(out[1] == 0.0f);
    CHECK(std::isnan(out[2]));
    CHECK(out[3] == 0.0f);
  };
#define BG_CHECK(isa) if (bg::runs(bg::Isa::isa)) check(bg::cpu::isa::element.exp_negative);
  BG_EACH_ISA(BG_CHECK)
#undef BG_CHECK
}

// Of all floats every 6007th (a prime), both signs. Every 61st was tried once: 1.4u and 1.6u at most, 1.7u without fused multiply-add.
TEST_CASE("kernels: gelu lies within 2u·(|x| + |y|) all over the floats, far below the contract's 16u") {
  std::vector<float> x;
  for (uint64_t b = 0; b < uint64_t(1) << 32; b += 6007) {
    const auto bits = uint32_t(b);
    float value;
    std::memcpy(&value, &bits, 4);
    if (std::isfinite(value)) x.push_back(value);
  }
  std::vector<float> y(x.size());
  const auto check = [&](const char* name, void (*kernel)(float*, const float*, int64_t), double (*exact)(double)) {
    kernel(y.data(), x.data(), int64_t(x.size()));
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double e = exact(x[i]), err = std::fabs(y[i] - e) / (std::fabs(double(x[i])) + std::fabs(e) + 1e-37);
      if (!(err <= worst)) worst = err;
    }
    CHECK_MESSAGE(worst <= 2 * u, std::string(name) << ": " << (worst / u) << " u");
  };
  const auto by_erf = [](double a) { return a / 2 * std::erfc(-a * 0.70710678118654752440); };
  const auto by_tanh = [](double a) { return a / (1 + std::exp(-2 * 0.79788456080286535588 * (a + 0.044715 * a * a * a))); };
#define BG_CHECK(isa)                                        \
  if (bg::runs(bg::Isa::isa)) {                              \
    check("erf, " #isa, bg::cpu::isa::element.gelu_erf, by_erf);    \
    check("tanh, " #isa, bg::cpu::isa::element.gelu_tanh, by_tanh); \
  }
  BG_EACH_ISA(BG_CHECK)
#undef BG_CHECK
}

// NEON runs elsewhere than AVX, so what they must agree on is written down here: a sum over the bits of results on fixed inputs.
TEST_CASE("kernels: every instruction set with fused multiply-add gives the same bits") {
  const int64_t T = 5, D = 149;
  uint32_t state = 1;
  const auto random = [&state] {  // exact, unlike the distributions of a library
    state = state * 1664525u + 1013904223u;
    return float(int32_t(state)) * 0x1p-29f;
  };
  std::vector<float> x(size_t(T * D)), w(size_t(D * D)), angle(size_t(T * D));
  for (float& v : x) v = random();
  for (float& v : w) v = random();
  for (float& v : angle) v = random();
  const Tensor in{x.data(), Type::f32, T, D, D};
  for (const Backend& b : backends()) {
    if (b.label.rfind("cpu/", 0) != 0 || b.label.find("portable") != std::string::npos) continue;  // a GPU's gelu is of its own
    uint64_t sum = 14695981039346656037u;
    const auto add = [&](const std::function<void(Tensor y)>& run) {
      std::vector<float> y = x;
      run({y.data(), Type::f32, T, D, D});
      for (const float v : y) {
        uint32_t bits;
        std::memcpy(&bits, &v, 4);
        sum = (sum ^ bits) * 1099511628211u;
      }
    };
    add([&](Tensor y) { b.ops->layer_norm(y, in, w.data(), w.data() + D, 1e-5f); });
    add([&](Tensor y) { b.ops->rms_norm(y, in, w.data(), 1e-5f); });
    add([&](Tensor y) { b.ops->gelu_tanh(y, in); });
    add([&](Tensor y) { b.ops->gelu_erf(y, in); });
    add([&](Tensor y) { b.ops->silu_mul(y, in, {angle.data(), Type::f32, T, D, D}); });
    add([&](Tensor y) { b.ops->linear(y, in, {w.data(), Type::f32, D, D}, angle.data()); });
    add([&](Tensor y) { b.ops->rotary({y.data, Type::f32, T, D - 1, D}, 2, {angle.data(), Type::f32, T, 37, D}, {w.data(), Type::f32, T, 37, D}); });
    CHECK_MESSAGE(sum == 16214274125894496466u, b.label << ": " << sum);
  }
}

TEST_CASE("kernels: layer_norm and rms_norm, also in place") {
  for (const auto& [T, D] : kShapes) {
    for (const float offset : {0.0f, 50.0f}) {
      Mat<float> x = random(T, D);
      for (int64_t t = 0; t < T; ++t)
        for (int64_t d = 0; d < D; ++d) x.at(t, d) += offset;
      const std::vector<float> w = random_vector(D), b = random_vector(D);
      const float eps = 1e-6f;
      std::vector<double> largest(size_t(T), 0.0), mean(size_t(T), 0.0), deviation(size_t(T), 0.0);
      for (int64_t t = 0; t < T; ++t) {
        for (int64_t d = 0; d < D; ++d) {
          largest[size_t(t)] = std::max(largest[size_t(t)], double(std::fabs(x.at(t, d))));
          mean[size_t(t)] += x.at(t, d) / double(D);
        }
        for (int64_t d = 0; d < D; ++d) deviation[size_t(t)] += (x.at(t, d) - mean[size_t(t)]) * (x.at(t, d) - mean[size_t(t)]) / double(D);
        deviation[size_t(t)] = std::sqrt(deviation[size_t(t)] + eps);
      }
      const Bound layer = [&](int64_t t, int64_t d, double) {
        const double normalised = (x.at(t, d) - mean[size_t(t)]) / deviation[size_t(t)], scale = std::fabs(w[size_t(d)]);
        return 8 * u * (std::fabs(normalised) * scale + std::fabs(b[size_t(d)]) + scale * largest[size_t(t)] / deviation[size_t(t)]);
      };
      const Bound rms = [](int64_t, int64_t, double y) { return 8 * u * std::fabs(y); };
      const Mat<float> empty(T, D);
      check_operation("layer_norm", empty, {x},
                      [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.layer_norm(y, in[0], w.data(), b.data(), eps); }, layer);
      check_operation("layer_norm in place", x, {}, [&](Ops& o, Tensor y, const std::vector<Tensor>&) { o.layer_norm(y, y, w.data(), b.data(), eps); }, layer);
      check_operation("rms_norm", empty, {x}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.rms_norm(y, in[0], w.data(), eps); }, rms);
      check_operation("rms_norm in place", x, {}, [&](Ops& o, Tensor y, const std::vector<Tensor>&) { o.rms_norm(y, y, w.data(), eps); }, rms);
    }
  }
}

TEST_CASE("kernels: the reference norms and activations give known values") {
  Mat<double> x(1, 2), y(1, 2);
  x.at(0, 0) = 3;
  x.at(0, 1) = 5;
  const float w[2] = {1, 2}, b[2] = {0, 10};
  truth()->layer_norm(y.tensor(), x.tensor(), w, b, 0);  // mean 4, deviation 1
  CHECK(y.at(0, 0) == -1);
  CHECK(y.at(0, 1) == 12);
  truth()->rms_norm(y.tensor(), x.tensor(), w, 0);  // √17
  CHECK(y.at(0, 0) == doctest::Approx(3 / std::sqrt(17.0)).epsilon(1e-15));
  CHECK(y.at(0, 1) == doctest::Approx(10 / std::sqrt(17.0)).epsilon(1e-15));
  x.at(0, 0) = 1;
  x.at(0, 1) = -1;
  truth()->gelu_erf(y.tensor(), x.tensor());  // Φ(1) = 0.841344746068542948…
  CHECK(y.at(0, 0) == doctest::Approx(0.841344746068542948).epsilon(1e-15));
  CHECK(y.at(0, 1) == doctest::Approx(-0.158655253931457051).epsilon(1e-14));
  truth()->gelu_tanh(y.tensor(), x.tensor());  // 0.84119199060827
  CHECK(y.at(0, 0) == doctest::Approx(0.841191990608276).epsilon(1e-14));
  Mat<double> gate = x, up(1, 2);
  up.at(0, 0) = 2;
  up.at(0, 1) = 3;
  truth()->silu_mul(y.tensor(), gate.tensor(), up.tensor());  // σ(1) = 0.731058578630004879…
  CHECK(y.at(0, 0) == doctest::Approx(2 * 0.731058578630004879).epsilon(1e-15));
  CHECK(y.at(0, 1) == doctest::Approx(-3 * 0.268941421369995120).epsilon(1e-15));
}

TEST_CASE("kernels: activations and add, also in place") {
  for (const auto& [T, D] : kShapes) {
    for (const float scale : {0.01f, 1.0f, 8.0f}) {
      const Mat<float> x = random(T, D, scale), up = random(T, D), empty(T, D);
      const auto gelu = [&](int64_t t, int64_t d, double y) { return 16 * u * (std::fabs(double(x.at(t, d))) + std::fabs(y)); };
      const auto product = [](int64_t, int64_t, double y) { return 16 * u * std::fabs(y); };
      check_operation("gelu_tanh", empty, {x}, [](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.gelu_tanh(y, in[0]); }, gelu);
      check_operation("gelu_tanh in place", x, {}, [](Ops& o, Tensor y, const std::vector<Tensor>&) { o.gelu_tanh(y, y); }, gelu);
      check_operation("gelu_erf", empty, {x}, [](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.gelu_erf(y, in[0]); }, gelu);
      check_operation("gelu_erf in place", x, {}, [](Ops& o, Tensor y, const std::vector<Tensor>&) { o.gelu_erf(y, y); }, gelu);
      check_operation("silu_mul", empty, {x, up}, [](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.silu_mul(y, in[0], in[1]); }, product);
      check_operation("silu_mul into gate", x, {up}, [](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.silu_mul(y, y, in[0]); }, product);
      check_operation("silu_mul into up", up, {x}, [](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.silu_mul(y, in[0], y); }, product);
      check_operation("add", up, {x}, [](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.add(y, in[0]); },
                      [](int64_t, int64_t, double y) { return u * std::fabs(y); });
    }
  }
}

TEST_CASE("kernels: activations keep NaN and do not break far from 0") {
  Mat<float> x(1, 12), up(1, 12);
  const float values[12] = {NAN, 0.0f, -0.0f, 60.0f, -60.0f, 85.0f, -85.0f, 1e-30f, -1e-30f, 1000.0f, NAN, INFINITY};
  for (int64_t i = 0; i < 12; ++i) {
    x.at(0, i) = values[i];
    up.at(0, i) = 2;
  }
  for (const Backend& b : backends()) {
    Mat<float> tanh(1, 12), erf(1, 12), silu(1, 12);
    b.ops->gelu_tanh(tanh.tensor(), x.tensor());
    b.ops->gelu_erf(erf.tensor(), x.tensor());
    b.ops->silu_mul(silu.tensor(), x.tensor(), up.tensor());
    for (Mat<float>* y : {&tanh, &erf, &silu}) {
      INFO(b.label);
      CHECK(std::isnan(y->at(0, 0)));
      CHECK(std::isnan(y->at(0, 10)));
      CHECK(y->at(0, 1) == 0);
      CHECK(y->at(0, 3) == (y == &silu ? 120.0f : 60.0f));
      CHECK(std::fabs(y->at(0, 4)) < 1e-20);
      CHECK(std::isinf(y->at(0, 11)));
      CHECK(y->at(0, 9) == (y == &silu ? 2000.0f : 1000.0f));
    }
  }
}

TEST_CASE("kernels: rotary") {
  for (const auto& [T, heads, d] : std::vector<std::array<int64_t, 3>>{{1, 1, 2}, {3, 5, 6}, {7, 2, 72}, {17, 4, 128}}) {
    const int64_t half = d / 2;
    Mat<float> y0 = random(T, heads * d), cos(T, half, 1), sin(T, half, 0);
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t i = 0; i < half; ++i) {
        const float angle = uniform(-7, 7);
        cos.at(t, i) = std::cos(angle);
        sin.at(t, i) = std::sin(angle);
      }
    }
    check_operation("rotary", y0, {cos, sin}, [&, n = heads](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.rotary(y, n, in[0], in[1]); },
                    [&, w = d](int64_t t, int64_t c, double) {
                      const int64_t i = c % w, h = c / w * w;
                      const double c_t = cos.at(t, i % half), s_t = sin.at(t, i % half), a = y0.at(t, h + i % half), b = y0.at(t, h + half + i % half);
                      return 3 * u * (i < half ? std::fabs(a * c_t) + std::fabs(b * s_t) : std::fabs(b * c_t) + std::fabs(a * s_t));
                    });
  }
  Mat<double> y(1, 4), cos(1, 2), sin(1, 2);  // a quarter turn: (a, b) → (−b, a)
  for (int64_t i = 0; i < 4; ++i) y.at(0, i) = double(i + 1);
  sin.at(0, 0) = sin.at(0, 1) = 1;
  truth()->rotary(y.tensor(), 1, cos.tensor(), sin.tensor());
  CHECK(y.at(0, 0) == -3);
  CHECK(y.at(0, 1) == -4);
  CHECK(y.at(0, 2) == 1);
  CHECK(y.at(0, 3) == 2);
}

TEST_CASE("kernels: rows by index, copies, host transfers") {
  const auto exact = [](int64_t, int64_t, double) { return 0.0; };
  for (const auto& [T, D] : kShapes) {
    const int64_t many = 2 * T + 3;
    std::vector<int64_t> index(static_cast<size_t>(many));
    for (int64_t i = 0; i < many; ++i) index[size_t(i)] = i;
    std::shuffle(index.begin(), index.end(), rng());
    const Mat<float> few = random(T, D), wide = random(many, D);
    check_operation("gather", few, {wide}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.gather_rows(y, in[0], index.data()); }, exact);
    check_operation("scatter", wide, {few}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.scatter_rows(y, in[0], index.data()); }, exact);
    check_operation("scatter_add", wide, {few}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.scatter_add_rows(y, in[0], index.data()); },
                    [](int64_t, int64_t, double y) { return u * std::fabs(y); });
    check_operation("copy", few, {random(T, D, 1, 5)}, [](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.copy(y, in[0]); }, exact);
    std::vector<float> host(static_cast<size_t>(T * D)), back(host.size());
    std::vector<double> back64(host.size());
    for (float& value : host) value = normal();
    check_operation("write", few, {}, [&](Ops& o, Tensor y, const std::vector<Tensor>&) { o.write(y, host.data()); }, exact);
    for (const Backend& b : backends()) {
      Mat<float> y(T, D);
      b.ops->write(y.tensor(), host.data());
      b.ops->read(back.data(), y.tensor());
      b.ops->read(back64.data(), y.tensor());
      CHECK(back == host);
      CHECK(std::equal(host.begin(), host.end(), back64.begin()));
      CHECK(y.at(T - 1, D - 1) == host.back());
    }
    for (const Type type : {Type::f32, Type::f16, Type::bf16}) {
      const WeightData w(type, 29, D);
      std::vector<int32_t> ids(static_cast<size_t>(4 * T));
      std::vector<float> weights(ids.size());
      for (size_t i = 0; i < ids.size(); ++i) {
        ids[i] = int32_t(rng()() % 29);
        weights[i] = uniform(0, 1);
      }
      check_operation("embed", few, {}, [&](Ops& o, Tensor y, const std::vector<Tensor>&) { o.embed(y, w.weight(), ids.data()); }, exact);
      const Run interpolate = [&](Ops& o, Tensor y, const std::vector<Tensor>&) { o.add_interpolated(y, w.weight(), ids.data(), weights.data()); };
      check_operation("add_interpolated", few, {}, interpolate,
                      [&, cols = D](int64_t t, int64_t c, double) {
                        double terms = std::fabs(double(few.at(t, c)));
                        for (int64_t j = 4 * t; j < 4 * t + 4; ++j) terms += std::fabs(weights[size_t(j)] * w.values[size_t(ids[size_t(j)] * cols + c)]);
                        return 8 * u * terms;
                      });
    }
  }
}

TEST_CASE("kernels: memory is aligned, zero, and refused when there is none") {
  for (const Backend& b : backends()) {
    for (const size_t bytes : {size_t(0), size_t(1), size_t(63), size_t(1000), size_t(1) << 20, (size_t(5) << 20) + 7}) {
      auto* p = static_cast<unsigned char*>(b.ops->allocate(bytes));
      REQUIRE(p != nullptr);
      CHECK(reinterpret_cast<uintptr_t>(p) % 64 == 0);
      CHECK(std::all_of(p, p + bytes, [](unsigned char c) { return c == 0; }));
      if (bytes > 0) std::memset(p, 255, bytes);
      b.ops->release(p, bytes);
    }
    CHECK(b.ops->allocate(~size_t(0) - 100) == nullptr);
    b.ops->release(nullptr, 10);
  }
}

TEST_CASE("kernels: names") {
  CHECK(std::string(bg::type_name(Type::f32)) == "F32");
  CHECK(std::string(bg::type_name(Type::f16)) == "F16");
  CHECK(std::string(bg::type_name(Type::bf16)) == "BF16");
  CHECK(std::string(bg::type_name(Type::f64)) == "F64");
  CHECK(std::string(truth()->name()) == "ref64");
  CHECK(truth()->type() == Type::f64);
  CHECK(backends()[0].ops->type() == Type::f32);
  CHECK(std::string(backends()[0].ops->name()) == "ref");
  CHECK(std::string(backends()[1].ops->name()) == "cpu/portable");
  std::unique_ptr<Ops> best(bg::make_cpu_ops(1, bg::Isa::best, bg::Precision::float32));
  CHECK(std::string(best->name()) == std::string("cpu/") + bg::isa_name(bg::best_isa()));
}

TEST_CASE("kernels: a thread of the pool begins with its own share of the blocks") {
  bg::cpu::Threads pool(3);
  REQUIRE(pool.count() == 3);
  std::atomic<int> begun{0}, wrong{0};
  for (int job = 1; job <= 20; ++job) {
    pool.run(12, [&](int64_t block, int thread) {
      if (block % 4 != 0) return;  // the first of a share waits until all have begun, so that nobody helps
      ++begun;
      while (begun < 3 * job) std::this_thread::yield();
      wrong += thread != block / 4;
    });
  }
  CHECK(wrong == 0);
}

TEST_CASE("kernels: the thread pool does every block once, for several callers at a time") {
  for (const int count : {1, 2, 5, 16}) {
    bg::cpu::Threads pool(count);
    std::atomic<int> wrong{0};
    const auto caller = [&] {
      for (int64_t blocks = 0; blocks < 60; ++blocks) {
        std::vector<int> times(size_t(blocks), 0);
        pool.run(blocks, [&](int64_t block, int thread) { times[size_t(block)] += thread < pool.count() ? 1 : 100; });
        for (const int n : times) wrong += n != 1;
      }
    };
    std::thread other(caller);
    caller();
    other.join();
    CHECK(wrong == 0);
  }
}
