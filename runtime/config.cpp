// Config from the weights file's metadata, and the checks that every later size computation relies on. See config.h.
#include "runtime/config.h"

#include <cmath>
#include <set>

#include "loaders/error.h"
#include "loaders/gguf.h"
#include "runtime/config_fields.h"

namespace bg {
namespace {

struct Reader {
  const Gguf& file;

  void text(const char* key, std::string& field) const { field = std::string(file.text(key)); }
  void integer(const char* key, int64_t& field) const { field = file.integer(key); }
  void later(const char* key, int64_t& field) const {
    if (file.has(key)) integer(key, field);
  }
  void real(const char* key, double& field) const { field = file.real(key); }
  void real(const char* key, float& field) const { field = float(file.real(key)); }
  void boolean(const char* key, bool& field) const { field = file.boolean(key); }
  void token(const char* key, int32_t& field) const { field = narrow(key, file.integer(key)); }
  void integers(const char* key, std::vector<int64_t>& field) const { field = file.integers(key); }
  void tokens(const char* key, std::vector<int32_t>& field) const {
    field.clear();
    for (const int64_t n : file.integers(key)) field.push_back(narrow(key, n));
  }
  void sections(const char* key, int64_t (&field)[3]) const {
    const std::vector<int64_t> n = file.integers(key);
    if (n.size() != 3) throw Error(Status::bad_file, file.path() + ": key \"" + key + "\" has " + std::to_string(n.size()) +
        " numbers, expected 3; convert the checkpoint again");
    for (int i = 0; i < 3; ++i) field[i] = n[size_t(i)];
  }

 private:
  int32_t narrow(const char* key, int64_t n) const {
    if (n < INT32_MIN || n > INT32_MAX)
      throw Error(Status::bad_file, file.path() + ": key \"" + key + "\" is " + std::to_string(n) + ", not a token id; convert the checkpoint again");
    return int32_t(n);
  }
};

struct Checker {
  const std::string& where;

  [[noreturn]] void bad(const std::string& what) const { throw Error(Status::bad_file, where + ": " + what +
      "; use the config.json of a published checkpoint, unchanged"); }
  [[noreturn]] void unsupported(const std::string& what) const { throw Error(Status::unsupported, where + ": " + what); }
  void range(const char* name, int64_t n, int64_t least, int64_t most) const {
    if (n < least || n > most) bad(std::string(name) + " is " + std::to_string(n) + ", expected " + std::to_string(least) + " to " + std::to_string(most));
  }
  void divides(const char* name, int64_t n, const char* of, int64_t whole) const {
    if (whole % n != 0) bad(std::string(name) + " " + std::to_string(n) + " does not divide " + of + " " + std::to_string(whole));
  }
  void token(const char* name, int32_t id, int64_t vocab) const { range((std::string("token id ") + name).c_str(), id, 0, vocab - 1); }
};

// Limits. With them every product the runtime forms stays below 2^63: a matrix has at most 2^24 · 2^24 elements, a row of activations at most 2^24,
// and no context or slide is longer than 2^31 rows.
constexpr int64_t most_layers = 4096, most_width = 1 << 20, most_heads = 1 << 14, most_vocab = 1 << 24, most_context = INT32_MAX, most_budget = 1 << 20;
constexpr int64_t most_head_dim = 256;  // the attention kernels keep a head in registers and on the stack (kernels/ops.h)

void check_text(const Config::Text& t, const Checker& c) {
  c.range("text layers", t.layers, 1, most_layers);
  c.range("text hidden size", t.hidden, 1, most_width);
  c.range("text ffn size", t.ffn, 1, most_width);
  c.range("text heads", t.heads, 1, most_heads);
  c.range("text kv heads", t.kv_heads, 1, t.heads);
  c.divides("text kv heads", t.kv_heads, "text heads", t.heads);
  c.range("text head dim", t.head_dim, 2, most_head_dim);
  if (t.head_dim % 2 != 0) c.bad("text head dim " + std::to_string(t.head_dim) + " is odd");
  c.range("vocabulary", t.vocab, 1, most_vocab);
  c.range("context length", t.context, 1, most_context);
  if (!(t.rms_eps > 0 && t.rms_eps < 1)) c.bad("rms_norm_eps is " + std::to_string(t.rms_eps) + ", expected a number between 0 and 1");
  if (!(t.rope_theta > 1 && std::isfinite(t.rope_theta))) c.bad("rope_theta is " + std::to_string(t.rope_theta) + ", expected a finite number above 1");
  for (const int64_t n : t.mrope_section) c.range("mrope section", n, 0, t.head_dim / 2);
  if (t.mrope_section[0] + t.mrope_section[1] + t.mrope_section[2] != t.head_dim / 2)
    c.bad("mrope sections sum to " + std::to_string(t.mrope_section[0] + t.mrope_section[1] + t.mrope_section[2]) +
        ", expected half the head dim, " + std::to_string(t.head_dim / 2));
}

void check_vision(const Config::Vision& v, int64_t text_layers, const Checker& c) {
  c.range("vision depth", v.depth, 1, most_layers);
  c.range("vision hidden size", v.hidden, 1, most_width);
  c.range("vision ffn size", v.ffn, 1, most_width);
  c.range("vision heads", v.heads, 1, most_heads);
  c.divides("vision heads", v.heads, "vision hidden size", v.hidden);
  c.range("vision head dim", v.hidden / v.heads, 4, most_head_dim);
  if (v.hidden / v.heads % 4 != 0) c.bad("vision head dim " + std::to_string(v.hidden / v.heads) + " is not a multiple of 4");
  if (v.patch != 16 || v.temporal_patch != 2 || v.merge != 2)
    c.unsupported("vision patch, temporal patch and merge sizes are " + std::to_string(v.patch) + ", " + std::to_string(v.temporal_patch) + ", " +
        std::to_string(v.merge) +
                  "; this build handles 16, 2, 2");
  c.range("vision positions", v.positions, 1, most_vocab);
  const int64_t side = std::llround(std::sqrt(double(v.positions)));
  if (side * side != v.positions) c.bad("vision positions " + std::to_string(v.positions) + " are not a square");
  if (int64_t(v.deepstack.size()) > text_layers)
    c.bad(std::to_string(v.deepstack.size()) + " DeepStack levels, but only " + std::to_string(text_layers) + " text layers to add them to");
  int64_t last = -1;
  for (const int64_t block : v.deepstack) {
    c.range("DeepStack block", block, 0, v.depth - 1);
    if (block <= last) c.bad("DeepStack blocks are not in ascending order");
    last = block;
  }
}

void check_preparation(const Config::Preparation& p, const Checker& c) {
  c.range("image_max_tokens", p.image_tokens, 1, 65536);
  c.range("volume_side", p.volume_side, 1, 4096);
  c.range("volume_slices", p.volume_slices, 3, 4096);
}

void check_breastgpt(const Config& config, const Checker& c) {
  const Config::Slide& s = config.slide;
  c.range("slide feature_dim", s.feature_dim, 1, most_width / 4);
  c.range("long_net_layers", s.layers, 1, most_layers);
  c.range("long_net_heads", s.heads, 1, most_heads);
  c.divides("long_net_heads", s.heads, "slide feature_dim", s.feature_dim);
  c.range("slide head dim", s.feature_dim / s.heads, 1, most_head_dim);
  if (s.layers > config.text.layers)
    c.bad(std::to_string(s.layers) + " slide levels, but only " + std::to_string(config.text.layers) + " text layers to add them to");
  const Config::Selector& sel = config.selector;
  if (sel.kind != "CoverageTokenSelector" && sel.kind != "ConceptSelector")
    c.unsupported("selector \"" + sel.kind + "\" is not known, expected CoverageTokenSelector or ConceptSelector");
  if (sel.kind == "ConceptSelector") c.divides("the ConceptSelector's heads", 8, "text hidden size", config.text.hidden);
  c.range("image_token_num", sel.image_tokens, 1, most_budget);
  c.range("video_token_num", sel.volume_tokens, 1, most_budget);
  c.range("histo_token_num", sel.slide_tokens, 1, most_budget);
}

}  // namespace

Config read_config(const Gguf& file) {
  const std::string_view architecture = file.text("general.architecture");
  if (architecture != architecture_name)
    throw Error(Status::unsupported, file.path() +
        ": general.architecture is \"" + std::string(architecture.substr(0, 64)) + "\", expected \"" + architecture_name +
                                         "\"; make the file with breastgpt-convert");
  Config c;
  c.model_type = std::string(file.text("breastgpt.model_type"));
  if (c.model_type == "breastgpt" || c.model_type == "qwen3_vl") visit_config(c, Reader{file});
  check_config(c, file.path());
  return c;
}

void check_config(const Config& config, const std::string& where) {
  const Checker c{where};
  if (config.model_type != "breastgpt" && config.model_type != "qwen3_vl")
    c.unsupported("model_type is \"" + config.model_type.substr(0, 64) + "\", expected breastgpt or qwen3_vl");
  check_text(config.text, c);
  check_vision(config.vision, config.text.layers, c);
  check_preparation(config.preparation, c);
  if (!config.plain_qwen()) check_breastgpt(config, c);
  if (config.plain_qwen() && config.selector.enabled) c.bad("a qwen3_vl model with token selection");

  const Config::Tokens& t = config.tokens;
  const int64_t vocab = config.text.vocab;
  c.token("image_pad", t.image_pad, vocab);
  c.token("video_pad", t.video_pad, vocab);
  c.token("vision_start", t.vision_start, vocab);
  c.token("vision_end", t.vision_end, vocab);
  c.token("im_start", t.im_start, vocab);
  c.token("im_end", t.im_end, vocab);
  std::set<int32_t> distinct = {t.image_pad, t.video_pad, t.vision_start, t.vision_end};
  size_t count = 4;
  if (!config.plain_qwen()) {
    c.token("slide_pad", t.slide_pad, vocab);
    distinct.insert(t.slide_pad);
    ++count;
  }
  if (distinct.size() != count) c.bad("two of the placeholder and vision tokens have the same id");
  if (t.stop.empty() || t.stop.size() > 64) c.bad(std::to_string(t.stop.size()) + " stop tokens, expected 1 to 64");
  for (const int32_t id : t.stop) c.token("stop", id, vocab);
}

}  // namespace bg
