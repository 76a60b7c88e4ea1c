// breastgpt_files.h: volumes as files, and results as pictures, masks and GeoJSON. The C face of volume.h, draw.h, sheet.h, geojson.h.
#include <algorithm>
#include <memory>

#include "loaders/draw.h"
#include "loaders/geojson.h"
#include "loaders/mapped_file.h"
#include "loaders/png_write.h"
#include "loaders/sha256.h"
#include "loaders/sheet.h"
#include "loaders/volume.h"
#include "runtime/boundary.h"
#include "runtime/breastgpt_files.h"

struct bg_volume_file {
  bg::Volume volume;
  bg_volume voxels{};
  std::string sha256;
};

namespace {

using bg::Error;
using bg::Status;

std::vector<bg::MarkedBox> boxes_on(const bg_box* boxes, int64_t count, int64_t medium) {
  std::vector<bg::MarkedBox> out;
  for (int64_t i = 0; i < count; ++i) {
    const bg_box& b = boxes[i];
    if (b.medium != medium) continue;
    bg::MarkedBox m;
    std::copy(b.source_low, b.source_low + 3, m.at.low);
    std::copy(b.source_high, b.source_high + 3, m.at.high);
    m.point = b.point != 0;
    m.label = b.label;
    out.push_back(m);
  }
  return out;
}

bg::Canvas canvas(const bg_image* image, double low, double high) {
  const bg_image i = bg::read_struct(bg::required(image, "image"), bg_image{}, "bg_image");
  bg::Image copy;
  copy.width = i.width;
  copy.height = i.height;
  const size_t pixels = size_t(i.width) * size_t(i.height);
  if (i.rgb)
    copy.rgb.assign(i.rgb, i.rgb + 3 * pixels);
  else
    copy.grey16.assign(bg::required(i.grey16, "bg_image.grey16"), i.grey16 + pixels);
  return bg::canvas_of(copy, low, high);
}

bg::Voxels voxels(const bg_volume* volume) {
  const bg_volume v = bg::read_struct(bg::required(volume, "volume"), bg_volume{}, "bg_volume");
  return {v.width, v.height, v.depth, bg::required(v.voxels, "bg_volume.voxels")};
}

void throw_if(bg_status status, const bg_error& error) {
  if (status != BG_OK) throw Error(Status(status), error.message);
}

bg_medium_report report_of(const bg_session* session, int64_t medium) {
  bg_medium_report r{};
  r.struct_size = sizeof r;
  bg_error error;
  throw_if(bg_session_medium_report(session, medium, &r, &error), error);
  return r;
}

struct Chosen {
  std::vector<int64_t> kept;
  std::vector<double> gains;
  std::string name;
};

std::vector<Chosen> chosen_of(const bg_session* session, int64_t medium, int64_t levels) {
  std::vector<Chosen> out;
  for (int64_t l = 0; l < levels; ++l) {
    const int64_t* kept = nullptr;
    const double* gains = nullptr;
    int64_t count = 0;
    double coverage = 0;
    bg_error error;
    throw_if(bg_session_medium_kept(session, medium, l, &kept, &gains, &count, &coverage, &error), error);
    Chosen c{{kept, kept + count}, {}, l == 0 ? "top" : "deepstack " + std::to_string(l - 1)};
    if (gains) c.gains.assign(gains, gains + count);
    out.push_back(std::move(c));
  }
  return out;
}

// Cells of every level on a picture's or a volume's grid.
std::vector<bg::EvidenceLevel> grid_levels(const bg_session* session, int64_t medium, const bg_medium_report& r) {
  const bg::EvidenceGrid grid{r.grid_frames, r.grid_rows, r.grid_cols, r.kind == BG_VOLUME ? r.resized_depth : 2 * r.grid_frames};
  const int64_t size[3] = {r.width, r.height, r.depth};
  std::vector<bg::EvidenceLevel> levels;
  for (const Chosen& c : chosen_of(session, medium, r.levels)) levels.push_back({c.name, bg::evidence_cells(c.kept, c.gains, grid, size)});
  return levels;
}

std::vector<bg::EvidenceLevel> tile_levels(const bg_session* session, int64_t medium, const bg_slide_file* slide) {
  const bg_medium_report r = report_of(session, medium);
  const int64_t* coords = bg_slide_file_coords(bg::required(slide, "slide"));
  const int64_t side = bg_slide_file_tile_side(slide), tiles = bg_slide_file_tiles(slide);
  if (!coords || side < 1) throw Error(Status::unsupported, "this feature file does not say where its tiles lie (coords with patch_size_level0), so evidence cannot be placed on the slide");
  if (tiles != r.tokens) throw Error(Status::invalid_argument, "the feature file has " + std::to_string(tiles) + " tiles, the session's medium " + std::to_string(r.tokens));
  const std::vector<int64_t> where(coords, coords + 2 * tiles);
  std::vector<bg::EvidenceLevel> levels;
  for (const Chosen& c : chosen_of(session, medium, r.levels)) levels.push_back({c.name, bg::slide_cells(c.kept, c.gains, where, side)});
  return levels;
}

void save(const char* path, const bg::Canvas& picture) { bg::save_png(bg::required(path, "path"), picture.width, picture.height, picture.rgb); }

// Level-0 size of a slide: from the file's attributes, else as far as its tiles reach.
void slide_extent(const bg_slide_file* slide, double& width, double& height) {
  width = height = 0;
  for (int64_t i = 0; i < bg_slide_file_attribute_count(slide); ++i) {
    const std::string key = bg_slide_file_attribute_key(slide, i);
    const double value = std::strtod(bg_slide_file_attribute_value(slide, i), nullptr);
    if (key == "level0_width") width = value;
    if (key == "level0_height") height = value;
  }
  const int64_t* coords = bg_slide_file_coords(slide);
  const double side = double(bg_slide_file_tile_side(slide));
  if (width > 0 && height > 0) return;
  for (int64_t i = 0; i < bg_slide_file_tiles(slide); ++i) {
    width = std::max(width, double(coords[2 * i]) + side);
    height = std::max(height, double(coords[2 * i + 1]) + side);
  }
}

}  // namespace

extern "C" {

bg_status bg_volume_file_open(const char* path, bg_volume_file** file, bg_error* error) {
  return bg::guarded(error, [&] {
    *bg::required(file, "file") = nullptr;
    auto out = std::make_unique<bg_volume_file>();
    out->volume = bg::load_volume(bg::required(path, "path"));
    const bg::MappedFile bytes(path);
    out->sha256 = bg::sha256_hex(bytes.data(), bytes.size());
    out->voxels = {sizeof(bg_volume), out->volume.nx, out->volume.ny, out->volume.nz, out->volume.voxels.data()};
    *file = out.release();
  });
}

void bg_volume_file_close(bg_volume_file* file) { delete file; }
const bg_volume* bg_volume_file_voxels(const bg_volume_file* file) { return &file->voxels; }
const char* bg_volume_file_format(const bg_volume_file* file) { return file->volume.format.c_str(); }
const char* bg_volume_file_sha256(const bg_volume_file* file) { return file->sha256.c_str(); }

int bg_volume_file_millimetres(const bg_volume_file* file, const double edges[3], double millimetres[3]) {
  if (!file->volume.has_affine) return 0;
  const auto& a = file->volume.affine;
  // The affine speaks of voxel centres, which lie half a voxel inside their edges.
  for (int i = 0; i < 3; ++i) millimetres[i] = a[i][0] * (edges[0] - 0.5) + a[i][1] * (edges[1] - 0.5) + a[i][2] * (edges[2] - 0.5) + a[i][3];
  return 1;
}

bg_status bg_draw_image_boxes(const char* path, const bg_image* image, double low, double high, const bg_box* boxes, int64_t count, int64_t medium, bg_error* error) {
  return bg::guarded(error, [&] {
    bg::Canvas picture = canvas(image, low, high);
    const std::vector<bg::MarkedBox> marked = boxes_on(boxes, count, medium);
    bg::draw_marks(picture, bg::marks_of(marked));
    save(path, picture);
  });
}

bg_status bg_draw_volume_boxes(const char* path, const bg_volume* volume, double low, double high, const bg_box* boxes, int64_t count, int64_t medium, bg_error* error) {
  return bg::guarded(error, [&] { save(path, bg::box_sheet(voxels(volume), low, high, boxes_on(boxes, count, medium))); });
}

bg_status bg_save_volume_mask(const char* path, const bg_volume_file* file, const bg_box* boxes, int64_t count, int64_t medium, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg::Volume& v = bg::required(file, "file")->volume;
    const int64_t size[3] = {v.nx, v.ny, v.nz};
    std::vector<uint8_t> mask(v.voxels.size());
    int value = 0;
    for (const bg::MarkedBox& box : boxes_on(boxes, count, medium)) {
      value = std::min(value + 1, 255);
      bg::fill_mask(mask, size, box.at, uint8_t(value));
    }
    bg::save_mask(bg::required(path, "path"), mask, v);
  });
}

bg_status bg_draw_image_evidence(const char* path, const bg_session* session, int64_t medium, const bg_image* image, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg_medium_report r = report_of(session, medium);
    save(path, bg::evidence_picture(canvas(image, r.window_low, r.window_high), grid_levels(session, medium, r)));
  });
}

bg_status bg_draw_volume_evidence(const char* path, const bg_session* session, int64_t medium, const bg_volume* volume, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg_medium_report r = report_of(session, medium);
    save(path, bg::evidence_sheet(voxels(volume), r.window_low, r.window_high, grid_levels(session, medium, r)));
  });
}

bg_status bg_draw_slide_evidence(const char* path, const bg_session* session, int64_t medium, const bg_slide_file* slide, const bg_image* thumbnail, bg_error* error) {
  return bg::guarded(error, [&] {
    std::vector<bg::EvidenceLevel> levels = tile_levels(session, medium, slide);
    const bg::Canvas picture = canvas(thumbnail, 0, 65535);
    double width = 0, height = 0;
    slide_extent(slide, width, height);
    for (bg::EvidenceLevel& level : levels) level.cells = bg::scaled_cells(level.cells, double(picture.width) / width, double(picture.height) / height);
    save(path, bg::evidence_picture(picture, levels));
  });
}

bg_status bg_save_slide_evidence(const char* path, const bg_session* session, int64_t medium, const bg_slide_file* slide, bg_error* error) {
  return bg::guarded(error, [&] { bg::save_geojson(bg::required(path, "path"), tile_levels(session, medium, slide)); });
}

}  // extern "C"
