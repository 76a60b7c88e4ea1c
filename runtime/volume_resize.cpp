// See volume_resize.h. The order of sums and divisions is part of the definition where a truncation follows (area averages).
#include "runtime/volume_resize.h"

#include <algorithm>
#include <cmath>

namespace bg {
namespace {

int64_t cubic_width(int64_t in, int64_t out) { return int64_t(std::ceil(2.0 * std::max(double(in) / double(out), 1.0))) * 2 + 1; }  // all that fit

// Keys' cubic with a = −0.5, |x| < 2.
float cubic(float x) {
  constexpr float a = -0.5f;
  x = std::fabs(x);
  if (x < 1.0f) return ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
  if (x < 2.0f) return (((x - 5.0f) * x + 8.0f) * x - 4.0f) * a;
  return 0.0f;
}

// scale = in/out, fs = max(scale, 1), support = 2·fs, centre = (i + ½)·scale; taps from ⌊centre − support + ½⌋ to ⌊centre + support + ½⌋ inside the
// input; weights cubic((j − centre + ½)/fs) divided by their sum. All in float32, as torch does for float32 input.
CubicTaps cubic_taps(int64_t in, int64_t out) {
  const float scale = float(in) / float(out), fs = std::max(scale, 1.0f), support = 2.0f * fs, inverse = 1.0f / fs;
  CubicTaps t;
  t.width = cubic_width(in, out);
  t.weights.resize(size_t(out * t.width));
  for (int64_t i = 0; i < out; ++i) {
    const float centre = scale * (float(i) + 0.5f);
    const int64_t first = std::max<int64_t>(int64_t(centre - support + 0.5f), 0);
    const int64_t count = std::min(std::min<int64_t>(int64_t(centre + support + 0.5f), in) - first, t.width);
    float* w = &t.weights[size_t(i * t.width)];
    float sum = 0;
    for (int64_t j = 0; j < count; ++j) sum += w[j] = cubic((float(j + first) - centre + 0.5f) * inverse);
    for (int64_t j = 0; j < count; ++j) w[j] /= sum;
    t.first.push_back(first);
    t.count.push_back(count);
  }
  return t;
}

size_t cubic_bytes(int64_t in, int64_t out) { return size_t(out) * (size_t(cubic_width(in, out)) * 4 + 2 * 2 * 8); }  // vectors may have grown twofold

}  // namespace

// torch's order: sum over z, then y, then x in float32, then divided by the three counts one after the other.
void area_slice(float* y, const float* x, Size in, Size out, Span z) {
  std::vector<Span> spans(static_cast<size_t>(out.width));
  for (int64_t ox = 0; ox < out.width; ++ox) spans[size_t(ox)] = area_span(ox, in.width, out.width);
  for (int64_t oy = 0; oy < out.height; ++oy, y += out.width) {
    const Span rows = area_span(oy, in.height, out.height);
    std::fill_n(y, out.width, 0.0f);
    for (int64_t k = z.first; k < z.end; ++k) {
      for (int64_t r = rows.first; r < rows.end; ++r) {
        const float* row = x + (k * in.height + r) * in.width;
        for (int64_t ox = 0; ox < out.width; ++ox) {
          for (int64_t c = spans[size_t(ox)].first; c < spans[size_t(ox)].end; ++c) y[ox] += row[c];
        }
      }
    }
    for (int64_t ox = 0; ox < out.width; ++ox) {
      const Span columns = spans[size_t(ox)];
      y[ox] = y[ox] / float(z.end - z.first) / float(rows.end - rows.first) / float(columns.end - columns.first);
    }
  }
}

// x = max(0, (i + ½)·in/out − ½), w1 = x − ⌊x⌋.
std::vector<LinearTap> linear_taps(int64_t in, int64_t out) {
  const float scale = float(in) / float(out);
  std::vector<LinearTap> taps(static_cast<size_t>(out));
  for (int64_t i = 0; i < out; ++i) {
    const float x = in == out ? float(i) : std::max(scale * (float(i) + 0.5f) - 0.5f, 0.0f);
    const int64_t i0 = std::min(int64_t(x), in - 1);
    const float w1 = std::clamp(x - float(i0), 0.0f, 1.0f);
    taps[size_t(i)] = {i0, std::min(i0 + 1, in - 1), 1.0f - w1, w1};
  }
  return taps;
}

void linear_slice(float* y, const float* x, int64_t width, const std::vector<LinearTap>& rows, const std::vector<LinearTap>& columns) {
  for (const LinearTap& r : rows) {
    const float *a = x + r.i0 * width, *b = x + r.i1 * width;
    for (const LinearTap& c : columns) {
      *y++ = r.w0 * (c.w0 * a[c.i0] + c.w1 * a[c.i1]) + r.w1 * (c.w0 * b[c.i0] + c.w1 * b[c.i1]);
    }
  }
}

FrameResize::FrameResize(Size in, Size out) : in_(in), out_(out) {
  if (in.width != out.width) {
    across_ = cubic_taps(in.width, out.width);
    between_.resize(size_t(in.height * out.width));
  }
  if (in.height != out.height) down_ = cubic_taps(in.height, out.height);
}

size_t FrameResize::bytes(Size in, Size out) {
  const bool wide = in.width != out.width, tall = in.height != out.height;
  return (wide ? cubic_bytes(in.width, out.width) + size_t(in.height * out.width) * 4 : 0) + (tall ? cubic_bytes(in.height, out.height) : 0);
}

void FrameResize::run(float* y, const float* x) {
  if (!between_.empty()) {
    float* b = between_.data();
    for (int64_t r = 0; r < in_.height; ++r, x += in_.width) {
      for (int64_t i = 0; i < out_.width; ++i) {
        const float* w = &across_.weights[size_t(i * across_.width)];
        float sum = 0;
        for (int64_t j = 0; j < across_.count[size_t(i)]; ++j) sum += x[across_.first[size_t(i)] + j] * w[j];
        *b++ = sum;
      }
    }
    x = between_.data();
  }
  const int64_t n = out_.width;
  if (in_.height == out_.height) {
    std::copy_n(x, n * out_.height, y);
    return;
  }
  for (int64_t i = 0; i < out_.height; ++i, y += n) {
    std::fill_n(y, n, 0.0f);
    for (int64_t j = 0; j < down_.count[size_t(i)]; ++j) {
      const float w = down_.weights[size_t(i * down_.width + j)];
      const float* row = x + (down_.first[size_t(i)] + j) * n;
      for (int64_t k = 0; k < n; ++k) y[k] += row[k] * w;
    }
  }
}

}  // namespace bg
