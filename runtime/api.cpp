// breastgpt.h over answer.h: checks arguments, turns exceptions into statuses. No logic of its own.
#include <algorithm>
#include <thread>

#include "runtime/answer.h"
#include "runtime/boundary.h"
#include "runtime/breastgpt.h"
#include "runtime/verify.h"

using bg::Error;
using bg::Status;

struct bg_model {
  std::shared_ptr<const bg::Model> model;
};

struct bg_session {
  std::unique_ptr<bg::Session> session;
  bg_answer answer{};
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
  if (p.trace_folder) o.trace_folder = p.trace_folder;
  o.trace_data = p.trace_data != 0;
  o.callbacks = callbacks_of(p.callbacks);
  return o;
}

bg::ImageOptions image_options_of(const bg_image_params& p) {
  if (p.max_tokens < 1 || p.max_tokens > 65536) throw Error(Status::invalid_argument, "max tokens of a picture must be 1 … 65536, got " + std::to_string(p.max_tokens));
  bg::ImageOptions o;
  o.max_pixels = p.max_tokens * 1024;
  o.prescale = !p.no_prescale;
  o.pil_exact = p.pil_exact != 0;
  o.has_window = p.has_window != 0;
  o.level = p.window_level;
  o.width = p.window_width;
  return o;
}

const bg::Medium& medium_of(const bg_session* session, int64_t index) {
  const auto& media = bg::required(session, "session")->session->media();
  if (index < 0 || index >= int64_t(media.size()))
    throw Error(Status::invalid_argument, "picture " + std::to_string(index) + ": this session has " + std::to_string(media.size()));
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
  }
  return "unknown status";
}

const char* bg_instruction_set(void) { return bg::isa_name(bg::best_isa()); }

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
    i.weight_type = bg::type_name(m.weights.decoder.layers[0].q.type);
    i.weights_sha256 = m.weights_sha256.c_str();
    i.selector = c.selector.enabled ? c.selector.kind.c_str() : "none";
    i.selector_uses_text = c.selector.use_text;
    i.file_bytes = m.file.file_bytes();
    i.tensors = int64_t(m.file.tensors().size());
    for (const bg::GgufTensor& t : m.file.tensors()) i.parameters += int64_t(t.bytes / bg::type_size(t.type));
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
  p.max_tokens = 1024;
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
    *session = new bg_session{std::make_unique<bg::Session>(m, options_of(params, *m))};
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
    bg::required(session, "session")->session->add_image({i.width, i.height, i.rgb, i.grey16}, image_options_of(p), p.token_budget);
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
    session->answer = {a.text.c_str(), a.ids.data(), a.logprobs.data(), int64_t(a.ids.size()), a.stopped, a.prompt_tokens, a.reused_tokens, a.image_seconds, a.prompt_seconds, a.decode_seconds};
    if (answer) *answer = &session->answer;
  });
}

int64_t bg_session_image_count(const bg_session* session) { return session ? int64_t(session->session->media().size()) : 0; }

bg_status bg_session_image_report(const bg_session* session, int64_t index, bg_image_report* report, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg::Medium& m = medium_of(session, index);
    bg_image_report r{};
    r.width = m.steps.source.width;
    r.height = m.steps.source.height;
    r.prescaled_width = m.steps.prescaled.width;
    r.prescaled_height = m.steps.prescaled.height;
    r.resized_width = m.steps.resized.width;
    r.resized_height = m.steps.resized.height;
    r.grey16 = m.steps.grey16;
    r.window_low = m.steps.low;
    r.window_high = m.steps.high;
    r.tokens = m.tokens;
    r.kept_tokens = m.kept_tokens();
    r.grid_rows = m.merged_rows;
    r.grid_cols = m.merged_cols;
    r.pixels_sha256 = m.pixels_sha256.c_str();
    r.levels = int64_t(m.rows.size());
    bg::write_struct(report, r, "bg_image_report");
  });
}

bg_status bg_session_image_kept(const bg_session* session, int64_t index, int64_t level, const int64_t** kept, const double** gains, int64_t* count, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg::Medium& m = medium_of(session, index);
    if (level < 0 || level >= int64_t(m.kept.size()))
      throw Error(Status::invalid_argument, m.kept.empty() ? "the choice depends on the text: ask a question first" : "level " + std::to_string(level) + ": this model has " + std::to_string(m.kept.size()));
    const bg::Kept& k = m.kept[size_t(level)];
    *bg::required(kept, "kept") = k.index.data();
    *bg::required(count, "count") = int64_t(k.index.size());
    if (gains) *gains = k.gain.empty() ? nullptr : k.gain.data();
  });
}

bg_status bg_plan(const bg_model* model, const bg_session_params* params, const int64_t* widths, const int64_t* heights, int64_t images, const bg_image_params* image_params,
                  const char* system_text, const char* question, bg_memory_plan* plan, bg_error* error) {
  return bg::guarded(error, [&] {
    const bg::Model& m = *bg::required(model, "model")->model;
    if (images < 0 || (images > 0 && (!widths || !heights))) throw Error(Status::invalid_argument, "widths and heights must hold one size per picture");
    std::vector<bg::Size> sizes;
    for (int64_t i = 0; i < images; ++i) sizes.push_back({widths[i], heights[i]});
    const bg_image_params p = bg::read_struct(image_params, bg_image_params_default(), "bg_image_params");
    const bg::MemoryPlan r = bg::Session::plan(m, options_of(params, m), sizes, image_options_of(p), p.token_budget, system_text ? system_text : "", bg::required(question, "question"));
    bg_memory_plan out{};
    out.weights = r.weights;
    out.kv_cache = r.kv_cache;
    out.media = r.media;
    out.workspace = r.workspace;
    out.pixels = r.pixels;
    out.total = r.total();
    bg::write_struct(plan, out, "bg_memory_plan");
  });
}

}  // extern "C"
