// breastgpt features: what a slide's feature file holds, and the same features in the other format.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "runtime/breastgpt_files.h"
#include "tools/options.h"

namespace tool {
namespace {

struct SlideClose {
  void operator()(bg_slide_file* f) const { bg_slide_file_close(f); }
};
using Slide = std::unique_ptr<bg_slide_file, SlideClose>;

Slide open_slide(const std::string& path) {
  bg_slide_file* file = nullptr;
  bg_error error;
  check(bg_slide_file_open(path.c_str(), &file, &error), error);
  return Slide(file);
}

// Text from a file on its way to a terminal: control characters as '?'.
std::string printable(const char* text) {
  std::string out = text;
  std::replace_if(out.begin(), out.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, '?');
  return out;
}

// Smallest and largest corner along one axis; `axis` 0: x, 1: y.
void print_extent(const bg_slide_file* slide, int axis) {
  const int64_t* coords = bg_slide_file_coords(slide);
  int64_t low = coords[axis], high = coords[axis];
  for (int64_t i = 1; i < bg_slide_file_tiles(slide); ++i) {
    low = std::min(low, coords[2 * i + axis]);
    high = std::max(high, coords[2 * i + axis]);
  }
  std::printf("%s %lld ... %lld", axis == 0 ? " x" : ", y", static_cast<long long>(low), static_cast<long long>(high + bg_slide_file_tile_side(slide)));
}

int info(const std::string& path) {
  const Slide slide = open_slide(path);
  std::printf("file:       %s, %s, sha256 %s\n", path.c_str(), bg_slide_file_format(slide.get()), bg_slide_file_sha256(slide.get()));
  std::printf("tiles:      %lld\nwidth:      %lld\n", static_cast<long long>(bg_slide_file_tiles(slide.get())), static_cast<long long>(bg_slide_file_width(slide.get())));
  std::printf("extent:    ");
  if (bg_slide_file_coords(slide.get())) {
    print_extent(slide.get(), 0);
    print_extent(slide.get(), 1);
    std::printf(" level-0 pixels%s\n", bg_slide_file_tile_side(slide.get()) ? "" : " (tile corners; the side of a tile is not in the file)");
  } else {
    std::printf(" no coords in the file: evidence cannot be drawn\n");
  }
  for (int64_t i = 0; i < bg_slide_file_attribute_count(slide.get()); ++i)
    std::printf("attribute:  %s = %s\n", printable(bg_slide_file_attribute_key(slide.get(), i)).c_str(), printable(bg_slide_file_attribute_value(slide.get(), i)).c_str());
  return kOk;
}

int convert(const std::string& from, const std::string& to) {
  const Slide slide = open_slide(from);
  bg_error error;
  check(bg_slide_file_save(slide.get(), to.c_str(), &error), error);
  std::printf("%s: %lld tiles of width %lld%s\n", to.c_str(), static_cast<long long>(bg_slide_file_tiles(slide.get())), static_cast<long long>(bg_slide_file_width(slide.get())),
              bg_slide_file_coords(slide.get()) ? "" : ", without coords");
  return kOk;
}

}  // namespace

int run_features(int argc, char** argv) {
  const Options o("breastgpt features", "info FILE | convert IN OUT\n\nFILE, IN: Trident or CLAM .h5, or .safetensors. OUT: .h5 (as Trident writes it) or .safetensors.", {}, argc, argv);
  if (o.help()) {
    std::printf("%s", o.help_text().c_str());
    return kOk;
  }
  const std::vector<std::string>& a = o.arguments();
  if (a.size() == 2 && a[0] == "info") return info(a[1]);
  if (a.size() == 3 && a[0] == "convert") return convert(a[1], a[2]);
  throw Failure{kUsage, "expected info FILE or convert IN OUT; see breastgpt features --help"};
}

}  // namespace tool
