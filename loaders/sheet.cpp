// See sheet.h.
#include "loaders/sheet.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "loaders/error.h"

namespace bg {
namespace {

constexpr int64_t kMostPixels = 2048;  // sides of a sheet
constexpr int64_t kSmallPanel = 320;   // smaller panels are enlarged, at most to this
constexpr int64_t kGap = 6;            // pixels between panels
constexpr int64_t kMostSlices = 16, kMostPairs = 5;
constexpr Colour kGround = {24, 24, 28}, kInk = {235, 235, 235};

// Panels of one size on a grid. A source pixel becomes up × up pixels, or down × down of them become one; one of the two is 1.
struct Layout {
  int64_t columns = 1, rows = 1;
  int64_t width = 0, height = 0;  // of the source
  int64_t up = 1, down = 1;

  Layout(int64_t source_width, int64_t source_height, int64_t columns_, int64_t rows_) : columns(columns_), rows(rows_), width(source_width), height(source_height) {
    const int64_t wide = (kMostPixels - kGap) / columns - kGap, high = (kMostPixels - kGap) / rows - kGap - caption();
    if (wide < 1 || high < 1) throw Error(Status::invalid_argument, "sheet: " + std::to_string(columns) + "x" + std::to_string(rows) + " panels are too many");
    down = std::max((width + wide - 1) / wide, (height + high - 1) / high);
    if (down == 1) up = std::max<int64_t>(1, std::min({kSmallPanel / std::max(width, height), wide / width, high / height}));
  }
  static int64_t caption() { return 9 * 2; }
  int64_t panel_width() const { return (width + down - 1) / down * up; }
  int64_t panel_height() const { return (height + down - 1) / down * up; }
  double factor() const { return double(up) / double(down); }
  Canvas sheet() const {
    return blank(columns * (panel_width() + kGap) + kGap, rows * (panel_height() + caption() + kGap) + kGap, kGround);
  }
  void paste(Canvas& sheet, int64_t index, const Canvas& panel, const std::string& text) const {
    const int64_t x = kGap + index % columns * (panel_width() + kGap), y = kGap + index / columns * (panel_height() + caption() + kGap);
    const int64_t scale = panel_width() >= 300 ? 2 : 1;  // the same for all panels
    draw_text(sheet, x, y, scale, text.substr(0, size_t(std::max<int64_t>(1, panel_width() / (6 * scale)))), kInk, kGround);
    for (int64_t row = 0; row < panel.height; ++row) {
      std::copy_n(panel.rgb.begin() + row * panel.width * 3, panel.width * 3, sheet.rgb.begin() + ((y + caption() + row) * sheet.width + x) * 3);
    }
  }
};

// The mean of down × down pixels (fewer at the right and lower edge), repeated up times. value(x, y, channel) gives 0 … 255.
template <class Value>
Canvas make_panel(const Layout& l, const Value& value) {
  Canvas panel = blank(l.panel_width(), l.panel_height(), {0, 0, 0});
  for (int64_t y = 0; y * l.down < l.height; ++y) {
    for (int64_t x = 0; x * l.down < l.width; ++x) {
      Colour mean;
      const int64_t right = std::min((x + 1) * l.down, l.width), low = std::min((y + 1) * l.down, l.height), count = (right - x * l.down) * (low - y * l.down);
      for (int i = 0; i < 3; ++i) {
        int64_t sum = 0;
        for (int64_t sy = y * l.down; sy < low; ++sy)
          for (int64_t sx = x * l.down; sx < right; ++sx) sum += value(sx, sy, i);
        mean[size_t(i)] = uint8_t((sum + count / 2) / count);
      }
      fill(panel, {x * l.up, (x + 1) * l.up}, {y * l.up, (y + 1) * l.up}, mean);
    }
  }
  return panel;
}

Canvas slice_panel(const Layout& l, const Voxels& v, int64_t z, double low, double high) {
  const float* slice = v.data + z * v.ny * v.nx;
  return make_panel(l, [&](int64_t x, int64_t y, int) { return int64_t(windowed(double(slice[y * v.nx + x]), low, high)); });
}

SourceBox scaled(SourceBox box, double factor) {
  for (int i = 0; i < 2; ++i) {
    box.low[i] *= factor;
    box.high[i] *= factor;
  }
  return box;
}

double largest_weight(const std::vector<EvidenceCell>& cells) {
  double most = 0;
  for (const EvidenceCell& c : cells) most = std::max(most, c.weight);
  return most;
}

// Cells as tinted rectangles whose inner rim is stronger, so that neighbours stay apart.
void paint_cell(Canvas& canvas, const SourceBox& at, double share) {
  const Span x = span_of(at.low[0], at.high[0], canvas.width), y = span_of(at.low[1], at.high[1], canvas.height);
  const Colour colour = heat_colour(share);
  tint(canvas, x, y, colour, 0.15 + 0.40 * share);
  const int64_t rim = (x.end - x.begin >= 8 && y.end - y.begin >= 8) ? 1 : 0;
  const double alpha = 0.75;
  tint(canvas, x, {y.begin, y.begin + rim}, colour, alpha);
  tint(canvas, x, {y.end - rim, y.end}, colour, alpha);
  tint(canvas, {x.begin, x.begin + rim}, {y.begin + rim, y.end - rim}, colour, alpha);
  tint(canvas, {x.end - rim, x.end}, {y.begin + rim, y.end - rim}, colour, alpha);
}

void check_volume(const Voxels& v) {
  if (v.nx < 1 || v.ny < 1 || v.nz < 1 || v.data == nullptr) throw Error(Status::invalid_argument, "sheet: the volume has no voxels");
}

// Slices that a box touches, or all.
std::vector<int64_t> touched_slices(const std::vector<MarkedBox>& boxes, int64_t nz) {
  std::vector<int32_t> edge(size_t(nz) + 1, 0);  // +1 where a box begins, −1 behind its end
  for (const MarkedBox& box : boxes) {
    const Span z = span_of(box.at.low[2], box.at.high[2], nz);
    const int64_t begin = std::clamp<int64_t>(z.begin, 0, nz), end = std::clamp<int64_t>(z.end, 0, nz);
    if (begin >= end) continue;
    ++edge[size_t(begin)];
    --edge[size_t(end)];
  }
  std::vector<int64_t> touched;
  int64_t open = 0;
  for (int64_t z = 0; z < nz; ++z) {
    open += edge[size_t(z)];
    if (open > 0) touched.push_back(z);
  }
  if (!touched.empty()) return touched;
  for (int64_t z = 0; z < nz; ++z) touched.push_back(z);
  return touched;
}

std::vector<int64_t> spread(const std::vector<int64_t>& all, int64_t most) {
  const int64_t n = int64_t(all.size());
  if (n <= most) return all;
  std::vector<int64_t> some;
  for (int64_t i = 0; i < most; ++i) some.push_back(all[size_t(i * (n - 1) / (most - 1))]);
  return some;
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f%%", share * 100);
  return text;
}

}  // namespace

// Blue, green and yellow are rare in X-ray, ultrasound, MRI and stained tissue alike, so all but the strongest cells stand out.
Colour heat_colour(double share) {
  static constexpr double stops[4][3] = {{40, 110, 255}, {40, 215, 120}, {255, 230, 40}, {240, 25, 25}};
  const double at = std::fmin(std::fmax(share, 0), 1) * 3;
  const int i = std::min(int(at), 2);
  Colour c;
  for (size_t k = 0; k < 3; ++k) c[k] = uint8_t(stops[i][k] + (stops[i + 1][k] - stops[i][k]) * (at - i) + 0.5);
  return c;
}

Canvas box_sheet(const Voxels& volume, double low, double high, const std::vector<MarkedBox>& boxes) {
  check_volume(volume);
  const std::vector<int64_t> slices = spread(touched_slices(boxes, volume.nz), kMostSlices);
  const std::vector<Mark> marks = marks_of(boxes);
  const int64_t n = int64_t(slices.size()), columns = int64_t(std::ceil(std::sqrt(double(n))));
  const Layout layout(volume.nx, volume.ny, columns, (n + columns - 1) / columns);
  Canvas sheet = layout.sheet();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t z = slices[size_t(i)];
    Canvas panel = slice_panel(layout, volume, z, low, high);
    std::vector<Mark> here;
    for (const Mark& mark : marks) {
      const Span range = span_of(mark.box.at.low[2], mark.box.at.high[2], volume.nz);
      if (z < range.begin || z >= range.end) continue;
      here.push_back(mark);
      here.back().box.at = scaled(mark.box.at, layout.factor());
    }
    draw_marks(panel, here);
    layout.paste(sheet, i, panel, "slice " + std::to_string(z));
  }
  return sheet;
}

Canvas evidence_picture(const Canvas& picture, const std::vector<EvidenceLevel>& levels) {
  const int64_t n = int64_t(levels.size());
  if (n < 1 || picture.width < 1 || picture.height < 1) throw Error(Status::invalid_argument, "sheet: no evidence or no picture to draw it on");
  const int64_t columns = int64_t(std::ceil(std::sqrt(double(n))));
  const Layout layout(picture.width, picture.height, columns, (n + columns - 1) / columns);
  Canvas sheet = layout.sheet();
  const Canvas reduced = make_panel(layout, [&](int64_t x, int64_t y, int i) { return int64_t(picture.rgb[size_t((y * picture.width + x) * 3 + i)]); });
  for (int64_t i = 0; i < n; ++i) {
    const EvidenceLevel& level = levels[size_t(i)];
    Canvas panel = reduced;
    const double most = largest_weight(level.cells);
    for (const EvidenceCell& cell : level.cells) paint_cell(panel, scaled(cell.at, layout.factor()), most > 0 ? cell.weight / most : 0);
    layout.paste(sheet, i, panel, level.name);
  }
  return sheet;
}

Canvas evidence_sheet(const Voxels& volume, double low, double high, const std::vector<EvidenceLevel>& levels) {
  check_volume(volume);
  if (levels.empty()) throw Error(Status::invalid_argument, "sheet: no evidence to draw");
  struct Pair {
    double low, high;  // slices, edges
    double weight;
  };
  std::vector<std::vector<Pair>> chosen;
  size_t columns = 1;
  for (const EvidenceLevel& level : levels) {
    std::map<std::pair<double, double>, double> weights;
    for (const EvidenceCell& cell : level.cells) weights[{cell.at.low[2], cell.at.high[2]}] += cell.weight;
    std::vector<Pair> pairs;
    for (const auto& [range, weight] : weights) pairs.push_back({range.first, range.second, weight});
    std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.weight > b.weight; });
    pairs.resize(std::min(pairs.size(), size_t(kMostPairs)));
    std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.low < b.low; });
    columns = std::max(columns, pairs.size());
    chosen.push_back(pairs);
  }
  const Layout layout(volume.nx, volume.ny, int64_t(columns), int64_t(levels.size()));
  Canvas sheet = layout.sheet();
  for (size_t i = 0; i < levels.size(); ++i) {
    const double most = largest_weight(levels[i].cells);
    for (size_t j = 0; j < chosen[i].size(); ++j) {
      const Pair& pair = chosen[i][j];
      const Span z = span_of(pair.low, pair.high, volume.nz);
      const int64_t middle = std::clamp<int64_t>((z.begin + z.end - 1) / 2, 0, volume.nz - 1);
      Canvas panel = slice_panel(layout, volume, middle, low, high);
      for (const EvidenceCell& cell : levels[i].cells) {
        if (cell.at.low[2] == pair.low && cell.at.high[2] == pair.high) paint_cell(panel, scaled(cell.at, layout.factor()), most > 0 ? cell.weight / most : 0);
      }
      const std::string range = z.end - z.begin == 1 ? "z" + std::to_string(z.begin) : "z" + std::to_string(z.begin) + "-" + std::to_string(z.end - 1);
      layout.paste(sheet, int64_t(i * columns + j), panel, levels[i].name + " " + range + " " + percent(pair.weight));
    }
  }
  return sheet;
}

}  // namespace bg
