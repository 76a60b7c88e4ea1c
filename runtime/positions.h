// Positions: where each patch sits in its picture (ViT) and where each token sits in the prompt (decoder), and the rotary tables made from them.
// MODEL.md §1.2, §1.3, §4. Host memory, small. Not here: the rotation itself (kernels).
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "runtime/config.h"
#include "runtime/preprocess.h"

namespace bg {

struct PatchPosition {
  int64_t row = 0, col = 0;  // in patches, 0 … h−1, 0 … w−1
};

// In patch order: frame pair, block row, block column, then row and column inside the merge × merge block. P = t·h·w entries.
std::vector<PatchPosition> patch_positions(Grid grid, int64_t merge);

// The four neighbours of every patch in the learned side × side table and their bilinear weights, 4 per patch.
struct Interpolation {
  std::vector<int32_t> index;
  std::vector<float> weight;
};
Interpolation interpolate_positions(Grid grid, const std::vector<PatchPosition>& patches, int64_t side);

// cos and sin of the rotary angles, (T, d/2) each, float32.
struct RotaryTable {
  std::vector<float> cos, sin;
  int64_t cols = 0;
};
// ViT: angles [row·f, col·f], f_i = 10000^(−2i/(d/2)), i = 0 … d/4−1, d = head dim.
RotaryTable vit_rotary(const std::vector<PatchPosition>& patches, int64_t head_dim);

// A token's place in the prompt, (t, y, x).
using Position = std::array<int64_t, 3>;
// Decoder: interleaved M-RoPE. f_i = theta^(−2i/d), i = 0 … d/2−1; angle_i = f_i · (y for i = 1, 4, … < 3·section[1]; x for i = 2, 5, … < 3·section[2]; else t).
RotaryTable decoder_rotary(const std::vector<Position>& positions, const Config::Text& config);

// Where a run of visual tokens lies in the sequence, and what it shows.
struct VisualRun {
  int64_t first = 0;           // index of its first token in the sequence
  std::vector<int64_t> kept;   // kept indices of the top selection, ascending; one token each
  int64_t rows = 0, cols = 0;  // H, W of the merged grid before selection (slides: 1, N)
};

// Positions of all `tokens` tokens, MODEL.md §4. plain: the rules of Qwen3-VL instead (text after an image at its largest position + 1).
// next: the position of the first generated token.
std::vector<Position> prompt_positions(int64_t tokens, const std::vector<VisualRun>& runs, bool plain, int64_t* next);

}  // namespace bg
