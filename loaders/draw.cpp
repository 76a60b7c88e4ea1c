// See draw.h.
#include "loaders/draw.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "loaders/error.h"
#include "loaders/font.h"

namespace bg {
namespace {

constexpr Colour kBlack = {0, 0, 0}, kWhite = {255, 255, 255};
constexpr size_t kMostTags = 256;  // more cannot be read, and their places would take quadratic time

Span cut(Span s, int64_t size) { return {std::clamp<int64_t>(s.begin, 0, size), std::clamp<int64_t>(s.end, 0, size)}; }

// A frame of thickness t inside the rectangle.
void frame(Canvas& c, Span x, Span y, int64_t t, Colour colour) {
  fill(c, x, {y.begin, std::min(y.begin + t, y.end)}, colour);
  fill(c, x, {std::max(y.end - t, y.begin), y.end}, colour);
  fill(c, {x.begin, std::min(x.begin + t, x.end)}, y, colour);
  fill(c, {std::max(x.end - t, x.begin), x.end}, y, colour);
}

void cross(Canvas& c, int64_t x, int64_t y, int64_t arm, int64_t t, int64_t grow, Colour colour) {
  const int64_t half = t / 2;
  fill(c, {x - arm - grow, x + arm + 1 + grow}, {y - half - grow, y - half + t + grow}, colour);
  fill(c, {x - half - grow, x - half + t + grow}, {y - arm - grow, y + arm + 1 + grow}, colour);
}

// One byte per character: ASCII as it is, control characters as spaces, every other character as DEL, which the font shows as a box.
std::string drawable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const uint8_t b = uint8_t(c);
    if ((b & 0xC0) == 0x80) continue;  // the rest of a UTF-8 character
    out += b >= 0x80 ? char(127) : b < 32 ? ' ' : c;
  }
  return out;
}

struct Rect {
  int64_t x, y, width, height;
  bool meets(const Rect& o) const { return x < o.x + o.width && o.x < x + width && y < o.y + o.height && o.y < y + height; }
};

// Above the box, below it, inside its top, each from the left or from the right edge: the first place that is free and in the picture. No place: the first.
Rect place_tag(const Canvas& c, Span x, Span y, int64_t width, int64_t height, const std::vector<Rect>& taken) {
  const auto inside = [&](int64_t at, int64_t n, int64_t size) { return std::clamp<int64_t>(at, 0, std::max<int64_t>(0, size - n)); };
  std::optional<Rect> fallback;
  for (const int64_t top : {y.begin - height, y.end, y.begin, y.end - height}) {
    for (const int64_t left : {x.begin, x.end - width}) {
      const Rect r{inside(left, width, c.width), inside(top, height, c.height), width, height};
      if (!fallback) fallback = r;
      const bool fits = top >= 0 && top + height <= c.height;
      if (fits && std::none_of(taken.begin(), taken.end(), [&r](const Rect& t) { return t.meets(r); })) return r;
    }
  }
  return *fallback;
}

Colour ink_on(Colour ground) { return 299 * ground[0] + 587 * ground[1] + 114 * ground[2] > 128'000 ? kBlack : kWhite; }

}  // namespace

Canvas blank(int64_t width, int64_t height, Colour colour) {
  constexpr int64_t most = int64_t(1) << 31;
  const std::string size = "picture: " + std::to_string(width) + "x" + std::to_string(height) + " pixels";
  if (width < 1 || height < 1) throw Error(Status::invalid_argument, size + "; expected at least 1x1");
  if (width > most || height > most / width) throw Error(Status::too_large, size + " are too many to draw");
  Canvas c{width, height, std::vector<uint8_t>(size_t(width * height) * 3)};
  if (colour != kBlack) fill(c, {0, width}, {0, height}, colour);
  return c;
}

uint8_t windowed(double v, double low, double high) {
  if (!(high > low)) return 0;
  const double scaled = (v - low) * 255 / (high - low) + 0.5;
  return scaled >= 255 ? 255 : scaled >= 1 ? uint8_t(scaled) : 0;  // a NaN is 0
}

Canvas canvas_of(const Image& image, double low, double high) {
  Canvas c{image.width, image.height, image.rgb};
  if (!image.grey16.empty()) {
    c.rgb.resize(image.grey16.size() * 3);
    for (size_t i = 0; i < image.grey16.size(); ++i) std::fill_n(c.rgb.begin() + int64_t(i * 3), 3, windowed(image.grey16[i], low, high));
  }
  return c;
}

Span span_of(double low, double high, int64_t size) {
  constexpr double far = double(int64_t(1) << 40);  // beyond every picture, and still exact in double and int64
  low = std::fmin(std::fmax(low, -far), far);  // a NaN is outside
  high = std::fmin(std::fmax(high, -far), far);
  // Pixel i has its centre at i + ½: inside when low ≤ i + ½ < high.
  Span s{int64_t(std::ceil(low - 0.5)), int64_t(std::ceil(high - 0.5))};
  if (s.end > s.begin) return s;
  const int64_t middle = int64_t(std::floor((low + high) / 2));
  s.begin = middle == size ? size - 1 : middle;  // the last edge belongs to the last pixel
  return {s.begin, s.begin + 1};
}

Colour palette_colour(size_t i) {
  static constexpr Colour palette[12] = {{255, 214, 10}, {64, 196, 255}, {255, 82, 82},  {105, 240, 120}, {255, 128, 220}, {255, 152, 40},
                                         {80, 230, 210}, {180, 140, 255}, {210, 240, 90}, {70, 120, 255},  {255, 190, 170}, {200, 120, 60}};
  return palette[i % 12];
}

std::vector<Mark> marks_of(const std::vector<MarkedBox>& boxes) {
  std::map<std::string_view, size_t> seen;
  std::vector<Mark> marks;
  for (const MarkedBox& box : boxes) {
    const Colour colour = palette_colour(seen.emplace(box.label, seen.size()).first->second);
    const std::string number = boxes.size() > 1 ? std::to_string(marks.size() + 1) : "";
    marks.push_back({box, colour, number + (number.empty() || box.label.empty() ? "" : " ") + box.label});
  }
  return marks;
}

void fill(Canvas& c, Span x, Span y, Colour colour) {
  x = cut(x, c.width);
  y = cut(y, c.height);
  for (int64_t row = y.begin; row < y.end; ++row) {
    uint8_t* p = c.rgb.data() + (row * c.width + x.begin) * 3;
    for (int64_t col = x.begin; col < x.end; ++col, p += 3) std::copy(colour.begin(), colour.end(), p);
  }
}

void tint(Canvas& c, Span x, Span y, Colour colour, double alpha) {
  x = cut(x, c.width);
  y = cut(y, c.height);
  for (int64_t row = y.begin; row < y.end; ++row) {
    uint8_t* p = c.rgb.data() + (row * c.width + x.begin) * 3;
    for (uint8_t* const end = p + std::max<int64_t>(0, x.end - x.begin) * 3; p < end; p += 3) {
      for (size_t i = 0; i < 3; ++i) p[i] = uint8_t(double(p[i]) * (1 - alpha) + double(colour[i]) * alpha + 0.5);
    }
  }
}

int64_t text_width(std::string_view text, int64_t scale) { return int64_t(drawable(text).size()) * (kGlyphWidth + 1) * scale + scale; }

void draw_text(Canvas& c, int64_t x, int64_t y, int64_t scale, std::string_view text, Colour ink, Colour ground) {
  fill(c, {x, x + text_width(text, scale)}, {y, y + (kGlyphHeight + 2) * scale}, ground);
  for (const char ch : drawable(text)) {
    for (int row = 0; row < kGlyphHeight; ++row) {
      for (int col = 0; col < kGlyphWidth; ++col) {
        if (!glyph_pixel(uint8_t(ch), col, row)) continue;
        const int64_t left = x + (col + 1) * scale, top = y + (row + 1) * scale;
        fill(c, {left, left + scale}, {top, top + scale}, ink);
      }
    }
    x += (kGlyphWidth + 1) * scale;
    if (x >= c.width) break;
  }
}

void draw_marks(Canvas& c, const std::vector<Mark>& marks) {
  const int64_t side = std::min(c.width, c.height);
  const bool tiny = side < 128;
  const int64_t thickness = tiny ? 1 : std::max<int64_t>(2, side / 250), scale = std::max<int64_t>(1, side / 350);
  const int64_t halo = tiny ? 0 : std::max<int64_t>(1, thickness / 3);  // a dark rim keeps bright lines visible on bright tissue
  std::vector<Rect> taken;
  for (const Mark& mark : marks) {
    const SourceBox& at = mark.box.at;
    Span x = span_of(at.low[0], at.high[0], c.width), y = span_of(at.low[1], at.high[1], c.height);
    if (mark.box.point) {
      const int64_t arm = 4 * thickness + 2;
      cross(c, x.begin, y.begin, arm, thickness, halo, kBlack);
      cross(c, x.begin, y.begin, arm, thickness, 0, mark.colour);
      x = {x.begin - arm, x.begin + arm + 1};
      y = {y.begin - arm, y.begin + arm + 1};
    } else {
      frame(c, {x.begin - halo, x.end + halo}, {y.begin - halo, y.end + halo}, thickness + 2 * halo, kBlack);
      frame(c, x, y, thickness, mark.colour);
    }
    const bool visible = x.begin < c.width && x.end > 0 && y.begin < c.height && y.end > 0;
    if (!visible || mark.tag.empty() || taken.size() == kMostTags) continue;
    std::string tag = drawable(mark.tag);
    const size_t room = size_t(std::max<int64_t>(1, (c.width - scale) / (scale * (kGlyphWidth + 1))));
    if (tag.size() > room) tag = room > 2 ? tag.substr(0, room - 2) + ".." : tag.substr(0, room);
    taken.push_back(place_tag(c, x, y, text_width(tag, scale), (kGlyphHeight + 2) * scale, taken));
    draw_text(c, taken.back().x, taken.back().y, scale, tag, ink_on(mark.colour), mark.colour);
  }
}

void fill_mask(std::vector<uint8_t>& mask, const int64_t size[3], const SourceBox& box, uint8_t value) {
  uint64_t voxels = 1;
  for (int i = 0; i < 3; ++i) {
    if (size[i] < 1 || uint64_t(size[i]) > mask.size() / voxels) voxels = 0;
    if (voxels == 0) break;
    voxels *= uint64_t(size[i]);
  }
  if (voxels == 0 || voxels != mask.size()) throw Error(Status::invalid_argument, "mask: " + std::to_string(mask.size()) + " bytes do not fit the volume's size");
  Span s[3];
  for (int i = 0; i < 3; ++i) s[i] = cut(span_of(box.low[i], box.high[i], size[i]), size[i]);
  for (int64_t z = s[2].begin; z < s[2].end; ++z) {
    for (int64_t y = s[1].begin; y < s[1].end; ++y) {
      const int64_t row = (z * size[1] + y) * size[0];
      std::fill(mask.begin() + row + s[0].begin, mask.begin() + row + s[0].end, value);
    }
  }
}

}  // namespace bg
