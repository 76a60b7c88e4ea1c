// The hot operations of kernels/ops.h on the GPU, at the shapes of the 8B and the 4B. Bytes: what must be read and written at least, where no cache holds it.
#include <string>

#include "tests/bench/gpu_parts.h"

namespace bg::bench {
namespace {

std::string sizes_of(int64_t inputs, int64_t outputs) { return std::to_string(inputs) + ">" + std::to_string(outputs); }

// What one row is multiplied with in a layer, as the decoder does it.
struct Part {
  const char* name;
  std::vector<std::pair<int64_t, int64_t>> matrices;  // outputs, inputs
  bool gated = false;
};

std::vector<Part> parts_of(const Config::Text& c) {
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  return {{"gate, up", {{c.ffn, c.hidden}, {c.ffn, c.hidden}}, true},
          {"down", {{c.hidden, c.ffn}}},
          {"q, k, v", {{q, c.hidden}, {kv, c.hidden}, {kv, c.hidden}}},
          {"attention output", {{c.hidden, q}}}};
}

// T rows times the part's weights, set after set of the ring; a single row as one graph.
void multiply(const Bench& b, const char* what, const std::string& shape, const Part& part, Type type, int64_t T, double aim) {
  const int64_t inputs = part.matrices[0].second;
  int64_t outputs = 0;
  for (const auto& [rows, cols] : part.matrices) outputs += rows;
  const std::string name = std::string(what) + " " + shape + " " + part.name + " " + sizes_of(inputs, outputs) + " " + type_name(type) + (T > 1 ? " T=" + std::to_string(T) : "");
  if (!b.figures.wants(name)) return;
  b.figures.prepare(name, [&] {
    std::vector<Ring::Shape> set;
    for (const auto& [rows, cols] : part.matrices) set.push_back({type, rows, cols});
    const Ring ring(b, set);
    const int64_t y_cols = part.gated ? part.matrices[0].first : outputs, calls = T > 64 ? 1 : ring.count();
    const Rows32 x(b, T, inputs), y(b, T, y_cols);
    const Phase phase = T > 1 ? Phase::prompt : Phase::step;
    const auto call = [&](int64_t i) {
      const Weight* w = ring.set(i);
      if (part.gated) return b.ops().gated(y.t, x.t, w[0], w[1], phase);
      std::vector<Product> products;
      for (int64_t at = 0, j = 0; j < int64_t(set.size()); at += w[j++].rows) products.push_back({y.t.col_range(at, w[j].rows), w[j]});
      b.ops().linear(x.t, products.data(), int64_t(products.size()), phase);
    };
    Load load;
    load.bytes = double(calls) * (ring.set_bytes() + 4 * double(T) * double(inputs + y_cols));
    load.flop = double(calls) * 2 * double(T) * double(inputs) * double(outputs);
    load.count = double(calls);
    load.unit = "calls/s";
    load.aim = aim;
    int64_t turn = 0;
    b.ops().forget_steps();
    b.figures.measure(name, load, [&] {
      if (T > 1) {
        for (int64_t i = 0; i < calls; ++i) call(turn++ % ring.count());
      } else {
        as_step(b.ops(), [&] { for (int64_t i = 0; i < calls; ++i) call(i); });
      }
    });
    b.ops().forget_steps();
  });
}

double heads_flop(double keys, int64_t width) { return 4 * keys * double(width); }  // of one row: scores and sums

}  // namespace

void bench_weights(const Bench& b) {
  b.figures.title("one row times weights from memory, one graph");
  const std::string large = b.sizes.large.name, small = b.sizes.small.name;
  const Config::Text &c = b.sizes.large.config.text, &s = b.sizes.small.config.text;
  for (const Type type : {Type::bf16, Type::q8_0, Type::q4_k})
    for (const Part& p : parts_of(c)) multiply(b, "step", large, p, type, 1, type == Type::bf16 ? 0.85 : 0.75);
  multiply(b, "step", large, parts_of(c)[1], Type::q6_k, 1, 0.75);
  for (const Type type : {Type::bf16, Type::q8_0, Type::q6_k}) multiply(b, "step", large, {"output", {{c.vocab, c.hidden}}}, type, 1, type == Type::bf16 ? 0.85 : 0.75);
  for (const Type type : {Type::bf16, Type::q8_0, Type::q4_k})
    for (const Part& p : parts_of(s)) multiply(b, "step", small, p, type, 1, type == Type::bf16 ? 0.85 : 0.75);
}

void bench_products(const Bench& b) {
  b.figures.title("many rows times weights");
  const Config &c = b.sizes.large.config, &s = b.sizes.small.config;
  const auto parts = parts_of(c.text);
  for (const Type type : {Type::bf16, Type::q8_0, Type::q4_k})
    for (const int64_t T : b.sizes.prompts) multiply(b, "product", b.sizes.large.name, parts[0], type, T, 0);
  for (const Type type : {Type::bf16, Type::q4_k, Type::q6_k})
    for (size_t p = 1; p < parts.size(); ++p) multiply(b, "product", b.sizes.large.name, parts[p], type, b.sizes.prompts.back(), 0);
  multiply(b, "product", b.sizes.small.name, parts_of(s.text)[0], Type::bf16, b.sizes.prompts.back(), 0);
  const int64_t P = b.sizes.side * b.sizes.side, d = c.vision.hidden, N = b.sizes.tiles[0], w = c.slide.feature_dim;
  for (const Type type : {Type::bf16, Type::q8_0}) {
    for (const auto& [name, outputs, inputs] : {std::tuple{"ViT q, k, v", 3 * d, d}, {"ViT fc1", c.vision.ffn, d}, {"ViT fc2", d, c.vision.ffn}})
      multiply(b, "product", b.sizes.large.name, {name, {{outputs, inputs}}}, inputs % block_values(type) == 0 ? type : Type::bf16, P, 0);
    multiply(b, "product", "slide", {"up", {{4 * w, w}}}, type, N, 0);
  }
}

namespace {

void frames(const Bench& b, const std::string& name, int64_t count, int64_t frame, int64_t heads, int64_t width) {
  if (!b.figures.wants(name)) return;
  b.figures.prepare(name, [&] {
    const int64_t P = count * frame;
    const Rows32 qkv(b, P, 3 * width), o(b, P, width);
    Load load;
    load.bytes = 4.0 * double(P) * double(4 * width);
    load.flop = double(P) * heads_flop(double(frame), width);
    b.figures.measure(name, load,
                      [&] { b.ops().attention_frames(o.t, qkv.t.col_range(0, width), qkv.t.col_range(width, width), qkv.t.col_range(2 * width, width), heads, frame); });
  });
}

// Keys and values of as many layers as the ring holds. T new rows after `past`; a single one as a step.
void causal(const Bench& b, const std::string& name, Type type, int64_t past, int64_t T) {
  if (!b.figures.wants(name)) return;
  b.figures.prepare(name, [&] {
    const Config::Text& c = b.sizes.large.config.text;
    const int64_t S = past + T, kv = c.kv_heads * c.head_dim, width = c.heads * c.head_dim;
    const size_t half = stored_bytes(type, S * kv);
    const int64_t layers = T > 1 ? 1 : std::max<int64_t>(1, int64_t(b.sizes.ring / (2 * half)));
    const Block cache(b, size_t(2 * layers) * half);
    const Tensor all{cache.data(), type, 2 * layers * c.kv_heads * S, c.head_dim, c.head_dim};
    b.gpu.fill_cache(all);
    const Rows32 q(b, T, width), o(b, T, width);
    Load load;
    load.bytes = double(layers) * (double(2 * half) + 8.0 * double(T) * double(width));
    load.flop = double(layers) * heads_flop(double(T) * double(past) + double(T) * double(T + 1) / 2, width);
    load.count = double(layers);
    load.unit = "layers/s";
    const auto each = [&] {
      for (int64_t i = 0; i < layers; ++i) b.ops().attention_causal(o.t, q.t, all.part(2 * i, 2 * layers), all.part(2 * i + 1, 2 * layers), c.heads, c.kv_heads, past);
    };
    b.ops().forget_steps();
    b.figures.measure(name, load, [&] {
      if (T > 1) return each();
      b.ops().begin_step(past);
      each();
      b.ops().end_step();
    });
    b.ops().forget_steps();
  });
}

void dilated(const Bench& b, int64_t N) {
  const std::string name = "attention dilated, " + std::to_string(N) + " tiles";
  if (!b.figures.wants(name)) return;
  b.figures.prepare(name, [&] {
    const Config::Slide& c = b.sizes.large.config.slide;
    Dilation pairs[] = {{512, 1}, {1024, 2}, {2048, 4}};
    double scores = 0;
    for (Dilation& p : pairs) {
      p.segment = std::min(p.segment, N);
      scores += double(N) * double(p.segment) / double(p.dilation * p.dilation);  // N/r rows of each group of heads meet g/r keys, and H/r heads are in a group, r groups
    }
    const Rows32 q(b, N, c.feature_dim), k(b, N, c.feature_dim), v(b, N, c.feature_dim), o(b, N, c.feature_dim);
    Load load;
    load.bytes = 16.0 * double(N) * double(c.feature_dim);
    load.flop = heads_flop(scores, c.feature_dim);
    b.figures.measure(name, load, [&] { b.ops().attention_dilated(o.t, q.t, k.t, v.t, c.heads, pairs, 3); });
  });
}

}  // namespace

void bench_attention(const Bench& b) {
  b.figures.title("attention");
  const Config &c = b.sizes.large.config, &s = b.sizes.small.config;
  const int64_t P = b.sizes.side * b.sizes.side, slice = b.sizes.volume_patches * b.sizes.volume_patches;
  const auto vision = [](const Config& x) { return std::to_string(x.vision.heads) + " heads of " + std::to_string(x.vision.hidden / x.vision.heads); };
  frames(b, "attention ViT picture, " + std::to_string(P) + " patches, " + vision(c), 1, P, c.vision.heads, c.vision.hidden);
  frames(b, "attention ViT picture, " + std::to_string(P) + " patches, " + vision(s), 1, P, s.vision.heads, s.vision.hidden);
  frames(b, "attention ViT volume, " + std::to_string(b.sizes.slices / 2) + " x " + std::to_string(slice) + " patches, " + vision(c), b.sizes.slices / 2, slice, c.vision.heads,
         c.vision.hidden);
  for (const Type type : {Type::bf16, Type::q8_0}) {
    const std::string cache = std::string(", cache ") + type_name(type);
    for (const int64_t past : b.sizes.contexts) causal(b, "attention step after " + std::to_string(past) + " tokens" + cache, type, past, 1);
    causal(b, "attention prompt of " + std::to_string(b.sizes.prompts.back()) + cache, type, 0, b.sizes.prompts.back());
  }
  for (const int64_t N : b.sizes.tiles) dilated(b, N);
}

void bench_rows(const Bench& b) {
  b.figures.title("norms, rotation, activations, rows");
  const Config& c = b.sizes.large.config;
  const int64_t T = b.sizes.prompts.back(), D = c.text.hidden, F = c.text.ffn, P = b.sizes.side * b.sizes.side, d = c.vision.hidden;
  const auto figure = [&](const std::string& name, double floats, const std::function<void(const std::function<void(const std::function<void()>&)>&)>& make) {
    if (!b.figures.wants(name)) return;
    b.figures.prepare(name, [&] {
      make([&](const std::function<void()>& body) {
        Load load;
        load.bytes = 4 * floats;
        b.figures.measure(name, load, body);
      });
    });
  };
  const auto by = [](int64_t rows, int64_t cols) { return std::to_string(rows) + " x " + std::to_string(cols); };
  figure("norm RMS " + by(T, D), 2.0 * double(T * D), [&](auto measure) {
    const Rows32 x(b, T, D), y(b, T, D), w(b, 1, D);
    measure([&] { b.ops().rms_norm(y.t, x.t, w.block.floats(), 1e-6f); });
  });
  figure("norm layer " + by(P, d), 2.0 * double(P * d), [&](auto measure) {
    const Rows32 x(b, P, d), y(b, P, d), w(b, 2, d);
    measure([&] { b.ops().layer_norm(y.t, x.t, w.block.floats(), w.block.floats() + d, 1e-6f); });
  });
  figure("rotary and cache " + by(T, D), 2.0 * double(T) * double((c.text.heads + c.text.kv_heads) * c.text.head_dim) + 2.0 * double(T * c.text.kv_heads * c.text.head_dim), [&](auto measure) {
    const int64_t kv = c.text.kv_heads * c.text.head_dim, half = c.text.head_dim / 2;
    const Rows32 q(b, T, c.text.heads * c.text.head_dim), k(b, T, kv), v(b, T, kv), cos(b, T, half), sin(b, T, half), w(b, 1, c.text.head_dim);
    const Block cache(b, 2 * stored_bytes(Type::bf16, T * kv));
    const int64_t d = c.text.head_dim;
    const Tensor keys{cache.data(), Type::bf16, T * c.text.kv_heads, d, d}, values{cache.data() + cache.bytes() / 2, Type::bf16, T * c.text.kv_heads, d, d};
    measure([&] { b.ops().rotate_into_cache(keys, values, q.t, k.t, v.t, c.text.heads, c.text.kv_heads, w.block.floats(), w.block.floats(), 1e-6f, cos.t, sin.t, 0); });
  });
  figure("activation silu_mul " + by(T, F), 3.0 * double(T * F), [&](auto measure) {
    const Rows32 gate(b, T, F), up(b, T, F), y(b, T, F);
    measure([&] { b.ops().silu_mul(y.t, gate.t, up.t); });
  });
  figure("activation gelu_tanh " + by(P, c.vision.ffn), 2.0 * double(P * c.vision.ffn), [&](auto measure) {
    const Rows32 x(b, P, c.vision.ffn), y(b, P, c.vision.ffn);
    measure([&] { b.ops().gelu_tanh(y.t, x.t); });
  });
  figure("rows gathered " + by(T, D), 2.0 * double(T * D), [&](auto measure) {
    const Rows32 x(b, T, D), y(b, T, D);
    std::vector<int64_t> index(static_cast<size_t>(T));
    for (int64_t i = 0; i < T; ++i) index[size_t(i)] = T - 1 - i;
    measure([&] { b.ops().gather_rows(y.t, x.t, index.data()); });
  });
}

}  // namespace bg::bench
