// Image → patch vectors: the whole path of MODEL.md §0 (window, pre-scale, smart_resize, PIL's bicubic, normalisation, patch order).
// In: pixels as decoded. Out: (P, 3·2·16·16) float32 patch vectors and the grid. The arithmetic decides pixels, so it is exact.
// Not here: file formats (loaders/), the ViT.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace bg {

// Patches: (t, h, w) counts. P = t·h·w; merged tokens L = t·(h/2)·(w/2).
struct Grid {
  int64_t t = 0, h = 0, w = 0;
  int64_t patches() const { return t * h * w; }
};

struct Size {
  int64_t width = 0, height = 0;  // pixels
};

// Borrowed pixels, row-major from the top left: rgb (height, width, 3), or grey16 (height, width); the other is nullptr.
struct Pixels {
  int64_t width = 0, height = 0;
  const uint8_t* rgb = nullptr;
  const uint16_t* grey16 = nullptr;
};

// 16-bit grey becomes 8-bit by v8 = clamp(⌊(v − low)·255/(high − low) + ½⌋, 0, 255) in double; low … high are the picture's min … max, or
// level ∓ width/2. A picture of one value (low = high) becomes 0. pil_exact: v8 = min(v, 255). 8-bit pictures ignore the window fields.
// Everything after the window is done on RGB (grey on one channel, with the same bytes). PIL, called on the file's own mode, would pre-scale palette
// and 1-bit files by nearest neighbour, weight colours by alpha, and resize CMYK before conversion; decoded pixels no longer tell these apart.
struct ImageOptions {
  int64_t min_pixels = 1024;            // 1 token × 1024
  int64_t max_pixels = 1024 * 1024;     // 1024 tokens × 1024
  int64_t factor = 32;                  // patch 16 × merge 2; preprocess_image takes no other
  bool prescale = true;                 // reduce pictures above 1,048,576 pixels first, as the training images were
  bool pil_exact = false;               // 16-bit grey: clip at 255 as PIL does, instead of a window
  bool has_window = false;              // 16-bit grey: this window instead of min … max
  double level = 0, width = 0;
};

struct ImageSteps {             // what was done, for --json and for mapping boxes back
  Size source, prescaled, resized;
  const char* grey16 = "none";  // "none" (8-bit), "min-max", "window", "pil-exact"
  double low = 0, high = 0;     // the window used, source values
};

// side = max(f, f·round_half_even(side/f)), then the area bounds: above the maximum f·max(1, ⌊side/β/f⌋) with β = √(h·w/max), below the minimum
// f·⌈side·β/f⌉ with β = √(min/(h·w)), from the original sides in double. Throws Error for an aspect above 200.
Size smart_resize(Size source, int64_t factor, int64_t min_pixels, int64_t max_pixels);
// √(limit/area) when above the limit: sides max(1, int(round_half_even(side·scale))).
Size prescale_size(Size source, int64_t limit);

// PIL's ImagingResample on 8-bit interleaved pixels: y (out.height, out.width, channels) from x (in.height, in.width, channels).
// Bicubic a = −0.5, antialiased, horizontal pass first, 22-bit coefficients; an axis that keeps its size is skipped.
std::vector<uint8_t> resize_bicubic(const uint8_t* x, Size in, Size out, int channels);

// Sizes only, so that memory can be planned before any pixel is read.
ImageSteps plan_image(Size source, const ImageOptions& options);
size_t preprocess_bytes(Size source, const ImageOptions& options);  // upper bound of memory that preprocess_image holds at once, its output not counted
// patches: (P, 1536) with P = grid of plan_image; returns what was done.
ImageSteps preprocess_image(float* patches, const Pixels& pixels, const ImageOptions& options);

inline Grid image_grid(const ImageSteps& s, int64_t patch) { return {1, s.resized.height / patch, s.resized.width / patch}; }

}  // namespace bg
