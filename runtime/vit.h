// The ViT with its merger and DeepStack mergers, MODEL.md §1. In: patch vectors. Out: 1 + levels feature matrices of the decoder's width.
#pragma once
#include <vector>

#include "runtime/config.h"
#include "runtime/preprocess.h"
#include "runtime/run.h"
#include "runtime/weights.h"

namespace bg {

// features[0]: merger output; features[1 + i]: DeepStack level i. Each (L, h), L = t·(h/2)·(w/2), written to the given tensors.
// patches: (P, 3·2·16·16) in patch order.
void vit(const Run& run, const Config::Vision& config, const VitWeights& w, Tensor patches, Grid grid, const std::vector<Tensor>& features);

}  // namespace bg
