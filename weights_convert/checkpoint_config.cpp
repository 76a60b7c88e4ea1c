// See checkpoint_config.h. Keys that a checkpoint leaves out take the values of the published models, as its own code would give them.
#include "weights_convert/checkpoint_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "loaders/error.h"
#include "loaders/json_text.h"
#include "loaders/mapped_file.h"

namespace bg {
namespace {

using nlohmann::json;

// One JSON object with the path that leads to it, so that every message names file and key. A null counts as absent, as in Python's configurations.
class Object {
 public:
  Object(const json& node, std::string where) : node_(node), where_(std::move(where)) {
    if (!node_.is_object()) throw Error(Status::bad_file, where_ + ": expected a JSON object");
  }
  bool has(const char* key) const { return node_.contains(key) && !node_[key].is_null(); }
  const json& at(const char* key, const char* wanted) const {
    if (!has(key)) bad(key, std::string("is missing, expected ") + wanted);
    return node_[key];
  }
  Object child(const char* key) const { return {at(key, "an object"), where_ + ": " + key}; }

  int64_t integer(const char* key) const {
    const char* wanted = "a whole number below 2^63";
    const json& v = at(key, wanted);
    if (!v.is_number_integer() || (v.is_number_unsigned() && v.get<uint64_t>() > INT64_MAX)) bad(key, std::string("expected ") + wanted);
    return v.get<int64_t>();
  }
  int64_t integer(const char* key, int64_t otherwise) const { return has(key) ? integer(key) : otherwise; }
  double real(const char* key, double otherwise) const {
    if (!has(key)) return otherwise;
    if (!node_[key].is_number()) bad(key, "expected a number");
    return node_[key].get<double>();
  }
  bool boolean(const char* key, bool otherwise) const {
    if (!has(key)) return otherwise;
    if (!node_[key].is_boolean()) bad(key, "expected true or false");
    return node_[key].get<bool>();
  }
  std::string text(const char* key, const std::string& otherwise) const {
    if (!has(key)) return otherwise;
    if (!node_[key].is_string()) bad(key, "expected a string");
    return node_[key].get<std::string>();
  }
  std::vector<int64_t> integers(const char* key, const std::vector<int64_t>& otherwise) const {
    if (!has(key)) return otherwise;
    std::vector<int64_t> all;
    if (!node_[key].is_array()) bad(key, "expected an array of whole numbers");
    for (const json& v : node_[key]) {
      if (!v.is_number_integer() || (v.is_number_unsigned() && v.get<uint64_t>() > INT64_MAX)) bad(key, "expected an array of whole numbers");
      all.push_back(v.get<int64_t>());
    }
    return all;
  }
  int32_t token(const char* key, int64_t otherwise) const { return narrow(key, integer(key, otherwise)); }
  int32_t narrow(const char* key, int64_t n) const {
    if (n < 0 || n > INT32_MAX) bad(key, "expected a token id, found " + std::to_string(n));
    return int32_t(n);
  }
  // The value must be `supported` where it is stated.
  void only(const char* key, const std::string& supported) const {
    const std::string found = text(key, supported);
    if (found != supported) unsupported(key, "is " + shown(found) + "; only " + shown(supported) + " is supported");
  }
  void only(const char* key, int64_t supported) const {
    const int64_t found = integer(key, supported);
    if (found != supported) unsupported(key, "is " + std::to_string(found) + "; expected " + std::to_string(supported));
  }
  void never(const char* key) const {
    if (boolean(key, false)) unsupported(key, "is true; only false is supported");
  }
  [[noreturn]] void bad(const char* key, const std::string& what) const { throw Error(Status::bad_file, where_ + ": \"" + key + "\" " + what); }
  [[noreturn]] void unsupported(const char* key, const std::string& what) const { throw Error(Status::unsupported, where_ + ": \"" + key + "\" " + what); }

 private:
  const json& node_;
  std::string where_;
};

class Folder {
 public:
  Folder(std::string path, std::vector<std::string>& files) : path_(std::move(path)), files_(files) {}
  bool has(const char* name) const {
    std::error_code ignored;
    return std::filesystem::exists(path_ + "/" + name, ignored);
  }
  std::string path(const char* name) const { return path_ + "/" + name; }
  std::string text(const char* name) const {
    const MappedFile file(path(name));
    files_.push_back(name);
    return {reinterpret_cast<const char*>(file.data()), file.size()};
  }
  json read(const char* name) const { return parse_json(text(name), path(name)); }

 private:
  std::string path_;
  std::vector<std::string>& files_;
};

void read_rope(Config::Text& t, const Object& c) {
  t.rope_theta = c.real("rope_theta", 5e6);
  t.mrope_section[0] = 24, t.mrope_section[1] = 20, t.mrope_section[2] = 20;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {  // older and newer layout
    if (!c.has(key)) continue;
    const Object rope = c.child(key);
    rope.only("rope_type", "default");
    if (!rope.boolean("mrope_interleaved", true)) rope.unsupported("mrope_interleaved", "is false; only the interleaved form is supported");
    t.rope_theta = rope.real("rope_theta", t.rope_theta);
    const std::vector<int64_t> section = rope.integers("mrope_section", {t.mrope_section, t.mrope_section + 3});
    if (section.size() != 3) rope.bad("mrope_section", "expected three whole numbers");
    std::copy(section.begin(), section.end(), t.mrope_section);
  }
}

void read_text(Config::Text& t, const Object& c, int64_t vocab) {
  c.only("hidden_act", "silu");
  c.never("attention_bias");
  t.layers = c.integer("num_hidden_layers");
  t.hidden = c.integer("hidden_size");
  t.ffn = c.integer("intermediate_size");
  t.heads = c.integer("num_attention_heads");
  t.kv_heads = c.integer("num_key_value_heads", t.heads);
  t.head_dim = c.integer("head_dim", 128);
  t.vocab = vocab;
  t.context = c.integer("max_position_embeddings", 128000);
  t.rms_eps = float(c.real("rms_norm_eps", 1e-6));
  read_rope(t, c);
}

void read_vision(Config::Vision& v, const Object& c, int64_t text_hidden) {
  c.only("hidden_act", "gelu_pytorch_tanh");
  c.only("in_channels", 3);
  c.only("out_hidden_size", text_hidden);
  v.depth = c.integer("depth");
  v.hidden = c.integer("hidden_size");
  v.ffn = c.integer("intermediate_size");
  v.heads = c.integer("num_heads");
  v.patch = c.integer("patch_size", 16);
  v.temporal_patch = c.integer("temporal_patch_size", 2);
  v.merge = c.integer("spatial_merge_size", 2);
  v.positions = c.integer("num_position_embeddings", 2304);
  v.deepstack = c.integers("deepstack_visual_indexes", {8, 16, 24});
}

void read_breastgpt(Config& config, const Object& c) {
  config.slide.feature_dim = c.integer("feature_dim", 768);
  config.slide.layers = c.integer("long_net_layers", 3);
  config.slide.heads = c.integer("long_net_heads", 8);
  config.selector.kind = c.text("selector", "CoverageTokenSelector");
  config.selector.use_text = c.boolean("selector_use_txt", false);
  config.selector.enabled = c.boolean("do_select", true);
  config.selector.image_tokens = c.integer("image_token_num", 64);
  config.selector.volume_tokens = c.integer("video_token_num", 128);
  config.selector.slide_tokens = c.integer("histo_token_num", 128);
  config.tokens.slide_pad = c.token("histo_token_id", 151669);
  config.preparation.image_tokens = c.integer("image_max_tokens", 1024);
  config.preparation.volume_side = c.integer("volume_side", 384);
  config.preparation.volume_slices = c.integer("volume_slices", 48);
}

void read_config_json(Config& config, const Folder& folder, int64_t vocab) {
  const json root = folder.read("config.json");
  const Object c(root, folder.path("config.json"));
  config.model_type = c.text("model_type", "");
  if (config.model_type != "breastgpt" && config.model_type != "qwen3_vl")
    c.unsupported("model_type", "is " + shown(config.model_type) + "; expected breastgpt or qwen3_vl");
  const Object text = c.child("text_config");
  read_text(config.text, text, vocab);
  config.text.tied = c.boolean("tie_word_embeddings", text.boolean("tie_word_embeddings", false));
  read_vision(config.vision, c.child("vision_config"), config.text.hidden);
  config.tokens.image_pad = c.token("image_token_id", 151655);
  config.tokens.video_pad = c.token("video_token_id", 151656);
  config.tokens.vision_start = c.token("vision_start_token_id", 151652);
  config.tokens.vision_end = c.token("vision_end_token_id", 151653);
  config.selector.enabled = false;
  if (!config.plain_qwen()) read_breastgpt(config, c);
}

// The runtime's normalisation is (v − 127.5)/127.5 and its patches are the model's: a preprocessor that does something else is another model.
void check_preprocessor(const Object& c, const Config::Vision& v) {
  c.only("patch_size", v.patch);
  c.only("temporal_patch_size", v.temporal_patch);
  c.only("merge_size", v.merge);
  for (const char* key : {"image_mean", "image_std"}) {
    if (!c.has(key)) continue;
    const json& values = c.at(key, "three numbers");
    const bool half = values.is_array() && values.size() == 3 &&
                      std::all_of(values.begin(), values.end(), [](const json& x) { return x.is_number() && std::abs(x.get<double>() - 0.5) < 1e-9; });
    if (!half) c.unsupported(key, "is not [0.5, 0.5, 0.5]; only that normalisation is supported");
  }
}

void check_preprocessors(const Config::Vision& v, const Folder& folder) {
  if (folder.has("video_preprocessor_config.json")) {
    const json root = folder.read("video_preprocessor_config.json");
    check_preprocessor(Object(root, folder.path("video_preprocessor_config.json")), v);
  }
  if (!folder.has("preprocessor_config.json")) return;
  const json root = folder.read("preprocessor_config.json");
  check_preprocessor(Object(root, folder.path("preprocessor_config.json")), v);
}

std::string read_chat_template(const Folder& folder) {
  if (folder.has("chat_template.jinja")) return folder.text("chat_template.jinja");
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    if (!folder.has(name)) continue;
    const json root = folder.read(name);
    const Object c(root, folder.path(name));
    if (c.has("chat_template")) return c.text("chat_template", "");
  }
  return "";
}

int32_t find_token(const TokenizerTables& t, const std::string& content, const std::string& where) {
  const auto it = std::find(t.tokens.begin(), t.tokens.end(), content);
  if (it == t.tokens.end()) throw Error(Status::bad_file, where + ": has no token \"" + content + "\"; use the checkpoint's own tokenizer.json");
  return int32_t(it - t.tokens.begin());
}

// config.json gives the id; where the tokenizer has that token it must agree. Returns whether it has it.
bool check_token(const TokenizerTables& t, const std::string& content, int32_t id, const std::string& where) {
  const auto it = std::find(t.tokens.begin(), t.tokens.end(), content);
  if (it != t.tokens.end() && it - t.tokens.begin() != id)
    throw Error(Status::bad_file, where + ": \"" + content + "\" is token " + std::to_string(it - t.tokens.begin()) + ", but config.json says " +
        std::to_string(id) +
                                      "; the files belong to different models");
  return it != t.tokens.end();
}

void read_tokenizer(CheckpointConfig& all, const Folder& folder) {
  constexpr int32_t control = 3;  // tokenizer.ggml.token_type
  const std::string where = folder.path("tokenizer.json");
  if (!folder.has("tokenizer.json")) throw Error(Status::not_found, where + ": is missing; the checkpoint folder must contain it");
  TokenizerTables& t = all.tokenizer;
  t = read_tokenizer_json(where);
  all.files.push_back("tokenizer.json");
  Config::Tokens& ids = all.config.tokens;
  const size_t vocab = size_t(all.config.text.vocab);
  if (t.tokens.size() > vocab)
    throw Error(Status::bad_file, where + ": " + std::to_string(t.tokens.size()) + " tokens, but the embedding matrix has " + std::to_string(vocab) +
                                      " rows; the files belong to different models");
  const size_t known = t.tokens.size();
  for (size_t id = known; id < vocab; ++id) {  // embeddings that no text uses
    t.tokens.push_back("[PAD" + std::to_string(id) + "]");
    t.types.push_back(control);
  }
  check_token(t, "<|image_pad|>", ids.image_pad, where);
  check_token(t, "<|video_pad|>", ids.video_pad, where);
  check_token(t, "<|vision_start|>", ids.vision_start, where);
  check_token(t, "<|vision_end|>", ids.vision_end, where);
  // The published tokenizer.json may end before the slide placeholder that training added.
  if (!all.config.plain_qwen() && !check_token(t, "<|histo_pad|>", ids.slide_pad, where)) {
    if (size_t(ids.slide_pad) < known)
      throw Error(Status::bad_file, where + ": token " + std::to_string(ids.slide_pad) + " is " + shown(t.tokens[size_t(ids.slide_pad)]) +
                                        ", but config.json's histo_token_id makes it the slide placeholder; the files belong to different models");
    if (size_t(ids.slide_pad) < vocab) t.tokens[size_t(ids.slide_pad)] = "<|histo_pad|>";
  }
  ids.im_start = find_token(t, "<|im_start|>", where);
  ids.im_end = find_token(t, "<|im_end|>", where);
}

void read_stop_tokens(CheckpointConfig& all, const Folder& folder) {
  Config::Tokens& ids = all.config.tokens;
  if (folder.has("generation_config.json")) {
    const json root = folder.read("generation_config.json");
    const Object c(root, folder.path("generation_config.json"));
    if (c.has("eos_token_id")) {
      const std::vector<int64_t> stop =
          c.at("eos_token_id", "token ids").is_array() ? c.integers("eos_token_id", {}) : std::vector<int64_t>{c.integer("eos_token_id")};
      for (const int64_t id : stop) ids.stop.push_back(c.narrow("eos_token_id", id));
      return;
    }
  }
  ids.stop = {ids.im_end, find_token(all.tokenizer, "<|endoftext|>", folder.path("tokenizer.json"))};
}

}  // namespace

CheckpointConfig read_checkpoint_config(const std::string& path, int64_t vocab) {
  CheckpointConfig all;
  const Folder folder(path, all.files);
  read_config_json(all.config, folder, vocab);
  check_preprocessors(all.config.vision, folder);
  read_tokenizer(all, folder);
  read_stop_tokens(all, folder);
  all.chat_template = read_chat_template(folder);
  check_config(all.config, folder.path("config.json"));
  return all;
}

}  // namespace bg
