// breastgpt_files.h over image.h: the C face of the picture loaders.
#include "runtime/breastgpt_files.h"

#include <memory>

#include "loaders/image.h"
#include "loaders/mapped_file.h"
#include "loaders/sha256.h"
#include "runtime/boundary.h"

struct bg_image_file {
  bg::Image image;
  bg_image pixels{};
  std::string sha256;
};

extern "C" {

bg_status bg_image_file_open(const char* path, int64_t max_pixels, bg_image_file** file, bg_error* error) {
  return bg::guarded(error, [&] {
    *bg::required(file, "file") = nullptr;
    if (max_pixels < 0) throw bg::Error(bg::Status::invalid_argument, "max_pixels must be positive, or 0 for the default");
    bg::ImageLimits limits;
    if (max_pixels > 0) limits.max_pixels = max_pixels;
    auto out = std::make_unique<bg_image_file>();
    out->image = bg::load_image(bg::required(path, "path"), limits);
    const bg::MappedFile bytes(path);
    out->sha256 = bg::sha256_hex(bytes.data(), bytes.size());
    out->pixels = {sizeof(bg_image), out->image.width, out->image.height, out->image.rgb.empty() ? nullptr : out->image.rgb.data(),
                   out->image.grey16.empty() ? nullptr : out->image.grey16.data()};
    *file = out.release();
  });
}

void bg_image_file_close(bg_image_file* file) { delete file; }
const bg_image* bg_image_file_pixels(const bg_image_file* file) { return &file->pixels; }
const char* bg_image_file_format(const bg_image_file* file) { return file->image.format.c_str(); }
const char* bg_image_file_sha256(const bg_image_file* file) { return file->sha256.c_str(); }

}  // extern "C"
