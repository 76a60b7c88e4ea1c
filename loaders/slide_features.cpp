// load_slide_features, save_slide_features: tells the format (from the bytes when reading, from the ending when writing), and checks what both formats share:
// shapes, limits, values. See slide_features.h.
#include "loaders/slide_features.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>

#include "loaders/mapped_file.h"
#include "loaders/new_file.h"
#include "loaders/slide_parts.h"

namespace bg {
namespace {

constexpr int64_t farthest = int64_t(1) << 40;  // level-0 pixels; beyond any slide, and sums of a few cannot overflow

bool has(const MappedFile& f, size_t at, std::string_view text) { return f.size() >= at + text.size() && std::memcmp(f.data() + at, text.data(), text.size()) == 0; }

bool is_hdf5(const MappedFile& f) { return has(f, 0, "\x89HDF\r\n\x1A\n"); }

bool is_safetensors(const MappedFile& f) { return f.size() > 8 && f.data()[8] == '{'; }  // after the 8 bytes of the header's length

[[noreturn]] void refuse(const MappedFile& f) {
  const char* found = f.size() == 0           ? "is empty"
                      : has(f, 0, "PK\3\4")   ? "is a PyTorch or zip file"
                      : has(f, 0, "\x93NUMPY") ? "is a NumPy file"
                      : has(f, 0, "II") || has(f, 0, "MM") ? "is a TIFF file, perhaps the slide itself"
                                              : "is neither HDF5 nor safetensors";
  throw Error(Status::unsupported, f.path() + ": " + found + "; expected the patch features of a slide: Trident or CLAM .h5, or .safetensors of breastgpt features convert");
}

// Non-finite values and coordinates that no slide has.
void check_values(const std::string& path, Status status, const SlideFeatures& slide) {
  size_t bad = 0, first = 0;
  for (size_t i = 0; i < slide.features.size(); ++i) {
    if (std::isfinite(slide.features[i])) continue;
    if (bad++ == 0) first = i;
  }
  if (bad > 0) {
    const size_t width = size_t(slide.width);
    throw Error(status, path + ": features: " + std::to_string(bad) + " values are not finite as float32, the first at tile " + std::to_string(first / width) + ", position " +
                            std::to_string(first % width) + " (counted from 0); extract the features of this slide again");
  }
  for (size_t i = 0; i < slide.coords.size(); ++i) {
    if (slide.coords[i] < -farthest || slide.coords[i] > farthest)
      throw Error(status, path + ": coords: tile " + std::to_string(i / 2) + " lies at " + (i % 2 ? "y " : "x ") + std::to_string(slide.coords[i]) +
                              ", which is on no slide (at most " + std::to_string(farthest) + "); extract the features of this slide again");
  }
}

void check_before_saving(const std::string& path, const SlideFeatures& slide) {
  const auto wrong = [&path](const std::string& what) { throw Error(Status::invalid_argument, path + ": " + what); };
  if (slide.tiles < 1 || slide.tiles > most_tiles) wrong("a slide of " + std::to_string(slide.tiles) + " tiles cannot be saved; 1 to " + std::to_string(most_tiles) + " can");
  if (slide.width < 1 || slide.width > most_width) wrong("features of width " + std::to_string(slide.width) + " cannot be saved; 1 to " + std::to_string(most_width) + " can");
  if (slide.features.size() != size_t(slide.tiles) * size_t(slide.width))
    wrong(std::to_string(slide.tiles) + " tiles of width " + std::to_string(slide.width) + " need " + std::to_string(slide.tiles * slide.width) + " values, got " +
          std::to_string(slide.features.size()));
  if (!slide.coords.empty() && slide.coords.size() != size_t(slide.tiles) * 2)
    wrong(std::to_string(slide.tiles) + " tiles need " + std::to_string(2 * slide.tiles) + " coordinates or none, got " + std::to_string(slide.coords.size()));
  if (slide.attributes.size() > most_attributes) wrong(std::to_string(slide.attributes.size()) + " attributes; at most " + std::to_string(most_attributes) + " can be saved");
  for (const auto& [key, value] : slide.attributes) {
    if (key.empty() || key.find('\0') != std::string::npos || value.find('\0') != std::string::npos) wrong("an attribute without a name, or with a zero byte, cannot be saved");
    if (key.size() > most_attribute_bytes / 2 || value.size() > most_attribute_bytes)
      wrong("an attribute of " + std::to_string(key.size() + value.size()) + " bytes; names up to " + std::to_string(most_attribute_bytes / 2) +
            " and values up to " + std::to_string(most_attribute_bytes) + " can be saved");
  }
  check_values(path, Status::invalid_argument, slide);
}

bool ends_with(const std::string& path, std::string_view ending) { return path.size() > ending.size() && path.compare(path.size() - ending.size(), ending.size(), ending) == 0; }

[[noreturn, maybe_unused]] void refuse_hdf5(const std::string& path) {
  throw Error(Status::unsupported, path + ": HDF5 was left out of this build (make HDF5=1); convert with breastgpt features convert elsewhere");
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + (shape.size() == 1 ? ",)" : ")");
}

void set_slide_shape(const std::string& path, const std::vector<int64_t>& features, const std::vector<int64_t>* coords, SlideFeatures* slide) {
  const auto refuse_shape = [&](Status status, const std::string& what) { throw Error(status, path + ": features of shape " + shape_text(features) + what); };
  const bool empty = !features.empty() && (features.size() == 3 && features[0] == 1 ? features[1] : features[0]) == 0;
  if (empty) refuse_shape(Status::bad_file, ": the slide has no tiles; check that its tissue was found, then extract the features again");
  const bool batch = features.size() == 3 && features[0] == 1;
  if (features.size() != 2 && !batch) refuse_shape(Status::bad_file, "; expected (tiles, width), one row for each tile");
  slide->tiles = features[batch ? 1 : 0];
  slide->width = features[batch ? 2 : 1];
  if (slide->tiles > most_tiles)
    refuse_shape(Status::too_large, ": " + std::to_string(slide->tiles) + " tiles, at most " + std::to_string(most_tiles) +
                                        " are read; use a lower magnification or split the slide");
  if (slide->width < 1 || slide->width > most_width) refuse_shape(Status::bad_file, ": the width must be 1 to " + std::to_string(most_width));
  if (batch && !coords)
    refuse_shape(Status::bad_file, " without coords: one slide of " + std::to_string(slide->tiles) + " tiles, or one tile of " + std::to_string(slide->tiles) +
                                       " rows? Save them as (tiles, width), or with coords");
  if (!coords) return;
  const std::vector<int64_t> plain = {slide->tiles, 2}, with_batch = {1, slide->tiles, 2};
  if (*coords != plain && !(batch && *coords == with_batch))
    throw Error(Status::bad_file, path + ": coords of shape " + shape_text(*coords) + " do not fit features of shape " + shape_text(features) + "; expected " +
                                      shape_text(plain) + ", one x, y for each tile");
}

int64_t SlideFeatures::tile_side() const {
  const auto it = attributes.find("patch_size_level0");
  if (it == attributes.end()) return 0;
  double side = 0;  // written as float64 by some versions
  const char* end = it->second.data() + it->second.size();
  const auto [stop, code] = std::from_chars(it->second.data(), end, side);
  const bool whole = code == std::errc() && stop == end && side >= 1 && side <= 1 << 24 && side == std::floor(side);
  return whole ? int64_t(side) : 0;
}

SlideFeatures load_slide_features(const std::string& path) {
  const MappedFile file(path);
  SlideFeatures slide;
  if (is_hdf5(file)) {
#if BG_WITH_HDF5
    slide = load_hdf5_slide(path, file.size());
#else
    refuse_hdf5(path);
#endif
  } else if (is_safetensors(file)) {
    slide = load_safetensors_slide(path);
  } else {
    refuse(file);
  }
  check_values(path, Status::bad_file, slide);
  return slide;
}

void save_slide_features(const std::string& path, const SlideFeatures& slide) {
  const bool hdf5 = ends_with(path, ".h5");
  if (!hdf5 && !ends_with(path, ".safetensors"))
    throw Error(Status::invalid_argument, path + ": slide features are saved as .h5 or .safetensors; give a name with one of these endings");
#if !BG_WITH_HDF5
  if (hdf5) refuse_hdf5(path);
#endif
  check_before_saving(path, slide);
  NewFile file(path);
#if BG_WITH_HDF5
  if (hdf5) write_hdf5_slide(file.temporary(), slide);
#endif
  if (!hdf5) write_safetensors_slide(&file, slide);
  file.commit();
}

}  // namespace bg
