// The element kernels of the GPU tables where they choose between paths: aligned or not, a warp or a block a row, a recorded step or plain calls.
#include <algorithm>
#include <array>

#include "kernels/half.h"
#include "tests/kernels_support.h"

using namespace kernels_test;

namespace {

// (rows, cols) at an address that is `offset` floats past a multiple of 64 bytes, rows `stride` apart.
struct Placed {
  std::vector<float> all;
  int64_t first, rows, cols, stride;
  Placed(int64_t rows_, int64_t cols_, int64_t stride_, int64_t offset) : all(size_t(rows_ * stride_ + 32)), rows(rows_), cols(cols_), stride(stride_) {
    first = int64_t((64 - reinterpret_cast<uintptr_t>(all.data()) % 64) % 64 / 4) + offset;
  }
  float* data() { return all.data() + first; }
  Tensor tensor() { return {data(), Type::f32, rows, cols, stride}; }
  void fill(const std::vector<float>& x) {
    for (int64_t t = 0; t < rows; ++t) std::copy_n(x.begin() + t * cols, cols, data() + t * stride);
  }
  std::vector<float> values() {
    std::vector<float> x;
    for (int64_t t = 0; t < rows; ++t) x.insert(x.end(), data() + t * stride, data() + t * stride + cols);
    return x;
  }
};

std::vector<float> normals(int64_t n) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = normal();
  return x;
}

}  // namespace

TEST_CASE("cuda elements: aligned rows, unaligned rows and rows side by side give the same bits") {
  const std::unique_ptr<Ops> ops(bg::make_emulated_ops(1, bg::Precision::float32));
  for (const auto& [T, D] : std::vector<std::pair<int64_t, int64_t>>{{2, 8}, {3, 128}, {2, 768}, {2, 1280}, {1, 1284}, {1, 4100}, {2, 18}}) {
    const std::vector<float> x = normals(T * D), z = normals(T * D), w = normals(D), b = normals(D), angle = normals(T * D / 4);
    const std::vector<std::function<void(Tensor, Tensor, const float*, const float*, Tensor)>> operations = {
        [&](Tensor y, Tensor, const float* g, const float* c, Tensor) { ops->layer_norm(y, y, g, c, 1e-6f); },
        [&](Tensor y, Tensor, const float* g, const float*, Tensor) { ops->rms_norm(y, y, g, 1e-6f); },
        [&](Tensor y, Tensor, const float*, const float*, Tensor) { ops->gelu_tanh(y, y); },
        [&](Tensor y, Tensor, const float*, const float*, Tensor) { ops->gelu_erf(y, y); },
        [&](Tensor y, Tensor a, const float*, const float*, Tensor) { ops->silu_mul(y, y, a); },
        [&](Tensor y, Tensor a, const float*, const float*, Tensor) { ops->add(y, a); },
        [&](Tensor y, Tensor, const float*, const float*, Tensor) { ops->scale(y, 0.3); },
        [&](Tensor y, Tensor, const float*, const float*, Tensor a) { ops->rotary(y, 2, a, a); },
    };
    for (size_t i = 0; i < operations.size(); ++i) {
      if (i == 7 && D % 4 != 0) continue;
      std::vector<float> first;
      for (const auto& [gap, offset] : std::vector<std::pair<int64_t, int64_t>>{{0, 0}, {4, 0}, {3, 0}, {0, 1}}) {
        Placed y(T, D, D + gap, offset), a(T, D, D + gap, offset), weight(1, D, D, offset), bias(1, D, D, offset), turn(T, D / 4, D / 4 + gap, offset);
        y.fill(x), a.fill(z), weight.fill(w), bias.fill(b), turn.fill(angle);
        operations[i](y.tensor(), a.tensor(), weight.data(), bias.data(), turn.tensor());
        if (first.empty()) first = y.values();
        CHECK_MESSAGE(std::memcmp(first.data(), y.values().data(), first.size() * sizeof(float)) == 0,
                      "operation " << i << ", " << T << " x " << D << ", gap " << gap << ", offset " << offset);
      }
    }
  }
}

TEST_CASE("cuda elements: norms of wide rows, within the bound") {
  for (const int64_t D : {1281, 4096, 4608, 9001}) {
    const Mat<float> x = random(2, D, 3);
    const std::vector<float> w = normals(D);
    check_operation("rms_norm", Mat<float>(2, D), {x}, [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.rms_norm(y, in[0], w.data(), 1e-6f); },
                    [](int64_t, int64_t, double y) { return 8 * u * std::fabs(y); });
  }
}

namespace {

struct Attention {
  int64_t heads, kv_heads, d, T, context;
  Type type;
};

// A cache of keys and values, filled with a pattern, and the tensors of T new tokens, in one table's memory.
struct State {
  Ops& ops;
  Attention a;
  size_t cache_bytes, row_floats;
  void *keys, *values;
  float* rows;  // q, k, v, cos, sin; wq, wk

  State(Ops& ops_, const Attention& a_)
      : ops(ops_), a(a_), cache_bytes(bg::stored_bytes(a.type, a.context * a.kv_heads * a.d)), row_floats(size_t(a.T * ((a.heads + 2 * a.kv_heads) * a.d + a.d) + 2 * a.d)) {
    keys = ops.allocate(cache_bytes);
    values = ops.allocate(cache_bytes);
    rows = static_cast<float*>(ops.allocate(row_floats * sizeof(float)));
    const std::vector<unsigned char> pattern(cache_bytes, 0x5a);
    ops.upload(keys, pattern.data(), cache_bytes);
    ops.upload(values, pattern.data(), cache_bytes);
  }
  ~State() {
    ops.release(keys, cache_bytes);
    ops.release(values, cache_bytes);
    ops.release(rows, row_floats * sizeof(float));
  }
  State(const State&) = delete;

  Tensor cache(void* p) const { return {p, a.type, a.kv_heads * a.context, a.d, a.d}; }
  Tensor q() const { return {rows, Type::f32, a.T, a.heads * a.d, a.heads * a.d}; }
  Tensor k() const { return {rows + a.T * a.heads * a.d, Type::f32, a.T, a.kv_heads * a.d, a.kv_heads * a.d}; }
  Tensor v() const { return {rows + a.T * (a.heads + a.kv_heads) * a.d, Type::f32, a.T, a.kv_heads * a.d, a.kv_heads * a.d}; }
  Tensor angles(int64_t i) const { return {rows + a.T * (a.heads + 2 * a.kv_heads) * a.d + i * a.T * a.d / 2, Type::f32, a.T, a.d / 2, a.d / 2}; }
  float* norms(int64_t i) const { return rows + a.T * ((a.heads + 2 * a.kv_heads) * a.d + a.d) + i * a.d; }

  void give(const std::vector<float>& x) {  // q, k, v, cos, sin
    const float* from = x.data();
    for (const Tensor& t : {q(), k(), v(), angles(0), angles(1)}) {
      ops.write(t, from);
      from += t.rows * t.cols;
    }
  }
  void run(int64_t past, bool plainly = false) {
    if (plainly)
      ops.Ops::rotate_into_cache(cache(keys), cache(values), q(), k(), v(), a.heads, a.kv_heads, norms(0), norms(1), 1e-6f, angles(0), angles(1), past);
    else
      ops.rotate_into_cache(cache(keys), cache(values), q(), k(), v(), a.heads, a.kv_heads, norms(0), norms(1), 1e-6f, angles(0), angles(1), past);
  }
  bool same(const State& other) const {
    return std::memcmp(rows, other.rows, row_floats * sizeof(float)) == 0 && std::memcmp(keys, other.keys, cache_bytes) == 0 && std::memcmp(values, other.values, cache_bytes) == 0;
  }
};

}  // namespace

TEST_CASE("cuda elements: rotate_into_cache gives the bits of its parts, plainly and recorded, for every type of cache") {
  for (const bool backward : {false, true}) {
    const std::unique_ptr<Ops> ops(bg::make_emulated_ops(2, bg::Precision::fast, backward));
    for (const Attention& a : {Attention{4, 2, 128, 3, 9, Type::f32}, Attention{4, 2, 32, 1, 9, Type::f32}, Attention{3, 3, 18, 1, 9, Type::bf16}, Attention{6, 2, 64, 2, 9, Type::bf16},
                               Attention{4, 1, 32, 1, 9, Type::q8_0}, Attention{5, 1, 160, 2, 9, Type::q8_0}}) {
      INFO(bg::type_name(a.type) << ", d " << a.d << ", " << a.T << " rows");
      State parts(*ops, a), whole(*ops, a), recorded(*ops, a);
      const std::vector<float> w = normals(2 * a.d);
      for (State* s : {&parts, &whole, &recorded}) ops->upload(s->norms(0), w.data(), w.size() * sizeof(float));
      ops->forget_steps();
      for (const int64_t past : {4, 5, 0, 6}) {  // the first is recorded, the others are played again
        const std::vector<float> x = normals(a.T * ((a.heads + 2 * a.kv_heads) * a.d + a.d));
        parts.give(x);
        parts.run(past, true);
        whole.give(x);
        whole.run(past);
        ops->begin_step(past);
        recorded.give(x);
        recorded.run(past);
        ops->end_step();
        CHECK(whole.same(parts));
        CHECK(recorded.same(parts));
      }
    }
  }
}

TEST_CASE("cuda elements: the likeliest token of many, ties across blocks, zeros of either sign, what is not finite") {
  for (const Backend& b : backends()) {
    INFO(b.label);
    Mat<float> z = random(1, 5003, 4);
    z.at(0, 4711) = z.at(0, 4003) = z.at(0, 2050) = 30;
    bg::Likeliest l = b.ops->likeliest(z.tensor());
    CHECK(l.finite);
    CHECK(l.id == 2050);
    double sum = 0;
    for (int64_t j = 0; j < z.cols; ++j) sum += std::exp(double(z.at(0, j)) - 30);
    CHECK(std::fabs(l.logprob + std::log(sum)) <= (5003 + 8) * 0x1p-53 * 60);
    Mat<float> zeros(1, 3000);
    for (int64_t j = 0; j < 3000; ++j) zeros.at(0, j) = j < 9 || j == 1500 ? -1.0f : j % 2 == 0 ? 0.0f : -0.0f;
    CHECK(b.ops->likeliest(zeros.tensor()).id == 9);
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      Mat<float> broken = z;
      broken.at(0, 3333) = bad;
      CHECK(!b.ops->likeliest(broken.tensor()).finite);
    }
    Mat<float> one(1, 1);
    one.at(0, 0) = -5;
    l = b.ops->likeliest(one.tensor());
    CHECK(l.id == 0);
    CHECK(l.logprob == 0);
  }
}
