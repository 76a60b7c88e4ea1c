// What `ask` and `plan` share: options of a session and its media, the model, the media files themselves.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "runtime/breastgpt_files.h"
#include "tools/options.h"

namespace tool {

std::vector<Option> with_session_options(const std::vector<Option>& own);  // --model … --memory-cap, then a command's own

template <class T, void (*F)(T*)>
struct Close {
  void operator()(T* p) const { F(p); }
};
using ModelPtr = std::unique_ptr<bg_model, Close<bg_model, bg_model_close>>;
using SessionPtr = std::unique_ptr<bg_session, Close<bg_session, bg_session_close>>;
using ImagePtr = std::unique_ptr<bg_image_file, Close<bg_image_file, bg_image_file_close>>;
using VolumePtr = std::unique_ptr<bg_volume_file, Close<bg_volume_file, bg_volume_file_close>>;
using SlidePtr = std::unique_ptr<bg_slide_file, Close<bg_slide_file, bg_slide_file_close>>;

// A media file, opened; one of the three is set.
struct MediumFile {
  bg_medium_kind kind = BG_IMAGE;
  std::string path;
  ImagePtr image;
  VolumePtr volume;
  SlidePtr slide;
  const char* format() const;
  const char* sha256() const;
  bg_medium_size size() const;
};

ModelPtr open_model(const std::string& path);
std::vector<MediumFile> open_media(const Options& options);  // --image, --volume, --slide in the order given
std::string system_text(const Options& options);             // --system TEXT or @FILE
std::vector<std::string> questions_of(const Options& options);  // the arguments; fails where one is the name of a file, whose option was forgotten
// The strings inside stay owned by `strings`.
bg_session_params session_params(const Options& options, std::vector<std::string>& strings);
bg_image_params image_params(const Options& options);
bg_volume_params volume_params(const Options& options);
int64_t slide_budget(const Options& options);
void add_medium(bg_session* session, const MediumFile& file, const bg_image_params& image, const bg_volume_params& volume, int64_t slide_tokens);

}  // namespace tool
