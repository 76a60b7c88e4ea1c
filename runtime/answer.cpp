// See answer.h. Read add_image() and ask(): they are the whole path from a picture and a question to an answer.
#include "runtime/answer.h"

#include <algorithm>
#include <chrono>

#include "loaders/error.h"
#include "loaders/sha256.h"
#include "runtime/vit.h"

namespace bg {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string megabytes(uint64_t bytes) { return std::to_string((bytes + 999'999) / 1'000'000) + " MB"; }

// Rows a medium keeps for the session: the selected ones, or all when the text of later turns takes part in the choice.
bool keeps_all(const Config& c, int64_t tokens, int64_t budget) { return c.selector.enabled && c.selector.use_text && tokens > budget; }

int64_t image_budget(const Config& c, int64_t tokens, int64_t asked) {
  if (!c.selector.enabled) return tokens;
  return asked > 0 ? asked : c.selector.image_tokens;
}

void tap_kept(const Run& run, const Kept& kept, int64_t level) {
  if (run.trace) run.trace->integers("selector." + (level == 0 ? "top" : "deepstack." + std::to_string(level - 1)), kept.index);
}

// Patch vectors → kept rows. patches: (P, 3·2·16·16) host memory, not read while planning. medium.rows: where the rows go.
void encode_image(const Run& run, const Model& m, const float* patches, Medium& medium) {
  Arena::Scope scope(run.arena);
  const bool all = keeps_all(m.config, medium.tokens, medium.budget);
  std::vector<Tensor> features;
  for (int64_t l = 0; l < m.levels(); ++l) features.push_back(all ? medium.rows[size_t(l)] : run.arena.tensor(medium.tokens, m.config.text.hidden));
  {
    Arena::Scope inner(run.arena);
    const Tensor x = run.arena.tensor(medium.grid.patches(), m.weights.vit.patch_embed.w.cols);
    run.ops.write(x, patches);
    run.tap("image.patches", x);
    vit(run, m.config.vision, m.weights.vit, x, medium.grid, features);
  }
  if (all) return;
  for (int64_t l = 0; l < m.levels(); ++l) {
    Kept kept = select_coverage(run, features[size_t(l)], {}, medium.budget);
    run.ops.gather_rows(medium.rows[size_t(l)], features[size_t(l)], kept.index.data());
    tap_kept(run, kept, l);
    medium.kept.push_back(std::move(kept));
  }
}

// Sizes of a medium, before anything is computed.
void shape_medium(const Config& c, Size source, const ImageOptions& options, int64_t budget, Medium& medium) {
  medium.steps = plan_image(source, options);
  medium.grid = image_grid(medium.steps, c.vision.patch);
  medium.merged_rows = medium.grid.h / c.vision.merge;
  medium.merged_cols = medium.grid.w / c.vision.merge;
  medium.tokens = medium.grid.t * medium.merged_rows * medium.merged_cols;
  medium.budget = image_budget(c, medium.tokens, budget);
}

uint64_t medium_bytes(const Model& m, const Ops& ops, const Medium& medium) {
  const int64_t rows = keeps_all(m.config, medium.tokens, medium.budget) ? medium.tokens : medium.kept_tokens();
  return uint64_t(m.levels() * rows * m.config.text.hidden) * type_size(ops.type());
}

// All levels' rows in one block of the backend's memory.
void give_rows(const Model& m, Ops& ops, Medium& medium) {
  const int64_t D = m.config.text.hidden, levels = m.levels();
  void* base = ops.allocate(medium_bytes(m, ops, medium));
  if (!base) throw Error(Status::too_large, "no memory for the visual rows of a picture");
  const int64_t n = int64_t(medium_bytes(m, ops, medium) / type_size(ops.type())) / (levels * D);
  const Tensor whole{base, ops.type(), levels * n, D, D};
  for (int64_t l = 0; l < levels; ++l) medium.rows.push_back(whole.row_range(l * n, n));
}

uint64_t image_workspace(const Model& m, const Ops& real, const Medium& shape) {
  const std::unique_ptr<Ops> ops = make_plan_ops(real);
  Arena arena(*ops, 0);
  Medium medium = shape;
  give_rows(m, *ops, medium);
  encode_image({*ops, arena, nullptr, nullptr}, m, nullptr, medium);
  return arena.peak();
}

// The largest chunk decides; `text_rows` and the largest medium decide a text-guided selection.
uint64_t prompt_workspace(const Model& m, const Ops& real, int64_t tokens, int64_t visual, int64_t chunk, int64_t text_rows, const std::vector<std::unique_ptr<Medium>>& media) {
  const std::unique_ptr<Ops> ops = make_plan_ops(real);
  Arena arena(*ops, 0);
  const Run run{*ops, arena, nullptr, nullptr};
  const Config::Text& c = m.config.text;
  for (const std::unique_ptr<Medium>& medium : media) {
    if (!keeps_all(m.config, medium->tokens, medium->budget)) continue;
    Arena::Scope scope(arena);
    select_coverage(run, {nullptr, real.type(), medium->tokens, c.hidden, c.hidden}, arena.tensor(text_rows, c.hidden), medium->budget);
  }
  const Tensor logits = arena.tensor(1, c.vocab);
  Chunk shape;
  const int64_t T = std::min(tokens, chunk), V = std::min(visual, T);
  shape.ids.resize(size_t(T));
  shape.positions.resize(size_t(T));
  shape.visual_at.resize(size_t(V));
  for (int64_t l = 0; V > 0 && l < m.levels(); ++l) shape.visual.push_back(arena.tensor(V, c.hidden));
  KvCache cache(*ops, c, T);
  decode(run, c, m.weights.decoder, cache, shape, Logits::last, logits);
  return arena.peak();
}

uint64_t pixel_bytes(const Medium& medium, const Config& c, const ImageOptions& options) {
  return preprocess_bytes(medium.steps.source, options) + uint64_t(medium.grid.patches() * 3 * c.vision.temporal_patch * c.vision.patch * c.vision.patch) * sizeof(float);
}

int64_t count_visual(const std::vector<Cell>& cells) {
  return std::count_if(cells.begin(), cells.end(), [](const Cell& c) { return c.medium >= 0; });
}

// §3c: every prompt token except placeholders and the vision start and end tokens.
std::vector<int32_t> text_ids(const Config& c, const std::vector<Cell>& cells) {
  std::vector<int32_t> ids;
  for (const Cell& cell : cells)
    if (cell.medium < 0 && cell.id != c.tokens.vision_start && cell.id != c.tokens.vision_end) ids.push_back(cell.id);
  return ids;
}

ImageOptions with_model(ImageOptions options, const Config& c) {
  options.factor = c.vision.patch * c.vision.merge;
  return options;
}

void check_question(const std::string& text) {
  if (text.empty()) throw Error(Status::invalid_argument, "the question is empty");
}

}  // namespace

std::unique_ptr<Ops> make_ops(const std::string& backend, int threads) {
  if (threads < 1 || threads > 1024) throw Error(Status::invalid_argument, "threads must be 1 … 1024, got " + std::to_string(threads));
  if (backend == "ref") return std::unique_ptr<Ops>(make_ref_ops(Type::f32));
  if (backend == "ref64") return std::unique_ptr<Ops>(make_ref_ops(Type::f64));
  Isa isa = Isa::best;
  if (backend == "cpu/avx2")
    isa = Isa::avx2;
  else if (backend == "cpu/portable")
    isa = Isa::portable;
  else if (backend != "cpu")
    throw Error(Status::invalid_argument, "unknown backend \"" + backend + "\"; there are cpu, cpu/avx2, cpu/portable, ref, ref64");
  std::unique_ptr<Ops> ops(make_cpu_ops(threads, isa));
  if (!ops) throw Error(Status::unsupported, "this machine does not run backend \"" + backend + "\"; use cpu, which takes the best it has");
  return ops;
}

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options)
    : model_(std::move(model)), options_(options), ops_(make_ops(options.backend, options.threads)), prompt_(model_->config, model_->tokenizer) {
  if (options_.context < 1 || options_.context > model_->config.text.context)
    throw Error(Status::invalid_argument, "a context of " + std::to_string(options_.context) + " tokens: this model takes 1 … " + std::to_string(model_->config.text.context));
  if (options_.chunk < 1) throw Error(Status::invalid_argument, "a chunk of " + std::to_string(options_.chunk) + " tokens: at least 1");
  if (model_->config.selector.enabled && model_->config.selector.kind != "CoverageTokenSelector")
    throw Error(Status::unsupported, "this model selects tokens with \"" + model_->config.selector.kind + "\"; this version runs CoverageTokenSelector");
  if (!options_.trace_folder.empty()) trace_ = std::make_unique<Trace>(options_.trace_folder, options_.trace_data);
}

Session::~Session() {
  for (const std::unique_ptr<Medium>& medium : media_) ops_->release(medium->rows[0].data, medium_bytes(*model_, *ops_, *medium));
}

MemoryPlan Session::plan(const Model& m, const SessionOptions& options, const std::vector<Size>& images, const ImageOptions& image_options, int64_t budget,
                         const std::string& system, const std::string& question) {
  const std::unique_ptr<Ops> ops = make_ops(options.backend, options.threads);
  const Prompt prompt(m.config, m.tokenizer);
  const ImageOptions opt = with_model(image_options, m.config);
  MemoryPlan plan;
  plan.weights = m.file.file_bytes();
  plan.kv_cache = KvCache::bytes(*ops, m.config.text, options.context);
  std::vector<std::unique_ptr<Medium>> media;
  std::vector<PromptMedium> placed;
  for (const Size& size : images) {
    auto medium = std::make_unique<Medium>();
    shape_medium(m.config, size, opt, budget, *medium);
    plan.media += medium_bytes(m, *ops, *medium);
    plan.workspace = std::max(plan.workspace, image_workspace(m, *ops, *medium));
    plan.pixels = std::max(plan.pixels, pixel_bytes(*medium, m.config, opt));
    placed.push_back({int32_t(media.size()), medium->kept_tokens()});
    media.push_back(std::move(medium));
  }
  std::vector<Cell> cells;
  if (!system.empty()) prompt.system(cells, system);
  prompt.user(cells, question, placed);
  const int64_t text = int64_t(text_ids(m.config, cells).size());
  plan.workspace = std::max(plan.workspace, prompt_workspace(m, *ops, int64_t(cells.size()), count_visual(cells), options.chunk, text, media));
  return plan;
}

void Session::check_cap(const MemoryPlan& plan) const {
  if (options_.memory_cap == 0 || plan.total() <= options_.memory_cap) return;
  throw Error(Status::too_large, "this request needs " + megabytes(plan.total()) + " (KV cache " + megabytes(plan.kv_cache) + ", visual rows " + megabytes(plan.media) + ", workspace " +
                                     megabytes(plan.workspace) + ", pixels " + megabytes(plan.pixels) + "), the cap is " + megabytes(options_.memory_cap) +
                                     "; use a smaller context, chunk or picture, or a higher cap");
}

Run Session::run(Arena& arena) { return {*ops_, arena, trace_.get(), &options_.callbacks}; }

void Session::system(const std::string& text) {
  if (!transcript_.empty()) throw Error(Status::invalid_argument, "the system text must be given once, before the first question");
  if (text.empty()) throw Error(Status::invalid_argument, "the system text is empty");
  prompt_.system(transcript_, text);
}

void Session::add_image(const Pixels& pixels, const ImageOptions& image_options, int64_t budget) {
  const double start = now();
  const Model& m = *model_;
  const ImageOptions options = with_model(image_options, m.config);
  if (budget < 0) throw Error(Status::invalid_argument, "a token budget of " + std::to_string(budget) + ": it must be positive, or 0 for the model's own");
  if (budget > 0 && !m.config.selector.enabled) throw Error(Status::invalid_argument, "this model selects no tokens, so a picture has no token budget");
  auto medium = std::make_unique<Medium>();
  shape_medium(m.config, {pixels.width, pixels.height}, options, budget, *medium);

  // Plan, then run.
  MemoryPlan plan;
  plan.kv_cache = KvCache::bytes(*ops_, m.config.text, options_.context);
  plan.media = media_bytes_ + medium_bytes(m, *ops_, *medium);
  plan.workspace = image_workspace(m, *ops_, *medium);
  plan.pixels = pixel_bytes(*medium, m.config, options);
  check_cap(plan);

  // Pixels → patch vectors → ViT → selector → kept rows.
  std::vector<float> patches(size_t(medium->grid.patches() * 3 * m.config.vision.temporal_patch * m.config.vision.patch * m.config.vision.patch));
  medium->steps = preprocess_image(patches.data(), pixels, options);
  const size_t pixel_count = size_t(pixels.width) * size_t(pixels.height);
  medium->pixels_sha256 = pixels.rgb ? sha256_hex(pixels.rgb, pixel_count * 3) : sha256_hex(pixels.grey16, pixel_count * 2);
  Arena arena(*ops_, plan.workspace);
  give_rows(m, *ops_, *medium);
  try {
    encode_image(run(arena), m, patches.data(), *medium);
  } catch (...) {
    ops_->release(medium->rows[0].data, medium_bytes(m, *ops_, *medium));
    throw;
  }
  media_bytes_ = plan.media;
  pending_.push_back({int32_t(media_.size()), medium->kept_tokens()});
  media_.push_back(std::move(medium));
  image_seconds_ += now() - start;
}

const Answer& Session::ask(const std::string& question, const Generation& generation, const std::function<bool(const std::string&)>& on_text) {
  const Model& m = *model_;
  const Config& c = m.config;
  const double start = now();
  check_question(question);
  check_sampling(generation.sampling);
  if (generation.max_tokens < 1) throw Error(Status::invalid_argument, "max tokens must be at least 1");

  // The whole transcript as cells, with its positions.
  std::vector<Cell> cells = transcript_;
  prompt_.user(cells, question, pending_);
  const int64_t n = int64_t(cells.size());
  if (n >= options_.context)
    throw Error(Status::too_large, "the prompt has " + std::to_string(n) + " tokens, the context " + std::to_string(options_.context) +
                                       " (one must be left for the answer); shorten the question or open the session with a larger context");

  // Plan, then run.
  const int64_t text = int64_t(text_ids(c, cells).size());
  MemoryPlan plan;
  plan.kv_cache = KvCache::bytes(*ops_, c.text, options_.context);
  plan.media = media_bytes_;
  plan.workspace = prompt_workspace(m, *ops_, n, count_visual(cells), options_.chunk, text, media_);
  check_cap(plan);
  Arena arena(*ops_, plan.workspace);
  if (!cache_) cache_ = std::make_unique<KvCache>(*ops_, c.text, options_.context);

  const Run run = this->run(arena);
  select_with_text(run, cells);
  std::vector<VisualRun> runs;
  std::vector<int64_t> slots(size_t(n), 0);  // which kept row of its medium a visual cell takes
  for (int64_t i = 0; i < n; ++i) {
    const int32_t id = cells[size_t(i)].medium;
    if (id < 0) continue;
    const Medium& medium = *media_[size_t(id)];
    if (i == 0 || cells[size_t(i) - 1].medium != id)
      runs.push_back({i, medium.kept[0].index, medium.merged_rows, medium.merged_cols});
    else
      slots[size_t(i)] = slots[size_t(i) - 1] + 1;
  }
  int64_t next_position = 0;
  const std::vector<Position> positions = prompt_positions(n, runs, c.plain_qwen(), &next_position);
  if (trace_) {
    std::vector<int64_t> ids, flat;
    for (const Cell& cell : cells) ids.push_back(cell.id);
    for (const Position& p : positions) flat.insert(flat.end(), p.begin(), p.end());
    trace_->integers("prompt.tokens", ids);
    trace_->integers("prompt.positions", flat, 3);
  }

  // Prompt, in chunks, from the first token that the cache does not hold.
  forget_from(cells);
  answer_ = Answer{};
  answer_.prompt_tokens = n;
  answer_.reused_tokens = cache_->used;
  const Tensor logits = arena.tensor(1, c.text.vocab);
  while (cache_->used < n) {
    Arena::Scope scope(arena);
    const int64_t first = cache_->used, count = std::min(options_.chunk, n - first);
    run.step("prompt", first, n);
    const Chunk chunk = make_chunk(run, cells, slots, positions, first, count);
    decode(run, c.text, m.weights.decoder, *cache_, chunk, first + count == n ? Logits::last : Logits::none, logits);
    cached_.insert(cached_.end(), cells.begin() + first, cells.begin() + first + count);
  }
  run.step("prompt", n, n);
  const double decode_start = now();
  answer_.prompt_seconds = decode_start - start;

  generate(run, logits, next_position, generation, on_text);
  answer_.decode_seconds = now() - decode_start;
  answer_.image_seconds = image_seconds_;
  image_seconds_ = 0;
  pending_.clear();
  prompt_.answer(cells, answer_.ids);
  transcript_ = std::move(cells);
  return answer_;
}

// §3a with text: the whole transcript's text guides every choice, so a new turn may change what earlier pictures keep.
void Session::select_with_text(const Run& run, const std::vector<Cell>& cells) {
  const Model& m = *model_;
  for (size_t i = 0; i < media_.size(); ++i) {
    Medium& medium = *media_[i];
    if (!keeps_all(m.config, medium.tokens, medium.budget)) continue;
    Arena::Scope scope(run.arena);
    const std::vector<int32_t> ids = text_ids(m.config, cells);
    const Tensor text = run.arena.tensor(int64_t(ids.size()), m.config.text.hidden);
    run.ops.embed(text, m.weights.decoder.embed, ids.data());
    std::vector<Kept> kept;
    for (int64_t l = 0; l < m.levels(); ++l) {
      kept.push_back(select_coverage(run, medium.rows[size_t(l)], text, medium.budget));
      tap_kept(run, kept.back(), l);
    }
    const bool same = medium.kept.size() == kept.size() && std::equal(kept.begin(), kept.end(), medium.kept.begin(), [](const Kept& a, const Kept& b) { return a.index == b.index; });
    medium.kept = std::move(kept);
    if (same) continue;
    const auto stale = std::find_if(cached_.begin(), cached_.end(), [&](const Cell& c) { return c.medium == int32_t(i); });
    cached_.erase(stale, cached_.end());
  }
}

// Keeps the part of the cache that is the beginning of `cells`; at least one token is left to compute, for its logits.
void Session::forget_from(const std::vector<Cell>& cells) {
  size_t same = 0;
  while (same < cached_.size() && same + 1 < cells.size() && cached_[same].id == cells[same].id && cached_[same].medium == cells[same].medium) ++same;
  cached_.resize(same);
  cache_->used = int64_t(same);
}

Chunk Session::make_chunk(const Run& run, const std::vector<Cell>& cells, const std::vector<int64_t>& slots, const std::vector<Position>& positions, int64_t first, int64_t count) const {
  Chunk chunk;
  for (int64_t i = first; i < first + count; ++i) {
    chunk.ids.push_back(cells[size_t(i)].id);
    chunk.positions.push_back(positions[size_t(i)]);
    if (cells[size_t(i)].medium >= 0) chunk.visual_at.push_back(i - first);
  }
  if (chunk.visual_at.empty()) return chunk;
  const int64_t V = int64_t(chunk.visual_at.size());
  for (int64_t l = 0; l < model_->levels(); ++l) {
    const Tensor rows = run.arena.tensor(V, model_->config.text.hidden);
    for (int64_t j = 0; j < V; ++j) {
      const size_t cell = size_t(first + chunk.visual_at[size_t(j)]);
      const Medium& medium = *media_[size_t(cells[cell].medium)];
      const bool all = keeps_all(model_->config, medium.tokens, medium.budget);
      const int64_t row = all ? medium.kept[size_t(l)].index[size_t(slots[cell])] : slots[cell];
      run.ops.copy(rows.row_range(j, 1), medium.rows[size_t(l)].row_range(row, 1));
    }
    chunk.visual.push_back(rows);
  }
  return chunk;
}

void Session::generate(const Run& run, Tensor logits, int64_t next_position, const Generation& generation, const std::function<bool(const std::string&)>& on_text) {
  const Model& m = *model_;
  const std::vector<int32_t>& stop = m.config.tokens.stop;
  std::vector<double> values(size_t(m.config.text.vocab));
  std::vector<int32_t> seen;
  for (const Cell& cell : cached_) seen.push_back(cell.id);
  Utf8Stream stream;
  const auto say = [&](const std::string& piece) {
    answer_.text += piece;
    return piece.empty() || !on_text || on_text(piece);
  };
  while (true) {
    run.ops.read(values.data(), logits);
    double logprob = 0;
    const int32_t id = sample(values, generation.sampling, seen, answer_.ids.size(), &logprob);
    if (std::find(stop.begin(), stop.end(), id) != stop.end()) {
      answer_.stopped = true;
      break;
    }
    answer_.ids.push_back(id);
    answer_.logprobs.push_back(logprob);
    seen.push_back(id);
    if (!m.tokenizer.is_control(id) && !say(stream.push(m.tokenizer.bytes(id)))) break;
    if (int64_t(answer_.ids.size()) == generation.max_tokens || cache_->used == options_.context) break;
    run.step("answer", int64_t(answer_.ids.size()), generation.max_tokens);
    Chunk chunk;
    chunk.ids = {id};
    chunk.positions = {{next_position, next_position, next_position}};
    ++next_position;
    decode(run, m.config.text, m.weights.decoder, *cache_, chunk, Logits::last, logits);
    cached_.push_back({id, -1});
  }
  say(stream.finish());
}

}  // namespace bg
