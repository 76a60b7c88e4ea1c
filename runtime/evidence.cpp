// See evidence.h.
#include "runtime/evidence.h"

#include <algorithm>
#include <cmath>

#include "loaders/error.h"

namespace bg {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(Status::invalid_argument, "evidence: " + what); }

std::vector<EvidenceCell> weighted(const std::vector<int64_t>& kept, const std::vector<double>& gains, int64_t tokens) {
  if (!gains.empty() && gains.size() != kept.size()) {
    refuse(std::to_string(kept.size()) + " kept tokens but " + std::to_string(gains.size()) + " gains; expected one each, or no gains");
  }
  double sum = 0;
  for (size_t i = 0; i < gains.size(); ++i) {
    if (!(gains[i] >= 0) || !std::isfinite(gains[i])) refuse("gain " + std::to_string(i) + " is " + std::to_string(gains[i]) + "; expected 0 or more");
    sum += gains[i];
  }
  if (!std::isfinite(sum)) refuse("the gains are too large to be added");
  std::vector<EvidenceCell> cells(kept.size());
  for (size_t i = 0; i < kept.size(); ++i) {
    if (kept[i] < 0 || kept[i] >= tokens) refuse("kept token " + std::to_string(kept[i]) + " is not among the " + std::to_string(tokens) + " tokens of the medium");
    cells[i].token = kept[i];
    cells[i].gain = gains.empty() ? 0 : gains[i];
    cells[i].weight = sum > 0 ? cells[i].gain / sum : 1 / double(kept.size());
  }
  return cells;
}

}  // namespace

std::vector<EvidenceCell> evidence_cells(const std::vector<int64_t>& kept, const std::vector<double>& gains, const EvidenceGrid& grid, const int64_t size[3]) {
  constexpr int64_t most = int64_t(1) << 20;  // a side of the grid: the product stays below 2⁶³
  for (const int64_t n : {grid.t, grid.rows, grid.cols}) {
    if (n < 1 || n > most) refuse("a token grid of " + std::to_string(grid.t) + "x" + std::to_string(grid.rows) + "x" + std::to_string(grid.cols) + " does not exist");
  }
  if (grid.frames != 2 * grid.t && grid.frames != 2 * grid.t - 1) {
    refuse(std::to_string(grid.frames) + " frames do not make " + std::to_string(grid.t) + " pairs");
  }
  for (int i = 0; i < 3; ++i)
    if (size[i] < 1) refuse("axis " + std::to_string(i) + " of the source has size " + std::to_string(size[i]) + "; expected at least 1");
  std::vector<EvidenceCell> cells = weighted(kept, gains, grid.t * grid.rows * grid.cols);
  for (EvidenceCell& cell : cells) {
    const int64_t pair = cell.token / (grid.rows * grid.cols), row = cell.token / grid.cols % grid.rows, col = cell.token % grid.cols;
    const int64_t low[3] = {col, row, 2 * pair}, high[3] = {col + 1, row + 1, std::min(2 * pair + 2, grid.frames)}, of[3] = {grid.cols, grid.rows, grid.frames};
    for (int i = 0; i < 3; ++i) {
      cell.at.low[i] = double(low[i]) / double(of[i]) * double(size[i]);
      cell.at.high[i] = double(high[i]) / double(of[i]) * double(size[i]);
    }
  }
  return cells;
}

std::vector<EvidenceCell> slide_cells(const std::vector<int64_t>& kept, const std::vector<double>& gains, const std::vector<int64_t>& coords, int64_t side) {
  if (side < 1) refuse("the tiles' side in level-0 pixels is unknown; the features file has no patch_size_level0");
  if (coords.size() % 2 != 0 || coords.empty()) refuse("the features file has no coordinates of its tiles");
  std::vector<EvidenceCell> cells = weighted(kept, gains, int64_t(coords.size() / 2));
  for (EvidenceCell& cell : cells) {
    for (size_t i = 0; i < 2; ++i) {
      cell.at.low[i] = double(coords[size_t(cell.token) * 2 + i]);
      cell.at.high[i] = cell.at.low[i] + double(side);
    }
    cell.at.high[2] = 1;
  }
  return cells;
}

std::vector<EvidenceCell> scaled_cells(std::vector<EvidenceCell> cells, double x_factor, double y_factor) {
  const double factor[2] = {x_factor, y_factor};
  for (EvidenceCell& cell : cells) {
    for (int i = 0; i < 2; ++i) {
      cell.at.low[i] *= factor[i];
      cell.at.high[i] *= factor[i];
    }
  }
  return cells;
}

}  // namespace bg
