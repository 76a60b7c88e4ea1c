// What `ask` and `plan` share: options of a session and a picture, the model, the pictures themselves.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "runtime/breastgpt_files.h"
#include "tools/options.h"

namespace tool {

extern const std::vector<Option> kSessionOptions;  // --model … --window; each command appends its own
std::vector<Option> with_session_options(const std::vector<Option>& own);

struct ModelClose {
  void operator()(bg_model* m) const { bg_model_close(m); }
};
struct SessionClose {
  void operator()(bg_session* s) const { bg_session_close(s); }
};
struct ImageClose {
  void operator()(bg_image_file* f) const { bg_image_file_close(f); }
};
using ModelPtr = std::unique_ptr<bg_model, ModelClose>;
using SessionPtr = std::unique_ptr<bg_session, SessionClose>;
using ImagePtr = std::unique_ptr<bg_image_file, ImageClose>;

ModelPtr open_model(const std::string& path);
std::vector<ImagePtr> open_images(const Options& options);
std::string system_text(const Options& options);  // --system TEXT or @FILE
// The strings inside stay owned by `strings`.
bg_session_params session_params(const Options& options, std::vector<std::string>& strings);
bg_image_params image_params(const Options& options);

}  // namespace tool
