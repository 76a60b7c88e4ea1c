// Patch embeddings of a slide: Trident .h5, CLAM .h5, and our own .safetensors (features, coords, attributes), both ways.
// In: a path. Out: N×D float32 features in file order, coordinates, attributes. Not here: LongNet.
// HDF5: top-level datasets `features` float16/32/64 (N, D) and, if there, `coords` int32/int64 (N, 2); compression by gzip and shuffle is read, every
// other filter, link and layout that leads out of the file or into a plug-in is refused. Features (1, N, D) are read when `coords` has N rows; without
// that it could as well be one tile of N rows, and is refused. safetensors: `features` F32 (N, D), `coords` I64 (N, 2), attributes as metadata.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace bg {

struct SlideFeatures {
  int64_t tiles = 0, width = 0;              // N, D (768)
  std::vector<float> features;               // (N, D)
  std::vector<int64_t> coords;               // (N, 2) level-0 x, y of each tile's corner; empty when the file has none
  std::map<std::string, std::string> attributes;  // "patch_size_level0" → "1024" …, numbers in decimal; only what the file has
                                                  // of features and coords together; where both have a name with different values, that of
                                                  // features is "features.name". A float64 keeps its point ("20.0"), so that it is written as one again
  std::string format;                        // "Trident HDF5", "CLAM HDF5", "safetensors"
  // Level-0 side of a tile from the attributes (patch_size_level0), else 0.
  int64_t tile_side() const;
};

// Refuses, with numbers: an empty slide (features of shape (0,)), non-finite values (tile and position of the first), more than 2,000,000 tiles, wrong shapes,
// coords that do not fit. Throws Error.
SlideFeatures load_slide_features(const std::string& path);
// By the target's ending: .h5 (Trident's layout, readable by h5py) or .safetensors. Temporary name, then rename.
void save_slide_features(const std::string& path, const SlideFeatures& slide);

}  // namespace bg
