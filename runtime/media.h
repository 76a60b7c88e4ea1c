// Pictures, volumes and slides become visual rows: patch vectors or tile features → encoder → selector → kept rows, one set per level (top, then
// DeepStack). MODEL.md §1–§3. Not here: preparing pixels (preprocess.h, volume.h), the prompt.
#pragma once
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "runtime/model.h"
#include "runtime/preprocess.h"
#include "runtime/prompt.h"
#include "runtime/run.h"
#include "runtime/selector.h"
#include "runtime/volume.h"

namespace bg {

// Something the session has seen.
struct Medium {
  MediumKind kind = MediumKind::image;
  ImageSteps image;             // images: sizes and window
  VolumeSteps volume;           // volumes: sizes and values
  Grid grid;                    // patches; slides: none
  int64_t merged_rows = 0, merged_cols = 0;  // of tokens in one frame; slides: 1, N
  int64_t tokens = 0;           // L, before selection
  int64_t budget = 0;           // k
  std::string sha256;           // of the pixels, voxels or features as given
  std::vector<Kept> kept;       // per level; empty until the first question where the choice depends on the text
  std::vector<Tensor> rows;     // per level, (kept_tokens, h): what the decoder reads
  // Only where the choice depends on the text, so that it can be made again: per level all L rows (L, h), or a slide's states (N, feature_dim).
  std::vector<Tensor> features;
  int64_t kept_tokens() const { return std::min(tokens, budget); }
};

// Which selector runs, from the checkpoint or the session's options.
struct SelectorChoice : Config::Selector {
  SelectorChoice(const Config::Selector& c = {}) : Config::Selector(c) {}
  uint64_t memory = kCoverageMemory;  // bytes up to which coverage may keep its matrix; a GPU's session gives what it has
};

// Sizes, before anything is computed. budget 0: the model's own.
void shape_image(const Config& c, const SelectorChoice& s, Size source, const ImageOptions& options, int64_t budget, Medium& medium);
void shape_volume(const Config& c, const SelectorChoice& s, int64_t nx, int64_t ny, int64_t nz, const VolumeOptions& options, int64_t budget, Medium& medium);
void shape_slide(const SelectorChoice& s, int64_t tiles, int64_t budget, Medium& medium);

// The choice waits for the question, because its text takes part.
bool waits_for_text(const SelectorChoice& s, const Medium& medium);

// The medium's own memory, in one block of the backend's: bytes, taking it (throws Error{too_large}), giving it back.
uint64_t medium_bytes(const Model& m, const SelectorChoice& s, const Ops& ops, const Medium& medium);
void take_rows(const Model& m, const SelectorChoice& s, Ops& ops, Medium& medium);
void release_rows(const Model& m, const SelectorChoice& s, Ops& ops, Medium& medium);

// What an encoder reads, in host memory; nothing of it while planning. features: a slide's (N, feature_dim). patches: patch vectors of frames
// [first, first + count), (count·h·w, 3·2·16·16), valid until the next call: made while a device works on the frames before.
struct EncoderInput {
  const float* features = nullptr;
  std::function<const float*(int64_t first, int64_t count)> patches;
};
int64_t frames_at_once(const Medium& medium);  // how many are asked for at most

// Fills features, or rows and kept. w: the model's weights, as the backend wants them.
void encode_medium(const Run& run, const Model& m, const Weights& w, const SelectorChoice& s, const EncoderInput& input, Medium& medium);
// Text rows (m, h): fills rows and kept from features.
void select_with_text(const Run& run, const Model& m, const Weights& w, const SelectorChoice& s, Tensor text, Medium& medium);

// Peak of the two, by running them against counting operations. shape: a medium after shape_*().
uint64_t encode_workspace(const Model& m, const SelectorChoice& s, const Ops& real, const Medium& shape);
uint64_t select_workspace(const Model& m, const SelectorChoice& s, const Ops& real, const Medium& shape, int64_t text_rows);

}  // namespace bg
