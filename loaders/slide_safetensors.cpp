// Slide features as safetensors: "features" F32 (N, D), "coords" I64 (N, 2) or absent, attributes as the file's text metadata. See slide_features.h.
#include <cstring>

#include <nlohmann/json.hpp>

#include "loaders/cursor.h"
#include "loaders/safetensors.h"
#include "loaders/slide_parts.h"

namespace bg {
namespace {

// A tensor of the one type that is written; nullptr when absent.
const SafetensorsTensor* typed(const Safetensors& file, const std::string& path, const char* name, const char* dtype) {
  const SafetensorsTensor* t = file.find(name);
  if (t && t->dtype != dtype)
    throw Error(Status::bad_file, path + ": " + name + " is " + t->dtype + ", expected " + dtype + "; convert the original file again with breastgpt features convert");
  return t;
}

}  // namespace

SlideFeatures load_safetensors_slide(const std::string& path) {
  const Safetensors file(path);
  const SafetensorsTensor* features = typed(file, path, "features", "F32");
  const SafetensorsTensor* coords = typed(file, path, "coords", "I64");
  if (!features) throw Error(Status::bad_file, path + ": has no tensor \"features\"; not the patch features of a slide");
  SlideFeatures slide;
  set_slide_shape(path, features->shape, coords ? &coords->shape : nullptr, &slide);
  // The reader has checked that the bytes are there and are as many as the shapes say.
  slide.features.resize(features->bytes / sizeof(float));
  std::memcpy(slide.features.data(), features->data, features->bytes);
  if (coords) {
    slide.coords.resize(coords->bytes / sizeof(int64_t));
    std::memcpy(slide.coords.data(), coords->data, coords->bytes);
  }
  if (file.metadata().size() > most_attributes)
    throw Error(Status::too_large, path + ": " + std::to_string(file.metadata().size()) + " attributes; at most " + std::to_string(most_attributes) + " are read");
  for (const auto& [key, value] : file.metadata()) {
    if (key.size() > most_attribute_bytes / 2 || value.size() > most_attribute_bytes)
      throw Error(Status::too_large, path + ": attribute " + shown(key) + " has " + std::to_string(value.size()) + " bytes; at most " +
                                         std::to_string(most_attribute_bytes) + " are read");
  }
  slide.attributes = file.metadata();
  slide.format = "safetensors";
  return slide;
}

void write_safetensors_slide(NewFile* file, const SlideFeatures& slide) {
  const uint64_t coords_bytes = slide.coords.size() * sizeof(int64_t), features_bytes = slide.features.size() * sizeof(float);
  nlohmann::json header;
  if (!slide.attributes.empty()) header["__metadata__"] = slide.attributes;
  // coords first: eight-byte numbers stay aligned whatever the width of a feature row is.
  if (!slide.coords.empty()) header["coords"] = {{"dtype", "I64"}, {"shape", {slide.tiles, 2}}, {"data_offsets", {0, coords_bytes}}};
  header["features"] = {{"dtype", "F32"}, {"shape", {slide.tiles, slide.width}}, {"data_offsets", {coords_bytes, coords_bytes + features_bytes}}};
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = text.size();

  file->append(&header_bytes, sizeof header_bytes);
  file->append(text.data(), text.size());
  file->append(slide.coords.data(), coords_bytes);
  file->append(slide.features.data(), features_bytes);
}

}  // namespace bg
