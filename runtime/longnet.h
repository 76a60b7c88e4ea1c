// The slide branch, LongNet over frozen patch embeddings, MODEL.md §2. In: tile features. Out: the state of every tile after each layer, and, through an
// affine map, feature matrices of the decoder's width. States and maps are apart because at 100,000 tiles a feature matrix of the decoder's width takes
// gigabytes and only the kept rows of it are ever needed.
// Not here: files of features, the choice of rows.
#pragma once
#include <vector>

#include "runtime/config.h"
#include "runtime/run.h"
#include "runtime/weights.h"

namespace bg {

// features: (N, feature_dim) host memory in file order, rounded to bfloat16 here; not read while planning. states[i]: (N, feature_dim), x after layer i, one
// tensor for each layer. Work, memory and scratch: no tile sees further than its window of kSlideWindow tiles, so layers run window by window.
// Throws Error{invalid_argument} for N == 0.
constexpr int64_t kSlideWindow = 2048;  // tiles: the largest segment, a multiple of the others
void longnet(const Run& run, const Config::Slide& config, const SlideWeights& w, const float* features, const std::vector<Tensor>& states);

// out_t = P·state_t + c (decoder width) for the states given: gathered rows, or a block of them.
void project_rows(const Run& run, const Linear& projector, Tensor states, Tensor out);

// All rows of all levels, for few tiles: features[0] top, features[1 + i] DeepStack level i, each (N, h).
void project_slide(const Run& run, const SlideWeights& w, const std::vector<Tensor>& states, const std::vector<Tensor>& features);

}  // namespace bg
