// What the kernel tests share: every backend and thread count, matrices with guards around each row, and one check of an operation:
// ref in double is the truth, every float backend must lie within the contract's bound, and one instruction set gives the same bits for
// 1, 2, 3 and 8 threads.
#pragma once
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/ops.h"
#include "tests/mirror.h"

namespace kernels_test {

using bg::Ops;
using bg::Tensor;
using bg::Type;
using bg::Weight;

constexpr double u = 0x1p-24;

inline std::mt19937& rng() {
  static std::mt19937 generator(20240607);
  return generator;
}
inline float uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(rng()); }
inline float normal(float scale = 1) { return std::normal_distribution<float>(0, scale)(rng()); }

// (rows, cols) inside rows that are `gap` longer, with guard values in the gaps and around the whole.
template <class T>
struct Mat {
  static constexpr int64_t kEdge = 16;
  static constexpr T kGuard = T(-98765.4321);
  int64_t rows, cols, stride;
  std::vector<T> all;

  Mat(int64_t rows_, int64_t cols_, int64_t gap = 3) : rows(rows_), cols(cols_), stride(cols_ + gap), all(size_t(rows_ * (cols_ + gap) + 2 * kEdge), kGuard) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) at(r, c) = 0;
  }
  T& at(int64_t r, int64_t c) { return all[size_t(kEdge + r * stride + c)]; }
  const T& at(int64_t r, int64_t c) const { return all[size_t(kEdge + r * stride + c)]; }
  Tensor tensor() { return {all.data() + kEdge, sizeof(T) == 8 ? Type::f64 : Type::f32, rows, cols, stride}; }
  bool guards_intact() const {
    for (size_t i = 0; i < all.size(); ++i) {
      const int64_t k = int64_t(i) - kEdge;
      const bool inside = k >= 0 && k < rows * stride && k % stride < cols;
      if (!inside && all[i] != kGuard) return false;
    }
    return true;
  }
  bool same_bits(const Mat& other) const { return all.size() == other.all.size() && std::memcmp(all.data(), other.all.data(), all.size() * sizeof(T)) == 0; }
};

inline Mat<float> random(int64_t rows, int64_t cols, float scale = 1, int64_t gap = 3) {
  Mat<float> m(rows, cols, gap);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) m.at(r, c) = normal(scale);
  return m;
}

// Keys or values of a cache, (heads·context, d): S random rows of each head, and behind them NaN.
inline Mat<float> random_cache(int64_t heads, int64_t S, int64_t context, int64_t d, float scale = 1, int64_t gap = 3) {
  Mat<float> m(heads * context, d, gap);
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t c = 0; c < d; ++c) m.at(r, c) = r % context < S ? normal(scale) : NAN;
  return m;
}

inline Mat<double> widen(const Mat<float>& m) {
  Mat<double> d(m.rows, m.cols, m.stride - m.cols);
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t c = 0; c < m.cols; ++c) d.at(r, c) = m.at(r, c);
  return d;
}

struct Backend {
  std::string label;  // name and threads
  std::unique_ptr<Ops> ops;
};

inline std::unique_ptr<Ops>& truth() {
  static std::unique_ptr<Ops> ops(bg::make_ref_ops(Type::f64));
  return ops;
}

// A GPU's table, twice: a second run gives the same bits. Empty where there is none.
inline void add_gpu(std::vector<Backend>& list, bg::Precision precision) {
  std::string why_none;
  for (const char* label : {"cuda", "cuda again"})
    if (bg::cuda_devices(&why_none) > 0) list.push_back({label, std::make_unique<Mirror>(bg::make_cuda_ops(0, precision))});
}

// The GPU's kernels on the CPU, a block's threads in either order. mirrored: on copies in memory of just their size, for the address sanitizer.
inline void add_emulated(std::vector<Backend>& list, bg::Precision precision, bool mirrored) {
  const auto add = [&](const char* label, Ops* ops) { list.push_back({label, std::unique_ptr<Ops>(mirrored ? new Mirror(ops) : ops)}); };
  add("emulated with 1 thread", bg::make_emulated_ops(1, precision));
  add("emulated with 3 threads, backward", bg::make_emulated_ops(3, precision, true));
}

// ref, then each instruction set that this machine has with 1 and 3 threads, and its best with 2 and 8 too.
inline void add_cpu(std::vector<Backend>& list, bg::Precision precision) {
  list.push_back({"ref", std::unique_ptr<Ops>(bg::make_ref_ops(Type::f32))});
  int count = 0;
  const bg::Isa* isas = bg::built_isas(&count);
  for (int i = 0; i < count; ++i) {
    for (const int threads : {1, 2, 3, 8}) {
      if (threads % 2 == 0 && isas[i] != bg::best_isa()) continue;
      std::unique_ptr<Ops> ops(bg::make_cpu_ops(threads, isas[i], precision));
      if (ops == nullptr) continue;
      std::string label = std::string(ops->name()) + " with " + std::to_string(threads) + " threads";
      list.push_back({std::move(label), std::move(ops)});
    }
  }
}

// All of them, or with BG_TEST_BACKENDS: cpu (tests/neon.sh), emulated (make emulated), cuda (tests/gpu_check.sh).
inline std::vector<Backend> backends_of(bg::Precision precision) {
  const char* value = std::getenv("BG_TEST_BACKENDS");
  const std::string only = value == nullptr ? "" : value;
  std::vector<Backend> list;
  if (only.empty() || only == "cpu") add_cpu(list, precision);
  if (only.empty() || only == "emulated") add_emulated(list, precision, !only.empty());
  if (only.empty() || only == "cuda") add_gpu(list, precision);
  return list;
}

inline std::vector<Backend>& fast_backends() {
  static std::vector<Backend> all = backends_of(bg::Precision::fast);
  return all;
}

inline std::vector<Backend>& backends() {
  static std::vector<Backend> all = backends_of(bg::Precision::float32);
  static bool said = false;
  if (!said) MESSAGE("instruction sets up to " << std::string(bg::isa_name(bg::best_isa())) << " are tested");
  said = true;
  return all;
}

// The operation on table `ops`: y is the output (holding y0 before), in the inputs.
using Run = std::function<void(Ops& ops, Tensor y, const std::vector<Tensor>& in)>;
using Bound = std::function<double(int64_t r, int64_t c, double truth)>;

template <class T>
std::vector<Tensor> tensors(std::vector<Mat<T>>& list) {
  std::vector<Tensor> out;
  for (Mat<T>& m : list) out.push_back(m.tensor());
  return out;
}

inline void check_operation(const std::string& what, const Mat<float>& y0, const std::vector<Mat<float>>& in, const Run& run, const Bound& bound,
                            std::vector<Backend>& list = backends()) {
  Mat<double> exact = widen(y0);
  std::vector<Mat<double>> in64;
  for (const Mat<float>& m : in) in64.push_back(widen(m));
  run(*truth(), exact.tensor(), tensors(in64));
  CHECK_MESSAGE(exact.guards_intact(), what);
  Mat<double> bounds(y0.rows, y0.cols);
  for (int64_t r = 0; r < y0.rows; ++r)
    for (int64_t c = 0; c < y0.cols; ++c) bounds.at(r, c) = bound(r, c, exact.at(r, c));

  std::string isa;
  Mat<float> first(0, 0);
  for (const Backend& b : list) {
    Mat<float> y = y0;
    std::vector<Mat<float>> copies = in;
    run(*b.ops, y.tensor(), tensors(copies));
    const std::string where = what + ", " + b.label;
    CHECK_MESSAGE(y.guards_intact(), where << " wrote outside its output");
    for (size_t i = 0; i < in.size(); ++i) CHECK_MESSAGE(copies[i].same_bits(in[i]), where << " changed input " << i);
    double worst = 0;
    int64_t worst_r = 0, worst_c = 0;
    for (int64_t r = 0; r < y.rows; ++r) {
      for (int64_t c = 0; c < y.cols; ++c) {
        const double err = std::fabs(double(y.at(r, c)) - exact.at(r, c)), allowed = bounds.at(r, c);
        if (!(err <= allowed) && !(err / allowed <= worst)) {
          worst = std::isnan(err) ? std::numeric_limits<double>::infinity() : err / allowed;
          worst_r = r;
          worst_c = c;
        }
      }
    }
    CHECK_MESSAGE(worst == 0, where << ": element (" << worst_r << ", " << worst_c << ") is " << y.at(worst_r, worst_c) << ", exact "
                                    << exact.at(worst_r, worst_c) << ", " << 100 * worst << " % of the bound");
    if (isa != b.ops->name()) {
      isa = b.ops->name();
      first = y;
    }
    CHECK_MESSAGE(y.same_bits(first), where << " differs from one thread");
  }
}

// Weights of a type, at an address that is only 2-byte aligned (f32: 4). values: what they are exactly.
struct WeightData {
  std::vector<uint16_t> bytes;
  std::vector<double> values;
  Type type;
  int64_t rows, cols;
  WeightData(Type type_, int64_t rows_, int64_t cols_, float scale = 1) : type(type_), rows(rows_), cols(cols_) {
    const size_t n = size_t(rows * cols), halves = type == Type::f32 ? 2 : 1;
    bytes.resize(n * halves + 2);
    values.resize(n);
    for (size_t i = 0; i < n; ++i) {
      float f = normal(scale);
      if (type != Type::f32) {  // cut to bf16, or to f16 in its normal range: the dropped bits are below either type's last
        uint32_t bits;
        std::memcpy(&bits, &f, 4);
        bits &= type == Type::bf16 ? 0xffff0000u : 0xffffe000u;
        std::memcpy(&f, &bits, 4);
        if (type == Type::f16 && std::fabs(f) < 0x1p-14f) f = 0x1p-24f * float(int(i % 1024));  // a subnormal of f16
        std::memcpy(&bits, &f, 4);
        if (type == Type::bf16) {
          bytes[i + 1] = uint16_t(bits >> 16);
        } else if (std::fabs(f) < 0x1p-14f) {
          bytes[i + 1] = uint16_t(f / 0x1p-24f);
        } else {
          bytes[i + 1] = uint16_t(((bits >> 16) & 0x8000) | ((((bits >> 23) & 255) - 112) << 10) | ((bits >> 13) & 0x3ff));
        }
      } else {
        std::memcpy(&bytes[2 * i + 2], &f, 4);
      }
      values[i] = f;
    }
  }
  Weight weight() const { return {bytes.data() + (type == Type::f32 ? 2 : 1), type, rows, cols}; }
};

// A row's bits do not depend on the other rows of the call.
inline void check_rows_alone(const Weight& w) {
  const int64_t T = 141;
  Mat<float> x = random(T, w.cols);
  for (const Backend& b : backends()) {
    Mat<float> whole(T, w.rows), parts(T, w.rows);
    b.ops->linear(whole.tensor(), x.tensor(), w, nullptr);
    int64_t t = 0;
    for (const int64_t rows : {3, 4, 1, 2, 5, 100, 9, 17}) {
      b.ops->linear(parts.tensor().row_range(t, rows), x.tensor().row_range(t, rows), w, nullptr);
      t += rows;
    }
    REQUIRE(t == T);
    CHECK_MESSAGE(whole.same_bits(parts), b.label);
  }
}

}  // namespace kernels_test
