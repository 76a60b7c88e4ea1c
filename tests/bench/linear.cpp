// Products of activations with weights: the shapes of the 8B and the 4B, every stored type, one row (a decode step) to 512 (a prompt).
#include <algorithm>

#include "kernels/panels.h"
#include "tests/bench/memory.h"
#include "tests/bench/parts.h"

namespace bg::bench {
namespace {

constexpr size_t kRing = size_t(1) << 30;  // bytes of weights that are taken in turn
constexpr int64_t kFewRows = 64;           // up to here a round goes through the whole ring: the weights come from memory

struct Matrix {
  const char* name;
  int64_t outputs, inputs;
};

std::string row_name(const char* what, const Matrix& m, Type type, int64_t T) {
  const std::string sizes = std::to_string(m.inputs) + ">" + std::to_string(m.outputs);
  return std::string(what) + " " + m.name + " " + sizes + " " + type_name(type) + " T=" + std::to_string(T);
}

// matrices: how many one call reads (2 in gated).
void weights_by_rows(Report& report, const char* what, const Matrix& m, Type type, const std::vector<int64_t>& counts, int matrices,
                     const std::function<void(Tensor y, Tensor x, WeightRing& ring, Phase phase)>& call) {
  std::vector<std::string> names;
  for (const int64_t T : counts) names.push_back(row_name(what, m, type, T));
  if (!report.wants_any(names)) return;
  WeightRing ring(type, m.outputs, m.inputs, kRing);
  const Options& o = report.options();
  for (size_t i = 0; i < counts.size(); ++i) {
    const int64_t T = counts[i], calls = T <= kFewRows ? std::max<int64_t>(1, ring.count() / matrices) : 1;
    const Activations x(T, m.inputs), y(T, m.outputs);
    Work work;
    work.bytes = double(calls * matrices) * double(weight_bytes(type, m.outputs, m.inputs, Layout::panels));
    work.flop = 2.0 * double(calls * matrices) * double(T) * double(m.outputs) * double(m.inputs);
    const Phase phase = T == 1 ? Phase::step : Phase::prompt;
    work.instructions = ceiling_of(o.isa, o.precision, type, phase);
    report.measure(names[i], work, [&] {
      for (int64_t c = 0; c < calls; ++c) call(y.t, x.t, ring, phase);
    });
  }
}

}  // namespace

void bench_linear(Report& report, Ops& ops) {
  report.title("products with weights in panels");
  const auto linear = [&](Tensor y, Tensor x, WeightRing& ring, Phase phase) {
    const Product p{y, ring.next()};
    ops.linear(x, &p, 1, phase);
  };
  const auto gated = [&](Tensor y, Tensor x, WeightRing& ring, Phase phase) {
    const Weight gate = ring.next(), up = ring.next();
    ops.gated(y, x, gate, up, phase);
  };
  const Matrix decoder[] = {{"8B attn_q", 4096, 4096}, {"8B ffn_down", 4096, 12288}, {"4B ffn_up", 9728, 2560}};
  for (const Matrix& m : decoder)
    for (const Type type : {Type::bf16, Type::q8_0, Type::q4_k, Type::q6_k}) weights_by_rows(report, "linear", m, type, {1, 16, 64, 512}, 1, linear);
  weights_by_rows(report, "linear", decoder[0], Type::f32, {1, 512}, 1, linear);
  weights_by_rows(report, "linear", {"8B output", 151936, 4096}, Type::q6_k, {1}, 1, linear);
  for (const Type type : {Type::bf16, Type::q8_0}) {
    weights_by_rows(report, "linear", {"8B ViT fc1", 4304, 1152}, type, {4096}, 1, linear);
    weights_by_rows(report, "linear", {"slide up", 3072, 768}, type, {2048}, 1, linear);
  }
  for (const Matrix& m : {Matrix{"8B", 12288, 4096}, Matrix{"4B", 9728, 2560}})
    for (const Type type : {Type::bf16, Type::q8_0, Type::q4_k}) weights_by_rows(report, "gated", m, type, {1, 512}, 2, gated);
}

}  // namespace bg::bench
