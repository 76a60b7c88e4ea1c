// Where the selector looked: kept tokens of one level → boxes in the source, with their share of the level's coverage gain. MODEL.md §3.
// In: kept token numbers and gains, the grid of tokens, the source's size. Out: cells, one per kept token, in the order given. Not here: drawing
// (loaders/sheet.h), selection.
#pragma once
#include <cstdint>
#include <vector>

#include "runtime/boxes.h"

namespace bg {

// Merged tokens: token = (frame pair · rows + row) · cols + col.
struct EvidenceGrid {
  int64_t t = 1, rows = 0, cols = 0;
  int64_t frames = 2;  // frames behind the t pairs: 2t, or 2t − 1 when the last frame was repeated to fill its pair
};

struct EvidenceCell {
  int64_t token = 0;
  SourceBox at;       // edges: pixels and slices; of a slide level-0 pixels, z 0 … 1
  double gain = 0;    // as given; 0 when there were none
  double weight = 0;  // gain / Σ gain; equal shares when there are no gains (everything was kept) or all are 0
};

// size: (width, height, slices) of the source as loaded; slices 1 for an image. Every resize on the way stretches the whole picture, so cell (row, col) is
// the same share of the source's sides, and frames f, f+1 of D' are slices f/D' … (f+2)/D' of all.
// gains: one per kept token, or none. Throws Error{invalid_argument} when the parts do not fit together.
std::vector<EvidenceCell> evidence_cells(const std::vector<int64_t>& kept, const std::vector<double>& gains, const EvidenceGrid& grid, const int64_t size[3]);
// Tiles of a slide. coords: (N, 2) level-0 x, y of each tile's corner; side: level-0 pixels.
std::vector<EvidenceCell> slide_cells(const std::vector<int64_t>& kept, const std::vector<double>& gains, const std::vector<int64_t>& coords, int64_t side);
// The same cells in other pixels, such as a thumbnail's: x and y times their factors.
std::vector<EvidenceCell> scaled_cells(std::vector<EvidenceCell> cells, double x_factor, double y_factor);

// One level, as it is drawn and written.
struct EvidenceLevel {
  std::string name;  // "top", "deepstack 1" …
  std::vector<EvidenceCell> cells;
};

}  // namespace bg
