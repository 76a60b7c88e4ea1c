// Frames → patch vectors, the one place that knows their order (MODEL.md §0.6): pictures and volumes share it. Not here: sizes, normalisation.
#pragma once
#include "runtime/preprocess.h"

namespace bg {

constexpr int64_t patch_side = 16, merge_side = 2, frame_pair = 2;  // pixels; patches per side of a merged token; frames in a patch
constexpr int64_t patch_numbers = 3 * frame_pair * patch_side * patch_side;

// One pair of frames → out (size.height/16 · size.width/16, 1536); returns the end of what was written. value(c, τ, i) is the normalised number of
// channel c, frame τ, pixel i = row·width + column. Patches run over blocks of 2×2 (row, column), inside a block over rows, then columns; index in a
// vector ((c·2 + τ)·16 + y)·16 + x.
template <class Value>
float* write_frame_pair(float* out, Size size, const Value& value) {
  const int64_t side = patch_side * merge_side;
  for (int64_t by = 0; by < size.height; by += side) {
    for (int64_t bx = 0; bx < size.width; bx += side) {
      for (int64_t inner = 0; inner < merge_side * merge_side; ++inner) {
        const int64_t y0 = by + inner / merge_side * patch_side, x0 = bx + inner % merge_side * patch_side;
        for (int64_t plane = 0; plane < 3 * frame_pair; ++plane) {
          const int64_t c = plane / frame_pair, tau = plane % frame_pair;
          for (int64_t i = 0; i < patch_side * patch_side; ++i) {
            *out++ = value(c, tau, (y0 + i / patch_side) * size.width + x0 + i % patch_side);
          }
        }
      }
    }
  }
  return out;
}

}  // namespace bg
