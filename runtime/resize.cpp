// PIL's antialiased bicubic resize of 8-bit pixels, bit for bit: two passes over fixed-point taps with rounding to 8 bits between them, width first
// as PIL up to 12 does (PIL 13 takes the height first where only the height shrinks, which gives other bytes).
// In: (height, width, channels) bytes. Out: the same at another size. Not here: which size (preprocess.cpp).
#include "runtime/resize.h"

#include <algorithm>
#include <cmath>

namespace bg {
namespace {

constexpr int fraction_bits = 22;

// Keys' cubic with a = −0.5; zero outside |x| < 2. Evaluated in this order, because the last bit of a weight can decide a pixel.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

// The weights of one axis: output i = Σ_j weights[i·width + j] · input[first[i] + j], j < count[i].
struct Taps {
  int64_t width = 0;             // weights reserved per output
  std::vector<int64_t> first;    // (out)
  std::vector<int32_t> count;    // (out)
  std::vector<int32_t> weights;  // (out, width), 22 fraction bits
};

int64_t taps_width(int64_t in, int64_t out) { return int64_t(std::ceil(2.0 * std::max(double(in) / double(out), 1.0))) * 2 + 1; }  // all that fit

// scale = in/out, fs = max(scale, 1), support = 2·fs, centre = (i + ½)·scale; taps from ⌊centre − support + ½⌋ to ⌊centre + support + ½⌋ inside the
// input; weights cubic((j − centre + ½)/fs), divided by their sum in double, then rounded half away from zero to 22 fraction bits.
Taps make_taps(int64_t in, int64_t out) {
  const double scale = double(in) / double(out), fs = std::max(scale, 1.0), support = 2.0 * fs, inverse = 1.0 / fs;
  Taps t;
  t.width = taps_width(in, out);
  t.first.resize(size_t(out));
  t.count.resize(size_t(out));
  t.weights.resize(size_t(out) * size_t(t.width));
  std::vector<double> w(static_cast<size_t>(t.width));
  for (int64_t i = 0; i < out; ++i) {
    const double centre = (double(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(int64_t(centre - support + 0.5), 0);
    const int64_t last = std::min<int64_t>(int64_t(centre + support + 0.5), in);
    double sum = 0;
    for (int64_t j = first; j < last; ++j) sum += w[size_t(j - first)] = cubic((double(j) - centre + 0.5) * inverse);
    int32_t* q = &t.weights[size_t(i * t.width)];
    for (int64_t j = 0; j < last - first; ++j) {
      const double v = (sum != 0.0 ? w[size_t(j)] / sum : w[size_t(j)]) * (1 << fraction_bits);
      q[j] = int32_t(v < 0 ? v - 0.5 : v + 0.5);
    }
    t.first[size_t(i)] = first;
    t.count[size_t(i)] = int32_t(last - first);
  }
  return t;
}

size_t taps_bytes(int64_t in, int64_t out) {
  const size_t width = size_t(taps_width(in, out));
  return size_t(out) * (width * 4 + 12) + width * 8;
}

constexpr int32_t half = 1 << (fraction_bits - 1);

uint8_t to_byte(int32_t sum) { return uint8_t(std::clamp(sum >> fraction_bits, 0, 255)); }

// x (rows, in, C) → y (rows, out, C)
template <int C>
void horizontal(uint8_t* y, const uint8_t* x, int64_t rows, int64_t in, int64_t out, const Taps& t) {
  for (int64_t r = 0; r < rows; ++r, x += in * C) {
    for (int64_t i = 0; i < out; ++i, y += C) {
      const uint8_t* p = x + t.first[size_t(i)] * C;
      const int32_t* w = &t.weights[size_t(i * t.width)];
      int32_t sum[C];
      std::fill_n(sum, C, half);
      for (int32_t j = 0; j < t.count[size_t(i)]; ++j) {
        for (int c = 0; c < C; ++c) sum[c] += p[j * C + c] * w[j];
      }
      for (int c = 0; c < C; ++c) y[c] = to_byte(sum[c]);
    }
  }
}

// x (in, n) → y (out, n), n = width·channels
void vertical(uint8_t* y, const uint8_t* x, int64_t n, int64_t out, const Taps& t) {
  std::vector<int32_t> sum(static_cast<size_t>(n));
  for (int64_t i = 0; i < out; ++i, y += n) {
    std::fill(sum.begin(), sum.end(), half);
    for (int32_t j = 0; j < t.count[size_t(i)]; ++j) {
      const uint8_t* row = x + (t.first[size_t(i)] + j) * n;
      const int32_t w = t.weights[size_t(i * t.width + j)];
      for (int64_t k = 0; k < n; ++k) sum[size_t(k)] += row[k] * w;
    }
    for (int64_t k = 0; k < n; ++k) y[k] = to_byte(sum[size_t(k)]);
  }
}

}  // namespace

size_t resize_bytes(Size in, Size out, int channels) {
  const size_t c = size_t(channels), result = size_t(out.width) * size_t(out.height) * c;
  const bool wide = in.width != out.width, tall = in.height != out.height;
  const size_t between = wide && tall ? size_t(in.height) * size_t(out.width) * c : 0;
  const size_t tables = (wide ? taps_bytes(in.width, out.width) : 0) + (tall ? taps_bytes(in.height, out.height) + size_t(out.width) * c * 4 : 0);
  return result + between + tables;
}

std::vector<uint8_t> resize_bicubic(const uint8_t* x, Size in, Size out, int channels) {
  std::vector<uint8_t> between;  // (in.height, out.width, channels)
  if (in.width != out.width) {
    const Taps t = make_taps(in.width, out.width);
    between.resize(size_t(in.height * out.width * channels));
    const auto pass = channels == 1 ? horizontal<1> : horizontal<3>;
    pass(between.data(), x, in.height, in.width, out.width, t);
    x = between.data();
  }
  const int64_t n = out.width * channels;
  if (in.height == out.height) return between.empty() ? std::vector<uint8_t>(x, x + in.height * n) : between;
  const Taps t = make_taps(in.height, out.height);
  std::vector<uint8_t> y(size_t(out.height * n));
  vertical(y.data(), x, n, out.height, t);
  return y;
}

}  // namespace bg
