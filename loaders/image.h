// Pictures: PNG, JPEG, TIFF, BMP, PNM → pixels, decoded as the reference's image library (PIL) does it: its convert("RGB") for pictures of 8 bits,
// its raw array for 16-bit grey. Alpha dropped with the colour beneath kept, palette looked up, CMYK as PIL converts it, 16-bit colour reduced as
// PIL reduces it; no EXIF rotation, but TIFF's own Orientation is applied, because PIL applies it. In: a path. Out: 8-bit RGB, or 16-bit grey.
// The format is told from the bytes, never from the name. A file that is cut short or damaged is an error, never half a picture.
// Not here: windowing, resizing (runtime/preprocess.h), slides.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace bg {

struct ImageLimits {
  int64_t max_pixels = 200'000'000;  // width × height; a larger picture is refused before it is decoded
};

struct Image {
  int64_t width = 0, height = 0;  // pixels
  // Exactly one of the two is filled, row-major from the top left.
  std::vector<uint8_t> rgb;       // (height, width, 3)
  // (height, width), the file's own 16-bit values; MinIsWhite TIFF is not inverted, a PGM with a maximum in 256 … 65534 is scaled to 65535 (both PIL).
  std::vector<uint16_t> grey16;
  std::string format;             // "PNG", "JPEG", "TIFF", "BMP", "PNM"
};

Image load_image(const std::string& path, const ImageLimits& limits = {});  // throws Error

}  // namespace bg
