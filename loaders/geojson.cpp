// See geojson.h.
#include "loaders/geojson.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "loaders/error.h"
#include "loaders/new_file.h"
#include "loaders/sheet.h"

namespace bg {
namespace {

using Json = nlohmann::ordered_json;

// Whole pixels without a decimal point.
Json number(double v) {
  if (!std::isfinite(v)) throw Error(Status::invalid_argument, "evidence: a tile has a position or gain that is not finite");
  if (v == std::floor(v) && std::fabs(v) < 9e15) return int64_t(v);
  return v;
}

Json rgb(Colour c) { return Json::array({int(c[0]), int(c[1]), int(c[2])}); }

// QuPath before 0.4 reads a class colour as Java's packed integer with full opacity: 0xFFrrggbb, signed.
int32_t packed(Colour c) { return int32_t(0xFF000000u | uint32_t(c[0]) << 16 | uint32_t(c[1]) << 8 | c[2]); }

Json feature(const EvidenceLevel& level, const EvidenceCell& cell, double most, Colour level_colour) {
  const Json x0 = number(cell.at.low[0]), y0 = number(cell.at.low[1]), x1 = number(cell.at.high[0]), y1 = number(cell.at.high[1]);
  const auto point = [](const Json& x, const Json& y) { return Json::array({x, y}); };
  Json f;
  f["type"] = "Feature";
  f["geometry"]["type"] = "Polygon";
  f["geometry"]["coordinates"] = Json::array({Json::array({point(x0, y0), point(x1, y0), point(x1, y1), point(x0, y1), point(x0, y0)})});
  Json& p = f["properties"];
  p["objectType"] = "annotation";
  p["name"] = level.name + " " + std::to_string(cell.token);
  p["level"] = level.name;
  p["tile"] = cell.token;
  p["gain"] = number(cell.gain);
  p["weight"] = number(cell.weight);
  p["color"] = rgb(heat_colour(most > 0 ? cell.weight / most : 0));
  p["classification"] = {{"name", "kept " + level.name}, {"color", rgb(level_colour)}, {"colorRGB", packed(level_colour)}};
  // The list form is what every version of QuPath reads.
  p["measurements"] = Json::array({{{"name", "gain"}, {"value", number(cell.gain)}}, {{"name", "weight"}, {"value", number(cell.weight)}}});
  return f;
}

}  // namespace

std::string geojson(const std::vector<EvidenceLevel>& levels) {
  std::string out = "{\"type\":\"FeatureCollection\",\"features\":[";
  bool first = true;
  for (size_t i = 0; i < levels.size(); ++i) {
    double most = 0;
    for (const EvidenceCell& cell : levels[i].cells) most = std::max(most, cell.weight);
    for (const EvidenceCell& cell : levels[i].cells) {
      out += first ? "\n" : ",\n";
      first = false;
      out += feature(levels[i], cell, most, palette_colour(i)).dump(-1, ' ', false, Json::error_handler_t::replace);  // bytes that are no UTF-8 → U+FFFD
    }
  }
  return out + "\n]}\n";
}

void save_geojson(const std::string& path, const std::vector<EvidenceLevel>& levels) {
  const std::string text = geojson(levels);
  NewFile file(path);
  file.append(text.data(), text.size());
  file.commit();
}

}  // namespace bg
