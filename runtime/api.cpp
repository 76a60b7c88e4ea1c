// breastgpt.h over answer.h: checks arguments, turns exceptions into statuses. No logic of its own.
#include <algorithm>
#include <cmath>
#include <thread>

#include "runtime/answer.h"
#include "runtime/boundary.h"
#include "runtime/boxes.h"
#include "runtime/breastgpt.h"
#include "runtime/mention.h"
#include "runtime/verify.h"

using bg::Error;
using bg::Status;

struct bg_model {
  std::shared_ptr<const bg::Model> model;
};

struct bg_session {
  std::unique_ptr<bg::Session> session;
  bg_answer answer{};
  std::string marked_text;          // of the last answer, for its boxes
  std::vector<bg::Box> found;       // owns the labels of `boxes`
  std::vector<bg_box> boxes;
  std::vector<bg_score> scores;
};

namespace {

bg::Callbacks callbacks_of(const bg_callbacks* given) {
  const bg_callbacks c = bg::read_struct(given, bg_callbacks{}, "bg_callbacks");
  bg::Callbacks out;
  if (c.log) out.log = [c](int level, const std::string& message) { c.log(c.user, level, message.c_str()); };
  if (c.progress) out.progress = [c](const char* stage, int64_t done, int64_t total) { c.progress(c.user, stage, done, total); };
  if (c.cancel) out.cancel = [c] { return c.cancel(c.user) != 0; };
  return out;
}

bg::SessionOptions options_of(const bg_session_params* params, const bg::Model& model) {
  const bg_session_params p = bg::read_struct(params, bg_session_params_default(), "bg_session_params");
  bg::SessionOptions o;
  if (p.backend) o.backend = p.backend;
  o.threads = p.threads;
  o.context = p.context > 0 ? p.context : std::min<int64_t>(4096, model.config.text.context);
  o.chunk = p.chunk;
  o.memory_cap = p.memory_cap;
  if (p.selector) o.selector = p.selector;
  const std::string precision = p.precision ? p.precision : "fast";
  if (precision != "fast" && precision != "float32") throw Error(Status::invalid_argument, "unknown precision \"" + precision + "\"; there are fast, float32");
  o.precision = precision == "fast" ? bg::Precision::fast : bg::Precision::float32;
  if (p.kv_type) o.kv_type = p.kv_type;
  o.vram = p.vram;
  o.cublas = p.cublas != 0;
  if (p.trace_folder) o.trace_folder = p.trace_folder;
  o.trace_data = p.trace_data != 0;
  o.callbacks = callbacks_of(p.callbacks);
  return o;
}

bg::ImageOptions image_options_of(const bg_image_params& p) {
  if (p.max_tokens < 0 || p.max_tokens > 65536)
    throw Error(Status::invalid_argument, "max tokens of a picture must be 1 … 65536, or 0 for the model's own, got " + std::to_string(p.max_tokens));
  bg::ImageOptions o;
  o.max_pixels = p.max_tokens * 1024;
  o.prescale = !p.no_prescale;
  o.pil_exact = p.pil_exact != 0;
  o.has_window = p.has_window != 0;
  o.level = p.window_level;
  o.width = p.window_width;
  return o;
}

bg::VolumeOptions volume_options_of(const bg_volume_params& p) {
  bg::VolumeOptions o;
  o.prescale = !p.no_prescale;
  o.has_window = p.has_window != 0;
  o.level = p.window_level;
  o.width = p.window_width;
  return o;
}

// Source size of a medium: what its boxes are written against.
void source_size(const bg::Medium& m, int64_t size[3]) {
  const bool image = m.kind == bg::MediumKind::image;
  for (int i = 0; i < 3; ++i) size[i] = image ? 1 : m.volume.source[i];
  if (image) size[0] = m.image.source.width, size[1] = m.image.source.height;
}

const bg::Medium& medium_of(const bg_session* session, int64_t index) {
  const auto& media = bg::required(session, "session")->session->media();
  if (index < 0 || index >= int64_t(media.size()))
    throw Error(Status::invalid_argument, "medium " + std::to_string(index) + ": this session has " + std::to_string(media.size()));
  return *media[size_t(index)];
}

}  // namespace

extern "C" {

const char* bg_version(void) { return "0.1.0"; }

const char* bg_status_name(bg_status status) {
  switch (status) {
    case BG_OK: return "ok";
    case BG_INVALID_ARGUMENT: return "invalid argument";
    case BG_NOT_FOUND: return "not found";
    case BG_BAD_FILE: return "bad file";
    case BG_UNSUPPORTED: return "unsupported";
    case BG_TOO_LARGE: return "too large";
    case BG_IO: return "input/output error";
    case BG_CANCELLED: return "cancelled";
    case BG_INTERNAL: return "internal error";
    case BG_DEVICE: return "device error";
  }
  return "unknown status";
}

const char* bg_instruction_set(void) { return bg::isa_name(bg::best_isa()); }

const char* bg_built_instruction_set(int index, int* usable) {
  int count = 0;
  const bg::Isa* built = bg::built_isas(&count);
  if (index < 0 || index >= count) return nullptr;
  if (usable) *usable = bg::runs(built[index]);
  return bg::isa_name(built[index]);
}

const char* bg_cuda_build(void) { return bg::cuda_build(); }

const char* bg_gpu(int index, const char** why_none) {
  static thread_local std::string text;
  const char* answer = nullptr;
  try {
    const int count = bg::cuda_devices(&text);
    if (index >= 0 && index < count) {
      const bg::DeviceInfo i = bg::make_cuda_device(index)->info();
      text = i.name + ", compute capability " + std::to_string(i.major) + "." + std::to_string(i.minor) + ", " + std::to_string(i.memory >> 20) + " MiB, " +
             std::to_string(i.free >> 20) + " MiB free";
      answer = text.c_str();
    }
  } catch (const std::exception& e) {
    text = e.what();
    answer = text.c_str();
  }
  if (why_none) *why_none = answer ? nullptr : text.c_str();
  return answer;
}

bg_status bg_model_open(const char* path, bg_model** model, bg_error* error) {
  return bg::guarded(error, [&] {
    *bg::required(model, "model") = nullptr;
    *model = new bg_model{std::make_shared<const bg::Model>(bg::required(path, "path"))};
  });
}

void bg_model_close(bg_model* model) { delete model; }

bg_status bg_model_get_info(const bg_model* model, bg_model_info* info, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg::Model& m = *bg::required(model, "model")->model;
    const bg::Config& c = m.config;
    bg_model_info i{};
    i.path = m.file.path().c_str();
    i.type = c.model_type.c_str();
    i.weight_type = m.weight_types.c_str();
    i.weights_sha256 = m.weights_sha256.c_str();
    i.selector = c.selector.enabled ? c.selector.kind.c_str() : "none";
    i.selector_uses_text = c.selector.use_text;
    i.file_bytes = m.file.file_bytes();
    i.tensors = int64_t(m.file.tensors().size());
    for (const bg::GgufTensor& t : m.file.tensors()) i.parameters += t.elements();
    i.layers = c.text.layers;
    i.hidden = c.text.hidden;
    i.ffn = c.text.ffn;
    i.heads = c.text.heads;
    i.kv_heads = c.text.kv_heads;
    i.head_dim = c.text.head_dim;
    i.vocabulary = c.text.vocab;
    i.context = c.text.context;
    i.vit_depth = c.vision.depth;
    i.vit_hidden = c.vision.hidden;
    i.vit_ffn = c.vision.ffn;
    i.vit_heads = c.vision.heads;
    i.deepstack_levels = int64_t(c.vision.deepstack.size());
    i.image_tokens = c.selector.image_tokens;
    i.volume_tokens = c.selector.volume_tokens;
    i.slide_tokens = c.selector.slide_tokens;
    bg::write_struct(info, i, "bg_model_info");
  });
}

bg_status bg_model_verify(const bg_model* model, const bg_callbacks* callbacks, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg::Callbacks c = callbacks_of(callbacks);
    const bg::VerifyResult result = bg::verify_weights(bg::required(model, "model")->model->file, [&](uint64_t done, uint64_t total) {
      if (c.progress) c.progress("verify", int64_t(done), int64_t(total));
      return !(c.cancel && c.cancel());
    });
    if (result.mismatched.empty()) return;
    std::string message = model->model->file.path() + ": the SHA-256 of " + std::to_string(result.mismatched.size()) + " tensors is not the one in the file's list; copy or convert the file again:";
    for (const std::string& name : result.mismatched) message += "\n  tensor \"" + name + "\"";
    throw Error(Status::bad_file, message);
  });
}

bg_image_params bg_image_params_default(void) {
  bg_image_params p{};
  p.struct_size = sizeof p;
  return p;
}

bg_volume_params bg_volume_params_default(void) {
  bg_volume_params p{};
  p.struct_size = sizeof p;
  return p;
}

bg_session_params bg_session_params_default(void) {
  bg_session_params p{};
  p.struct_size = sizeof p;
  p.backend = "cpu";
  p.threads = int(std::clamp(std::thread::hardware_concurrency(), 1u, 1024u));
  p.chunk = 512;
  return p;
}

bg_generation bg_generation_default(void) {
  bg_generation g{};
  g.struct_size = sizeof g;
  g.max_tokens = 1024;
  g.top_p = 1;
  g.repetition_penalty = 1;
  return g;
}

bg_status bg_session_open(const bg_model* model, const bg_session_params* params, bg_session** session, bg_error* error) {
  return bg::guarded(error, [&] {
    *bg::required(session, "session") = nullptr;
    const std::shared_ptr<const bg::Model>& m = bg::required(model, "model")->model;
    auto opened = std::make_unique<bg_session>();
    opened->session = std::make_unique<bg::Session>(m, options_of(params, *m));
    *session = opened.release();
  });
}

void bg_session_close(bg_session* session) { delete session; }

bg_status bg_session_system(bg_session* session, const char* text, bg_error* error) {
  return bg::guarded(error, [&] { bg::required(session, "session")->session->system(bg::required(text, "text")); });
}

bg_status bg_session_add_image(bg_session* session, const bg_image* image, const bg_image_params* params, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg_image i = bg::read_struct(bg::required(image, "image"), bg_image{}, "bg_image");
    if ((i.rgb == nullptr) == (i.grey16 == nullptr)) throw Error(Status::invalid_argument, "bg_image: exactly one of rgb and grey16 must be given");
    const bg_image_params p = bg::read_struct(params, bg_image_params_default(), "bg_image_params");
    bg::MediumInput in;
    in.pixels = {i.width, i.height, i.rgb, i.grey16};
    in.image = image_options_of(p);
    in.budget = p.token_budget;
    bg::required(session, "session")->session->add(in);
  });
}

bg_status bg_session_add_volume(bg_session* session, const bg_volume* volume, const bg_volume_params* params, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg_volume v = bg::read_struct(bg::required(volume, "volume"), bg_volume{}, "bg_volume");
    const bg_volume_params p = bg::read_struct(params, bg_volume_params_default(), "bg_volume_params");
    bg::MediumInput in;
    in.kind = bg::MediumKind::volume;
    in.voxels = {v.width, v.height, v.depth, bg::required(v.voxels, "bg_volume.voxels")};
    in.volume = volume_options_of(p);
    in.budget = p.token_budget;
    bg::required(session, "session")->session->add(in);
  });
}

bg_status bg_session_add_slide(bg_session* session, const bg_slide* slide, int64_t token_budget, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg_slide v = bg::read_struct(bg::required(slide, "slide"), bg_slide{}, "bg_slide");
    bg::MediumInput in;
    in.kind = bg::MediumKind::slide;
    in.features = bg::required(v.features, "bg_slide.features");
    in.tiles = v.tiles;
    in.width = v.feature_dim;
    in.budget = token_budget;
    bg::required(session, "session")->session->add(in);
  });
}

bg_status bg_session_ask(bg_session* session, const char* question, const bg_generation* generation, bg_text_callback on_text, void* user, const bg_answer** answer, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg_generation p = bg::read_struct(generation, bg_generation_default(), "bg_generation");
    bg::Generation g;
    g.max_tokens = p.max_tokens;
    g.sampling = {p.temperature, p.top_k, p.top_p, p.repetition_penalty, p.seed};
    std::function<bool(const std::string&)> say;
    if (on_text) say = [&](const std::string& text) { return on_text(user, text.c_str(), text.size()) == 0; };
    const bg::Answer& a = bg::required(session, "session")->session->ask(bg::required(question, "question"), g, say);
    session->answer = {a.text.c_str(), a.ids.data(), a.logprobs.data(), int64_t(a.ids.size()), a.stopped, a.prompt_tokens, a.reused_tokens, a.media_seconds, a.prompt_seconds, a.decode_seconds};
    session->marked_text = a.marked_text;
    if (answer) *answer = &session->answer;
  });
}

bg_status bg_session_given(bg_session* session, const char* question, const char* answer, bg_error* error) {
  return bg::guarded(error, [&] { bg::required(session, "session")->session->given(bg::required(question, "question"), bg::required(answer, "answer")); });
}

bg_status bg_session_score(bg_session* session, const char* question, const char* const* options, int64_t count, const bg_score** scores, bg_error* error) {
  return bg::guarded(error, [&] {
    bg::required(scores, "scores");
    if (count < 0 || (count > 0 && !options)) throw Error(Status::invalid_argument, "options must hold one text per option");
    std::vector<std::string> texts;
    for (int64_t i = 0; i < count; ++i) texts.push_back(bg::required(options[i], "options[i]"));
    const std::vector<bg::Score> result = bg::required(session, "session")->session->score(bg::required(question, "question"), texts);
    session->scores.clear();
    for (const bg::Score& s : result) session->scores.push_back({s.logprob, s.end_logprob, s.probability, int64_t(s.ids.size())});
    *scores = session->scores.data();
  });
}

bg_status bg_session_boxes(bg_session* session, const bg_box** boxes, int64_t* count, bg_error* error) {
  return bg::guarded(error, [&] {
    bg::required(session, "session");
    session->found = bg::find_boxes(session->marked_text);
    session->boxes.clear();
    const auto& media = session->session->media();
    for (const bg::Box& b : session->found) {
      bg_box out{};
      out.label = b.label.c_str();
      out.dimensions = b.dimensions;
      out.point = b.point;
      out.swapped = b.swapped;
      out.outside = b.outside;
      std::copy(b.low, b.low + 3, out.low);
      std::copy(b.high, b.high + 3, out.high);
      out.medium = bg::mentioned_medium(session->marked_text, b.at, int64_t(media.size()));
      // Slides have no pixel frame here, and a 3-D box needs depth.
      if (out.medium >= 0) {
        const bg::Medium& m = *media[size_t(out.medium)];
        if (m.kind == bg::MediumKind::slide || (b.dimensions == 3 && m.kind != bg::MediumKind::volume)) out.medium = -1;
      }
      if (out.medium >= 0) {
        int64_t size[3];
        source_size(*media[size_t(out.medium)], size);
        const bg::SourceBox source = bg::to_source(b, size);
        std::copy(source.low, source.low + 3, out.source_low);
        std::copy(source.high, source.high + 3, out.source_high);
      }
      session->boxes.push_back(out);
    }
    *bg::required(boxes, "boxes") = session->boxes.data();
    *bg::required(count, "count") = int64_t(session->boxes.size());
  });
}

int64_t bg_session_media_count(const bg_session* session) { return session ? int64_t(session->session->media().size()) : 0; }

bg_status bg_session_medium_report(const bg_session* session, int64_t index, bg_medium_report* report, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg::Medium& m = medium_of(session, index);
    bg_medium_report r{};
    r.kind = bg_medium_kind(m.kind);
    r.grey16 = m.image.grey16;
    if (m.kind == bg::MediumKind::image) {
      r.width = m.image.source.width, r.height = m.image.source.height, r.depth = 1;
      r.prepared_width = m.image.prescaled.width, r.prepared_height = m.image.prescaled.height, r.prepared_depth = 1;
      r.resized_width = m.image.resized.width, r.resized_height = m.image.resized.height, r.resized_depth = 1;
      r.window_low = m.image.low, r.window_high = m.image.high;
    } else if (m.kind == bg::MediumKind::volume) {
      r.width = m.volume.source[0], r.height = m.volume.source[1], r.depth = m.volume.source[2];
      r.prepared_width = m.volume.prepared[0], r.prepared_height = m.volume.prepared[1], r.prepared_depth = m.volume.prepared[2];
      r.resized_width = m.volume.frame.width, r.resized_height = m.volume.frame.height, r.resized_depth = m.volume.trilinear[2];
      r.window_low = m.volume.low, r.window_high = m.volume.high;
    } else {
      r.width = r.prepared_width = r.resized_width = m.tokens;
      r.height = r.depth = r.prepared_height = r.prepared_depth = r.resized_height = r.resized_depth = 1;
    }
    r.tokens = m.tokens;
    r.kept_tokens = m.kept_tokens();
    r.grid_frames = m.tokens / (m.merged_rows * m.merged_cols);
    r.grid_rows = m.merged_rows;
    r.grid_cols = m.merged_cols;
    r.sha256 = m.sha256.c_str();
    r.levels = int64_t(m.rows.size());
    bg::write_struct(report, r, "bg_medium_report");
  });
}

bg_status bg_session_medium_kept(const bg_session* session, int64_t index, int64_t level, const int64_t** kept, const double** gains, int64_t* count, double* coverage, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg::Medium& m = medium_of(session, index);
    if (level < 0 || level >= int64_t(m.kept.size()))
      throw Error(Status::invalid_argument, m.kept.empty() ? "the choice depends on the text: ask a question first" : "level " + std::to_string(level) + ": this model has " + std::to_string(m.kept.size()));
    const bg::Kept& k = m.kept[size_t(level)];
    *bg::required(kept, "kept") = k.index.data();
    *bg::required(count, "count") = int64_t(k.index.size());
    if (gains) *gains = k.gain.empty() ? nullptr : k.gain.data();
    if (coverage) *coverage = k.gain.empty() ? std::nan("") : k.coverage / k.whole;
  });
}

bg_status bg_plan(const bg_model* model, const bg_session_params* params, const bg_medium_size* media, int64_t count, const bg_image_params* image_params,
                  const bg_volume_params* volume_params, int64_t slide_budget, const char* system_text, const char* question, bg_memory_plan* plan, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg::Model& m = *bg::required(model, "model")->model;
    if (count < 0 || (count > 0 && !media)) throw Error(Status::invalid_argument, "media must hold one size per medium");
    const bg_image_params ip = bg::read_struct(image_params, bg_image_params_default(), "bg_image_params");
    const bg_volume_params vp = bg::read_struct(volume_params, bg_volume_params_default(), "bg_volume_params");
    std::vector<bg::MediumInput> inputs;
    for (int64_t i = 0; i < count; ++i) {
      const bg_medium_size& size = media[i];
      bg::MediumInput in;
      in.kind = bg::MediumKind(size.kind);
      in.pixels = {size.width, size.height, nullptr, nullptr};
      in.image = image_options_of(ip);
      in.voxels = {size.width, size.height, size.depth, nullptr};
      in.volume = volume_options_of(vp);
      in.tiles = size.width;
      in.width = size.height;
      in.budget = size.kind == BG_IMAGE ? ip.token_budget : size.kind == BG_VOLUME ? vp.token_budget : slide_budget;
      inputs.push_back(in);
    }
    const bg::MemoryPlan r = bg::Session::plan(m, options_of(params, m), inputs, system_text ? system_text : "", bg::required(question, "question"));
    bg_memory_plan out{};
    out.weights = r.weights;
    out.kv_cache = r.kv_cache;
    out.media = r.media;
    out.workspace = r.workspace;
    out.pixels = r.pixels;
    out.total = r.total();
    out.packed_weights = r.packed;
    out.device_total = r.device_total();
    out.device_weights = r.device_weights;
    out.host_weights = r.host_weights;
    bg::write_struct(plan, out, "bg_memory_plan");
  });
}

}  // extern "C"
