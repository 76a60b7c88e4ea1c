// 8-bit RGB pixels → a PNG file. Out: one file, written under a temporary name and renamed. Not here: reading (image.h), drawing (draw.h).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace bg {

// rgb (height, width, 3), row-major from the top left. The same pixels give the same bytes. Throws Error{invalid_argument, io}.
void save_png(const std::string& path, int64_t width, int64_t height, const std::vector<uint8_t>& rgb);

}  // namespace bg
