// Image → patch vectors, in this order: window (16-bit grey) → pre-scale → smart_resize → normalise → patch order. See preprocess.h for the equations.
#include "runtime/preprocess.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "loaders/error.h"
#include "runtime/patches.h"
#include "runtime/resize.h"

namespace bg {
namespace {

constexpr int64_t training_pixels = 1024 * 1024;    // the training images were reduced to this area
constexpr int64_t largest_side = (int64_t(1) << 31) - 1, largest_area = int64_t(1) << 40;
constexpr double largest_aspect = 200;

std::string text(Size s) { return std::to_string(s.width) + "x" + std::to_string(s.height); }

[[noreturn]] void invalid(const std::string& what) { throw Error(Status::invalid_argument, what); }

void check_source(Size s) {
  if (s.width < 1 || s.height < 1 || s.width > largest_side || s.height > largest_side) {
    invalid("picture of " + text(s) + " pixels: sides must be 1 ... " + std::to_string(largest_side));
  }
}

bool same(Size a, Size b) { return a.width == b.width && a.height == b.height; }

int64_t area(Size s) { return s.width * s.height; }

struct Window {
  const char* name;
  double low, high;
};

Window find_window(const Pixels& p, const ImageOptions& o) {
  if (o.pil_exact && o.has_window) invalid("a window and the reference's clipping (pil-exact) exclude each other; give one");
  if (o.has_window && (!std::isfinite(o.level) || !std::isfinite(o.width) || o.width <= 0)) {
    invalid("window level " + std::to_string(o.level) + ", width " + std::to_string(o.width) + ": must be finite, the width above 0");
  }
  if (!p.grey16) return {"none", 0, 0};
  if (o.pil_exact) return {"pil-exact", 0, 255};
  if (o.has_window) return {"window", o.level - o.width / 2, o.level + o.width / 2};
  const auto [low, high] = std::minmax_element(p.grey16, p.grey16 + p.width * p.height);
  return {"min-max", double(*low), double(*high)};
}

// v8 = clamp(⌊(v − low)·255/(high − low) + ½⌋, 0, 255) through a table of all 65536 values; for low = 0, high = 255 it is min(v, 255), pil_exact.
std::vector<uint8_t> to_eight_bits(const Pixels& p, const Window& w) {
  std::vector<uint8_t> table(65536, 0);
  for (size_t v = 0; v < table.size() && w.high > w.low; ++v) {
    table[v] = uint8_t(std::clamp(std::floor((double(v) - w.low) * 255.0 / (w.high - w.low) + 0.5), 0.0, 255.0));
  }
  const size_t n = size_t(p.width) * size_t(p.height);
  std::vector<uint8_t> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = table[p.grey16[i]];
  return out;
}

// x (H, W, channels) → patches (P, 3·2·16·16). x' = (v − 127.5)/127.5 in float32; a single frame fills both frames τ. One channel is used three times.
void write_patches(float* out, const uint8_t* x, Size size, int channels) {
  std::array<float, 256> normal;
  for (int v = 0; v < 256; ++v) normal[size_t(v)] = (float(v) - 127.5f) / 127.5f;
  write_frame_pair(out, size, [&](int64_t c, int64_t, int64_t pixel) { return normal[x[pixel * channels + (channels == 3 ? c : 0)]]; });
}

// Peak for `channels` with `owned` bytes of an 8-bit source held besides the borrowed pixels.
size_t peak_bytes(const ImageSteps& s, int channels, size_t owned) {
  size_t peak = owned;
  if (!same(s.source, s.prescaled)) {
    peak = owned + resize_bytes(s.source, s.prescaled, channels);
    owned = size_t(area(s.prescaled)) * size_t(channels);
  }
  if (!same(s.prescaled, s.resized)) peak = std::max(peak, owned + resize_bytes(s.prescaled, s.resized, channels));
  return peak;
}

}  // namespace

Size smart_resize(Size source, int64_t factor, int64_t min_pixels, int64_t max_pixels) {
  check_source(source);
  if (factor < 1 || factor > 65536 || min_pixels < 1 || min_pixels > max_pixels || max_pixels > largest_area) {
    invalid("picture size bounds " + std::to_string(min_pixels) + " ... " + std::to_string(max_pixels) + " pixels, factor " + std::to_string(factor) +
            ": expected 1 <= minimum <= maximum <= 2^40 and a factor of 1 ... 65536");
  }
  const double w = double(source.width), h = double(source.height), f = double(factor);
  if (std::max(w, h) / std::min(w, h) > largest_aspect) {
    invalid("picture of " + text(source) + " pixels: one side is more than 200 times the other; crop it");
  }
  // nearbyint rounds half to even: 48 → 64, 80 → 64.
  const auto rounded = [f](double side) { return int64_t(std::max(f, f * std::nearbyint(side / f))); };
  Size out{rounded(w), rounded(h)};
  if (area(out) > max_pixels) {
    const double beta = std::sqrt(h * w / double(max_pixels));
    const auto smaller = [f, beta](double side) { return int64_t(std::max(f, std::floor(side / beta / f) * f)); };
    out = {smaller(w), smaller(h)};
  } else if (area(out) < min_pixels) {
    const double beta = std::sqrt(double(min_pixels) / (h * w));
    const auto larger = [f, beta](double side) { return int64_t(std::ceil(side * beta / f) * f); };
    out = {larger(w), larger(h)};
  }
  return out;
}

Size prescale_size(Size source, int64_t limit) {
  check_source(source);
  if (area(source) <= limit) return source;
  const double scale = std::sqrt(double(limit) / double(area(source)));
  const auto scaled = [scale](int64_t side) { return std::max<int64_t>(1, int64_t(std::nearbyint(double(side) * scale))); };
  return {scaled(source.width), scaled(source.height)};
}

ImageSteps plan_image(Size source, const ImageOptions& options) {
  ImageSteps steps;
  steps.source = source;
  steps.prescaled = options.prescale ? prescale_size(source, training_pixels) : source;
  steps.resized = smart_resize(steps.prescaled, options.factor, options.min_pixels, options.max_pixels);
  return steps;
}

size_t preprocess_bytes(Size source, const ImageOptions& options) {
  const ImageSteps steps = plan_image(source, options);
  const size_t table = 65536;  // of the window, gone before the first resize
  const size_t grey = size_t(area(source));
  return std::max({peak_bytes(steps, 3, 0), peak_bytes(steps, 1, grey), grey + table});
}

ImageSteps preprocess_image(float* patches, const Pixels& pixels, const ImageOptions& options) {
  if ((pixels.rgb == nullptr) == (pixels.grey16 == nullptr)) invalid("pixels: exactly one of rgb and grey16 must be given");
  if (options.factor != patch_side * merge_side) invalid("factor " + std::to_string(options.factor) + ": patches are 16 pixels, merged 2 by 2; expected 32");
  ImageSteps steps = plan_image({pixels.width, pixels.height}, options);
  const Window window = find_window(pixels, options);
  steps.grey16 = window.name;
  steps.low = window.low;
  steps.high = window.high;

  const int channels = pixels.rgb ? 3 : 1;
  std::vector<uint8_t> held;
  if (pixels.grey16) held = to_eight_bits(pixels, window);
  const uint8_t* x = pixels.rgb ? pixels.rgb : held.data();
  Size size = steps.source;
  for (const Size next : {steps.prescaled, steps.resized}) {
    if (same(size, next)) continue;
    held = resize_bicubic(x, size, next, channels);
    x = held.data();
    size = next;
  }
  write_patches(patches, x, size, channels);
  return steps;
}

}  // namespace bg
