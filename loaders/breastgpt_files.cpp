// breastgpt_files.h over image.h: the C face of the picture loaders.
#include "runtime/breastgpt_files.h"

#include <iterator>
#include <memory>

#include "loaders/image.h"
#include "loaders/mapped_file.h"
#include "loaders/sha256.h"
#include "loaders/slide_features.h"
#include "runtime/boundary.h"

struct bg_image_file {
  bg::Image image;
  bg_image pixels{};
  std::string sha256;
};

struct bg_slide_file {
  bg::SlideFeatures slide;
  std::string sha256;
};

namespace {

// The index-th attribute in the order of the keys, or nullptr.
const std::pair<const std::string, std::string>* attribute_at(const bg_slide_file* file, int64_t index) {
  const auto& all = file->slide.attributes;
  return index < 0 || index >= int64_t(all.size()) ? nullptr : &*std::next(all.begin(), index);
}

}  // namespace

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

bg_status bg_slide_file_open(const char* path, bg_slide_file** file, bg_error* error) {
  return bg::guarded(error, [&] {
    *bg::required(file, "file") = nullptr;
    auto out = std::make_unique<bg_slide_file>();
    out->slide = bg::load_slide_features(bg::required(path, "path"));
    const bg::MappedFile bytes(path);
    out->sha256 = bg::sha256_hex(bytes.data(), bytes.size());
    *file = out.release();
  });
}

void bg_slide_file_close(bg_slide_file* file) { delete file; }
int64_t bg_slide_file_tiles(const bg_slide_file* file) { return file->slide.tiles; }
int64_t bg_slide_file_width(const bg_slide_file* file) { return file->slide.width; }
const float* bg_slide_file_features(const bg_slide_file* file) { return file->slide.features.data(); }
const int64_t* bg_slide_file_coords(const bg_slide_file* file) { return file->slide.coords.empty() ? nullptr : file->slide.coords.data(); }
int64_t bg_slide_file_tile_side(const bg_slide_file* file) { return file->slide.tile_side(); }
const char* bg_slide_file_format(const bg_slide_file* file) { return file->slide.format.c_str(); }
const char* bg_slide_file_sha256(const bg_slide_file* file) { return file->sha256.c_str(); }
int64_t bg_slide_file_attribute_count(const bg_slide_file* file) { return int64_t(file->slide.attributes.size()); }

const char* bg_slide_file_attribute_key(const bg_slide_file* file, int64_t index) {
  const auto* a = attribute_at(file, index);
  return a ? a->first.c_str() : nullptr;
}

const char* bg_slide_file_attribute_value(const bg_slide_file* file, int64_t index) {
  const auto* a = attribute_at(file, index);
  return a ? a->second.c_str() : nullptr;
}

bg_status bg_slide_file_save(const bg_slide_file* file, const char* path, bg_error* error) {
  return bg::guarded(error, [&] { bg::save_slide_features(bg::required(path, "path"), bg::required(file, "file")->slide); });
}

}  // extern "C"
