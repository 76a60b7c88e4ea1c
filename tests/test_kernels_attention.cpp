// Both attentions: bound in both precisions, odd head dims, frames, grouped queries, splits of a prompt, keys that may not be seen, caches of every type.
#include <algorithm>
#include <array>

#include "kernels/half.h"

#include "tests/kernels_support.h"

using namespace kernels_test;

namespace {

constexpr double e = 0x1p-8;  // of bf16

// The contract's bound of output element (t, column): u·(2·(d + 4)·A + 2·S + 16)·Σ_s p_s·|v_s| over keys [first, last), and what Precision::fast adds.
double attention_bound(bool fast, const Mat<float>& q, const Mat<float>& k, const Mat<float>& v, int64_t t, int64_t q0, int64_t k0, int64_t j, int64_t d,
                       int64_t first, int64_t last) {
  double largest = 0, most = -1e300, total = 0, sum = 0;
  std::vector<double> z;
  for (int64_t s = first; s < last; ++s) {
    double dot = 0, absolute = 0;
    for (int64_t i = 0; i < d; ++i) {
      const double term = double(q.at(t, q0 + i)) * k.at(s, k0 + i);
      dot += term;
      absolute += std::fabs(term);
    }
    z.push_back(dot / std::sqrt(double(d)));
    largest = std::max(largest, absolute / std::sqrt(double(d)));
    most = std::max(most, z.back());
  }
  for (int64_t s = first; s < last; ++s) {
    const double p = std::exp(z[size_t(s - first)] - most);
    total += p;
    sum += p * std::fabs(double(v.at(s, k0 + j)));
  }
  return (u * (2 * (double(d) + 4) * largest + 2 * double(last - first) + 16) + (fast ? 4 * e * largest + 2.25 * e : 0)) * sum / total;
}

std::vector<Backend>& backends_for(bool fast) { return fast ? fast_backends() : backends(); }

// A cache as `copy` makes it from x, and the values that it holds.
struct Cache {
  std::vector<char> bytes;
  Type type;
  int64_t rows, cols, stride;

  Cache(Ops& ops, Mat<float>& x, Type type_) : type(type_), rows(x.rows), cols(x.cols), stride(x.cols + bg::block_values(type_)) {
    bytes.assign(bg::stored_bytes(type, rows * stride), char(0x7f));  // as numbers: infinities and NaN in the gaps
    ops.copy(tensor(), x.tensor());
  }
  Tensor tensor() { return {bytes.data(), type, rows, cols, stride}; }
  Mat<float> values() {
    Mat<float> m(rows, cols);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        const char* row = static_cast<const char*>(tensor().row_range(r, 1).data);
        uint16_t h;
        std::memcpy(&h, row + (type == Type::bf16 ? 2 * c : c / 32 * 34), 2);
        m.at(r, c) = type == Type::bf16 ? bg::bf16_to_float(h) : bg::f16_to_float(h) * float(static_cast<signed char>(row[c / 32 * 34 + 2 + c % 32]));
      }
    return m;
  }
};

}  // namespace

TEST_CASE("attention_frames: within the bound") {
  const std::vector<std::array<int64_t, 4>> cases = {{1, 1, 1, 1},    {3, 2, 1, 8},   {17, 1, 3, 17},  {47, 3, 1, 40},  {65, 2, 2, 20},   {64, 1, 1, 72},
                                                     {131, 1, 2, 72}, {30, 3, 2, 128}, {70, 1, 1, 256}, {130, 1, 1, 64}, {515, 1, 1, 24}, {390, 2, 1, 33}};
  for (const auto& [frame, frames, heads, d] : cases) {
    for (const bool fast : {false, true}) {
      const float scale = frame % 2 == 0 ? 1.0f : fast ? 2.0f : 4.0f;
      const int64_t T = frame * frames, D = heads * d;
      const Mat<float> q = random(T, D, scale, 1), k = random(T, D, 1, 2), v = random(T, D), empty(T, D, 5);
      check_operation("attention_frames d " + std::to_string(d), empty, {q, k, v},
                      [&, n = heads, f = frame](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.attention_frames(y, in[0], in[1], in[2], n, f); },
                      [&, f = frame, w = d, fast = fast](int64_t t, int64_t c, double) {
                        return attention_bound(fast, q, k, v, t, c / w * w, c / w * w, c % w, w, t / f * f, t / f * f + f);
                      },
                      backends_for(fast));
    }
  }
}

TEST_CASE("attention_causal: within the bound, with grouped queries and a past") {
  struct Case { int64_t T, past, heads, kv_heads, d; };
  for (const Case a : {Case{1, 0, 1, 1, 8}, Case{1, 130, 4, 1, 16}, Case{7, 0, 6, 2, 12}, Case{7, 60, 6, 2, 20}, Case{67, 3, 4, 4, 72},
                       Case{3, 61, 8, 2, 128}, Case{130, 1, 2, 1, 24}, Case{1, 1290, 4, 1, 64}, Case{47, 500, 2, 2, 17}, Case{17, 0, 1, 1, 256}}) {
    for (const bool fast : {false, true}) {
    const int64_t S = a.past + a.T, context = S + (a.d + a.T) % 3;
    const Mat<float> q = random(a.T, a.heads * a.d, 2), empty(a.T, a.heads * a.d);
    const Mat<float> k = random_cache(a.kv_heads, S, context, a.d), v = random_cache(a.kv_heads, S, context, a.d);
    check_operation("attention_causal d " + std::to_string(a.d), empty, {q, k, v},
                    [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.attention_causal(y, in[0], in[1], in[2], a.heads, a.kv_heads, a.past); },
                    [&](int64_t t, int64_t c, double) {
                      const int64_t h = c / a.d, kv = h / (a.heads / a.kv_heads);
                      return attention_bound(fast, q, k, v, t, h * a.d, 0, c % a.d, a.d, kv * context, kv * context + a.past + t + 1);
                    },
                    backends_for(fast));
    }
  }
}

TEST_CASE("attention_causal: the same bits in one call, three calls or token by token, for any cache and number of threads") {
  for (const auto& [type, d] : std::vector<std::pair<Type, int64_t>>{{Type::f32, 20}, {Type::f32, 64}, {Type::bf16, 20}, {Type::q8_0, 32}}) {
    const int64_t T = d == 64 ? 700 : 143, heads = 6, kv_heads = 2;
    Mat<float> q = random(T, heads * d), k = random_cache(kv_heads, T, T + 2, d), v = random_cache(kv_heads, T, T + 2, d);
    for (const bool fast : {false, true}) {
      std::string isa;
      Mat<float> first(0, 0);
      for (const Backend& b : backends_for(fast)) {
        if (T > 500 && (b.label == "ref" || std::string(b.ops->name()) == "emulated")) continue;  // time; a GPU's spans are of 128 keys
        Cache kc(*b.ops, k, type == Type::f32 ? Type::bf16 : type), vc(*b.ops, v, kc.type);
        const Tensor keys = type == Type::f32 ? k.tensor() : kc.tensor(), values = type == Type::f32 ? v.tensor() : vc.tensor();
        Mat<float> whole(T, heads * d);
        b.ops->attention_causal(whole.tensor(), q.tensor(), keys, values, heads, kv_heads, 0);
        if (isa != b.ops->name()) first = whole;
        isa = b.ops->name();
        CHECK_MESSAGE(whole.same_bits(first), b.label << " differs from one thread");
        for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{50, 14, T - 64}, std::vector<int64_t>(size_t(T), 1)}) {
          if (cuts.size() > 3 && b.label == "ref") continue;
          Mat<float> parts(T, heads * d);
          int64_t t = 0;
          for (const int64_t n : cuts) {
            b.ops->attention_causal(parts.tensor().row_range(t, n), q.tensor().row_range(t, n), keys, values, heads, kv_heads, t);
            t += n;
          }
          CHECK_MESSAGE(whole.same_bits(parts), b.label);
        }
      }
    }
  }
}

// One token has a path of its own on the CPU (kernels/cpu/attention_few.h): one to four query heads that share keys.
TEST_CASE("attention_causal: one token has the bits of the last row of a prompt, for any number of heads") {
  struct Case { int64_t heads, kv_heads, d, keys; };
  for (const Case a : {Case{1, 1, 16, 1}, Case{2, 1, 80, 33}, Case{18, 9, 32, 64}, Case{6, 2, 64, 513}, Case{44, 11, 32, 130}, Case{4, 1, 256, 600}, Case{10, 2, 32, 70},
                       Case{4, 2, 128, 70}, Case{3, 3, 144, 39}, Case{4, 2, 64, 1100}}) {
    Mat<float> q = random(2, a.heads * a.d), k = random_cache(a.kv_heads, a.keys, a.keys + 1, a.d), v = random_cache(a.kv_heads, a.keys, a.keys + 1, a.d);
    for (const Type type : {Type::f32, Type::bf16, Type::q8_0}) {
      if (type == Type::q8_0 && a.d % 32 != 0) continue;
      for (const bool fast : {false, true}) {
        for (const Backend& b : backends_for(fast)) {
          if (a.keys > 500 && std::string(b.ops->name()) == "emulated") continue;  // time
          Cache kc(*b.ops, k, type == Type::f32 ? Type::bf16 : type), vc(*b.ops, v, kc.type);
          const Tensor keys = type == Type::f32 ? k.tensor() : kc.tensor(), values = type == Type::f32 ? v.tensor() : vc.tensor();
          if (a.keys == 1) q = random(1, a.heads * a.d);
          Mat<float> prompt(q.rows, a.heads * a.d), token(q.rows, a.heads * a.d);
          b.ops->attention_causal(prompt.tensor(), q.tensor(), keys, values, a.heads, a.kv_heads, a.keys - q.rows);
          for (int64_t t = 0; t < q.rows; ++t) {
            const int64_t past = a.keys - q.rows + t;
            b.ops->attention_causal(token.tensor().row_range(t, 1), q.tensor().row_range(t, 1), keys, values, a.heads, a.kv_heads, past);
          }
          CHECK_MESSAGE(token.same_bits(prompt), b.label << ", " << a.heads << " heads on " << a.kv_heads << ", " << a.keys << " keys of " << bg::type_name(type));
        }
      }
    }
  }
}

TEST_CASE("attention_causal: caches of bf16 and q8_0, within the bound on the values that they hold") {
  const int64_t T = 70, past = 61, heads = 4, kv_heads = 2;
  for (const auto& [type, d] : std::vector<std::pair<Type, int64_t>>{{Type::bf16, 17}, {Type::bf16, 64}, {Type::q8_0, 32}, {Type::q8_0, 128}}) {
    const int64_t S = past + T;
    Mat<float> q = random(T, heads * d), k = random(kv_heads * S, d), v = random(kv_heads * S, d);
    Cache kc(*backends()[0].ops, k, type), vc(*backends()[0].ops, v, type);
    const Mat<float> keys = kc.values(), values = vc.values();
    for (const Backend& b : backends()) {
      const Cache again(*b.ops, k, type);
      CHECK_MESSAGE(again.bytes == kc.bytes, b.label << " copies differently");
    }
    for (const bool fast : {false, true}) {
      check_operation(std::string("attention_causal, cache of ") + bg::type_name(type), Mat<float>(T, heads * d), {q},
                      [&](Ops& o, Tensor y, const std::vector<Tensor>& in) { o.attention_causal(y, in[0], kc.tensor(), vc.tensor(), heads, kv_heads, past); },
                      [&, d = d](int64_t t, int64_t c, double) {
                        const int64_t h = c / d;
                        return attention_bound(fast, q, keys, values, t, h * d, 0, c % d, d, h / 2 * S, h / 2 * S + past + t + 1);
                      },
                      backends_for(fast));
    }
  }
}

TEST_CASE("copy into a cache: the nearest value, ties, small and large blocks, NaN") {
  Mat<float> x(4, 32);
  for (int64_t c = 0; c < 32; ++c) {
    x.at(0, c) = std::ldexp(1.0f + float(c) * 0x1p-8f, int(c) - 16);  // halves between two bf16: to the even one
    x.at(1, c) = 0x1p-30f;                                           // d is 0
    x.at(2, c) = 1e-4f * float(c - 20);
    x.at(3, c) = float(c);
  }
  x.at(3, 7) = NAN;
  Cache half(*backends()[0].ops, x, Type::bf16), q8(*backends()[0].ops, x, Type::q8_0);
  const Mat<float> h = half.values(), q = q8.values();
  for (int64_t c = 0; c < 32; ++c) {
    CHECK(h.at(0, c) == std::ldexp(1.0f + std::nearbyint(float(c) / 2) * 0x1p-7f, int(c) - 16));
    CHECK(q.at(1, c) == 0);
    CHECK(std::fabs(q.at(2, c) - x.at(2, c)) <= 2e-3f / 127);  // half a step and the rounding of d
    CHECK(std::isnan(q.at(3, c)));
    CHECK(std::isnan(h.at(3, c)) == (c == 7));
  }
}

TEST_CASE("rotate_into_cache: the bits of norm, rotation and copy, in the new rows of each head and nowhere else") {
  const int64_t past = 4, context = 9, heads = 4, kv_heads = 2;
  struct Case { int64_t T; Type type; int64_t d; };
  for (const auto& [T, type, d] : {Case{3, Type::f32, 18}, Case{3, Type::bf16, 18}, Case{3, Type::bf16, 128}, Case{3, Type::q8_0, 64}, Case{1, Type::f32, 18}, Case{1, Type::bf16, 128}, Case{1, Type::q8_0, 64}}) {
    const int64_t stride = d + bg::block_values(type);
    const size_t row_bytes = bg::stored_bytes(type, d);
    const Mat<float> q0 = random(T, heads * d), k0 = random(T, kv_heads * d), v0 = random(T, kv_heads * d);
    Mat<float> wq = random(1, d), wk = random(1, d), cos = random(T, d / 2), sin = random(T, d / 2);
    for (const Backend& b : backends()) {
      Mat<float> q = q0, k = k0, v = v0, q_parts = q0, k_parts = k0;
      std::vector<char> room[2];
      const auto cache = [&](int i) { return Tensor{room[i].data(), type, kv_heads * context, d, stride}; };
      for (auto& bytes : room) bytes.assign(bg::stored_bytes(type, kv_heads * context * stride), char(0x5a));
      b.ops->rotate_into_cache(cache(0), cache(1), q.tensor(), k.tensor(), v.tensor(), heads, kv_heads, &wq.at(0, 0), &wk.at(0, 0), 1e-6f, cos.tensor(), sin.tensor(), past);
      for (int64_t h = 0; h < heads; ++h) b.ops->rms_norm(q_parts.tensor().col_range(h * d, d), q_parts.tensor().col_range(h * d, d), &wq.at(0, 0), 1e-6f);
      for (int64_t h = 0; h < kv_heads; ++h) b.ops->rms_norm(k_parts.tensor().col_range(h * d, d), k_parts.tensor().col_range(h * d, d), &wk.at(0, 0), 1e-6f);
      b.ops->rotary(q_parts.tensor(), heads, cos.tensor(), sin.tensor());
      b.ops->rotary(k_parts.tensor(), kv_heads, cos.tensor(), sin.tensor());
      CHECK_MESSAGE(q.same_bits(q_parts), b.label);
      int wrong = 0;
      for (int i = 0; i < 2; ++i) {
        const Tensor from = i == 0 ? k_parts.tensor() : v.tensor();
        std::vector<char> expected(room[i].size(), char(0x5a));
        for (int64_t h = 0; h < kv_heads; ++h)
          for (int64_t t = 0; t < T; ++t) {
            std::vector<char> one(row_bytes);
            b.ops->copy({one.data(), type, 1, d, d}, from.row_range(t, 1).col_range(h * d, d));
            std::copy(one.begin(), one.end(), expected.begin() + std::ptrdiff_t(bg::stored_bytes(type, (h * context + past + t) * stride)));
          }
        wrong += expected != room[i];
      }
      CHECK_MESSAGE(wrong == 0, b.label << ", cache of " << bg::type_name(type));
    }
  }
}

TEST_CASE("attention_causal: what lies behind a row's last key cannot reach it, not even NaN; what it sees does") {
  const int64_t T = 70, d = 12;
  Mat<float> q = random(T, d), k = random(T, d), v = random(T, d);
  v.at(40, 3) = v.at(51, 5) = NAN;  // the first of a pair of keys, and the second
  k.at(66, 0) = NAN;
  std::vector<const Backend*> exact_or_pairs;  // not tiles: they multiply what a row does not see by 0
  for (const Backend& b : backends()) exact_or_pairs.push_back(&b);
  for (const Backend& b : fast_backends()) {
    if (std::string(b.ops->name()) == "cpu/avx512bf16") exact_or_pairs.push_back(&b);
  }
  for (const Backend* b : exact_or_pairs) {
    Mat<float> o(T, d);
    b->ops->attention_causal(o.tensor(), q.tensor(), k.tensor(), v.tensor(), 1, 1, 0);
    int wrong = 0;
    for (int64_t t = 0; t < T; ++t)
      for (int64_t j = 0; j < d; ++j) wrong += std::isnan(o.at(t, j)) != (t >= 66 || (t >= 40 && j == 3) || (t >= 51 && j == 5));
    CHECK_MESSAGE(wrong == 0, b->label);
  }
}

TEST_CASE("attention: scores far apart and one key") {
  const int64_t T = 100, d = 16;
  Mat<float> q(T, d), k(T, d), v = random(T, d);
  for (int64_t t = 0; t < T; ++t) {
    q.at(t, 0) = 100;
    k.at(t, 0) = float(t);  // the last key visible to a row outweighs all others: e^−25 and less
  }
  for (const Backend& b : backends()) {
    Mat<float> o(T, d);
    b.ops->attention_causal(o.tensor(), q.tensor(), k.tensor(), v.tensor(), 1, 1, 0);
    double worst = 0;
    for (int64_t t = 0; t < T; ++t)
      for (int64_t j = 0; j < d; ++j) worst = std::max(worst, double(std::fabs(o.at(t, j) - v.at(t, j))));
    CHECK_MESSAGE(worst < 1e-9, b.label);
    for (int64_t j = 0; j < d; ++j) CHECK(o.at(0, j) == v.at(0, j));
  }
}

// Tiles take e^x against the first scores of a span and must notice when later ones are far above them.
TEST_CASE("attention: scores that rise, fall or jump along the keys; rows that do so leave the others' bits alone") {
  const int64_t T = 1100, d = 40;
  Mat<float> k(T, d), v = random(T, d);
  for (int64_t t = 0; t < T; ++t) {
    k.at(t, 0) = float(t / 5);                                                    // rises slowly, by 220
    k.at(t, 1) = float(t == 45 ? 128 : t == 300 ? 192 : t == 301 ? 256 : 0);      // jumps: in a span's first keys, later, twice in a row
    k.at(t, 2) = float(t >= 512 && t < 544 ? -240 : t >= 544 && t < 1024 ? 0 : 1);  // a span whose first keys are far below the others
  }
  Mat<float> q(T, d);
  for (int64_t t = 0; t < T; ++t) {
    const float one = float(6.3245553);  // about the root of d: scores are about what k holds
    q.at(t, t % 4) = bg::bf16_to_float(bg::float_to_bf16(t % 8 < 4 ? one : -one));
  }
  for (const bool fast : {false, true}) {
    for (const Backend& b : backends_for(fast)) {
      Mat<float> o(T, d), alone(T, d);
      b.ops->attention_frames(o.tensor(), q.tensor(), k.tensor(), v.tensor(), 1, T);
      int wrong = 0;
      for (int64_t t = 0; t < 40; ++t) {
        std::vector<double> z;
        double most = -1e300, total = 0;
        for (int64_t s = 0; s < T; ++s) {
          z.push_back(double(q.at(t, t % 4)) * k.at(s, t % 4) / std::sqrt(double(d)));
          most = std::max(most, z.back());
        }
        for (double& p : z) total += p = std::exp(p - most);
        for (int64_t j = 0; j < d; ++j) {
          double want = 0, sum = 0;
          for (int64_t s = 0; s < T; ++s) {
            want += z[size_t(s)] * v.at(s, j) / total;
            sum += z[size_t(s)] * std::fabs(v.at(s, j)) / total;
          }
          wrong += !(std::fabs(o.at(t, j) - want) <= (u * (2 * (double(d) + 4) * 256 + 2 * double(T) + 16) + (fast ? 2.25 * e : 0)) * sum);  // q and k are exact in bf16
        }
      }
      CHECK_MESSAGE(wrong == 0, b.label);
      Mat<float> calm = q;
      for (int64_t t = 0; t < T; ++t) {
        if (t % 4 != 3) std::fill(&calm.at(t, 0), &calm.at(t, 0) + d, 0.0f);
      }
      b.ops->attention_frames(alone.tensor(), calm.tensor(), k.tensor(), v.tensor(), 1, T);
      int moved = 0;
      for (int64_t t = 3; t < T; t += 4) moved += std::memcmp(&o.at(t, 0), &alone.at(t, 0), size_t(d) * sizeof(float)) != 0;
      CHECK_MESSAGE(moved == 0, b.label);
    }
  }
}

// Scores that overflow are outside the contract: NaN elsewhere. Tiles, whose reference comes from a span's first keys, must not lose the others silently.
TEST_CASE("attention: on tiles, scores of −∞ weigh nothing, also where a row sees nothing else at first") {
  const int64_t T = 600, d = 16;
  Mat<float> q(T, d), k(T, d), v = random(T, d);
  for (int64_t t = 0; t < T; ++t) {
    q.at(t, 0) = t % 2 == 0 ? 4.0f : 0.0f;
    if (t < 70 || (t >= 512 && t < 550)) k.at(t, 0) = -3e38f;  // times 4: −∞ in float
    q.at(t, 1) = 1;
    k.at(t, 1) = 480;  // scores of 120: e^120 is no float
  }
  for (const Backend& b : fast_backends()) {
    if (std::string(b.ops->name()) != "cpu/amx") continue;
    Mat<float> o(T, d);
    b.ops->attention_frames(o.tensor(), q.tensor(), k.tensor(), v.tensor(), 1, T);
    int wrong = 0;
    for (int64_t t = 0; t < 40; ++t) {
      for (int64_t j = 0; j < d; ++j) {
        double want = 0, sum = 0, seen = 0;
        for (int64_t s = 0; s < T; ++s) {
          if (t % 2 == 0 && k.at(s, 0) != 0) continue;
          want += v.at(s, j);
          sum += std::fabs(v.at(s, j));
          seen += 1;
        }
        wrong += !(std::fabs(o.at(t, j) - want / seen) <= (u * (2 * (double(d) + 4) * 120 + 2 * double(T) + 16) + 2.25 * e) * sum / seen);
      }
    }
    CHECK_MESSAGE(wrong == 0, b.label);
  }
}
