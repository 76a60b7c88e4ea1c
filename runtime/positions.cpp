// See positions.h.
#include "runtime/positions.h"

#include <algorithm>
#include <cmath>

namespace bg {

std::vector<PatchPosition> patch_positions(Grid grid, int64_t merge) {
  std::vector<PatchPosition> out;
  out.reserve(size_t(grid.patches()));
  for (int64_t t = 0; t < grid.t; ++t)
    for (int64_t block_row = 0; block_row < grid.h; block_row += merge)
      for (int64_t block_col = 0; block_col < grid.w; block_col += merge)
        for (int64_t y = 0; y < merge; ++y)
          for (int64_t x = 0; x < merge; ++x) out.push_back({block_row + y, block_col + x});
  return out;
}

namespace {

// Point i of n spread evenly over 0 … last, in float32 as the reference (torch.linspace) computes it: from the nearer end, with one rounding.
float spread(int64_t i, int64_t n, float last) {
  if (n == 1) return 0;
  const float step = last / float(n - 1);
  return i < n / 2 ? step * float(i) : std::fma(-step, float(n - 1 - i), last);
}

// f_i = base^(−2i/n) in float32.
float frequency(double base, int64_t i, int64_t n) { return 1.0f / float(std::pow(base, double(float(2 * i) / float(n)))); }

// The angle is a float32 product (the reference's definition); its cosine and sine are correctly rounded.
void put_angle(RotaryTable& table, int64_t position, float f) {
  const double angle = double(float(position) * f);
  table.cos.push_back(float(std::cos(angle)));
  table.sin.push_back(float(std::sin(angle)));
}

}  // namespace

Interpolation interpolate_positions(Grid grid, const std::vector<PatchPosition>& patches, int64_t side) {
  Interpolation out;
  for (const PatchPosition& p : patches) {
    const float y = spread(p.row, grid.h, float(side - 1)), x = spread(p.col, grid.w, float(side - 1));
    const int32_t y0 = int32_t(y), x0 = int32_t(x);
    const int32_t y1 = std::min<int32_t>(y0 + 1, int32_t(side - 1)), x1 = std::min<int32_t>(x0 + 1, int32_t(side - 1));
    const float dy = y - float(y0), dx = x - float(x0);
    const int32_t n = int32_t(side);
    out.index.insert(out.index.end(), {y0 * n + x0, y0 * n + x1, y1 * n + x0, y1 * n + x1});
    out.weight.insert(out.weight.end(), {(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx});
  }
  return out;
}

RotaryTable vit_rotary(const std::vector<PatchPosition>& patches, int64_t head_dim) {
  RotaryTable table;
  table.cols = head_dim / 2;
  for (const PatchPosition& p : patches)
    for (int64_t position : {p.row, p.col})
      for (int64_t i = 0; i < head_dim / 4; ++i) put_angle(table, position, frequency(10000.0, i, head_dim / 2));
  return table;
}

RotaryTable decoder_rotary(const std::vector<Position>& positions, const Config::Text& config) {
  const int64_t half = config.head_dim / 2;
  std::vector<float> f;
  std::vector<int> axis;
  for (int64_t i = 0; i < half; ++i) {
    f.push_back(frequency(config.rope_theta, i, config.head_dim));
    const int a = int(i % 3);
    axis.push_back(a != 0 && i < 3 * config.mrope_section[a] ? a : 0);
  }
  RotaryTable table;
  table.cols = half;
  for (const Position& p : positions)
    for (int64_t i = 0; i < half; ++i) put_angle(table, p[size_t(axis[size_t(i)])], f[size_t(i)]);
  return table;
}

std::vector<Position> prompt_positions(int64_t tokens, const std::vector<VisualRun>& runs, bool plain, int64_t* next) {
  std::vector<Position> out;
  out.reserve(size_t(tokens));
  int64_t b = 0;
  const auto text_until = [&](int64_t end) {
    while (int64_t(out.size()) < end) {
      out.push_back({b, b, b});
      ++b;
    }
  };
  for (const VisualRun& run : runs) {
    text_until(run.first);
    const int64_t plane = run.rows * run.cols;
    for (int64_t s : run.kept) {
      const int64_t t = plain ? 0 : s / plane;
      out.push_back({b + t, b + s % plane / run.cols, b + s % run.cols});
    }
    b += plain ? std::max(run.rows, run.cols) : int64_t(run.kept.size());
  }
  text_until(tokens);
  *next = b;
  return out;
}

}  // namespace bg
