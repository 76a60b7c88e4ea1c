// Attention: frames of the ViT, a causal prompt, a single step over a long cache of each type, and the slides' dilated windows.
#include <algorithm>

#include "tests/bench/memory.h"
#include "tests/bench/parts.h"

namespace bg::bench {
namespace {

constexpr size_t kCaches = size_t(1) << 30;  // bytes of keys and values that are taken in turn: one step reads every layer's once

Work flop(double n, Ceiling c) {
  Work w;
  w.flop = n;
  w.instructions = c;
  return w;
}

void frames(Report& report, Ops& ops, Ceiling c, const char* name, int64_t P, int64_t H, int64_t d) {
  if (!report.wants(name)) return;
  const Activations q(P, H * d), k(P, H * d), v(P, H * d), o(P, H * d);
  report.measure(name, flop(4.0 * double(P * P * H * d), c), [&] { ops.attention_frames(o.t, q.t, k.t, v.t, H, P); });
}

struct Cache {  // keys and values of `layers` layers, T tokens of K heads each
  Cache(Type type, int64_t T, int64_t K, int64_t d, int64_t layers)
      : memory(size_t(2 * layers) * stored_bytes(type, T * K * d)), first{memory.data(), type, K * T, d, d} {
    fill_cache({memory.data(), type, 2 * layers * K * T, d, d});
  }
  Tensor keys(int64_t layer) const { return first.row_range(2 * layer * first.rows, first.rows); }
  Tensor values(int64_t layer) const { return first.row_range((2 * layer + 1) * first.rows, first.rows); }
  Memory memory;
  Tensor first;
};

void causal(Report& report, Ops& ops, Ceiling c, const std::string& name, Type type, int64_t past, int64_t T) {
  if (!report.wants(name)) return;
  const int64_t H = 32, K = 8, d = 128, S = past + T;  // 8B and 4B
  const size_t bytes = 2 * stored_bytes(type, S * K * d);
  const int64_t layers = T > 1 ? 1 : std::max<int64_t>(1, int64_t(kCaches / bytes));
  const Cache cache(type, S, K, d, layers);
  const Activations q(T, H * d), o(T, H * d);
  Work work = flop(4.0 * double(layers) * (double(T) * double(past) + double(T) * double(T + 1) / 2) * double(H * d), c);
  work.bytes = double(layers) * double(bytes);
  report.measure(name, work, [&] {
    for (int64_t i = 0; i < layers; ++i) ops.attention_causal(o.t, q.t, cache.keys(i), cache.values(i), H, K, past);
  });
}

// Scores and sums of N tiles in the windows of runtime/longnet.cpp: pairs (g, r) of 2048 tiles at most, kept rows g/r, of which a group of heads has its own.
void dilated(Report& report, Ops& ops, Ceiling c, const char* name, int64_t N, int64_t H, int64_t d) {
  if (!report.wants(name)) return;
  const Dilation pairs[] = {{512, 1}, {1024, 2}, {2048, 4}};
  const Activations q(N, H * d), k(N, H * d), v(N, H * d), o(N, H * d);
  double scores = 0;
  for (const Dilation& p : pairs) scores += double((N + p.segment - 1) / p.segment) * double(p.segment / p.dilation) * double(p.segment / p.dilation);
  report.measure(name, flop(4.0 * scores * double(H * d), c), [&] { ops.attention_dilated(o.t, q.t, k.t, v.t, H, pairs, 3); });
}

}  // namespace

void bench_attention(Report& report, Ops& ops) {
  report.title("attention");
  const Options& o = report.options();
  // Tiles and vdpbf16ps multiply bf16; elsewhere attention is float32 (kernels/ops.h, Precision::fast).
  const Ceiling c = ceiling_of(o.isa, o.precision, o.isa == Isa::amx || o.isa == Isa::avx512bf16 ? Type::bf16 : Type::f32);
  frames(report, ops, c, "attention 8B ViT, 4096 patches, 16 heads of 72", 4096, 16, 72);
  frames(report, ops, c, "attention 4B ViT, 4096 patches, 16 heads of 64", 4096, 16, 64);
  for (const Type type : {Type::f32, Type::bf16, Type::q8_0}) {
    const std::string kv = std::string(", cache ") + type_name(type);
    causal(report, ops, c, "attention causal prompt of 512, 32 heads of 128" + kv, type, 0, 512);
    for (const int64_t past : {2000, 8000}) causal(report, ops, c, "attention causal, one token after " + std::to_string(past) + kv, type, past - 1, 1);
  }
  dilated(report, ops, c, "attention dilated, 6000 tiles, 8 heads of 96", 6000, 8, 96);
}

}  // namespace bg::bench
