// The converter: values bit for bit, metadata, hashes, a full-size layout, memory. Every refusal is in test_convert_errors.cpp.
// The comparison with the public gguf reader is tests/oracle/check_gguf.py.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>

#include "kernels/half.h"
#include "loaders/error.h"
#include "loaders/gguf.h"
#include "loaders/safetensors.h"
#include "loaders/sha256.h"
#include "runtime/config.h"
#include "runtime/names.h"
#include "runtime/verify.h"
#include "tests/checkpoint.h"
#include "tests/support.h"
#include "weights_convert/convert.h"
#include "weights_convert/elements.h"

using namespace bg;

namespace {

ConvertSummary convert(const std::string& folder, const std::string& target, Type type = Type::bf16) {
  ConvertOptions o;
  o.input = folder, o.target = target, o.matrices = type, o.layout = Layout::rows;
  return convert_checkpoint(o);
}

// Memory of our own (not pages of mapped files), in bytes: RssAnon of /proc/self/status; 0 where the system does not tell.
int64_t own_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("RssAnon:", 0) == 0) return std::stoll(line.substr(8)) * 1024;
  return 0;
}

// Sizes of the 8B, token ids of the small golden tokenizer.
const char config_8b[] = R"({"model_type": "breastgpt", "image_token_id": 706, "video_token_id": 707, "vision_start_token_id": 703, "vision_end_token_id": 704,
 "histo_token_id": 720,
 "text_config": {"num_hidden_layers": 36, "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32, "num_key_value_heads": 8,
  "head_dim": 128, "rope_parameters": {"rope_theta": 5000000.0, "mrope_section": [24, 20, 20], "rope_type": "default"}, "max_position_embeddings": 262144},
 "vision_config": {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096}})";

}  // namespace

TEST_CASE("convert: every value bit for bit, for every type and golden checkpoint") {
  const TempDir dir;
  for (const char* name : {"tiny-8b", "tiny-4b", "tiny-breastgpt"}) {
    const Safetensors source(golden_path(name));
    for (const Type type : {Type::f32, Type::bf16, Type::f16}) {
      const ConvertSummary summary = convert(golden_path(name), dir.file("x.gguf"), type);
      const Gguf f(dir.file("x.gguf"));
      CHECK(summary.file_bytes == f.file_bytes());
      const Config config = read_config(f);
      int different = 0;
      size_t count = 0;
      for (const TensorSpec& s : tensor_specs(config)) {
        const SafetensorsTensor* from = source.find(s.published);
        const GgufTensor* to = f.find(s.name);
        REQUIRE(from);
        REQUIRE(to);
        ++count;
        CHECK((to->type == (s.matrix ? type : Type::f32)));
        CHECK(to->shape == s.shape);
        // The goldens hold bfloat16 numbers whatever their stored type, so F32 and BF16 must be exact; F16 must be what convert_elements (tested alone) gives.
        const Type stored = from->dtype == "F32" ? Type::f32 : Type::bf16;
        const int64_t n = int64_t(to->bytes / type_size(to->type));
        for (int64_t i = 0; i < n && to->type != Type::f16; ++i) {
          const float x = element_value(from->data, stored, i), y = element_value(to->data, to->type, i);
          different += std::memcmp(&x, &y, 4) != 0;
        }
        if (to->type == Type::f16) {
          std::string expected(to->bytes, '\0');
          CHECK(convert_elements(expected.data(), Type::f16, from->data, stored, n) == -1);
          different += std::memcmp(expected.data(), to->data, to->bytes) != 0;
        }
      }
      CHECK(different == 0);
      CHECK(count == f.tensors().size());
    }
  }
}

TEST_CASE("convert: F32 and BF16 files of one BF16 checkpoint hold the same numbers") {
  const TempDir dir;
  convert(golden_path("tiny-8b"), dir.file("f32.gguf"), Type::f32);
  convert(golden_path("tiny-8b"), dir.file("bf16.gguf"), Type::bf16);
  const Gguf wide(dir.file("f32.gguf")), narrow(dir.file("bf16.gguf"));
  for (const GgufTensor& w : wide.tensors()) {
    const GgufTensor* n = narrow.find(w.name);
    REQUIRE(n);
    bool same = true;
    for (int64_t i = 0; i < int64_t(w.bytes / 4); ++i) same &= element_value(w.data, Type::f32, i) == element_value(n->data, n->type, i);
    CHECK_MESSAGE(same, w.name);
  }
}

TEST_CASE("convert: hashes, sources, tokenizer; the same input gives the same bytes") {
  const TempDir dir;
  const std::string folder = golden_path("tiny-breastgpt");
  convert(folder, dir.file("a.gguf"));
  convert(folder, dir.file("b.gguf"));
  CHECK(read_file(dir.file("a.gguf")) == read_file(dir.file("b.gguf")));
  const Gguf f(dir.file("a.gguf"));
  const std::vector<std::string_view> hashes = f.texts("breastgpt.sha256");
  REQUIRE(hashes.size() == f.tensors().size());
  for (size_t i = 0; i < hashes.size(); ++i) CHECK(hashes[i] == sha256_hex(f.tensors()[i].data, f.tensors()[i].bytes));
  std::set<std::string> names;
  for (const std::string_view source : f.texts("breastgpt.source")) {
    const size_t space = source.find(' ');
    REQUIRE(space != std::string_view::npos);
    const std::string name(source.substr(0, space)), bytes = read_file(folder + "/" + name);
    names.insert(name);
    CHECK(source.substr(space + 1) == sha256_hex(bytes.data(), bytes.size()));
  }
  CHECK(names == std::set<std::string>{"config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"});
  CHECK(f.text("tokenizer.ggml.model") == "gpt2");
  CHECK(f.text("tokenizer.ggml.pre") == "qwen2");
  CHECK(f.integer("general.file_type") == 32);
  CHECK(f.integer("general.alignment") == 64);
  const Config c = read_config(f);
  const std::vector<std::string_view> tokens = f.texts("tokenizer.ggml.tokens");
  REQUIRE(int64_t(tokens.size()) == c.text.vocab);
  const std::vector<int64_t> types = f.integers("tokenizer.ggml.token_type");
  CHECK(types.size() == tokens.size());
  CHECK(tokens[size_t(c.tokens.im_start)] == "<|im_start|>");
  CHECK(tokens[size_t(c.tokens.im_end)] == "<|im_end|>");
  CHECK(tokens[size_t(c.tokens.slide_pad)] == "<|histo_pad|>");
  CHECK(tokens.back() == "[PAD" + std::to_string(tokens.size() - 1) + "]");
  CHECK(types.back() == 3);
  CHECK(f.integer("tokenizer.ggml.eos_token_id") == c.tokens.stop.front());
  CHECK(c.preparation.image_tokens == 1024);
  CHECK(c.preparation.volume_side == 384);
  CHECK(c.preparation.volume_slices == 48);
}

TEST_CASE("convert: optional prefixes, the learned selector, tied and resized variants") {
  const TempDir dir;
  TestCheckpoint c = TestCheckpoint::read(golden_path("tiny-breastgpt"));
  const int64_t h = c.tensors.at("model.language_model.norm.weight").shape[0];
  std::map<std::string, TestTensor> renamed;
  for (const auto& [name, t] : c.tensors) renamed[name.rfind("slide.", 0) == 0 ? "model." + name : name] = t;
  c.tensors = renamed;
  const auto values = [](int64_t n, float first) {
    std::string s;
    for (int64_t i = 0; i < n; ++i) {
      const float v = first + float(i % 7);
      s.append(reinterpret_cast<const char*>(&v), 4);
    }
    return s;
  };
  for (const std::string part : {"model.visual_selector.", "deepstack_selector."}) {
    const float first = part[0] == 'm' ? 1 : 100;
    c.tensors[part + "cross_attn.q_proj.weight"] = {"F32", {h, h}, values(h * h, first)};
    c.tensors[part + "cross_attn.k_proj.weight"] = {"F32", {h, h}, values(h * h, first + 1)};
    c.tensors[part + "concept_queries"] = {"F32", {1, 32, h}, values(32 * h, first + 2)};
    c.tensors[part + "concept_gate.0.weight"] = {"F32", {1, h}, values(h, first + 3)};
    c.tensors[part + "concept_gate.0.bias"] = {"F32", {1}, values(1, first + 4)};
    c.tensors[part + "_step"] = {"I64", {}, std::string(8, '\1')};
  }
  c.edit("config.json", "CoverageTokenSelector", "ConceptSelector");
  c.write(dir.file("learned"));
  const ConvertSummary summary = convert(dir.file("learned"), dir.file("learned.gguf"));
  CHECK(summary.notes.size() == 2);
  const Gguf f(dir.file("learned.gguf"));
  CHECK(read_config(f).selector.kind == "ConceptSelector");
  CHECK(f.find("s.proj.weight"));
  const GgufTensor *top = f.find("sel.top.queries.weight"), *deep = f.find("sel.deep.queries.weight"), *gate = f.find("sel.deep.gate.weight"), *bias = f.find("sel.top.gate.bias");
  REQUIRE(top);
  REQUIRE(deep);
  REQUIRE(gate);
  REQUIRE(bias);
  CHECK(top->shape == std::vector<int64_t>{32, h});
  CHECK(gate->shape == std::vector<int64_t>{1, h});
  CHECK(element_value(top->data, top->type, 1) == 4);
  CHECK(element_value(deep->data, deep->type, 0) == 102);
  CHECK(element_value(bias->data, Type::f32, 0) == 5);

  TestCheckpoint tied = TestCheckpoint::read(golden_path("tiny-4b"));
  tied.tensors["lm_head.weight"] = tied.tensors.at("model.language_model.embed_tokens.weight");
  tied.write(dir.file("tied"));
  const ConvertSummary with_head = convert(dir.file("tied"), dir.file("tied.gguf"));
  REQUIRE(with_head.notes.size() == 1);
  CHECK(with_head.notes[0].find("lm_head.weight") != std::string::npos);
  CHECK(Gguf(dir.file("tied.gguf")).find("output.weight") == nullptr);
}

TEST_CASE("convert: the configuration's two layouts, defaults, and the small files") {
  const TempDir dir;
  const auto convert_edited = [&](const std::function<void(TestCheckpoint&)>& change) {
    TestCheckpoint c = TestCheckpoint::read(golden_path("tiny-breastgpt"));
    change(c);
    c.write(dir.file("in"));
    convert(dir.file("in"), dir.file("out.gguf"));
    for (const auto& entry : std::filesystem::directory_iterator(dir.file("in"))) std::filesystem::remove(entry.path());
    return Gguf(dir.file("out.gguf"));
  };
  // Newer transformers: rope_parameters holds everything.
  Config c = read_config(convert_edited([](TestCheckpoint& t) {
    t.edit("config.json", "\"rope_scaling\"", "\"rope_parameters\"");
    t.edit("config.json", "\"rope_type\"", "\"rope_theta\": 777.0, \"rope_type\"");
  }));
  CHECK(c.text.rope_theta == 777);
  CHECK(c.text.mrope_section[0] == 6);
  // Missing keys of the two additions take the published values.
  c = read_config(convert_edited([](TestCheckpoint& t) {
    for (const char* key : {"\"do_select\"", "\"selector\"", "\"selector_use_txt\"", "\"image_token_num\"", "\"histo_token_num\"", "\"long_net_heads\""}) t.edit("config.json", key, std::string("\"x_") + (key + 1));
  }));
  CHECK(c.selector.enabled);
  CHECK(c.selector.kind == "CoverageTokenSelector");
  CHECK_FALSE(c.selector.use_text);
  CHECK(c.selector.image_tokens == 64);
  CHECK(c.selector.slide_tokens == 128);
  CHECK(c.slide.heads == 8);
  // generation_config.json: one number, or none; three homes of the chat template.
  c = read_config(convert_edited([](TestCheckpoint& t) {
    t.files["generation_config.json"] = "{\"eos_token_id\": 696}";
  }));
  CHECK(c.tokens.stop == std::vector<int32_t>{696});
  c = read_config(convert_edited([](TestCheckpoint& t) {
    t.files.erase("generation_config.json");
    t.files.erase("preprocessor_config.json");
  }));
  CHECK(c.tokens.stop == std::vector<int32_t>{696, 694});
  CHECK_FALSE(convert_edited([](TestCheckpoint&) {}).has("tokenizer.chat_template"));
  CHECK(convert_edited([](TestCheckpoint& t) { t.files["chat_template.jinja"] = "{{ a }}", t.files["tokenizer_config.json"] = "{\"chat_template\": \"b\"}"; }).text("tokenizer.chat_template") == "{{ a }}");
  CHECK(convert_edited([](TestCheckpoint& t) { t.files["chat_template.json"] = "{\"chat_template\": \"{{ c }}\"}"; }).text("tokenizer.chat_template") == "{{ c }}");
  CHECK(convert_edited([](TestCheckpoint& t) { t.files["tokenizer_config.json"] = "{\"chat_template\": \"{{ d }}\"}"; }).text("tokenizer.chat_template") == "{{ d }}");
  // A tokenizer that ends before the slide placeholder: it is added at its id.
  const Gguf f = convert_edited([](TestCheckpoint& t) {
    std::string& text = t.files["tokenizer.json"];
    const size_t content = text.find("<|histo_pad|>"), open = text.rfind('{', content), close = text.find('}', content), comma = text.rfind(',', open);
    text.erase(comma, close + 1 - comma);
  });
  CHECK(f.texts("tokenizer.ggml.tokens")[size_t(read_config(f).tokens.slide_pad)] == "<|histo_pad|>");
  CHECK(f.integers("tokenizer.ggml.token_type")[size_t(read_config(f).tokens.slide_pad)] == 3);
}

TEST_CASE("verify: a changed byte is found by name; progress and cancel") {
  const TempDir dir;
  convert(golden_path("tiny-4b"), dir.file("x.gguf"));
  uint64_t last = 0, total = 0;
  {
    const Gguf f(dir.file("x.gguf"));
    const VerifyResult r = verify_weights(f, [&](uint64_t done, uint64_t all) { return last = done, total = all, true; });
    CHECK(r.ok());
    CHECK(r.checked == int64_t(f.tensors().size()));
    CHECK(last == total);
    CHECK(last == r.bytes);
    CHECK_THROWS_AS(verify_weights(f, [](uint64_t, uint64_t) { return false; }), Error);
  }
  std::string bytes = read_file(dir.file("x.gguf"));
  const Gguf f(dir.file("x.gguf"));
  const GgufTensor &first = f.tensors().front(), &other = *f.find("v.blk.1.attn_qkv.weight");
  const size_t start = bytes.find(std::string(reinterpret_cast<const char*>(first.data), first.bytes));
  REQUIRE(start != std::string::npos);
  bytes[start + size_t(other.data - first.data) + other.bytes - 1] ^= 1;
  write_file(dir.file("changed.gguf"), bytes);
  CHECK(verify_weights(Gguf(dir.file("changed.gguf"))).mismatched == std::vector<std::string>{"v.blk.1.attn_qkv.weight"});
}

// 8B names and shapes as published; the data is a hole, so nothing is read or stored.
TEST_CASE("convert: the full 8B layout, dry run") {
  const TempDir dir;
  Config c;
  c.model_type = "breastgpt";
  c.text = {36, 4096, 12288, 32, 8, 128, 151936, 262144, 1e-6f, 5e6, {24, 20, 20}, false};
  c.vision.depth = 27, c.vision.hidden = 1152, c.vision.ffn = 4304, c.vision.heads = 16, c.vision.positions = 2304;
  c.vision.deepstack = {8, 16, 24};
  constexpr size_t shards = 4;
  std::map<std::string, TestTensor> shard[shards];
  std::string index = "{\"weight_map\":{";
  const std::vector<TensorSpec> specs = tensor_specs(c);
  for (size_t i = 0; i < specs.size(); ++i) {
    const size_t s = i * shards / specs.size();
    shard[s][specs[i].published] = {"BF16", specs[i].published_shape, ""};
    index += (i ? ",\"" : "\"") + specs[i].published + "\":\"model-" + std::to_string(s) + ".safetensors\"";
  }
  for (size_t s = 0; s < shards; ++s) write_sparse_safetensors(dir.file("model-" + std::to_string(s) + ".safetensors"), shard[s]);
  write_file(dir.file("model.safetensors.index.json"), index + "}}");
  write_file(dir.file("config.json"), config_8b);
  const TestCheckpoint golden = TestCheckpoint::read(golden_path("tiny-8b"));
  write_file(dir.file("tokenizer.json"), golden.files.at("tokenizer.json"));

  ConvertOptions o;
  o.input = dir.path.string(), o.target = dir.file("x.gguf"), o.dry_run = true, o.layout = Layout::rows;
  ConvertSummary summary;
  try {
    summary = convert_checkpoint(o);
  } catch (const Error& e) {
    if (e.status() == Status::io) {  // the disk-space check of a machine with less than 18 GB free
      MESSAGE("skipped: ", e.what());
      return;
    }
    throw;
  }
  CHECK(summary.by_type.at("BF16").bytes / 100'000'000 == 176);  // 17.6 GB (spec)
  CHECK(summary.by_type.at("BF16").tensors + summary.by_type.at("F32").tensors == int64_t(specs.size()));
  CHECK(summary.mix.empty());
  CHECK_FALSE(std::filesystem::exists(dir.file("x.gguf")));

  o.matrices = Type::q4_k;
  summary = convert_checkpoint(o);
  CHECK(summary.mix == std::vector<std::string>{"embedding and output: Q6_K 2", "decoder layers: Q4_K 216, Q6_K 36", "ViT: BF16 27, F32 1, Q8_0 90", "slide branch: Q8_0 22",
                                                "rows of 4304 are no whole Q8_0 blocks: v.blk.*.ffn_down.weight BF16 (27)"});
  CHECK(summary.file_bytes / 100'000'000 == 59);
  o.matrices = Type::q8_0;
  CHECK(convert_checkpoint(o).mix[1] == "decoder layers: Q8_0 252");
}

TEST_CASE("convert: memory of its own stays small while it streams") {
  // A ViT position table of 256 MB in F32 converted to F32, of zeros: were input or output held, the peak would show it.
  constexpr int64_t side = 1664;
  const TempDir dir;
  TestCheckpoint c = TestCheckpoint::read(golden_path("tiny-4b"));
  const int64_t width = c.tensors.at("model.visual.pos_embed.weight").shape[1];
  for (auto& [name, t] : c.tensors) t.bytes.clear();
  c.tensors.at("model.visual.pos_embed.weight") = {"F32", {side * side, width}, ""};
  c.edit("config.json", "\"num_position_embeddings\": 529", "\"num_position_embeddings\": " + std::to_string(side * side));
  for (const auto& [name, text] : c.files) write_file(dir.file(name), text);
  write_sparse_safetensors(dir.file("model.safetensors"), c.tensors);
  ConvertOptions o;
  o.input = dir.path.string(), o.target = dir.file("x.gguf"), o.matrices = Type::f32;
  const int64_t before = own_memory();
  int64_t peak = 0;
  o.progress = [&](const char*, uint64_t, uint64_t) { return peak = std::max(peak, own_memory() - before), true; };
  const ConvertSummary summary = convert_checkpoint(o);
  CHECK(std::filesystem::file_size(o.target) == summary.file_bytes);
  CHECK(summary.file_bytes > uint64_t(side * side * width * 4));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which keep memory of their own
  CHECK(before > 0);
  CHECK(peak < 64 << 20);
#endif
}
