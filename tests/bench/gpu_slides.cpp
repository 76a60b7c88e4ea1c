// Slides on the GPU: LongNet, the choice of tiles, and everything from a slide's features to the first token of the answer, through the runtime's own code.
#include "runtime/longnet.h"
#include "runtime/selector.h"
#include "runtime/slide_select.h"
#include "tests/bench/coverage_rows.h"
#include "tests/bench/gpu_model.h"

namespace bg::bench {
namespace {

constexpr int64_t kContext = 1024;  // tokens of a session about a slide

// The table's own included, the driver's context not. In GiB, as PyTorch's users count: the published 16.97 is less than the weights have in 10^9 bytes.
double gibibytes_taken(const Bench& b, uint64_t free_before) { return double(free_before - b.gpu.device().info().free + b.ops().fixed_bytes()) / double(1 << 30); }

// What is on the device, and the host's copies of what is read there.
struct SlideModel {
  const Config& config;
  GpuModel device;
  std::vector<char> memory;
  std::unique_ptr<RandomModel> host;
  SlideWeights weights, on_host;
  std::vector<SlideFactor> factors;  // by level: top, then DeepStack
  SlideModel(const Bench& b, const Config& c, Type asked) : config(c), device(b, c, Part::slide, asked), host(device.on_host(b, memory)), weights(device.weights().slide()), on_host(host->slide()) {
    for (int64_t l = 0; l <= c.slide.layers; ++l) factors.push_back(factor_of(projector(on_host, l)));
  }
  int64_t levels() const { return 1 + config.slide.layers; }
  const Linear& projector(const SlideWeights& w, int64_t level) const { return level == 0 ? w.projector : w.deepstack[size_t(level) - 1]; }
  int64_t state_of(int64_t level) const { return level == 0 ? config.slide.layers - 1 : level - 1; }

  Load longnet_load(int64_t N) const {
    Load load;
    for (const SlideWeights::Layer& l : weights.layers) {
      for (const Linear& m : {l.q, l.k, l.v, l.out, l.up, l.down}) {
        load.flop += double(N) * flop_of(m.w);
        load.bytes += bytes_of(m.w);
      }
      for (const auto& [g, r] : {std::pair<int64_t, int64_t>{512, 1}, {1024, 2}, {2048, 4}})
        load.flop += 4.0 * double(N) * double(std::min(g, N)) / double(r * r) * double(config.slide.feature_dim);
    }
    return load;
  }
  // One full product of the short rows at every level (half of it is enough: it is symmetric).
  double selection_flop(int64_t N) const { return 2.0 * double(levels()) * double(N) * double(N) * double(config.slide.feature_dim + 1); }
};

std::vector<Tensor> take_states(const Run& run, const Config::Slide& c, int64_t N) {
  std::vector<Tensor> states;
  for (int64_t i = 0; i < c.layers; ++i) states.push_back(run.arena.tensor(N, c.feature_dim));
  return states;
}

// As runtime/answer.cpp gives a selection: half of what is left.
size_t matrix_memory(const Bench& b) { return std::max<size_t>(kCoverageMemory, b.gpu.device().info().free / 2); }

// As runtime/media.cpp: every level chooses for itself, and only the rows that it keeps are projected.
void choose(const Run& run, const SlideModel& m, const std::vector<Tensor>& states, int64_t kept_rows, const std::vector<Tensor>& rows, size_t memory) {
  for (int64_t l = 0; l < m.levels(); ++l) {
    Arena::Scope scope(run.arena);
    const Tensor x = states[size_t(m.state_of(l))];
    const Kept kept = select_slide_coverage(run, x, m.projector(m.on_host, l), m.factors[size_t(l)], {nullptr, Type::f32, 0, m.config.text.hidden, m.config.text.hidden}, kept_rows,
                                            memory);
    const Tensor taken = run.arena.tensor(rows[size_t(l)].rows, x.cols);
    run.ops.gather_rows(taken, x, kept.index.data());
    project_rows(run, m.projector(m.weights, l), taken, rows[size_t(l)]);
  }
}

void slide(const Bench& b, Type asked, int64_t N, double aim_seconds, double aim_gibibytes) {
  const std::string tiles = std::to_string(N) + " tiles", shape = std::string(b.sizes.large.name) + " " + mix_name(asked);
  const std::string encoder = "model slide " + tiles + ", LongNet", choice = "model slide " + tiles + ", selection", all = "model slide " + tiles + " to first token, " + shape;
  if (!b.figures.wants_any({encoder, choice, all})) return;
  b.figures.prepare(all, [&] {
    const uint64_t free_before = b.gpu.device().info().free;
    const Config& c = b.sizes.large.config;
    const int64_t D = c.text.hidden, w = c.slide.feature_dim, kept = std::min(c.selector.slide_tokens, N), T = b.sizes.slide_prompt;
    const SlideModel m(b, c, asked == Type::q4_k ? Type::q8_0 : asked);
    const std::vector<float> features = clustered_rows(N, w, 400);

    if (asked == Type::bf16 && b.figures.wants_any({encoder, choice})) {
      const auto encode = [&](const Run& run) {
        Arena::Scope scope(run.arena);
        const std::vector<Tensor> states = take_states(run, c.slide, N);
        longnet(run, c.slide, m.weights, features.data(), states);
      };
      Load load = m.longnet_load(N);
      load.aim = 0.5;
      load.headline = true;
      load.count = double(N);
      load.unit = "tiles/s";
      {
        Workspace space(b, encode);
        const Run run = space.run();
        b.figures.measure(encoder + ", upload included", load, [&] { encode(run); });
      }
      const Block states_block(b, size_t(c.slide.layers * N * w) * sizeof(float)), rows_block(b, size_t(m.levels() * kept * D) * sizeof(float));
      std::vector<Tensor> states, rows;
      for (int64_t i = 0; i < c.slide.layers; ++i) states.push_back({states_block.floats() + i * N * w, Type::f32, N, w, w});
      for (int64_t l = 0; l < m.levels(); ++l) rows.push_back({rows_block.floats() + l * kept * D, Type::f32, kept, D, D});
      for (const Tensor& t : states) b.ops().write(t, features.data());
      Load selection;
      selection.flop32 = m.selection_flop(N);
      selection.headline = true;
      const size_t memory = matrix_memory(b);
      Workspace space(b, [&](const Run& run) { choose(run, m, states, kept, rows, memory); });
      const Run run = space.run();
      b.figures.measure(choice + ", " + std::to_string(m.levels()) + " levels", selection, [&] { choose(run, m, states, kept, rows, memory); });
    }

    if (!b.figures.wants(all)) return;
    const GpuModel decoder(b, c, Part::decoder, asked);
    const DecoderWeights weights = decoder.weights().decoder();
    const DecoderWork work(weights);
    const Block vision(b, RandomModel::bytes(c, Part::vision, asked));  // a session's model has it too
    KvCache cache(b.ops(), Type::bf16, c.text, kContext);
    const Block rows_block(b, size_t(m.levels() * kept * D) * sizeof(float)), logits(b, size_t(c.text.vocab) * sizeof(float));
    const Tensor out{logits.data(), Type::f32, 1, c.text.vocab, c.text.vocab};
    std::vector<Tensor> rows;
    for (int64_t l = 0; l < m.levels(); ++l) rows.push_back({rows_block.floats() + l * kept * D, Type::f32, kept, D, D});
    const size_t memory = matrix_memory(b);
    const auto encode = [&](const Run& run) {
      Arena::Scope scope(run.arena);
      const std::vector<Tensor> states = take_states(run, c.slide, N);
      longnet(run, c.slide, m.weights, features.data(), states);
      choose(run, m, states, kept, rows, memory);
    };
    const auto answer = [&](const Run& run) { read_prompt(run, c.text, weights, cache, T, b.sizes.chunk, rows, out); };
    Load load = work.prompt(c.text, T);
    const Load longnet_load = m.longnet_load(N);
    load.bytes += longnet_load.bytes;
    load.flop += longnet_load.flop;
    load.flop32 = m.selection_flop(N);
    load.aim_seconds = aim_seconds;
    load.headline = true;
    Workspace space(b, [&](const Run& run) {
      encode(run);
      answer(run);
    });
    const Run run = space.run();
    bool finite = true;
    const double seconds = b.figures.measure(all, load, [&] {
      encode(run);
      answer(run);
      finite &= b.ops().likeliest(out).finite;
    });
    if (!finite) b.figures.note("the logits are not finite: this figure means nothing");
    if (seconds > 0) b.figures.amount("memory of the device, " + tiles + " to first token, " + shape, gibibytes_taken(b, free_before), "GiB", aim_gibibytes);
  });
}

void coverage(const Bench& b, const std::string& rows_of, int64_t L, int64_t width, int64_t k, bool stored) {
  const std::string name = "coverage " + std::to_string(k) + " of " + std::to_string(L) + ", width " + std::to_string(width) + rows_of + (stored ? ", matrix stored" : ", recomputed");
  if (!b.figures.wants(name)) return;
  b.figures.prepare(name, [&] {
    const std::vector<float> host = clustered_rows(L, width, 400);
    const Rows32 v(b, L, width);
    b.ops().write(v.t, host.data());
    const size_t bytes = b.ops().coverage_scratch(L, width, 0, k, stored ? SIZE_MAX : 0);
    const Block scratch(b, bytes);
    std::vector<int64_t> index(static_cast<size_t>(k));
    std::vector<double> gain(static_cast<size_t>(k));
    CoverageReport report;
    Load load;
    load.flop32 = 2.0 * double(L) * double(L) * double(width);
    const double seconds = b.figures.measure(name, load, [&] {
      b.ops().coverage_select(index.data(), gain.data(), v.t, {nullptr, Type::f32, 0, width, width}, k, scratch.data(), bytes, &report);
    });
    if (seconds == 0) return;
    // Beside it: one full product of the same rows as the table makes it, timed on a slice of its columns.
    const int64_t slice = std::min<int64_t>(1024, L);
    const Rows32 y(b, L, slice);
    Load product;
    product.flop32 = 2.0 * double(L) * double(slice) * double(width);
    const double full = double(L) / double(slice) * b.figures.measure("products of such rows, " + std::to_string(L) + " x " + std::to_string(slice), product,
                                                                      [&] { b.ops().products(y.t, v.t, v.t.row_range(0, slice)); });
    char line[128];
    std::snprintf(line, sizeof line, "%.2f of one full product, %.2f N evaluations, scratch %.2f GB", full > 0 ? seconds / full : 0, double(report.evaluations) / double(L), double(bytes) / 1e9);
    b.figures.note(line);
  });
}

}  // namespace

void bench_slides(const Bench& b) {
  b.figures.title("slides");
  slide(b, Type::bf16, b.sizes.tiles[0], 0.020, 17.0);
  slide(b, Type::bf16, b.sizes.tiles[1], 0.400, 0);
  slide(b, Type::q4_k, b.sizes.tiles[0], 0, 6.5);
}

void bench_selection(const Bench& b) {
  b.figures.title("selection (FLOP of one full product; it is symmetric: half of them is enough)");
  const Config &c = b.sizes.large.config, &s = b.sizes.small.config;
  const int64_t L = b.sizes.side * b.sizes.side / (c.vision.merge * c.vision.merge), width = c.slide.feature_dim + 1, k = c.selector.slide_tokens;
  coverage(b, " (picture)", L, c.text.hidden, c.selector.image_tokens, true);
  coverage(b, " (picture)", L, s.text.hidden, c.selector.image_tokens, true);
  for (const int64_t N : b.sizes.tiles)
    for (const bool stored : {true, false}) coverage(b, "", N, width, k, stored);
}

}  // namespace bg::bench
