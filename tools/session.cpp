// See session.h.
#include "tools/session.h"

#include <fstream>
#include <iterator>

namespace tool {

const std::vector<Option> kSessionOptions = {
    {"--model", "FILE", "weights file made by breastgpt-convert", "-m"},
    {"--image", "FILE", "picture: PNG, JPEG, TIFF, BMP, PNM; may be given several times", "-i"},
    {"--system", "TEXT|@FILE", "system text (the role); none by default"},
    {"--image-tokens", "N", "tokens kept of each picture; default: the model's"},
    {"--max-image-tokens", "N", "tokens of a picture before selection, 1024 pixels each; default 1024"},
    {"--max-pixels", "N", "refuse pictures with more pixels; default 200000000"},
    {"--window", "L,W", "16-bit grey pictures: level and width; default: min to max of the picture"},
    {"--pil-exact", "", "16-bit grey pictures: clip at 255 as the reference does"},
    {"--no-prescale", "", "leave out the first reduction to 1048576 pixels that training pictures had"},
    {"--backend", "NAME", "cpu (default), cpu/avx2, cpu/portable, ref (float32 definition), ref64 (float64)"},
    {"--threads", "N", "default: all cores; never changes the answer", "-t"},
    {"--context", "N", "tokens of the whole conversation; default 4096 or the model's limit"},
    {"--chunk", "N", "prompt tokens at once; default 512; never changes the answer"},
    {"--memory-cap", "BYTES", "refuse what would need more, e.g. 800M or 4G"},
};

std::vector<Option> with_session_options(const std::vector<Option>& own) {
  std::vector<Option> all = kSessionOptions;
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

ModelPtr open_model(const std::string& path) {
  bg_error error;
  bg_model* model = nullptr;
  check(bg_model_open(path.c_str(), &model, &error), error);
  return ModelPtr(model);
}

std::vector<ImagePtr> open_images(const Options& options) {
  std::vector<ImagePtr> out;
  for (const std::string& path : options.all("--image")) {
    bg_error error;
    bg_image_file* file = nullptr;
    check(bg_image_file_open(path.c_str(), options.integer("--max-pixels", 0, 1, int64_t(1) << 40), &file, &error), error);
    out.emplace_back(file);
  }
  return out;
}

std::string system_text(const Options& options) {
  const std::string text = options.text("--system");
  if (text.empty() || text[0] != '@') return text;
  std::ifstream in(text.substr(1), std::ios::binary);
  if (!in) throw Failure{kFailed, text.substr(1) + ": cannot be read (system text)"};
  std::string content{std::istreambuf_iterator<char>(in), {}};
  while (!content.empty() && content.back() == '\n') content.pop_back();
  return content;
}

bg_session_params session_params(const Options& options, std::vector<std::string>& strings) {
  bg_session_params p = bg_session_params_default();
  strings = {options.text("--backend", "cpu"), options.text("--trace")};
  p.backend = strings[0].c_str();
  p.threads = int(options.integer("--threads", p.threads, 1, 1024));
  p.context = options.integer("--context", 0, 1, int64_t(1) << 31);
  p.chunk = options.integer("--chunk", p.chunk, 1, int64_t(1) << 31);
  p.memory_cap = options.bytes("--memory-cap");
  if (!strings[1].empty()) p.trace_folder = strings[1].c_str();
  p.trace_data = options.has("--trace-data");
  if (p.trace_data && !p.trace_folder) throw Failure{kUsage, "--trace-data needs --trace DIR"};
  return p;
}

bg_image_params image_params(const Options& options) {
  bg_image_params p = bg_image_params_default();
  p.token_budget = options.integer("--image-tokens", 0, 1, 65536);
  p.max_tokens = options.integer("--max-image-tokens", p.max_tokens, 1, 65536);
  p.no_prescale = options.has("--no-prescale");
  p.pil_exact = options.has("--pil-exact");
  if (options.has("--window")) {
    const std::string window = options.text("--window");
    const size_t comma = window.find(',');
    if (comma == std::string::npos) throw Failure{kUsage, "--window " + window + ": expected LEVEL,WIDTH such as 2048,4096"};
    p.has_window = 1;
    p.window_level = parse_real(window.substr(0, comma), "--window level");
    p.window_width = parse_real(window.substr(comma + 1), "--window width");
    if (!(p.window_width > 0)) throw Failure{kUsage, "--window " + window + ": the width must be positive"};
  }
  return p;
}

}  // namespace tool
