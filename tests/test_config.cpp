// The configuration: through the weights file and back, every relation that is checked, and the name table's published names and shapes.
#include <doctest/doctest.h>

#include <functional>
#include <set>
#include <utility>

#include "loaders/error.h"
#include "loaders/gguf.h"
#include "loaders/safetensors.h"
#include "runtime/config.h"
#include "runtime/config_fields.h"
#include "runtime/names.h"
#include "tests/support.h"
#include "weights_convert/gguf_writer.h"

using namespace bg;

namespace {

Config published_8b() {
  Config c;
  c.model_type = "breastgpt";
  c.text = {36, 4096, 12288, 32, 8, 128, 151936, 262144, 1e-6f, 5e6, {24, 20, 20}, false};
  c.vision.depth = 27, c.vision.hidden = 1152, c.vision.ffn = 4304, c.vision.heads = 16, c.vision.positions = 2304;
  c.vision.deepstack = {8, 16, 24};
  c.tokens = {151655, 151656, 151669, 151652, 151653, 151644, 151645, {151645, 151643}};
  return c;
}

// Writes Config fields as the converter does, leaving out one key or giving it another value.
struct Writer {
  GgufHeader& header;
  std::string skipped;
  std::string changed = "";
  std::function<void(const char*)> instead = {};
  bool special(const char* key) const {
    if (key == changed) instead(key);
    return key == skipped || key == changed;
  }
  void text(const char* key, const std::string& v) const { if (!special(key)) header.text(key, v); }
  void integer(const char* key, int64_t v) const { if (!special(key)) header.integer(key, v); }
  void later(const char* key, int64_t v) const { integer(key, v); }
  void real(const char* key, double v) const { if (!special(key)) header.real(key, v); }
  void boolean(const char* key, bool v) const { if (!special(key)) header.boolean(key, v); }
  void token(const char* key, int32_t v) const { if (!special(key)) header.integer(key, v); }
  void integers(const char* key, const std::vector<int64_t>& v) const { if (!special(key)) header.integers(key, v); }
  void tokens(const char* key, const std::vector<int32_t>& v) const { if (!special(key)) header.integers(key, {v.begin(), v.end()}); }
  void sections(const char* key, const int64_t (&v)[3]) const { if (!special(key)) header.integers(key, {v, v + 3}); }
};

std::string said_by(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

#define CHECK_SAYS(expression, words)                                   \
  do {                                                                  \
    const std::string message_ = (expression);                            \
    CHECK_MESSAGE(message_.find(words) != std::string::npos, "said: ", message_); \
  } while (0)

}  // namespace

TEST_CASE("config: every field returns from the weights file") {
  Config c = published_8b();
  c.text.rope_theta = 12345.678901234;  // not a float: kept as f64
  c.preparation = {24, 96, 12};
  c.slide = {96, 2, 4};
  c.selector = {"ConceptSelector", true, false, 5, 6, 7};
  const TempDir dir;
  GgufHeader h;
  h.text("general.architecture", "breastgpt");
  visit_config(std::as_const(c), Writer{h, ""});
  write_file(dir.file("x.gguf"), h.bytes());
  const Config r = read_config(Gguf(dir.file("x.gguf")));
  CHECK(r.model_type == c.model_type);
  CHECK(r.text.layers == 36);
  CHECK(r.text.hidden == 4096);
  CHECK(r.text.ffn == 12288);
  CHECK(r.text.heads == 32);
  CHECK(r.text.kv_heads == 8);
  CHECK(r.text.head_dim == 128);
  CHECK(r.text.vocab == 151936);
  CHECK(r.text.context == 262144);
  CHECK(r.text.rms_eps == 1e-6f);
  CHECK(r.text.rope_theta == 12345.678901234);
  CHECK(r.text.mrope_section[0] == 24);
  CHECK(r.text.mrope_section[2] == 20);
  CHECK_FALSE(r.text.tied);
  CHECK(r.vision.depth == 27);
  CHECK(r.vision.hidden == 1152);
  CHECK(r.vision.ffn == 4304);
  CHECK(r.vision.heads == 16);
  CHECK(r.vision.positions == 2304);
  CHECK(r.vision.deepstack == c.vision.deepstack);
  CHECK(r.preparation.image_tokens == 24);
  CHECK(r.preparation.volume_side == 96);
  CHECK(r.preparation.volume_slices == 12);
  CHECK(r.slide.feature_dim == 96);
  CHECK(r.slide.layers == 2);
  CHECK(r.slide.heads == 4);
  CHECK(r.selector.kind == "ConceptSelector");
  CHECK(r.selector.use_text);
  CHECK_FALSE(r.selector.enabled);
  CHECK(r.selector.image_tokens == 5);
  CHECK(r.selector.volume_tokens == 6);
  CHECK(r.selector.slide_tokens == 7);
  CHECK(r.tokens.image_pad == 151655);
  CHECK(r.tokens.video_pad == 151656);
  CHECK(r.tokens.slide_pad == 151669);
  CHECK(r.tokens.vision_start == 151652);
  CHECK(r.tokens.vision_end == 151653);
  CHECK(r.tokens.im_start == 151644);
  CHECK(r.tokens.im_end == 151645);
  CHECK(r.tokens.stop == c.tokens.stop);
}

TEST_CASE("config: a key that is missing or of another type is named") {
  const TempDir dir;
  const Config c = published_8b();
  const auto complaint = [&](const std::string& architecture, const std::string& skipped, const std::string& changed = "",
                             const std::function<void(GgufHeader&, const char*)>& instead = {}) {
    GgufHeader h;
    h.text("general.architecture", architecture);
    visit_config(c, Writer{h, skipped, changed, [&](const char* key) { instead(h, key); }});
    write_file(dir.file("x.gguf"), h.bytes());
    return said_by([&] { read_config(Gguf(dir.file("x.gguf"))); });
  };
  CHECK(complaint("breastgpt", "") == "");
  CHECK_SAYS(complaint("llama", ""), "general.architecture is \"llama\", expected \"breastgpt\"");
  struct Collector {  // every key of the list in turn
    std::set<std::string> keys, later_keys;
    void text(const char* k, const std::string&) { keys.insert(k); }
    void integer(const char* k, int64_t) { keys.insert(k); }
    void later(const char* k, int64_t) { later_keys.insert(k); }
    void real(const char* k, double) { keys.insert(k); }
    void boolean(const char* k, bool) { keys.insert(k); }
    void token(const char* k, int32_t) { keys.insert(k); }
    void integers(const char* k, const std::vector<int64_t>&) { keys.insert(k); }
    void tokens(const char* k, const std::vector<int32_t>&) { keys.insert(k); }
    void sections(const char* k, const int64_t (&)[3]) { keys.insert(k); }
  } all;
  visit_config(c, all);
  CHECK(all.keys.size() == 39);
  CHECK(all.later_keys.size() == 3);
  for (const std::string& key : all.later_keys) CHECK(complaint("breastgpt", key) == "");  // files of an earlier version: the published sizes
  for (const std::string& key : all.keys) {
    CHECK_SAYS(complaint("breastgpt", key), "x.gguf: key \"" + key + "\" is missing");
    CHECK_SAYS(complaint("breastgpt", "", key, [](GgufHeader& h, const char* k) { h.texts(k, {"x"}); }), "x.gguf: key \"" + key + "\" is an array of string");
  }
  CHECK_SAYS(complaint("breastgpt", "", "breastgpt.token.im_end", [](GgufHeader& h, const char* k) { h.integer(k, int64_t(1) << 40); }), "not a token id");
  CHECK_SAYS(complaint("breastgpt", "", "breastgpt.token.stop", [](GgufHeader& h, const char* k) { h.integers(k, {int64_t(1) << 40}); }), "not a token id");
  CHECK_SAYS(complaint("breastgpt", "", "breastgpt.rope.dimension_sections", [](GgufHeader& h, const char* k) { h.integers(k, {32, 32}); }), "has 2 numbers, expected 3");
  CHECK_SAYS(complaint("breastgpt", "", "breastgpt.model_type", [](GgufHeader& h, const char* k) { h.text(k, "other"); }), "model_type is \"other\"");
}

TEST_CASE("config: relations between the sizes") {
  const auto complaint = [](const std::function<void(Config&)>& change) {
    Config c = published_8b();
    change(c);
    return said_by([&] { check_config(c, "file"); });
  };
  CHECK(complaint([](Config&) {}) == "");
  struct Case {
    std::function<void(Config&)> change;
    const char* words;
  };
  const int64_t huge = int64_t(1) << 62;
  const Case cases[] = {
      {[](Config& c) { c.model_type = "llava"; }, "file: model_type is \"llava\", expected breastgpt or qwen3_vl"},
      {[](Config& c) { c.text.layers = 0; }, "text layers is 0, expected 1 to 4096"},
      {[](Config& c) { c.text.layers = 5000; }, "text layers is 5000"},
      {[=](Config& c) { c.text.hidden = huge; }, "text hidden size is"},
      {[](Config& c) { c.text.ffn = -1; }, "text ffn size is -1"},
      {[=](Config& c) { c.text.heads = huge; }, "text heads is"},
      {[](Config& c) { c.text.kv_heads = 33; }, "text kv heads is 33, expected 1 to 32"},
      {[](Config& c) { c.text.kv_heads = 5; }, "text kv heads 5 does not divide text heads 32"},
      {[](Config& c) { c.text.head_dim = 0; }, "text head dim is 0"},
      {[](Config& c) { c.text.head_dim = 127; }, "text head dim 127 is odd"},
      {[=](Config& c) { c.text.vocab = huge; }, "vocabulary is"},
      {[=](Config& c) { c.text.context = huge; }, "context length is"},
      {[](Config& c) { c.text.rms_eps = 0; }, "rms_norm_eps is"},
      {[](Config& c) { c.text.rms_eps = std::stof("nan"); }, "rms_norm_eps is nan"},
      {[](Config& c) { c.text.rope_theta = 1; }, "rope_theta is"},
      {[](Config& c) { c.text.rope_theta = std::stod("inf"); }, "rope_theta is inf"},
      {[](Config& c) { c.text.mrope_section[0] = -1; }, "mrope section is -1"},
      {[](Config& c) { c.text.mrope_section[0] = 23; }, "mrope sections sum to 63, expected half the head dim, 64"},
      {[](Config& c) { c.vision.depth = 0; }, "vision depth is 0"},
      {[=](Config& c) { c.vision.hidden = huge; }, "vision hidden size is"},
      {[](Config& c) { c.vision.ffn = 0; }, "vision ffn size is 0"},
      {[](Config& c) { c.vision.heads = 0; }, "vision heads is 0"},
      {[](Config& c) { c.vision.heads = 7; }, "vision heads 7 does not divide vision hidden size 1152"},
      {[](Config& c) { c.vision.heads = 64; }, "vision head dim 18 is not a multiple of 4"},
      {[](Config& c) { c.vision.patch = 14; }, "this build handles 16, 2, 2"},
      {[](Config& c) { c.vision.temporal_patch = 1; }, "this build handles 16, 2, 2"},
      {[](Config& c) { c.vision.merge = 4; }, "this build handles 16, 2, 2"},
      {[](Config& c) { c.vision.positions = 2305; }, "vision positions 2305 are not a square"},
      {[](Config& c) { c.vision.positions = 0; }, "vision positions is 0"},
      {[](Config& c) { c.text.layers = 2; }, "3 DeepStack levels, but only 2 text layers"},
      {[](Config& c) { c.vision.deepstack = {8, 27}; }, "DeepStack block is 27, expected 0 to 26"},
      {[](Config& c) { c.vision.deepstack = {8, 8}; }, "not in ascending order"},
      {[](Config& c) { c.preparation.image_tokens = 0; }, "image_max_tokens is 0"},
      {[](Config& c) { c.preparation.volume_side = 0; }, "volume_side is 0"},
      {[=](Config& c) { c.preparation.volume_slices = huge; }, "volume_slices is"},
      {[](Config& c) { c.slide.feature_dim = 0; }, "slide feature_dim is 0"},
      {[](Config& c) { c.slide.layers = 0; }, "long_net_layers is 0"},
      {[](Config& c) { c.slide.heads = 7; }, "long_net_heads 7 does not divide slide feature_dim 768"},
      {[](Config& c) { c.slide.heads = 2; }, "slide head dim is 384, expected 1 to 256"},
      {[](Config& c) { c.slide.layers = 37; }, "37 slide levels, but only 36 text layers"},
      {[](Config& c) { c.selector.kind = "Other"; }, "selector \"Other\" is not known"},
      {[](Config& c) { c.selector.kind = "ConceptSelector", c.text.hidden = 4100; }, "the ConceptSelector's heads 8 does not divide text hidden size 4100"},
      {[](Config& c) { c.selector.image_tokens = 0; }, "image_token_num is 0"},
      {[](Config& c) { c.selector.volume_tokens = 0; }, "video_token_num is 0"},
      {[=](Config& c) { c.selector.slide_tokens = huge; }, "histo_token_num is"},
      {[](Config& c) { c.model_type = "qwen3_vl"; }, "a qwen3_vl model with token selection"},
      {[](Config& c) { c.tokens.image_pad = 151936; }, "token id image_pad is 151936, expected 0 to 151935"},
      {[](Config& c) { c.tokens.video_pad = -1; }, "token id video_pad is -1"},
      {[](Config& c) { c.tokens.slide_pad = -1; }, "token id slide_pad is -1"},
      {[](Config& c) { c.tokens.vision_start = -1; }, "token id vision_start is -1"},
      {[](Config& c) { c.tokens.vision_end = -1; }, "token id vision_end is -1"},
      {[](Config& c) { c.tokens.im_start = -1; }, "token id im_start is -1"},
      {[](Config& c) { c.tokens.im_end = -1; }, "token id im_end is -1"},
      {[](Config& c) { c.tokens.slide_pad = c.tokens.image_pad; }, "have the same id"},
      {[](Config& c) { c.tokens.stop = {}; }, "0 stop tokens"},
      {[](Config& c) { c.tokens.stop = {-7}; }, "token id stop is -7"},
  };
  for (const Case& k : cases) CHECK_SAYS(complaint(k.change), k.words);
}

TEST_CASE("names: the published checkpoint's names and shapes, counted and sampled") {
  Config c = published_8b();
  std::set<std::string> names, published;
  int64_t elements = 0;
  const std::vector<TensorSpec> specs = tensor_specs(c);
  for (const TensorSpec& s : specs) {
    names.insert(s.name), published.insert(s.published);
    int64_t ours = 1, theirs = 1;
    for (const int64_t n : s.shape) ours *= n;
    for (const int64_t n : s.published_shape) theirs *= n;
    CHECK(ours == theirs);
    CHECK(s.matrix == (s.shape.size() == 2));
    elements += ours;
  }
  CHECK(names.size() == specs.size());
  CHECK(published.size() == specs.size());
  // decoder 3 + 36·11; vision 3 + 27·12 + 4·6; slide 3·16 + 2 + 3·2
  CHECK(specs.size() == 3 + 36 * 11 + 3 + 27 * 12 + 4 * 6 + 3 * 16 + 2 + 3 * 2);
  CHECK(elements / 10'000'000 == 880);  // 8.19 G text + 0.58 G vision + 0.034 G slide (spec: published totals)
  c.selector.kind = "ConceptSelector";
  CHECK(tensor_specs(c).size() == specs.size() + 10);
  c.text.tied = true;
  CHECK(tensor_specs(c).size() == specs.size() + 9);
  c.model_type = "qwen3_vl";
  CHECK(tensor_specs(c).size() == specs.size() - 1 - 56);
}

TEST_CASE("names: the table is exactly what transformers saved") {
  // The golden checkpoint was written by the public package; only its sizes are stated here.
  Config c;
  c.model_type = "qwen3_vl";
  const Safetensors golden(golden_path("tiny-8b"));
  const auto shape = [&](const char* name) {
    const SafetensorsTensor* t = golden.find(name);
    REQUIRE(t);
    return t->shape;
  };
  c.text.layers = 4, c.text.heads = 8, c.text.kv_heads = 2, c.text.head_dim = 32;
  c.text.vocab = shape("model.language_model.embed_tokens.weight")[0], c.text.hidden = shape("model.language_model.embed_tokens.weight")[1];
  c.text.ffn = shape("model.language_model.layers.0.mlp.up_proj.weight")[0];
  c.vision.depth = 4, c.vision.hidden = shape("model.visual.pos_embed.weight")[1], c.vision.positions = shape("model.visual.pos_embed.weight")[0];
  c.vision.ffn = shape("model.visual.blocks.0.mlp.linear_fc1.weight")[0];
  c.vision.deepstack = {0, 1, 2};
  const std::vector<TensorSpec> specs = tensor_specs(c);
  CHECK(specs.size() == golden.tensors().size());
  for (const TensorSpec& s : specs) {
    const SafetensorsTensor* t = golden.find(s.published);
    CHECK_MESSAGE(t, s.published);
    if (t) CHECK_MESSAGE(t->shape == s.published_shape, s.published);
  }
}
