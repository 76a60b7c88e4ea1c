// See evidence.h.
#include "tools/evidence.h"

namespace tool {
namespace {

bool ends_with(const std::string& text, const std::string& end) { return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0; }

// "out.png" for the first medium that gets one, "out-2.png" for the second …
std::string numbered(const std::string& path, int64_t n) {
  const size_t dot = path.rfind('.');
  return n == 0 ? path : path.substr(0, dot) + "-" + std::to_string(n + 1) + path.substr(dot);
}

bg_medium_report report_of(const bg_session* session, int64_t index) {
  bg_medium_report r{};
  r.struct_size = sizeof r;
  bg_error error;
  check(bg_session_medium_report(session, index, &r, &error), error);
  return r;
}

}  // namespace

Pictures::Pictures(const Options& o, const std::vector<MediumFile>& media) : media_(media), draw_(o.text("--draw")), mask_(o.text("--draw-mask")), evidence_(o.text("--evidence")) {
  bool pixels = false, volumes = false, slides = false;
  for (const MediumFile& file : media) {
    pixels |= file.kind != BG_SLIDE;
    volumes |= file.kind == BG_VOLUME;
    slides |= file.kind == BG_SLIDE;
  }
  if (!draw_.empty() && !ends_with(draw_, ".png")) throw Failure{kUsage, "--draw " + draw_ + ": the name must end in .png"};
  if (!mask_.empty() && !ends_with(mask_, ".nii.gz")) throw Failure{kUsage, "--draw-mask " + mask_ + ": the name must end in .nii.gz"};
  if (!evidence_.empty() && !ends_with(evidence_, ".png")) throw Failure{kUsage, "--evidence " + evidence_ + ": the name must end in .png; a slide's tiles go to the same name with .geojson"};
  if (!draw_.empty() && !pixels) throw Failure{kUsage, "--draw needs an --image or a --volume"};
  if (!mask_.empty() && !volumes) throw Failure{kUsage, "--draw-mask needs a --volume"};
  if (!evidence_.empty() && media.empty()) throw Failure{kUsage, "--evidence needs an --image, --volume or --slide"};
  if (!o.has("--thumbnail")) return;
  if (!slides || evidence_.empty()) throw Failure{kUsage, "--thumbnail needs a --slide and --evidence"};
  bg_image_file* p = nullptr;
  bg_error error;
  check(bg_image_file_open(o.text("--thumbnail").c_str(), 0, &p, &error), error);
  thumbnail_.reset(p);
}

void Pictures::write(bg_session* session) const {
  if (!draw_.empty() || !mask_.empty()) draw(session);
  if (!evidence_.empty()) evidence(session);
}

void Pictures::draw(bg_session* session) const {
  const bg_box* boxes = nullptr;
  int64_t count = 0, drawn = 0, masked = 0;
  bg_error error;
  check(bg_session_boxes(session, &boxes, &count, &error), error);
  for (size_t i = 0; i < media_.size(); ++i) {
    const MediumFile& file = media_[i];
    if (file.kind == BG_SLIDE) continue;
    const bg_medium_report r = report_of(session, int64_t(i));
    const std::string path = draw_.empty() ? "" : numbered(draw_, drawn++);
    if (file.kind == BG_IMAGE && !path.empty())
      check(bg_draw_image_boxes(path.c_str(), bg_image_file_pixels(file.image.get()), r.window_low, r.window_high, boxes, count, int64_t(i), &error), error);
    if (file.kind == BG_VOLUME && !path.empty())
      check(bg_draw_volume_boxes(path.c_str(), bg_volume_file_voxels(file.volume.get()), r.window_low, r.window_high, boxes, count, int64_t(i), &error), error);
    if (file.kind == BG_VOLUME && !mask_.empty()) {
      const std::string stem = mask_.substr(0, mask_.size() - 7), name = masked == 0 ? mask_ : stem + "-" + std::to_string(masked + 1) + ".nii.gz";
      ++masked;
      check(bg_save_volume_mask(name.c_str(), file.volume.get(), boxes, count, int64_t(i), &error), error);
    }
  }
}

void Pictures::evidence(const bg_session* session) const {
  bg_error error;
  int64_t written = 0;
  for (size_t i = 0; i < media_.size(); ++i) {
    const MediumFile& file = media_[i];
    const std::string path = numbered(evidence_, written++);
    if (file.kind == BG_IMAGE) check(bg_draw_image_evidence(path.c_str(), session, int64_t(i), bg_image_file_pixels(file.image.get()), &error), error);
    if (file.kind == BG_VOLUME) check(bg_draw_volume_evidence(path.c_str(), session, int64_t(i), bg_volume_file_voxels(file.volume.get()), &error), error);
    if (file.kind != BG_SLIDE) continue;
    const std::string json = path.substr(0, path.size() - 4) + ".geojson";
    check(bg_save_slide_evidence(json.c_str(), session, int64_t(i), file.slide.get(), &error), error);
    if (thumbnail_) check(bg_draw_slide_evidence(path.c_str(), session, int64_t(i), file.slide.get(), bg_image_file_pixels(thumbnail_.get()), &error), error);
  }
}

}  // namespace tool
