// The three float32 resizes of volumes (MODEL.md §0b): area average, trilinear, antialiased bicubic. Each rounds where torch on the CPU rounds.
// In: float32 slices, row-major (height, width). Out: the same at another size. Not here: which size (volume.cpp), 8-bit pictures (resize.cpp).
#pragma once
#include <vector>

#include "runtime/preprocess.h"

namespace bg {

// Inputs of output i when `in` cells are averaged to `out`: first ⌊i·in/out⌋, end ⌈(i+1)·in/out⌉.
struct Span {
  int64_t first, end;
};
inline Span area_span(int64_t i, int64_t in, int64_t out) { return {i * in / out, ((i + 1) * in + out - 1) / out}; }

// y (out.height, out.width): means over slices z.first … z.end of x (·, in.height, in.width) and the spans of both sides.
void area_slice(float* y, const float* x, Size in, Size out, Span z);

// One axis of a linear resize: output i = w0·x[i0] + w1·x[i1].
struct LinearTap {
  int64_t i0, i1;
  float w0, w1;
};
// Half-pixel centres, edge clamp; in float32, as align_corners = false.
std::vector<LinearTap> linear_taps(int64_t in, int64_t out);
// y (rows.size(), columns.size()) from x (·, width).
void linear_slice(float* y, const float* x, int64_t width, const std::vector<LinearTap>& rows, const std::vector<LinearTap>& columns);

// The weights of one axis: output i = Σ_j weights[i·width + j]·x[first[i] + j], j < count[i].
struct CubicTaps {
  int64_t width = 0;  // weights reserved per output
  std::vector<int64_t> first, count;
  std::vector<float> weights;
};

// Bicubic (a = −0.5) with antialias on floats, width first, no rounding, no clamping. An axis that keeps its size is skipped.
class FrameResize {
 public:
  FrameResize(Size in, Size out);
  void run(float* y, const float* x);
  static size_t bytes(Size in, Size out);  // held by an object

 private:
  Size in_, out_;
  CubicTaps across_, down_;
  std::vector<float> between_;  // (in.height, out.width)
};

}  // namespace bg
