// The whole model with random weights, through the runtime's own code (runtime/*.h). FLOP: products and attention only. Bytes: what must be read at least
// once, weights and, of a step, the cache.
#include <algorithm>
#include <cmath>
#include <optional>

#include "kernels/panels.h"
#include "runtime/decoder.h"
#include "runtime/longnet.h"
#include "runtime/plan.h"
#include "runtime/selector.h"
#include "runtime/slide_select.h"
#include "runtime/vit.h"
#include "tests/bench/coverage_rows.h"
#include "tests/bench/parts.h"
#include "tests/bench/random_model.h"
#include "tests/bench/shapes.h"

namespace bg::bench {
namespace {

constexpr int64_t kPrompt = 512;       // tokens
constexpr int64_t kTiles = 6000, kKept = 128;
constexpr double kMemoryShare = 0.85;  // of what the system can give: a model that needs more runs with fewer layers

const char* mix_name(Type asked) { return asked == Type::q4_k ? "Q4_K mix" : type_name(asked); }

double bytes_of(const Weight& w) { return double(weight_bytes(w.type, w.rows, w.cols, w.layout)); }
double flop_of(const Weight& w) { return 2.0 * double(w.rows) * double(w.cols); }  // of one row

// The memory that `body` takes, from the planning run of its own code; then the run itself has that much.
class Workspace {
 public:
  Workspace(Ops& ops, const std::function<void(const Run& run)>& body) : plan_(make_plan_ops(ops)) {
    Arena counting(*plan_, 0);
    body({*plan_, counting});
    arena_.emplace(ops, counting.peak());
  }
  Arena& arena() { return *arena_; }

 private:
  std::unique_ptr<Ops> plan_;
  std::optional<Arena> arena_;
};

// Weights and multiply-adds that every token meets (the output matrix only where logits are wanted).
struct DecoderWork {
  explicit DecoderWork(const DecoderWeights& w) : output_bytes(bytes_of(w.output)), output_flop(flop_of(w.output)) {
    for (const DecoderWeights::Layer& l : w.layers)
      for (const Weight& m : {l.q, l.k, l.v, l.o, l.gate, l.up, l.down}) {
        bytes += bytes_of(m);
        flop += flop_of(m);
      }
  }
  double bytes = 0, flop = 0, output_bytes, output_flop;
};

// As many layers as memory allows, at most `layers` where that is not 0.
Config that_fits(Config c, Type asked, int64_t layers) {
  if (layers > 0) c.text.layers = std::min(c.text.layers, layers);
  const size_t most = size_t(kMemoryShare * double(available_memory()));
  while (c.text.layers > 1 && RandomModel::bytes(c, Part::decoder, asked) > most) --c.text.layers;
  return c;
}

void bench_decoder(Report& report, Ops& ops, const Shape& shape, Type asked) {
  const auto name_of = [&](const std::string& what) { return "model " + what + " " + shape.name + " " + mix_name(asked); };
  if (!report.wants_any({name_of("prompt of 512"), name_of("decode")})) return;
  const Config config = that_fits(shape.config, asked, report.options().layers);
  const Config::Text& text = config.text;
  const int64_t all = shape.config.text.layers;
  const std::string cut = text.layers == all ? "" : ", " + std::to_string(text.layers) + " of " + std::to_string(all) + " layers";
  const RandomModel model(config, Part::decoder, asked);
  const DecoderWeights weights = model.decoder();
  const DecoderWork each(weights);
  const Type kv = report.options().precision == Precision::fast ? Type::bf16 : Type::f32;
  KvCache cache(ops, kv, text, kPrompt + 1);
  std::vector<float> logits(static_cast<size_t>(text.vocab));
  const Tensor out{logits.data(), Type::f32, 1, text.vocab, text.vocab};
  const Chunk prompt = text_chunk(0, kPrompt, text.vocab), next = text_chunk(kPrompt, 1, text.vocab, Phase::step);
  Workspace space(ops, [&](const Run& run) { decode(run, text, weights, cache, prompt, Logits::last, out); });
  const Run run{ops, space.arena()};
  const auto read_prompt = [&] {
    cache.used = 0;
    decode(run, text, weights, cache, prompt, Logits::last, out);
  };

  const double heads = double(text.layers * text.heads * text.head_dim);
  Work work;
  work.instructions = ceiling_of(report.options().isa, report.options().precision, weights.layers[0].q.type);
  work.count_unit = "tok/s";
  work.count = double(kPrompt);
  work.bytes = each.bytes + each.output_bytes;
  work.flop = double(kPrompt) * each.flop + each.output_flop + 4 * heads * double(kPrompt * (kPrompt + 1) / 2);
  if (report.measure(name_of("prompt of 512") + cut, work, read_prompt) == 0) read_prompt();  // a step reads its keys and values
  if (!std::isfinite(logits[0])) report.note("the logits are not finite: this share means nothing");
  work.instructions = ceiling_of(report.options().isa, report.options().precision, weights.layers[0].q.type, Phase::step);
  work.count = 1;
  work.bytes += double(KvCache::bytes(kv, text, kPrompt));
  work.flop = each.flop + each.output_flop + 4 * heads * double(kPrompt + 1);
  report.measure(name_of("decode") + cut, work, [&] {
    cache.used = kPrompt;
    decode(run, text, weights, cache, next, Logits::last, out);
  });
}

// A square picture of `side` patches.
void bench_vision(Report& report, Ops& ops, const Shape& shape, Type asked, int64_t side) {
  const Config& c = shape.config;
  const std::string name = std::string("model ViT ") + shape.name + " " + type_name(asked) + ", 1024 x 1024 picture";
  if (!report.wants(name)) return;
  const RandomModel model(c, Part::vision, asked);
  const VitWeights weights = model.vision();
  const Grid grid{1, side, side};
  const int64_t P = grid.patches(), L = P / (c.vision.merge * c.vision.merge), D = c.text.hidden;
  const Activations patches(P, weights.patch_embed.w.cols), out(L * int64_t(1 + c.vision.deepstack.size()), D);
  std::vector<Tensor> features;
  for (size_t i = 0; i <= c.vision.deepstack.size(); ++i) features.push_back(out.t.row_range(int64_t(i) * L, L));

  Work work;
  work.bytes = double(model.bytes()) - bytes_of(weights.positions);
  work.flop = double(P) * flop_of(weights.patch_embed.w);
  for (const VitWeights::Block& b : weights.blocks) {
    for (const Linear& l : {b.qkv, b.proj, b.fc1, b.fc2}) work.flop += double(P) * flop_of(l.w);
    work.flop += 4.0 * double(P) * double(P) * double(c.vision.hidden);
  }
  for (size_t i = 0; i < features.size(); ++i) work.flop += double(L) * (flop_of(weights.merger.fc1.w) + flop_of(weights.merger.fc2.w));
  work.instructions = ceiling_of(report.options().isa, report.options().precision, asked);
  work.count = 1;
  work.count_unit = "pictures/s";
  Workspace space(ops, [&](const Run& run) { vit(run, c.vision, weights, patches.t, grid, features); });
  const Run run{ops, space.arena()};
  report.measure(name, work, [&] { vit(run, c.vision, weights, patches.t, grid, features); });
}

void bench_slide(Report& report, Ops& ops, const Shape& shape, Type asked) {
  const Config& c = shape.config;
  const std::string name = std::string("model LongNet, 6000 tiles, ") + type_name(asked);
  if (!report.wants(name)) return;
  const RandomModel model(c, Part::slide, asked);
  const SlideWeights weights = model.slide();
  const int64_t N = kTiles, D = c.slide.feature_dim;
  const Activations features(N, D), out(N * c.slide.layers, D);
  std::vector<Tensor> states;
  for (int64_t i = 0; i < c.slide.layers; ++i) states.push_back(out.t.row_range(i * N, N));

  Work work;
  for (const SlideWeights::Layer& l : weights.layers) {
    for (const Linear& m : {l.q, l.k, l.v, l.out, l.up, l.down}) {
      work.flop += double(N) * flop_of(m.w);
      work.bytes += bytes_of(m.w);
    }
    // MODEL.md 2.3: segments of g tiles, of which a head keeps g/r.
    for (const auto& [g, r] : {std::pair{512, 1}, {1024, 2}, {2048, 4}}) work.flop += 4.0 * double((N + g - 1) / g) * double(g / r) * double(g / r) * double(D);
  }
  work.instructions = ceiling_of(report.options().isa, report.options().precision, asked);
  work.count = double(N);
  work.count_unit = "tiles/s";
  Workspace space(ops, [&](const Run& run) { longnet(run, c.slide, weights, features.data.data(), states); });
  const Run run{ops, space.arena()};
  report.measure(name, work, [&] { longnet(run, c.slide, weights, features.data.data(), states); });
}

// The choice of tiles: on rows of the decoder's width, and as slides take it, in the 769 numbers that say the same (MODEL.md 3d).
void bench_selection(Report& report, Ops& ops, const Shape& shape) {
  const std::string whole = "model coverage 128 of 6000, width 4096", short_rows = "model coverage 128 of 6000, width 4096, through 769";
  if (!report.wants_any({whole, short_rows})) return;
  const int64_t N = kTiles, D = shape.config.text.hidden, w = shape.config.slide.feature_dim;
  std::vector<float> rows = clustered_rows(N, D, 400), states = clustered_rows(N, w, 400);
  const Tensor v{rows.data(), Type::f32, N, D, D}, x{states.data(), Type::f32, N, w, w}, text{nullptr, Type::f32, 0, D, D};
  Work work;
  work.flop = 2.0 * double(N) * double(N) * double(D);
  work.instructions = ceiling_of(report.options().isa, Precision::float32, Type::f32);
  const double before = full_product_seconds(ops, v);
  const auto ratio = [&](double seconds) {
    char line[96];
    std::snprintf(line, sizeof line, "%.2f of one full product of width %lld", seconds / ((before + full_product_seconds(ops, v)) / 2), (long long)D);
    if (seconds > 0) report.note(line);
  };
  if (report.wants(whole)) {
    Workspace space(ops, [&](const Run& run) { select_coverage(run, v, text, kKept); });
    const Run run{ops, space.arena()};
    ratio(report.measure(whole, work, [&] { select_coverage(run, v, text, kKept); }));
  }
  if (report.wants(short_rows)) {
    const RandomModel model(shape.config, Part::slide, Type::bf16);
    const Linear projector = model.slide().projector;
    const SlideFactor factor = factor_of(projector);
    Workspace space(ops, [&](const Run& run) { select_slide_coverage(run, x, projector, factor, text, kKept); });
    const Run run{ops, space.arena()};
    ratio(report.measure(short_rows, work, [&] { select_slide_coverage(run, x, projector, factor, text, kKept); }));
  }
}

}  // namespace

void bench_models(Report& report, Ops& ops) {
  report.title("the whole model");
  for (const Shape& shape : {shape_06b(), shape_4b(), shape_8b()})
    for (const Type asked : {Type::bf16, Type::q8_0, Type::q4_k}) bench_decoder(report, ops, shape, asked);
  for (const Shape& shape : {shape_8b(), shape_4b()})
    for (const Type asked : {Type::bf16, Type::q8_0}) bench_vision(report, ops, shape, asked, 64);
  for (const Type asked : {Type::bf16, Type::q8_0}) bench_slide(report, ops, shape_8b(), asked);
  bench_selection(report, ops, shape_8b());
}

}  // namespace bg::bench
