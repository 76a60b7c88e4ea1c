// Evidence on a slide → GeoJSON that QuPath opens (File, Import objects): one annotation per kept tile. In: cells in level-0 pixels (origin top left).
// Out: one file, written under a temporary name and renamed. Not here: thumbnails (sheet.h).
#pragma once
#include <string>
#include <vector>

#include "runtime/evidence.h"

namespace bg {

// A FeatureCollection of closed Polygons. Properties: objectType, name ("top 17"), level, tile, gain, weight, color (heat by weight), classification
// (one for each level, with colorRGB), measurements (gain, weight). The same cells give the same bytes. Throws Error{invalid_argument, io}.
std::string geojson(const std::vector<EvidenceLevel>& levels);
void save_geojson(const std::string& path, const std::vector<EvidenceLevel>& levels);

}  // namespace bg
