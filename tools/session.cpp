// See session.h.
#include "tools/session.h"

#include <filesystem>
#include <fstream>
#include <iterator>

namespace tool {
namespace {

const std::vector<Option> kSessionOptions = {
    {"--model", "FILE", "weights file made by breastgpt-convert", "-m"},
    {"--image", "FILE", "picture: PNG, JPEG, TIFF, BMP, PNM; may be given several times, like the next two", "-i"},
    {"--volume", "FILE", "CT or MRI volume: NIfTI (.nii, .nii.gz), .npy"},
    {"--slide", "FILE", "slide features: Trident or CLAM .h5, .safetensors"},
    {"--system", "TEXT|@FILE", "system text (the role); none by default"},
    {"--image-tokens", "N", "tokens kept of each picture; default: the model's"},
    {"--volume-tokens", "N", "tokens kept of each volume; default: the model's"},
    {"--slide-tokens", "N", "tokens kept of each slide; default: the model's"},
    {"--selector", "NAME", "coverage, coverage-text, concept, none; default: the model's"},
    {"--max-image-tokens", "N", "tokens of a picture before selection, 1024 pixels each; default: the model's"},
    {"--max-pixels", "N", "refuse pictures with more pixels; default 200000000"},
    {"--window", "L,W", "level and width for volumes and 16-bit grey pictures; default: their own range"},
    {"--pil-exact", "", "16-bit grey pictures: clip at 255 as the reference does"},
    {"--no-prescale", "", "leave out the preparation that training pictures and volumes had"},
    {"--backend", "NAME", "cpu (default), cpu/avx2 and so on (breastgpt info lists them), ref (float32 definition), ref64 (float64), cuda or cuda:N (a GPU)"},
    {"--vram", "BYTES", "of the GPU that model and session may take; default: what is free. Weights that do not fit are read over the bus"},
    {"--cublas", "", "let cuBLASLt do a GPU's products of many rows: faster on some GPUs, with bits that depend on GPU and library"},
    {"--precision", "NAME", "fast (default): activations may be rounded for BF16 and int8 instructions; float32: they are not"},
    {"--kv", "TYPE", "of keys and values: auto (default: bf16 with fast, f32 with float32), f32, bf16, q8_0"},
    {"--threads", "N", "default: all cores; never changes the answer", "-t"},
    {"--context", "N", "tokens of the whole conversation; default 4096 or the model's limit"},
    {"--chunk", "N", "prompt tokens at once; default 512; never changes the answer"},
    {"--memory-cap", "BYTES", "refuse what would need more, e.g. 800M or 4G"},
};

// "L,W"; false when --window is not given.
bool read_window(const Options& options, double& level, double& width) {
  if (!options.has("--window")) return false;
  const std::string window = options.text("--window");
  const size_t comma = window.find(',');
  if (comma == std::string::npos) throw Failure{kUsage, "--window " + window + ": expected LEVEL,WIDTH such as 2048,4096"};
  level = parse_real(window.substr(0, comma), "--window level");
  width = parse_real(window.substr(comma + 1), "--window width");
  if (!(width > 0)) throw Failure{kUsage, "--window " + window + ": the width must be positive"};
  return true;
}

}  // namespace

std::vector<Option> with_session_options(const std::vector<Option>& own) {
  std::vector<Option> all = kSessionOptions;
  all.insert(all.end(), own.begin(), own.end());
  return all;
}

std::vector<std::string> questions_of(const Options& options) {
  for (const std::string& question : options.arguments()) {
    std::error_code ignored;
    if (std::filesystem::is_regular_file(question, ignored))
      throw Failure{kUsage, question + " is a file: give pictures with --image, volumes with --volume, slides with --slide; a file of text with --system @FILE"};
  }
  return options.arguments();
}

const char* MediumFile::format() const {
  return kind == BG_IMAGE ? bg_image_file_format(image.get()) : kind == BG_VOLUME ? bg_volume_file_format(volume.get()) : bg_slide_file_format(slide.get());
}

const char* MediumFile::sha256() const {
  return kind == BG_IMAGE ? bg_image_file_sha256(image.get()) : kind == BG_VOLUME ? bg_volume_file_sha256(volume.get()) : bg_slide_file_sha256(slide.get());
}

bg_medium_size MediumFile::size() const {
  if (kind == BG_IMAGE) return {kind, bg_image_file_pixels(image.get())->width, bg_image_file_pixels(image.get())->height, 1};
  if (kind == BG_VOLUME) {
    const bg_volume* v = bg_volume_file_voxels(volume.get());
    return {kind, v->width, v->height, v->depth};
  }
  return {kind, bg_slide_file_tiles(slide.get()), bg_slide_file_width(slide.get()), 1};
}

ModelPtr open_model(const std::string& path) {
  bg_error error;
  bg_model* model = nullptr;
  check(bg_model_open(path.c_str(), &model, &error), error);
  return ModelPtr(model);
}

std::vector<MediumFile> open_media(const Options& options) {
  std::vector<MediumFile> out;
  const int64_t max_pixels = options.integer("--max-pixels", 0, 1, int64_t(1) << 40);
  bg_error error;
  for (const auto& [name, path] : options.given()) {
    MediumFile file;
    file.path = path;
    if (name == "--image") {
      bg_image_file* p = nullptr;
      check(bg_image_file_open(path.c_str(), max_pixels, &p, &error), error);
      file.image.reset(p);
    } else if (name == "--volume") {
      bg_volume_file* p = nullptr;
      check(bg_volume_file_open(path.c_str(), &p, &error), error);
      file.volume.reset(p);
      file.kind = BG_VOLUME;
    } else if (name == "--slide") {
      bg_slide_file* p = nullptr;
      check(bg_slide_file_open(path.c_str(), &p, &error), error);
      file.slide.reset(p);
      file.kind = BG_SLIDE;
    } else {
      continue;
    }
    out.push_back(std::move(file));
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
  strings = {options.text("--backend", "cpu"), options.text("--trace"), options.text("--selector"), options.text("--precision", "fast"),
             options.text("--kv", "auto")};
  p.backend = strings[0].c_str();
  p.threads = int(options.integer("--threads", p.threads, 1, 1024));
  p.context = options.integer("--context", 0, 1, int64_t(1) << 31);
  p.chunk = options.integer("--chunk", p.chunk, 1, int64_t(1) << 31);
  p.memory_cap = options.bytes("--memory-cap");
  p.vram = options.bytes("--vram");
  p.cublas = options.has("--cublas");
  if (!strings[1].empty()) p.trace_folder = strings[1].c_str();
  if (!strings[2].empty()) p.selector = strings[2].c_str();
  p.precision = strings[3].c_str();
  p.kv_type = strings[4].c_str();
  p.trace_data = options.has("--trace-data");
  if (p.trace_data && !p.trace_folder) throw Failure{kUsage, "--trace-data needs --trace DIR"};
  return p;
}

bg_image_params image_params(const Options& options) {
  bg_image_params p = bg_image_params_default();
  p.token_budget = options.integer("--image-tokens", 0, 1, 65536);
  p.max_tokens = options.integer("--max-image-tokens", 0, 1, 65536);
  p.no_prescale = options.has("--no-prescale");
  p.pil_exact = options.has("--pil-exact");
  p.has_window = read_window(options, p.window_level, p.window_width);
  return p;
}

bg_volume_params volume_params(const Options& options) {
  bg_volume_params p = bg_volume_params_default();
  p.token_budget = options.integer("--volume-tokens", 0, 1, 65536);
  p.no_prescale = options.has("--no-prescale");
  p.has_window = read_window(options, p.window_level, p.window_width);
  return p;
}

int64_t slide_budget(const Options& options) { return options.integer("--slide-tokens", 0, 1, 65536); }

void add_medium(bg_session* session, const MediumFile& file, const bg_image_params& image, const bg_volume_params& volume, int64_t slide_tokens) {
  bg_error error;
  if (file.kind == BG_IMAGE) check(bg_session_add_image(session, bg_image_file_pixels(file.image.get()), &image, &error), error);
  if (file.kind == BG_VOLUME) check(bg_session_add_volume(session, bg_volume_file_voxels(file.volume.get()), &volume, &error), error);
  if (file.kind == BG_SLIDE) {
    const bg_slide slide = {sizeof slide, bg_slide_file_tiles(file.slide.get()), bg_slide_file_width(file.slide.get()), bg_slide_file_features(file.slide.get())};
    check(bg_session_add_slide(session, &slide, slide_tokens, &error), error);
  }
}

}  // namespace tool
