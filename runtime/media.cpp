// See media.h.
#include "runtime/media.h"

#include "loaders/error.h"
#include "runtime/longnet.h"
#include "runtime/plan.h"
#include "runtime/slide_select.h"
#include "runtime/trace.h"
#include "runtime/vit.h"

namespace bg {
namespace {

constexpr int64_t kEncodedPatches = 4096;  // at once, but one frame at least: those of a picture of 1024 × 1024

int64_t budget_of(const SelectorChoice& s, int64_t tokens, int64_t models_own, int64_t asked) {
  if (!s.enabled) return tokens;
  return asked > 0 ? asked : models_own;
}

void shape_grid(const Config& c, Grid grid, Medium& medium) {
  medium.grid = grid;
  medium.merged_rows = grid.h / c.vision.merge;
  medium.merged_cols = grid.w / c.vision.merge;
  medium.tokens = grid.t * medium.merged_rows * medium.merged_cols;
}

// Level 0 is the top: a slide's last layer; level 1 + i is DeepStack level i: its layer i.
size_t state_of(const Model& m, size_t level) { return level == 0 ? size_t(m.config.slide.layers) - 1 : level - 1; }

// Width and number of feature matrices that are kept for later choices.
int64_t feature_width(const Model& m, const Medium& medium) { return medium.kind == MediumKind::slide ? m.config.slide.feature_dim : m.config.text.hidden; }
int64_t feature_count(const Model& m, const Medium& medium) { return medium.kind == MediumKind::slide ? m.config.slide.layers : m.levels(); }

int64_t row_elements(const Model& m, const Medium& medium) { return m.levels() * medium.kept_tokens() * m.config.text.hidden; }
int64_t feature_elements(const Model& m, const SelectorChoice& s, const Medium& medium) {
  return waits_for_text(s, medium) ? feature_count(m, medium) * medium.tokens * feature_width(m, medium) : 0;
}

// A frame sees itself only (MODEL.md §1), so a volume's frames are encoded some at a time: memory for those, and the next are made meanwhile.
void encode_frames(const Run& run, const Model& m, const Weights& w, const EncoderInput& input, const Medium& medium, int64_t first, int64_t count,
                   const std::vector<Tensor>& features) {
  Arena::Scope scope(run.arena);
  const Grid grid{count, medium.grid.h, medium.grid.w};
  const Tensor x = run.arena.tensor(grid.patches(), w.vit.patch_embed.w.cols);
  if (!run.arena.counting()) run.ops.write(x, input.patches(first, count));
  run.tap(std::string(medium_name(medium.kind)) + ".patches", x);
  const int64_t tokens = medium.merged_rows * medium.merged_cols;
  std::vector<Tensor> part;
  for (const Tensor& f : features) part.push_back(f.row_range(first * tokens, count * tokens));
  vit(run, m.config.vision, w.vit, x, grid, part);
}

void tap_kept(const Run& run, const Kept& kept, size_t level) {
  if (run.trace) run.trace->integers("selector." + (level == 0 ? "top" : "deepstack." + std::to_string(level - 1)), kept.index);
}

// §3d. While planning, no factor is made.
Kept choose_tiles(const Run& run, const Model& m, size_t level, Tensor states, Tensor guide, int64_t k, uint64_t memory) {
  static const SlideFactor none;
  return select_slide_coverage(run, states, m.weights.slide.projector_of(level), run.arena.counting() ? none : m.slide_factor(int64_t(level)), guide, k, memory);
}

// §3: every level chooses for itself.
void choose(const Run& run, const Model& m, const Weights& w, const SelectorChoice& s, const std::vector<Tensor>& features, Tensor text, Medium& medium) {
  std::vector<Kept> chosen;
  for (size_t l = 0; l < size_t(m.levels()); ++l) {
    run.step("selection", int64_t(l), m.levels());
    Arena::Scope scope(run.arena);
    const bool slide = medium.kind == MediumKind::slide;
    const Tensor x = features[slide ? state_of(m, l) : l];
    const Tensor out = medium.rows[l].row_range(0, medium.kept_tokens());
    const Tensor guide = s.use_text || s.kind == "ConceptSelector" ? text : Tensor{};
    const ConceptWeights& concepts = l == 0 ? w.concept_top : w.concept_deep;
    Kept kept;
    if (s.kind == "ConceptSelector")
      kept = slide ? select_concept(run, concepts, w.slide.projector_of(l), x, guide, medium.budget) : select_concept(run, concepts, x, guide, medium.budget);
    else
      kept = slide ? choose_tiles(run, m, l, x, guide, medium.budget, s.memory) : select_coverage(run, x, guide, medium.budget, s.memory);
    if (slide) {
      const Tensor states = run.arena.tensor(out.rows, x.cols);
      run.ops.gather_rows(states, x, kept.index.data());
      project_rows(run, w.slide.projector_of(l), states, out);
    } else {
      run.ops.gather_rows(out, x, kept.index.data());
    }
    tap_kept(run, kept, l);
    chosen.push_back(std::move(kept));
  }
  run.step("selection", m.levels(), m.levels());
  medium.kept = std::move(chosen);
}

}  // namespace

void shape_image(const Config& c, const SelectorChoice& s, Size source, const ImageOptions& options, int64_t budget, Medium& medium) {
  medium.kind = MediumKind::image;
  medium.image = plan_image(source, options);
  shape_grid(c, image_grid(medium.image, c.vision.patch), medium);
  medium.budget = budget_of(s, medium.tokens, s.image_tokens, budget);
}

void shape_volume(const Config& c, const SelectorChoice& s, int64_t nx, int64_t ny, int64_t nz, const VolumeOptions& options, int64_t budget, Medium& medium) {
  medium.kind = MediumKind::volume;
  medium.volume = plan_volume(nx, ny, nz, options);
  shape_grid(c, medium.volume.grid, medium);
  medium.budget = budget_of(s, medium.tokens, s.volume_tokens, budget);
}

void shape_slide(const SelectorChoice& s, int64_t tiles, int64_t budget, Medium& medium) {
  medium.kind = MediumKind::slide;
  medium.merged_rows = 1;
  medium.merged_cols = tiles;
  medium.tokens = tiles;
  medium.budget = budget_of(s, tiles, s.slide_tokens, budget);
}

bool waits_for_text(const SelectorChoice& s, const Medium& medium) {
  return s.enabled && (s.use_text || s.kind == "ConceptSelector") && medium.tokens > medium.budget;
}

uint64_t medium_bytes(const Model& m, const SelectorChoice& s, const Ops& ops, const Medium& medium) {
  return uint64_t(row_elements(m, medium) + feature_elements(m, s, medium)) * type_size(ops.type());
}

void take_rows(const Model& m, const SelectorChoice& s, Ops& ops, Medium& medium) {
  char* base = static_cast<char*>(ops.allocate(medium_bytes(m, s, ops, medium)));
  if (!base) throw Error(Status::too_large, std::string("no memory for the visual rows of a ") + medium_name(medium.kind));
  const auto part = [&](int64_t rows, int64_t cols) {
    const Tensor t{base, ops.type(), rows, cols, cols};
    base += size_t(rows * cols) * type_size(ops.type());
    return t;
  };
  for (int64_t l = 0; l < m.levels(); ++l) medium.rows.push_back(part(medium.kept_tokens(), m.config.text.hidden));
  for (int64_t i = 0; waits_for_text(s, medium) && i < feature_count(m, medium); ++i) medium.features.push_back(part(medium.tokens, feature_width(m, medium)));
}

void release_rows(const Model& m, const SelectorChoice& s, Ops& ops, Medium& medium) {
  if (!medium.rows.empty()) ops.release(medium.rows[0].data, medium_bytes(m, s, ops, medium));
  medium.rows.clear();
}

int64_t frames_at_once(const Medium& medium) { return std::clamp<int64_t>(kEncodedPatches / (medium.grid.h * medium.grid.w), 1, medium.grid.t); }

void encode_medium(const Run& run, const Model& m, const Weights& w, const SelectorChoice& s, const EncoderInput& input, Medium& medium) {
  Arena::Scope scope(run.arena);
  std::vector<Tensor> features = medium.features;
  for (int64_t i = int64_t(features.size()); i < feature_count(m, medium); ++i) features.push_back(run.arena.tensor(medium.tokens, feature_width(m, medium)));
  if (medium.kind == MediumKind::slide) {
    longnet(run, m.config.slide, w.slide, input.features, features);
  } else {
    const int64_t most = frames_at_once(medium);
    for (int64_t first = 0; first < medium.grid.t; first += most) encode_frames(run, m, w, input, medium, first, std::min(most, medium.grid.t - first), features);
  }
  if (!waits_for_text(s, medium)) choose(run, m, w, s, features, {}, medium);
}

void select_with_text(const Run& run, const Model& m, const Weights& w, const SelectorChoice& s, Tensor text, Medium& medium) {
  choose(run, m, w, s, medium.features, text, medium);
}

namespace {
// What body(run, medium) takes of the workspace, of a medium shaped like this one.
template <class Body>
uint64_t planned(const Model& m, const SelectorChoice& s, const Ops& real, const Medium& shape, const Body& body) {
  const std::unique_ptr<Ops> ops = make_plan_ops(real);
  Arena arena(*ops, 0);
  Medium medium = shape;
  medium.rows.clear();
  medium.features.clear();
  take_rows(m, s, *ops, medium);
  body({*ops, arena, nullptr, nullptr}, medium);
  return arena.peak();
}
}  // namespace

uint64_t encode_workspace(const Model& m, const SelectorChoice& s, const Ops& real, const Medium& shape) {
  return planned(m, s, real, shape, [&](const Run& run, Medium& medium) { encode_medium(run, m, m.weights, s, {}, medium); });
}

uint64_t select_workspace(const Model& m, const SelectorChoice& s, const Ops& real, const Medium& shape, int64_t text_rows) {
  if (!waits_for_text(s, shape)) return 0;
  return planned(m, s, real, shape,
                 [&](const Run& run, Medium& medium) { select_with_text(run, m, m.weights, s, run.arena.tensor(text_rows, m.config.text.hidden), medium); });
}

}  // namespace bg
