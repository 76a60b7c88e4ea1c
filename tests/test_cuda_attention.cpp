// Attention on the (emulated) GPU, what tests/test_kernels_attention.cpp does not reach: real head sizes at addresses that the asynchronous copies take, several
// spans of keys, each kernel against the others bit for bit, recorded steps across the end of a bucket.
#include <algorithm>

#include "kernels/half.h"

#include "tests/kernels_support.h"

using namespace kernels_test;

namespace {

constexpr double e = 0x1p-8;  // of bf16

std::unique_ptr<Ops> emulated(bool fast) { return std::unique_ptr<Ops>(bg::make_emulated_ops(2, fast ? bg::Precision::fast : bg::Precision::float32)); }

// A matrix of a cache's type at a multiple of 64 bytes, and what it holds.
struct Cache {
  std::vector<char> room;
  Tensor t;
  Mat<float> values;

  Cache(Ops& ops, Type type, const Mat<float>& x) : room(bg::stored_bytes(type, x.rows * x.cols) + 64), values(x) {
    t = {room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) % 64, type, x.rows, x.cols, x.cols};
    ops.copy(t, values.tensor());
    for (int64_t r = 0; r < x.rows; ++r)
      for (int64_t c = 0; c < x.cols; ++c) values.at(r, c) = stored(r, c);
  }

 private:
  float stored(int64_t r, int64_t c) const {
    const char* const row = static_cast<const char*>(t.row_range(r, 1).data);
    if (t.type == Type::f32) return reinterpret_cast<const float*>(row)[c];
    uint16_t h;
    std::memcpy(&h, row + (t.type == Type::bf16 ? 2 * c : c / 32 * 34), 2);
    return t.type == Type::bf16 ? bg::bf16_to_float(h) : bg::f16_to_float(h) * float(static_cast<signed char>(row[c / 32 * 34 + 2 + c % 32]));
  }
};

// Largest error of row t, head h of o, as a share of the contract's bound. Keys first … last − 1, columns from c0 on.
double share_of_bound(bool fast, const Mat<float>& o, const Mat<float>& q, const Mat<float>& k, const Mat<float>& v, int64_t t, int64_t h, int64_t c0, int64_t d,
                      int64_t first, int64_t last) {
  std::vector<double> p;
  double A = 0, most = -1e300, total = 0, worst = 0;
  for (int64_t s = first; s < last; ++s) {
    double dot = 0, absolute = 0;
    for (int64_t j = 0; j < d; ++j) {
      const double term = double(q.at(t, h * d + j)) * k.at(s, c0 + j) / std::sqrt(double(d));
      dot += term;
      absolute += std::fabs(term);
    }
    p.push_back(dot);
    A = std::max(A, absolute);
    most = std::max(most, dot);
  }
  for (double& z : p) total += z = std::exp(z - most);
  for (int64_t j = 0; j < d; ++j) {
    double exact = 0, sum = 0;
    for (int64_t s = first; s < last; ++s) {
      exact += p[size_t(s - first)] * v.at(s, c0 + j) / total;
      sum += p[size_t(s - first)] * std::fabs(double(v.at(s, c0 + j))) / total;
    }
    const double err = std::fabs(o.at(t, h * d + j) - exact);
    const double bound = (u * (2 * (double(d) + 4) * A + 2 * double(last - first) + 16) + (fast ? 4 * e * A + 2.25 * e : 0)) * sum;
    worst = std::max(worst, err <= bound ? err / bound : std::isnan(err) ? 1e300 : err / bound);
  }
  return worst;
}

}  // namespace

TEST_CASE("cuda attention_frames: head sizes of the models, keys of several tiles, within the bound") {
  struct Case { int64_t frame, frames, heads, d; };
  for (const Case a : {Case{200, 1, 2, 72}, Case{130, 2, 1, 64}, Case{97, 1, 1, 96}, Case{161, 1, 1, 128}}) {
    for (const bool fast : {true, false}) {
      const int64_t T = a.frame * a.frames, D = a.heads * a.d;
      Mat<float> q = random(T, D, 2, 4), k = random(T, D, 1, 4), v = random(T, D, 1, 4), o(T, D);
      emulated(fast)->attention_frames(o.tensor(), q.tensor(), k.tensor(), v.tensor(), a.heads, a.frame);
      double worst = 0;
      for (int64_t t = 0; t < T; ++t)
        for (int64_t h = 0; h < a.heads; ++h) {
          const int64_t first = t / a.frame * a.frame;
          worst = std::max(worst, share_of_bound(fast, o, q, k, v, t, h, h * a.d, a.d, first, first + a.frame));
        }
      CHECK_MESSAGE(worst <= 1, "d " << a.d << ": " << 100 * worst << " % of the bound");
      CHECK_MESSAGE(worst > 1e-4, "d " << a.d << ": nothing was computed");
      CHECK(o.guards_intact());
    }
  }
}

TEST_CASE("cuda attention_causal: prompt and step agree bit for bit, over several spans of keys, within the bound") {
  struct Case { int64_t d; Type type; };
  for (const Case a : {Case{128, Type::bf16}, Case{128, Type::q8_0}, Case{72, Type::bf16}, Case{96, Type::f32}, Case{131, Type::bf16}, Case{256, Type::bf16}}) {
    for (const bool fast : {true, false}) {
      const int64_t T = 21, past = 290, S = past + T, heads = 4, kv_heads = 2;
      const std::unique_ptr<Ops> ops = emulated(fast);
      const int64_t context = S + 3;
      Cache k(*ops, a.type, random_cache(kv_heads, S, context, a.d)), v(*ops, a.type, random_cache(kv_heads, S, context, a.d));
      Mat<float> q = random(T, heads * a.d, 2), whole(T, heads * a.d), parts(T, heads * a.d);
      const auto attend = [&](Mat<float>& o, int64_t t, int64_t n) {
        ops->attention_causal(o.tensor().row_range(t, n), q.tensor().row_range(t, n), k.t, v.t, heads, kv_heads, past + t);
      };
      attend(whole, 0, T);
      for (int64_t t = 0; t < T; t += t < 18 ? 9 : 1) attend(parts, t, t < 18 ? 9 : 1);
      CHECK_MESSAGE(whole.same_bits(parts), "d " << a.d << ", " << std::string(bg::type_name(a.type)));
      double worst = 0;
      for (int64_t t = 0; t < T; t += 5)
        for (int64_t h = 0; h < heads; ++h) {
          const int64_t first = h / 2 * context;
          worst = std::max(worst, share_of_bound(fast, whole, q, k.values, v.values, t, h, 0, a.d, first, first + past + t + 1));
        }
      CHECK_MESSAGE(worst <= 1, "d " << a.d << ", " << std::string(bg::type_name(a.type)) << ": " << 100 * worst << " % of the bound");
    }
  }
}

TEST_CASE("cuda attention_causal: a recorded step, played again for later tokens and recorded anew behind its bucket") {
  const int64_t S = 1030, d = 32, heads = 4, kv_heads = 2;
  for (const bool fast : {true, false}) {
    for (const Type type : {Type::bf16, Type::q8_0}) {
      const std::unique_ptr<Ops> ops = emulated(fast), plain = emulated(fast);
      Cache k(*ops, type, random(kv_heads * S, d)), v(*ops, type, random(kv_heads * S, d));
      Mat<float> q(1, heads * d), o(1, heads * d), expected(1, heads * d);
      for (const int64_t past : {0, 1, 127, 128, 1022, 1023, 1024, 3}) {
        const Mat<float> x = random(1, heads * d, 2, 0);
        ops->begin_step(past);
        ops->write(q.tensor(), &x.at(0, 0));
        ops->attention_causal(o.tensor(), q.tensor(), k.t, v.t, heads, kv_heads, past);
        ops->end_step();
        plain->attention_causal(expected.tensor(), q.tensor(), k.t, v.t, heads, kv_heads, past);
        CHECK_MESSAGE(o.same_bits(expected), std::string(bg::type_name(type)) << ", past " << past);
      }
    }
  }
}

TEST_CASE("cuda attention: no rows, and scores that are all −∞") {
  for (const bool fast : {true, false}) {
    const std::unique_ptr<Ops> ops = emulated(fast);
    Mat<float> none(0, 8), keys = random(5, 8), x(70, 1), k(70, 1), v = random(70, 1), o(70, 1);
    ops->attention_frames(none.tensor(), none.tensor(), none.tensor(), none.tensor(), 1, 3);
    ops->attention_causal(none.tensor(), none.tensor(), keys.tensor(), keys.tensor(), 1, 1, 5);
    for (int64_t t = 0; t < 70; ++t) x.at(t, 0) = 1e30f, k.at(t, 0) = -1e30f;
    ops->attention_causal(o.tensor(), x.tensor(), k.tensor(), v.tensor(), 1, 1, 0);
    int wrong = 0;
    for (int64_t t = 0; t < 70; ++t) wrong += o.at(t, 0) != 0;
    CHECK(wrong == 0);
  }
}
