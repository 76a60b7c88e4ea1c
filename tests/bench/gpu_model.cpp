// The whole model on the GPU through the runtime's own code (runtime/*.h), with random weights: decoding, prompts, pictures and volumes. See gpu_model.h.
// FLOP: products and attention only. Bytes: what must be read at least once, weights and, of a step, the cache.
#include "tests/bench/gpu_model.h"

#include "runtime/selector.h"
#include "runtime/vit.h"

namespace bg::bench {

GpuModel::GpuModel(const Bench& b, const Config& config, Part part, Type asked)
    : config_(config), part_(part), asked_(asked), vectors_(b, 2 * RandomModel::kVector * sizeof(float)), matrices_(b, RandomModel::bytes(config, part, asked)) {
  std::vector<float> vectors(2 * RandomModel::kVector, 1.0f);
  std::fill(vectors.begin() + RandomModel::kVector, vectors.end(), 0.01f);
  b.gpu.device().upload(vectors_.data(), vectors.data(), vectors_.bytes());
  model_.emplace(config, part, asked, matrices_.data(), vectors_.floats(), vectors_.floats() + RandomModel::kVector,
                 [&](void* to, Type type, size_t bytes) { b.gpu.fill_panels(to, type, bytes); });
}

// memory: the matrices, then the vectors.
std::unique_ptr<RandomModel> GpuModel::on_host(const Bench& b, std::vector<char>& memory) const {
  memory.resize(matrices_.bytes() + vectors_.bytes());
  b.gpu.device().download(memory.data(), matrices_.data(), matrices_.bytes());
  b.gpu.device().download(memory.data() + matrices_.bytes(), vectors_.data(), vectors_.bytes());
  const auto* vectors = reinterpret_cast<const float*>(memory.data() + matrices_.bytes());
  return std::make_unique<RandomModel>(config_, part_, asked_, memory.data(), vectors, vectors + RandomModel::kVector, [](void*, Type, size_t) {});
}

const char* mix_name(Type asked) { return asked == Type::q4_k ? "Q4_K mix" : type_name(asked); }
double bytes_of(const Weight& w) { return double(weight_bytes(w.type, w.rows, w.cols, w.layout)); }
double flop_of(const Weight& w) { return 2.0 * double(w.rows) * double(w.cols); }

DecoderWork::DecoderWork(const DecoderWeights& w) : output_bytes(bytes_of(w.output)), output_flop(flop_of(w.output)) {
  for (const DecoderWeights::Layer& l : w.layers)
    for (const Weight& m : {l.q, l.k, l.v, l.o, l.gate, l.up, l.down}) {
      bytes += bytes_of(m);
      flop += flop_of(m);
    }
}

Load DecoderWork::prompt(const Config::Text& c, int64_t T) const {
  Load load;
  load.bytes = bytes + output_bytes;
  load.flop = double(T) * flop + output_flop + 4 * double(c.layers * c.heads * c.head_dim) * double(T) * double(T + 1) / 2;
  return load;
}

Workspace::Workspace(const Bench& b, const std::function<void(const Run& run)>& body) : ops_(b.ops()), plan_(make_plan_ops(b.ops())) {
  Arena counting(*plan_, 0);
  body({*plan_, counting});
  arena_.emplace(ops_, counting.peak());
}

void read_prompt(const Run& run, const Config::Text& c, const DecoderWeights& w, KvCache& cache, int64_t tokens, int64_t chunk, const std::vector<Tensor>& visual, Tensor logits) {
  cache.used = 0;
  while (cache.used < tokens) {
    const int64_t first = cache.used, count = std::min(chunk, tokens - first);
    Chunk part = text_chunk(first, count, c.vocab);
    const int64_t seen = visual.empty() ? 0 : std::min(visual[0].rows - first, count);
    for (int64_t i = 0; i < seen; ++i) part.visual_at.push_back(i);
    for (size_t l = 0; seen > 0 && l < visual.size(); ++l) part.visual.push_back(visual[l].row_range(first, seen));
    decode(run, c, w, cache, part, first + count == tokens ? Logits::last : Logits::none, logits);
  }
}

namespace {

// A decoder with its cache, filled with random keys and values.
struct Decoder {
  const Config::Text& text;
  GpuModel model;
  DecoderWeights weights;
  DecoderWork work;
  KvCache cache;
  Block logits;
  Tensor out;
  Decoder(const Bench& b, const Shape& shape, Type asked, int64_t context)
      : text(shape.config.text), model(b, shape.config, Part::decoder, asked), weights(model.weights().decoder()), work(weights), cache(b.ops(), Type::bf16, text, context),
        logits(b, size_t(text.vocab) * sizeof(float)), out{logits.data(), Type::f32, 1, text.vocab, text.vocab} {
    for (int64_t i = 0; i < text.layers; ++i) {
      b.gpu.fill_cache(cache.keys(i));
      b.gpu.fill_cache(cache.values(i));
    }
  }
};

void decode_steps(const Bench& b, const Shape& shape, Type asked) {
  const std::string name = std::string("model decode ") + shape.name + " " + mix_name(asked) + " after " + std::to_string(b.sizes.contexts[0]) + " tokens";
  if (!b.figures.wants(name)) return;
  b.figures.prepare(name, [&] {
    const int64_t past = b.sizes.contexts[0], steps = b.sizes.steps;
    Decoder d(b, shape, asked, past + steps);
    Workspace space(b, [&](const Run& run) { decode(run, d.text, d.weights, d.cache, text_chunk(past, 1, d.text.vocab), Logits::last, d.out); });
    const Run run = space.run();
    const double n = double(steps);
    Load load;
    load.bytes = n * (d.work.bytes + d.work.output_bytes + double(KvCache::bytes(Type::bf16, d.text, past)));
    load.flop = n * (d.work.flop + d.work.output_flop + 4 * double(d.text.layers * d.text.heads * d.text.head_dim) * double(past));
    load.count = n;
    load.unit = "tok/s";
    load.aim = asked == Type::bf16 ? 0.85 : 0.75;
    load.headline = true;
    b.gpu.fill_floats(d.logits.floats(), size_t(d.text.vocab));
    b.ops().forget_steps();
    bool finite = true;
    b.figures.measure(name + ", " + std::to_string(steps) + " steps", load, [&] {  // as a session generates
      d.cache.used = past;
      for (int64_t i = 0; i < steps; ++i) {
        const Likeliest found = b.ops().likeliest(d.out);
        finite &= found.finite;
        Chunk next = text_chunk(past + i, 1, d.text.vocab, Phase::step);
        if (found.finite) next.ids[0] = found.id;
        decode(run, d.text, d.weights, d.cache, next, Logits::last, d.out);
      }
    });
    if (!finite) b.figures.note("the logits are not finite: this figure means nothing");
    b.ops().forget_steps();
  });
}

void prompts(const Bench& b, const Shape& shape, Type asked, const std::vector<int64_t>& lengths) {
  const auto name_of = [&](int64_t T) { return std::string("model prompt of ") + std::to_string(T) + " " + shape.name + " " + mix_name(asked); };
  std::vector<std::string> names;
  for (const int64_t T : lengths) names.push_back(name_of(T));
  if (!b.figures.wants_any(names)) return;
  b.figures.prepare(names[0], [&] {
    Decoder d(b, shape, asked, lengths.back());
    Workspace space(b, [&](const Run& run) { decode(run, d.text, d.weights, d.cache, text_chunk(0, std::min(b.sizes.chunk, lengths.back()), d.text.vocab), Logits::last, d.out); });
    const Run run = space.run();
    for (const int64_t T : lengths) {
      Load load = d.work.prompt(d.text, T);
      load.count = double(T);
      load.unit = "tok/s";
      load.aim = T >= 512 ? 0.55 : 0;
      load.headline = T >= 512;
      b.figures.measure(name_of(T), load, [&] { read_prompt(run, d.text, d.weights, d.cache, T, b.sizes.chunk, {}, d.out); });
    }
  });
}

// ViT and the choice of rows at every level, as a session does it.
void visual(const Bench& b, const std::string& what, const Shape& shape, Type asked, Grid grid, int64_t kept) {
  const std::string encoder = "model " + what + ", ViT, " + shape.name + " " + type_name(asked), choice = "model " + what + ", selection, " + shape.name;
  if (!b.figures.wants_any({encoder, choice})) return;
  b.figures.prepare(encoder, [&] {
    const Config& c = shape.config;
    const GpuModel model(b, c, Part::vision, asked);
    const VitWeights weights = model.weights().vision();
    const int64_t P = grid.patches(), L = P / (c.vision.merge * c.vision.merge), D = c.text.hidden, levels = 1 + int64_t(c.vision.deepstack.size());
    const Rows32 patches(b, P, weights.patch_embed.w.cols), out(b, L * levels, D);
    std::vector<Tensor> features;
    for (int64_t i = 0; i < levels; ++i) features.push_back(out.t.row_range(i * L, L));
    Load load;
    load.bytes = double(model.weights().bytes()) - bytes_of(weights.positions);
    load.flop = double(P) * flop_of(weights.patch_embed.w);
    for (const VitWeights::Block& block : weights.blocks) {
      for (const Linear& l : {block.qkv, block.proj, block.fc1, block.fc2}) load.flop += double(P) * flop_of(l.w);
      load.flop += 4.0 * double(P) * double(grid.h * grid.w) * double(c.vision.hidden);
    }
    load.flop += double(levels * L) * (flop_of(weights.merger.fc1.w) + flop_of(weights.merger.fc2.w));
    load.aim = 0.5;  // within twice the floor
    load.headline = true;
    {
      Workspace space(b, [&](const Run& run) { vit(run, c.vision, weights, patches.t, grid, features); });
      const Run run = space.run();
      b.figures.measure(encoder, load, [&] { vit(run, c.vision, weights, patches.t, grid, features); });
    }
    Load selection;
    selection.flop32 = 2.0 * double(levels) * double(L) * double(L) * double(D);
    Workspace space(b, [&](const Run& run) { select_coverage(run, features[0], {nullptr, Type::f32, 0, D, D}, kept); });
    const Run run = space.run();
    b.gpu.fill_floats(out.block.floats(), size_t(L * levels * D));  // not what a broken encoder left
    b.figures.measure(choice, selection, [&] {
      for (const Tensor& t : features) select_coverage(run, t, {nullptr, Type::f32, 0, D, D}, kept);
    });
  });
}

}  // namespace

void bench_decode(const Bench& b) {
  b.figures.title("decoding, one graph a token");
  for (const Shape* shape : {&b.sizes.large, &b.sizes.small})
    for (const Type asked : {Type::bf16, Type::q8_0, Type::q4_k}) decode_steps(b, *shape, asked);
}

void bench_prompts(const Bench& b) {
  b.figures.title("prompts");
  for (const Type asked : {Type::bf16, Type::q4_k, Type::q8_0}) prompts(b, b.sizes.large, asked, b.sizes.prompts);
  prompts(b, b.sizes.small, Type::bf16, {b.sizes.prompts.back()});
}

void bench_pictures(const Bench& b) {
  b.figures.title("pictures and volumes");
  const Grid picture{1, b.sizes.side, b.sizes.side}, volume{b.sizes.slices / 2, b.sizes.volume_patches, b.sizes.volume_patches};
  const auto pixels = std::to_string(16 * b.sizes.side), slices = std::to_string(b.sizes.slices);
  for (const Shape* shape : {&b.sizes.large, &b.sizes.small}) {
    visual(b, "picture " + pixels + " x " + pixels, *shape, Type::bf16, picture, shape->config.selector.image_tokens);
    visual(b, "volume of " + slices + " slices", *shape, Type::bf16, volume, shape->config.selector.volume_tokens);
  }
  visual(b, "picture " + pixels + " x " + pixels, b.sizes.large, Type::q8_0, picture, b.sizes.large.config.selector.image_tokens);
}

}  // namespace bg::bench
