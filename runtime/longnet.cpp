// See longnet.h.
#include "runtime/longnet.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "loaders/error.h"

namespace bg {
namespace {

constexpr float kEps = 1e-6f;  // MODEL.md §2: every LayerNorm of the slide branch
constexpr Dilation kDilations[] = {{512, 1}, {1024, 2}, {kSlideWindow, 4}};

// The nearest bfloat16 value, ties to even; infinities and NaN stay what they are.
float round_to_bf16(float x) {
  if (!std::isfinite(x)) return x;
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  std::memcpy(&x, &bits, 4);
  return x;
}

void write_rounded(const Run& run, Tensor x, const float* features) {
  if (run.arena.counting()) return;
  std::vector<float> rounded(size_t(x.rows * x.cols));
  std::transform(features, features + rounded.size(), rounded.begin(), round_to_bf16);
  run.ops.write(x, rounded.data());
}

// One layer on one window: x += A(LN1(x)); x += W2·gelu_erf(W1·LN2(x) + b1) + b2. pairs: segments of min(g, N) rows; the last window of a slide is
// shorter than them, and what it lacks are the zero rows of the definition.
void layer(const Run& run, int64_t heads, const Dilation (&pairs)[3], const SlideWeights::Layer& w, Tensor x, const std::string& name) {
  Ops& ops = run.ops;
  const int64_t T = x.rows, D = x.cols;
  {
    Arena::Scope scope(run.arena);
    const Tensor y = run.arena.tensor(T, D), q = run.arena.tensor(T, D), k = run.arena.tensor(T, D), v = run.arena.tensor(T, D), o = run.arena.tensor(T, D);
    ops.layer_norm(y, x, w.norm1.w, w.norm1.b, kEps);
    const Product qkv[] = {{q, w.q.w, w.q.b}, {k, w.k.w, w.k.b}, {v, w.v.w, w.v.b}};
    ops.linear(y, qkv, 3);
    ops.attention_dilated(o, q, k, v, heads, pairs, 3);
    run.add_product(x, o, w.out.w, w.out.b, y, name + ".attn");
  }
  {
    Arena::Scope scope(run.arena);
    const Tensor y = run.arena.tensor(T, D), f = run.arena.tensor(T, w.up.w.rows);
    ops.layer_norm(y, x, w.norm2.w, w.norm2.b, kEps);
    const Product up{f, w.up.w, w.up.b, Then::gelu_erf};
    ops.linear(y, &up, 1);
    run.add_product(x, f, w.down.w, w.down.b, y, name + ".ffn");
  }
  run.tap(name + ".out", x);
}

}  // namespace

void longnet(const Run& run, const Config::Slide& c, const SlideWeights& w, const float* features, const std::vector<Tensor>& states) {
  const int64_t N = states[0].rows, D = c.feature_dim, windows = (N + kSlideWindow - 1) / kSlideWindow;
  if (N == 0) throw Error(Status::invalid_argument, "a slide without tiles: give at least one tile feature");
  Dilation pairs[3];
  for (size_t p = 0; p < 3; ++p) pairs[p] = {std::min(kDilations[p].segment, N), kDilations[p].dilation};

  for (int64_t i = 0; i < c.layers; ++i) {
    for (int64_t window = 0; window < windows; ++window) {
      run.step("slide", i * windows + window, c.layers * windows);
      const int64_t first = window * kSlideWindow, count = std::min(kSlideWindow, N - first);
      const Tensor x = states[size_t(i)].row_range(first, count);
      if (i == 0) {
        write_rounded(run, x, features + first * D);
        run.tap("slide.features", x);
      } else {
        run.ops.copy(x, states[size_t(i) - 1].row_range(first, count));
      }
      layer(run, c.heads, pairs, w.layers[size_t(i)], x, "slide.layer." + std::to_string(i));
    }
  }
  run.step("slide", c.layers * windows, c.layers * windows);
}

void project_rows(const Run& run, const Linear& projector, Tensor states, Tensor out) { run.ops.linear(out, states, projector.w, projector.b); }

void project_slide(const Run& run, const SlideWeights& w, const std::vector<Tensor>& states, const std::vector<Tensor>& features) {
  for (size_t i = 0; i < w.deepstack.size(); ++i) {
    project_rows(run, w.deepstack[i], states[i], features[1 + i]);
    run.tap("slide.deepstack." + std::to_string(i), features[1 + i]);
  }
  project_rows(run, w.projector, states.back(), features[0]);
  run.tap("slide.top", features[0]);
}

}  // namespace bg
