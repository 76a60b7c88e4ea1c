// Shared by the two slide formats, one file each; the entries are load_slide_features and save_slide_features in slide_features.cpp.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "loaders/error.h"
#include "loaders/new_file.h"
#include "loaders/slide_features.h"

namespace bg {

constexpr int64_t most_tiles = 2'000'000;
constexpr int64_t most_width = 16384;  // numbers per tile
constexpr uint64_t most_packing = 1040;  // deflate's best ratio is 1032:1
constexpr size_t most_attributes = 256, most_attribute_bytes = 16384;

std::string shape_text(const std::vector<int64_t>& shape);  // "(3, 768)"

// The shapes of `features`, and of `coords` where the file has it, as they stand in the file → tiles and width of `slide`. To be called before anything is allocated.
void set_slide_shape(const std::string& path, const std::vector<int64_t>& features, const std::vector<int64_t>* coords, SlideFeatures* slide);

SlideFeatures load_hdf5_slide(const std::string& path, uint64_t file_bytes);
SlideFeatures load_safetensors_slide(const std::string& path);

void write_hdf5_slide(const std::string& temporary, const SlideFeatures& slide);  // an existing, empty file, by its name
void write_safetensors_slide(NewFile* file, const SlideFeatures& slide);

}  // namespace bg
