// Shared by the picture decoders, one file per format; the entry is load_image in image.cpp. In: the whole file in memory. Out: Image.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "loaders/error.h"
#include "loaders/image.h"

namespace bg {

struct ImageSource {
  const uint8_t* data;
  size_t size;              // bytes
  const std::string& name;  // starts every message
  const ImageLimits& limits;

  [[noreturn]] void fail(Status status, const std::string& what) const { throw Error(status, name + ": " + what); }
  // Bytes that are wrong. `what` names the format and the place.
  [[noreturn]] void damaged(const std::string& what) const {
    fail(Status::bad_file, what + "; the file is damaged or cut short, copy or export it again");
  }
};

// A side of 0 is bad_file, more than limits.max_pixels is too_large. To be called with the header's numbers, before anything is allocated.
void check_image_size(const ImageSource& source, const char* format, uint64_t width, uint64_t height);

// Any format, from memory: load_image without the file.
Image decode_image(const ImageSource& source);

Image decode_png(const ImageSource& source);
Image decode_jpeg(const ImageSource& source);
Image decode_tiff(const ImageSource& source);
Image decode_bmp(const ImageSource& source);
Image decode_pnm(const ImageSource& source);

// PIL's CMYK → RGB, ink values 0 … 255: clip(255 − k − c·(255 − k)/255), the quotient rounded.
inline void cmyk_to_rgb(uint8_t* rgb, uint8_t c, uint8_t m, uint8_t y, uint8_t k) {
  const int white = 255 - k;
  const auto ink = [white](int v) {
    const int t = v * white + 128;
    return uint8_t(white - (((t >> 8) + t) >> 8));
  };
  rgb[0] = ink(c);
  rgb[1] = ink(m);
  rgb[2] = ink(y);
}

}  // namespace bg
