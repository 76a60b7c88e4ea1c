// See answer.h. Read add() and ask(): they are the whole path from a picture and a question to an answer.
#include "runtime/answer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "loaders/error.h"
#include "loaders/sha256.h"

namespace bg {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string megabytes(uint64_t bytes) { return std::to_string((bytes + 999'999) / 1'000'000) + " MB"; }

bool is_cpu(const Ops& ops) { return std::string(ops.name()).rfind("cpu/", 0) == 0; }
bool is_ref(const Ops& ops) { return std::string(ops.name()).rfind("ref", 0) == 0; }

// The type of keys and values.
Type choose_kv_type(const SessionOptions& o, const Ops& ops, const Config::Text& c) {
  const bool automatic = o.kv_type.empty() || o.kv_type == "auto";
  const Type type = automatic ? (o.precision == Precision::fast ? Type::bf16 : Type::f32) : o.kv_type == "bf16" ? Type::bf16 : o.kv_type == "q8_0" ? Type::q8_0 : Type::f32;
  if (!automatic && type == Type::f32 && o.kv_type != "f32")
    throw Error(Status::invalid_argument, "unknown type \"" + o.kv_type + "\" for the KV cache; there are auto, f32, bf16, q8_0");
  if (is_ref(ops)) {
    if (!automatic && type != ops.type())
      throw Error(Status::invalid_argument, std::string("backend ") + ops.name() + " keeps keys and values in its own type, " + type_name(ops.type()) +
                                                "; leave the KV type out");
    return ops.type();
  }
  if (type == Type::q8_0 && c.head_dim % block_values(type) != 0)
    throw Error(Status::invalid_argument, "a KV cache in Q8_0 needs heads of whole blocks of 32; this model's have " + std::to_string(c.head_dim) +
                                              "; use bf16 or f32");
  return type;
}

int64_t patch_width(const Config& c) { return 3 * c.vision.temporal_patch * c.vision.patch * c.vision.patch; }

// The selector of a session: the checkpoint's, or the one asked for.
SelectorChoice choose_selector(const Model& m, const std::string& asked) {
  SelectorChoice s = m.config.selector;
  if (asked.empty()) return s;
  if (m.config.plain_qwen()) throw Error(Status::invalid_argument, "this model (qwen3_vl) selects no tokens; leave the selector out");
  s.enabled = asked != "none";
  s.use_text = asked == "coverage-text";
  if (asked == "coverage" || asked == "coverage-text")
    s.kind = "CoverageTokenSelector";
  else if (asked == "concept" && m.config.selector.kind != "ConceptSelector")
    throw Error(Status::invalid_argument, "this checkpoint has no weights for the concept selector; use coverage or coverage-text");
  else if (asked != "concept" && asked != "none")
    throw Error(Status::invalid_argument, "unknown selector \"" + asked + "\"; there are coverage, coverage-text, concept, none");
  return s;
}

// The caller's options with what the model fixes.
ImageOptions image_options(const Config& c, const MediumInput& in) {
  ImageOptions o = in.image;
  o.factor = c.vision.patch * c.vision.merge;
  if (o.max_pixels == 0) o.max_pixels = c.preparation.image_tokens * 1024;
  return o;
}

VolumeOptions volume_options(const Config& c, const MediumInput& in) {
  VolumeOptions o = in.volume;
  o.factor = c.vision.patch * c.vision.merge;
  o.side = c.preparation.volume_side;
  o.slices = c.preparation.volume_slices;
  return o;
}

void shape(const Config& c, const SelectorChoice& s, const MediumInput& in, Medium& medium) {
  if (in.budget < 0) throw Error(Status::invalid_argument, "a token budget of " + std::to_string(in.budget) + ": it must be positive, or 0 for the model's own");
  if (in.budget > 0 && !s.enabled) throw Error(Status::invalid_argument, "no tokens are selected here, so there is no token budget");
  if (in.kind != MediumKind::image && c.plain_qwen())
    throw Error(Status::unsupported, std::string("this model (qwen3_vl) takes pictures and text; a ") + medium_name(in.kind) + " needs a breastgpt model");
  if (in.kind == MediumKind::image) {
    shape_image(c, s, {in.pixels.width, in.pixels.height}, image_options(c, in), in.budget, medium);
  } else if (in.kind == MediumKind::volume) {
    shape_volume(c, s, in.voxels.nx, in.voxels.ny, in.voxels.nz, volume_options(c, in), in.budget, medium);
  } else {
    if (in.width != c.slide.feature_dim)
      throw Error(Status::invalid_argument, "slide features of width " + std::to_string(in.width) + "; this model takes " + std::to_string(c.slide.feature_dim) + " (CONCH v1.5)");
    if (in.tiles < 1 || in.tiles > 2'000'000) throw Error(Status::too_large, "a slide of " + std::to_string(in.tiles) + " tiles; 1 … 2000000 are taken");
    shape_slide(s, in.tiles, in.budget, medium);
  }
}

// Host memory of the preparation: what the encoder reads, and what making it takes.
uint64_t input_bytes(const Config& c, const MediumInput& in, const Medium& medium) {
  if (in.kind == MediumKind::slide) return 0;
  const uint64_t patches = uint64_t(frames_at_once(medium) * medium.grid.h * medium.grid.w * patch_width(c)) * sizeof(float);
  if (in.kind == MediumKind::image) return patches + preprocess_bytes(medium.image.source, image_options(c, in));
  return patches + volume_bytes(in.voxels.nx, in.voxels.ny, in.voxels.nz, volume_options(c, in));
}

// Prepares the input on the host, a volume's frames as they are asked for, and names it by its hash. Slides are read where they are.
EncoderInput prepare(const Config& c, const MediumInput& in, Medium& medium) {
  if (in.kind == MediumKind::slide) {
    medium.sha256 = sha256_hex(in.features, size_t(in.tiles * in.width) * sizeof(float));
    return {in.features, {}};
  }
  const int64_t frame = medium.grid.h * medium.grid.w * patch_width(c);
  const auto patches = std::make_shared<std::vector<float>>(size_t(frames_at_once(medium) * frame));
  if (in.kind == MediumKind::image) {
    medium.image = preprocess_image(patches->data(), in.pixels, image_options(c, in));
    const size_t count = size_t(in.pixels.width) * size_t(in.pixels.height);
    medium.sha256 = in.pixels.rgb ? sha256_hex(in.pixels.rgb, count * 3) : sha256_hex(in.pixels.grey16, count * 2);
    return {nullptr, [patches](int64_t, int64_t) { return patches->data(); }};
  }
  const auto frames = std::make_shared<VolumeFrames>(in.voxels, volume_options(c, in));
  medium.volume = frames->steps();
  medium.sha256 = sha256_hex(in.voxels.data, size_t(in.voxels.nx * in.voxels.ny * in.voxels.nz) * sizeof(float));
  return {nullptr, [patches, frames](int64_t first, int64_t count) {
            frames->write(patches->data(), first, count);
            return patches->data();
          }};
}

// The largest chunk of the prompt, or a text-guided selection, whichever takes more.
uint64_t prompt_workspace(const Model& m, const SelectorChoice& s, const Ops& real, Type kv_type, int64_t tokens, int64_t visual, int64_t chunk,
                          int64_t text_rows, int64_t logit_rows, const std::vector<std::unique_ptr<Medium>>& media) {
  const std::unique_ptr<Ops> ops = make_plan_ops(real);
  Arena arena(*ops, 0);
  const Run run{*ops, arena, nullptr, nullptr};
  const Config::Text& c = m.config.text;
  uint64_t select = 0;
  for (const std::unique_ptr<Medium>& medium : media) select = std::max(select, select_workspace(m, s, real, *medium, text_rows));
  const Tensor logits = arena.tensor(logit_rows, c.vocab);
  const uint64_t standing = arena.peak();
  {
    Arena::Scope scope(arena);
    arena.tensor(1, c.vocab);  // next_token
  }
  Chunk shape;
  const int64_t T = std::max(std::min(tokens, chunk), logit_rows), V = std::min(visual, T);
  shape.ids.resize(size_t(T));
  shape.positions.resize(size_t(T));
  shape.visual_at.resize(size_t(V));
  for (int64_t l = 0; V > 0 && l < m.levels(); ++l) shape.visual.push_back(arena.tensor(V, c.hidden));
  KvCache cache(*ops, kv_type, c, T);
  decode(run, c, m.weights.decoder, cache, shape, logit_rows > 1 ? Logits::all : Logits::last, logits);
  return std::max<uint64_t>(arena.peak(), standing + select);
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

// log softmax(logits)[id]
double log_softmax(const std::vector<double>& logits, int32_t id) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double v : logits) sum += std::exp(v - top);
  return logits[size_t(id)] - top - std::log(sum);
}

void check_options(const Model& m, const SessionOptions& o, const Ops& ops) {
  if (o.context < 1 || o.context > m.config.text.context)
    throw Error(Status::invalid_argument, "a context of " + std::to_string(o.context) + " tokens: this model takes 1 … " + std::to_string(m.config.text.context));
  if (o.chunk < 1) throw Error(Status::invalid_argument, "a chunk of " + std::to_string(o.chunk) + " tokens: at least 1");
  if (o.vram > 0 && !ops.on_device()) throw Error(Status::invalid_argument, "vram limits the memory of a GPU, and backend " + o.backend + " uses none; leave it out, or use backend cuda");
}

// What a GPU's memory is for: the model gets what the session does not need for its cache, a picture of 1024 × 1024 or a whole chunk of a prompt.
DevicePlan plan_device(const Model& m, const SessionOptions& o, const Ops& ops, const SelectorChoice& s, Type kv_type) {
  DevicePlan plan;
  plan.vram = o.vram > 0 ? o.vram : free_device_memory(o.backend) + m.bytes_on_device(o.backend);
  MediumInput picture;
  picture.pixels = {1024, 1024, nullptr, nullptr};
  Medium medium;
  shape(m.config, s, picture, medium);
  const int64_t chunk = std::min(o.chunk, o.context);
  const uint64_t work = std::max(encode_workspace(m, s, ops, medium), prompt_workspace(m, s, ops, kv_type, chunk, chunk, chunk, 0, 1, {}));
  const uint64_t own = KvCache::bytes(kv_type, m.config.text, o.context) + medium_bytes(m, s, ops, medium) + work + ops.fixed_bytes();
  plan.for_weights = plan.vram > own ? plan.vram - own : 0;
  plan.weights = DeviceWeights::plan(m.weights, m.config, plan.for_weights);
  if (plan.weights.host == 0) return plan;
  plan.pieces = std::min<uint64_t>(kMostPieceBytes, (plan.weights.device + plan.weights.host) / 8);
  plan.for_weights -= std::min(plan.for_weights, plan.pieces);
  plan.weights = DeviceWeights::plan(m.weights, m.config, plan.for_weights);
  return plan;
}

// Half of what nothing else is planned for goes to the similarity matrix of a selection: a slide of many tiles is chosen from several times as fast with it, and
// the other half has room for what grows with the tiles beside it.
uint64_t coverage_memory(const DevicePlan& plan) {
  const uint64_t left = plan.for_weights > plan.weights.device ? plan.for_weights - plan.weights.device : 0;
  return std::max<uint64_t>(kCoverageMemory, left / 2);
}

}  // namespace

std::unique_ptr<Ops> make_ops(const std::string& backend, int threads, Precision precision, bool cublas) {
  if (threads < 1 || threads > 1024) throw Error(Status::invalid_argument, "threads must be 1 … 1024, got " + std::to_string(threads));
  if (cublas && gpu_number(backend) < 0) throw Error(Status::invalid_argument, "cuBLAS multiplies on a GPU, and backend " + backend + " uses none; leave it out, or use backend cuda");
  if (backend == "ref") return std::unique_ptr<Ops>(make_ref_ops(Type::f32));
  if (backend == "ref64") return std::unique_ptr<Ops>(make_ref_ops(Type::f64));
  if (backend == "emulated") return std::unique_ptr<Ops>(make_emulated_ops(threads, precision));
  if (const int gpu = gpu_number(backend); gpu >= 0) return std::unique_ptr<Ops>(make_cuda_ops(gpu, precision, cublas));
  Isa isa = Isa::best;
  int count = 0;
  const Isa* built = built_isas(&count);
  std::string known = "cpu";
  for (int i = 0; i < count; ++i) {
    const std::string name = std::string("cpu/") + isa_name(built[i]);
    if (backend == name) isa = built[i];
    known += ", " + name;
  }
  if (backend != "cpu" && isa == Isa::best) throw Error(Status::invalid_argument, "unknown backend \"" + backend + "\"; there are " + known + ", cuda, cuda:N, ref, ref64, emulated");
  std::unique_ptr<Ops> ops(make_cpu_ops(threads, isa, precision));
  if (!ops) throw Error(Status::unsupported, "this machine does not run backend \"" + backend + "\"; use cpu, which takes the best it has");
  return ops;
}

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options)
    : model_(std::move(model)),
      options_(options),
      ops_(make_ops(options.backend, options.threads, options.precision, options.cublas)),
      selector_(choose_selector(*model_, options.selector)),
      kv_type_(choose_kv_type(options, *ops_, model_->config.text)),
      prompt_(model_->config, model_->tokenizer) {
  check_options(*model_, options_, *ops_);
  if (!options_.trace_folder.empty()) trace_ = std::make_unique<Trace>(options_.trace_folder, options_.trace_data);
  if (!ops_->on_device()) return;
  device_ = plan_device(*model_, options_, *ops_, selector_, kv_type_);
  selector_.memory = coverage_memory(device_);
}

Session::~Session() {
  for (const std::unique_ptr<Medium>& medium : media_) release_rows(*model_, selector_, *ops_, *medium);
}

MemoryPlan Session::plan(const Model& m, const SessionOptions& options, const std::vector<MediumInput>& inputs, const std::string& system, const std::string& question) {
  const std::unique_ptr<Ops> ops = make_ops(options.backend, options.threads, options.precision, options.cublas);
  check_options(m, options, *ops);
  SelectorChoice s = choose_selector(m, options.selector);
  const Prompt prompt(m.config, m.tokenizer);
  MemoryPlan plan;
  const Type kv_type = choose_kv_type(options, *ops, m.config.text);
  plan.weights = m.file.file_bytes();
  plan.packed = is_cpu(*ops) ? m.packed_bytes : 0;
  if (ops->on_device()) {
    const DevicePlan device = plan_device(m, options, *ops, s, kv_type);
    plan.take(device);
    s.memory = coverage_memory(device);
  }
  plan.kv_cache = KvCache::bytes(kv_type, m.config.text, options.context);
  std::vector<std::unique_ptr<Medium>> media;
  std::vector<PromptMedium> placed;
  for (const MediumInput& in : inputs) {
    auto medium = std::make_unique<Medium>();
    shape(m.config, s, in, *medium);
    plan.media += medium_bytes(m, s, *ops, *medium);
    plan.workspace = std::max(plan.workspace, encode_workspace(m, s, *ops, *medium));
    plan.pixels = std::max(plan.pixels, input_bytes(m.config, in, *medium));
    placed.push_back({int32_t(media.size()), medium->kept_tokens(), in.kind});
    media.push_back(std::move(medium));
  }
  std::vector<Cell> cells;
  if (!system.empty()) prompt.system(cells, system);
  prompt.user(cells, question, placed);
  const int64_t text = int64_t(text_ids(m.config, cells).size());
  const uint64_t prompt_bytes = prompt_workspace(m, s, *ops, kv_type, int64_t(cells.size()), count_visual(cells), options.chunk, text, 1, media);
  plan.workspace = std::max(plan.workspace, prompt_bytes) + ops->fixed_bytes();
  return plan;
}

void Session::check_cap(const MemoryPlan& plan) const {
  if (plan.on_device && plan.device_total() > device_.vram)
    throw Error(Status::too_large, "this request needs " + megabytes(plan.device_total()) + " of the GPU (weights " + megabytes(plan.device_weights) + ", KV cache " +
                                       megabytes(plan.kv_cache) + ", visual rows " + megabytes(plan.media) + ", workspace " + megabytes(plan.workspace) + "), it may take " +
                                       megabytes(device_.vram) + "; use a smaller context, chunk or picture, or more vram");
  if (options_.memory_cap == 0 || plan.total() <= options_.memory_cap) return;
  const std::string packed = plan.packed > 0 ? "packed weights " + megabytes(plan.packed) + ", " : "";
  throw Error(Status::too_large, "this request needs " + megabytes(plan.total()) + " (" + packed + "KV cache " + megabytes(plan.kv_cache) +
                                     ", visual rows " + megabytes(plan.media) + ", workspace " + megabytes(plan.workspace) + ", pixels " +
                                     megabytes(plan.pixels) + "), the cap is " + megabytes(options_.memory_cap) + "; use a smaller context, chunk or picture, or a higher cap" +
                                     (plan.packed > 0 ? ", or a weights file in panels (breastgpt-convert)" : ""));
}

MemoryPlan Session::plan_of(uint64_t media, uint64_t workspace, uint64_t pixels) const {
  MemoryPlan plan;
  plan.packed = is_cpu(*ops_) ? model_->packed_bytes : 0;
  if (ops_->on_device()) plan.take(device_);
  plan.kv_cache = KvCache::bytes(kv_type_, model_->config.text, options_.context);
  plan.media = media;
  plan.workspace = workspace + ops_->fixed_bytes();
  plan.pixels = pixels;
  return plan;
}

// What this backend multiplies with. First asked for when a plan has been accepted, because a file in rows may be packed now.
const Weights& Session::weights() {
  if (!weights_ && device_.pieces > 0) ops_->take_pieces(device_.pieces);
  if (!weights_)
    weights_ = ops_->on_device() ? &model_->on_device(options_.backend, options_.threads, device_.for_weights, options_.callbacks).weights()
               : is_cpu(*ops_)   ? &model_->in_panels(options_.threads, options_.callbacks)
                                 : &model_->weights;
  return *weights_;
}

template <class Body>
auto Session::guarded(const Body& body) {
  if (over_) throw Error(Status::device, "this session is over: its GPU failed; open another");
  try {
    return body();
  } catch (const DeviceError& e) {
    over_ = true;
    throw Error(Status::device, std::string(e.what()) + "; this session is over, open another");
  }
}

void Session::add(const MediumInput& in) {
  guarded([&] { add_medium(in); });
}
const Answer& Session::ask(const std::string& question, const Generation& generation, const std::function<bool(const std::string&)>& on_text) {
  return *guarded([&] { return &answer_question(question, generation, on_text); });
}
std::vector<Score> Session::score(const std::string& question, const std::vector<std::string>& options) {
  return guarded([&] { return score_options(question, options); });
}

Run Session::run(Arena& arena) { return {*ops_, arena, trace_.get(), &options_.callbacks}; }

void Session::system(const std::string& text) {
  if (!transcript_.empty()) throw Error(Status::invalid_argument, "the system text must be given once, before the first question");
  if (text.empty()) throw Error(Status::invalid_argument, "the system text is empty");
  prompt_.system(transcript_, text);
}

void Session::add_medium(const MediumInput& in) {
  const double start = now();
  const Model& m = *model_;
  auto medium = std::make_unique<Medium>();
  shape(m.config, selector_, in, *medium);

  // Plan, then run.
  const uint64_t workspace = encode_workspace(m, selector_, *ops_, *medium);
  const MemoryPlan plan = plan_of(media_bytes_ + medium_bytes(m, selector_, *ops_, *medium), workspace, input_bytes(m.config, in, *medium));
  check_cap(plan);

  // Pixels or voxels → patch vectors → ViT, or tile features → LongNet; then selector → kept rows.
  const EncoderInput input = prepare(m.config, in, *medium);
  if (medium->volume.constant && options_.callbacks.log) options_.callbacks.log(1, "every voxel of this volume has the same value; it was taken all the same");
  Arena arena(*ops_, workspace);
  take_rows(m, selector_, *ops_, *medium);
  try {
    encode_medium(run(arena), m, weights(), selector_, input, *medium);
  } catch (...) {
    release_rows(m, selector_, *ops_, *medium);
    throw;
  }
  media_bytes_ = plan.media;
  pending_.push_back({int32_t(media_.size()), medium->kept_tokens(), in.kind});
  media_.push_back(std::move(medium));
  media_seconds_ += now() - start;
}

// The whole transcript with a new question.
std::vector<Cell> Session::cells_with(const std::string& question) const {
  if (question.empty()) throw Error(Status::invalid_argument, "the question is empty");
  std::vector<Cell> cells = transcript_;
  prompt_.user(cells, question, pending_);
  return cells;
}

// Checks the context and the cap for a prompt and `tokens` more; returns the workspace.
uint64_t Session::plan_prompt(int64_t tokens, const std::vector<Cell>& cells, int64_t logit_rows) const {
  const int64_t n = int64_t(cells.size());
  if (n + tokens > options_.context)
    throw Error(Status::too_large, "the prompt has " + std::to_string(n) + " tokens, the context " + std::to_string(options_.context) + " (" + std::to_string(tokens) +
                                       " must be left for the answer); shorten the question or open the session with a larger context");
  const int64_t text = int64_t(text_ids(model_->config, cells).size());
  const uint64_t workspace = prompt_workspace(*model_, selector_, *ops_, kv_type_, n, count_visual(cells), options_.chunk, text, logit_rows, media_);
  check_cap(plan_of(media_bytes_, workspace, 0));
  return workspace;
}

// Everything up to the logits of the prompt's last token.
Session::Question Session::read_prompt(const Run& run, std::vector<Cell> cells, Tensor logits) {
  const Model& m = *model_;
  const Config& c = m.config;
  const int64_t n = int64_t(cells.size());
  if (!cache_) cache_ = std::make_unique<KvCache>(*ops_, kv_type_, c.text, options_.context);
  select_for(run, cells);
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
  Question question;
  const std::vector<Position> positions = prompt_positions(n, runs, c.plain_qwen(), &question.next_position);
  if (trace_) {
    std::vector<int64_t> ids, flat;
    for (const Cell& cell : cells) ids.push_back(cell.id);
    for (const Position& p : positions) flat.insert(flat.end(), p.begin(), p.end());
    trace_->integers("prompt.tokens", ids);
    trace_->integers("prompt.positions", flat, 3);
  }

  // In chunks, from the first token that the cache does not hold.
  forget_from(cells);
  answer_ = Answer{};
  answer_.prompt_tokens = n;
  answer_.reused_tokens = cache_->used;
  while (cache_->used < n) {
    Arena::Scope scope(run.arena);
    const int64_t first = cache_->used, count = std::min(options_.chunk, n - first);
    run.step("prompt", first, n);
    const Chunk chunk = make_chunk(run, cells, slots, positions, first, count);
    decode(run, c.text, weights().decoder, *cache_, chunk, first + count == n ? Logits::last : Logits::none, logits);
    cached_.insert(cached_.end(), cells.begin() + first, cells.begin() + first + count);
  }
  run.step("prompt", n, n);
  question.cells = std::move(cells);
  return question;
}

const Answer& Session::answer_question(const std::string& question, const Generation& generation, const std::function<bool(const std::string&)>& on_text) {
  const double start = now();
  check_sampling(generation.sampling);
  if (generation.max_tokens < 1) throw Error(Status::invalid_argument, "max tokens must be at least 1");
  std::vector<Cell> cells = cells_with(question);
  Arena arena(*ops_, plan_prompt(1, cells, 1));
  const Run run = this->run(arena);

  const Tensor logits = arena.tensor(1, model_->config.text.vocab);
  Question ready = read_prompt(run, std::move(cells), logits);
  const double decode_start = now();
  generate(run, logits, ready.next_position, generation, on_text);

  answer_.prompt_seconds = decode_start - start;
  answer_.decode_seconds = now() - decode_start;
  answer_.media_seconds = media_seconds_;
  media_seconds_ = 0;
  pending_.clear();
  prompt_.answer(ready.cells, answer_.ids);
  transcript_ = std::move(ready.cells);
  return answer_;
}

void Session::given(const std::string& question, const std::string& answer) {
  const Config::Tokens& t = model_->config.tokens;
  const std::vector<int32_t> ids = model_->tokenizer.encode_with_special(answer);  // boxes and names have tokens of their own
  for (const int32_t id : ids)
    if (id == t.im_start || id == t.im_end || id == t.image_pad || id == t.video_pad || id == t.slide_pad || id == t.vision_start || id == t.vision_end ||
        std::count(t.stop.begin(), t.stop.end(), id))
      throw Error(Status::invalid_argument, "the given answer holds a token of the conversation's frame or of a medium, such as <|im_end|>; only box and object tokens may stand in it");
  std::vector<Cell> cells = cells_with(question);
  pending_.clear();
  prompt_.answer(cells, ids);
  transcript_ = std::move(cells);
}

std::vector<Score> Session::score_options(const std::string& question, const std::vector<std::string>& options) {
  const Model& m = *model_;
  if (options.size() < 2) throw Error(Status::invalid_argument, "at least two options are needed to choose between");
  std::vector<Score> scores;
  int64_t longest = 0;
  for (const std::string& option : options) {
    Score s;
    s.ids = m.tokenizer.encode(option);
    if (s.ids.empty()) throw Error(Status::invalid_argument, "an option is empty");
    longest = std::max(longest, int64_t(s.ids.size()));
    scores.push_back(std::move(s));
  }
  std::vector<Cell> cells = cells_with(question);
  Arena arena(*ops_, plan_prompt(longest, cells, longest));
  const Run run = this->run(arena);
  const Tensor logits = arena.tensor(longest, m.config.text.vocab);
  const Question ready = read_prompt(run, std::move(cells), logits.row_range(0, 1));
  std::vector<double> first(size_t(m.config.text.vocab)), next(size_t(m.config.text.vocab));
  ops_->read(first.data(), logits.row_range(0, 1));

  // Each option is appended to the same prompt, then taken off the cache again.
  const int64_t prompt = cache_->used;
  double top = -INFINITY;
  for (Score& s : scores) {
    run.step("options", &s - scores.data(), int64_t(scores.size()));
    Chunk chunk;
    chunk.ids = s.ids;
    for (int64_t i = 0; i < int64_t(s.ids.size()); ++i) {
      const int64_t p = ready.next_position + i;
      chunk.positions.push_back({p, p, p});
    }
    const Tensor rows = logits.row_range(0, int64_t(s.ids.size()));
    decode(run, m.config.text, weights().decoder, *cache_, chunk, Logits::all, rows);
    cache_->used = prompt;
    s.logprob = log_softmax(first, s.ids[0]);
    for (size_t i = 0; i < s.ids.size(); ++i) {
      ops_->read(next.data(), rows.row_range(int64_t(i), 1));
      (i + 1 < s.ids.size() ? s.logprob : s.end_logprob) += log_softmax(next, i + 1 < s.ids.size() ? s.ids[i + 1] : m.config.tokens.im_end);
    }
    top = std::max(top, s.logprob);
  }
  double sum = 0;
  for (const Score& s : scores) sum += std::exp(s.logprob - top);
  for (Score& s : scores) s.probability = std::exp(s.logprob - top) / sum;
  return scores;
}

// §3a, §3b with text: the whole transcript's text guides every choice, so a new turn may change what earlier media keep.
void Session::select_for(const Run& run, const std::vector<Cell>& cells) {
  const Model& m = *model_;
  for (size_t i = 0; i < media_.size(); ++i) {
    Medium& medium = *media_[i];
    if (!waits_for_text(selector_, medium)) continue;
    Arena::Scope scope(run.arena);
    const std::vector<int32_t> ids = text_ids(m.config, cells);
    const Tensor text = run.arena.tensor(int64_t(ids.size()), m.config.text.hidden);
    run.ops.embed(text, weights().decoder.embed, ids.data());
    const std::vector<Kept> before = medium.kept;
    select_with_text(run, m, weights(), selector_, text, medium);
    const bool same = before.size() == medium.kept.size() && std::equal(before.begin(), before.end(), medium.kept.begin(), [](const Kept& a, const Kept& b) { return a.index == b.index; });
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
      run.ops.copy(rows.row_range(j, 1), media_[size_t(cells[cell].medium)]->rows[size_t(l)].row_range(slots[cell], 1));
    }
    chunk.visual.push_back(rows);
  }
  return chunk;
}

void Session::generate(const Run& run, Tensor logits, int64_t next_position, const Generation& generation, const std::function<bool(const std::string&)>& on_text) {
  const Model& m = *model_;
  const std::vector<int32_t>& stop = m.config.tokens.stop;
  std::vector<int32_t> seen;  // each once, ascending
  for (const Cell& cell : cached_) seen.push_back(cell.id);
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  run.ops.forget_steps();
  Utf8Stream stream;
  const auto say = [&](const std::string& piece) {
    answer_.text += piece;
    return piece.empty() || !on_text || on_text(piece);
  };
  while (true) {
    double logprob = 0;
    const int32_t id = next_token(run, logits, generation.sampling, seen, answer_.ids.size(), &logprob);
    if (std::find(stop.begin(), stop.end(), id) != stop.end()) {
      answer_.stopped = true;
      break;
    }
    answer_.ids.push_back(id);
    answer_.logprobs.push_back(logprob);
    const auto place = std::lower_bound(seen.begin(), seen.end(), id);
    if (place == seen.end() || *place != id) seen.insert(place, id);
    if (!m.tokenizer.is_control(id) && !say(stream.push(m.tokenizer.bytes(id)))) break;
    if (int64_t(answer_.ids.size()) == generation.max_tokens || cache_->used == options_.context) break;
    run.step("answer", int64_t(answer_.ids.size()), generation.max_tokens);
    Chunk chunk;
    chunk.ids = {id};
    chunk.positions = {{next_position, next_position, next_position}};
    chunk.phase = Phase::step;
    ++next_position;
    decode(run, m.config.text, weights().decoder, *cache_, chunk, Logits::last, logits);
    cached_.push_back({id, -1});
  }
  say(stream.finish());
  answer_.marked_text = m.tokenizer.decode(answer_.ids, false);
}

}  // namespace bg
