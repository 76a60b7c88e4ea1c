// Painting on pictures: boxes, points, labels, tints; and masks. In: 8-bit RGB pixels and boxes in source units. Out: the same pixels, painted.
// Whatever reaches beyond the picture is cut off. Not here: contact sheets (sheet.h), files (png_write.h).
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "loaders/image.h"
#include "runtime/boxes.h"

namespace bg {

struct Canvas {
  int64_t width = 0, height = 0;  // pixels
  std::vector<uint8_t> rgb;       // (height, width, 3)
};

using Colour = std::array<uint8_t, 3>;

struct MarkedBox {
  SourceBox at;        // pixels; for volumes voxels
  bool point = false;  // a cross instead of a rectangle
  std::string label;   // UTF-8; the font knows ASCII, other characters become an empty box
};

// A box as it is painted: its place, colour, and what its tag says.
struct Mark {
  MarkedBox box;
  Colour colour{};
  std::string tag;  // the label, after the box's number (from 1, in the order given) when there are several boxes
};
// A colour for each label, in the order of first mention: 12 that differ well, then again from the start. Boxes without a label share one.
std::vector<Mark> marks_of(const std::vector<MarkedBox>& boxes);
Colour palette_colour(size_t i);

Canvas blank(int64_t width, int64_t height, Colour colour);  // throws Error{too_large, invalid_argument}
// 8-bit pictures as they are; 16-bit grey with low … high → 0 … 255, the rule of runtime/preprocess.h.
Canvas canvas_of(const Image& image, double low, double high);
// The window's rule: clamp(⌊(v − low)·255/(high − low) + ½⌋, 0, 255); 0 when low = high.
uint8_t windowed(double v, double low, double high);

// The pixels (or voxels, slices) of an interval of edges: those whose centre is inside, at least one; begin may be negative and end beyond the size.
// With a side of less than 1000, an interval of whole edges that went through thousandths and back gives the same pixels.
struct Span {
  int64_t begin = 0, end = 0;
};
Span span_of(double low, double high, int64_t size);

void fill(Canvas& canvas, Span x, Span y, Colour colour);
void tint(Canvas& canvas, Span x, Span y, Colour colour, double alpha);  // 0 … 1
// Text with its ground, corner at (x, y); one character is 6·scale wide, the whole 9·scale high.
void draw_text(Canvas& canvas, int64_t x, int64_t y, int64_t scale, std::string_view text, Colour ink, Colour ground);
int64_t text_width(std::string_view text, int64_t scale);
// Outlines (inside the box's edge) or crosses, each with its tag where there is room for it; at most 256 tags.
void draw_marks(Canvas& canvas, const std::vector<Mark>& marks);

// mask (slices, height, width): voxels of the box become `value`. size: (width, height, slices). Throws Error{invalid_argument}.
void fill_mask(std::vector<uint8_t>& mask, const int64_t size[3], const SourceBox& box, uint8_t value);

}  // namespace bg
