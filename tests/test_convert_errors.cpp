// Every refusal of the converter, provoked; after each one nothing is left behind. And its command line.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <sstream>

#include "loaders/error.h"
#include "tests/checkpoint.h"
#include "tests/support.h"
#include "weights_convert/cli.h"
#include "weights_convert/convert.h"

using namespace bg;

namespace {

#define CHECK_SAYS(expression, words)                                   \
  do {                                                                  \
    const std::string message_ = (expression);                            \
    CHECK_MESSAGE(message_.find(words) != std::string::npos, "said: ", message_); \
  } while (0)

size_t entries(const std::string& folder) {
  size_t n = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) n += entry.exists();
  return n;
}

const TestCheckpoint& golden(const std::string& name) {
  static std::map<std::string, TestCheckpoint> all;
  if (!all.count(name)) all[name] = TestCheckpoint::read(golden_path(name));
  return all[name];
}

// What the converter says about a golden checkpoint with one change; "" when it converts.
std::string complaint(const std::string& name, const std::function<void(TestCheckpoint&)>& change, Type type = Type::bf16) {
  const TempDir dir;
  TestCheckpoint c = golden(name);
  change(c);
  c.write(dir.file("in"));
  std::filesystem::create_directory(dir.file("out"));
  ConvertOptions o;
  o.input = dir.file("in"), o.target = dir.file("out") + "/x.gguf", o.matrices = type;
  try {
    convert_checkpoint(o);
  } catch (const Error& e) {
    CHECK(entries(dir.file("out")) == 0);
    return e.what();
  }
  CHECK(entries(dir.file("out")) == 1);
  return "";
}

std::string complaint_config(const std::string& from, const std::string& to, const std::string& file = "config.json") {
  return complaint("tiny-breastgpt", [&](TestCheckpoint& c) { c.edit(file, from, to); });
}

void set_float(TestTensor& t, size_t element, float value) {
  if (t.dtype == "F32") {
    std::memcpy(t.bytes.data() + 4 * element, &value, 4);
  } else {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint16_t upper = uint16_t(bits >> 16);
    std::memcpy(t.bytes.data() + 2 * element, &upper, 2);
  }
}

}  // namespace

TEST_CASE("convert: one error lists every missing, unknown, repeated, misshapen and mistyped tensor") {
  const std::string said = complaint("tiny-breastgpt", [](TestCheckpoint& c) {
    c.tensors.erase("model.language_model.layers.1.mlp.up_proj.weight");
    c.tensors.erase("slide.feature_projector.bias");
    c.tensors["model.extra.weight"] = {"BF16", {2}, std::string(4, 0)};
    c.tensors["model.slide.layers.0.ln1.weight"] = c.tensors.at("slide.layers.0.ln1.weight");
    c.tensors.at("model.visual.patch_embed.proj.weight").shape = {1536, c.tensors.at("model.visual.patch_embed.proj.weight").shape[0]};
    TestTensor& norm = c.tensors.at("model.language_model.norm.weight");
    norm.dtype = "I16";
  });
  CHECK_SAYS(said, "6 tensors do not fit config.json");
  CHECK_SAYS(said, "missing: \"model.language_model.layers.1.mlp.up_proj.weight\", expected [129, 64]");
  CHECK_SAYS(said, "missing: \"slide.feature_projector.bias\", expected [64]");
  CHECK_SAYS(said, "unknown: \"model.extra.weight\" [2]");
  CHECK_SAYS(said, "repeated: \"slide.layers.0.ln1.weight\", also with a leading \"model.\"");
  CHECK_SAYS(said, "wrong shape: \"model.visual.patch_embed.proj.weight\", expected [24, 3, 2, 16, 16], found [1536, 24]");
  CHECK_SAYS(said, "wrong type: \"model.language_model.norm.weight\", expected F32, BF16 or F16, found I16");
  CHECK_SAYS(complaint("tiny-8b", [](TestCheckpoint& c) { c.tensors.erase("lm_head.weight"); }), "1 tensor does not fit config.json");
  CHECK_SAYS(complaint("tiny-8b", [](TestCheckpoint& c) { c.tensors["slide.x"] = {"BF16", {2}, std::string(4, 0)}; }), "unknown: \"slide.x\"");
}

TEST_CASE("convert: older exports, and no embedding matrix") {
  const auto rename = [](const std::string& from, const std::string& to) {
    return [=](TestCheckpoint& c) {
      std::map<std::string, TestTensor> renamed;
      for (const auto& [name, t] : c.tensors) renamed[name.rfind(from, 0) == 0 ? to + name.substr(from.size()) : name] = t;
      c.tensors = renamed;
    };
  };
  CHECK_SAYS(complaint("tiny-8b", rename("model.language_model.", "model.")), "is named as in exports from before \"model.language_model.\"");
  CHECK_SAYS(complaint("tiny-8b", rename("model.language_model.", "language_model.model.")), "is named as in exports from before");
  CHECK_SAYS(complaint("tiny-8b", rename("model.language_model.embed_tokens", "x")), "\"model.language_model.embed_tokens.weight\" is missing");
  CHECK_SAYS(complaint("tiny-8b", [](TestCheckpoint& c) {
    TestTensor& t = c.tensors.at("model.language_model.embed_tokens.weight");
    t.shape = {t.shape[0] * t.shape[1]};
  }), "expected [vocabulary, hidden]");
  CHECK_SAYS(complaint("tiny-8b", [](TestCheckpoint& c) { c.tensors.at("model.language_model.embed_tokens.weight") = {"BF16", {1 << 30, 0}, ""}; }), "expected [vocabulary, hidden]");
}

TEST_CASE("convert: values that are not finite or do not fit name tensor and value") {
  const auto with = [](float value, const char* name) {
    return [=](TestCheckpoint& c) { set_float(c.tensors.at(name), 5, value); };
  };
  const char qkv[] = "model.visual.blocks.1.attn.qkv.weight", norm[] = "model.language_model.norm.weight";
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK_SAYS(complaint("tiny-4b", with(NAN, qkv)), "tensor \"model.visual.blocks.1.attn.qkv.weight\", element 5 is nan; weights must be finite");
  CHECK_SAYS(complaint("tiny-4b", with(-infinity, norm), Type::f32), "tensor \"model.language_model.norm.weight\", element 5 is -inf");
  CHECK_SAYS(complaint("tiny-8b", with(infinity, qkv)), "element 5 is inf");
  CHECK_SAYS(complaint("tiny-4b", with(65536, qkv), Type::f16), "element 5 is 65536, too large for F16; convert with --type bf16 or f32");
  CHECK_SAYS(complaint("tiny-4b", with(std::numeric_limits<float>::max(), qkv)), "element 5 is 3.40282347e+38, too large for BF16");
  CHECK(complaint("tiny-4b", with(65536, norm), Type::f16) == "");  // vectors are F32
}

TEST_CASE("convert: config.json") {
  CHECK_SAYS(complaint("tiny-breastgpt", [](TestCheckpoint& c) { c.files.erase("config.json"); }), "config.json: cannot be opened");
  CHECK_SAYS(complaint("tiny-breastgpt", [](TestCheckpoint& c) { c.files["config.json"] = "{\"a\": "; }), "config.json: is not valid JSON");
  CHECK_SAYS(complaint("tiny-breastgpt", [](TestCheckpoint& c) { c.files["config.json"] = "[]"; }), "config.json: expected a JSON object");
  CHECK_SAYS(complaint("tiny-breastgpt", [](TestCheckpoint& c) { c.files["config.json"] = "{}"; }), "\"model_type\" is \"\"");
  CHECK_SAYS(complaint_config("\"model_type\": \"breastgpt\"", "\"model_type\": \"llava\""), "\"model_type\" is \"llava\"; expected breastgpt or qwen3_vl");
  CHECK_SAYS(complaint_config("\"model_type\": \"breastgpt\"", "\"model_type\": 7"), "\"model_type\" expected a string");
  CHECK_SAYS(complaint_config("\"text_config\"", "\"x\""), "\"text_config\" is missing, expected an object");
  CHECK_SAYS(complaint_config("\"vision_config\"", "\"x\""), "\"vision_config\" is missing");
  CHECK_SAYS(complaint_config("\"num_hidden_layers\"", "\"x\""), "config.json: text_config: \"num_hidden_layers\" is missing, expected a whole number");
  CHECK_SAYS(complaint_config("\"num_hidden_layers\": 4", "\"num_hidden_layers\": \"4\""), "\"num_hidden_layers\" expected a whole number");
  CHECK_SAYS(complaint_config("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 4.5"), "\"num_hidden_layers\" expected a whole number");
  CHECK_SAYS(complaint_config("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 18446744073709551615"), "\"num_hidden_layers\" expected a whole number");
  CHECK_SAYS(complaint_config("\"num_hidden_layers\": 4", "\"num_hidden_layers\": -4"), "config.json: text layers is -4, expected 1 to 4096");
  CHECK_SAYS(complaint_config("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\""), "text_config: \"hidden_act\" is \"gelu\"; only \"silu\" is supported");
  CHECK_SAYS(complaint_config("\"gelu_pytorch_tanh\"", "\"gelu\""), "vision_config: \"hidden_act\" is \"gelu\"; only \"gelu_pytorch_tanh\"");
  CHECK_SAYS(complaint_config("\"attention_bias\": false", "\"attention_bias\": true"), "\"attention_bias\" is true; only false is supported");
  CHECK_SAYS(complaint_config("\"attention_bias\": false", "\"attention_bias\": 0"), "\"attention_bias\" expected true or false");
  CHECK_SAYS(complaint_config("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\""), "\"rope_type\" is \"yarn\"");
  CHECK_SAYS(complaint_config("\"mrope_interleaved\": true", "\"mrope_interleaved\": false"), "only the interleaved form");
  CHECK_SAYS(complaint_config("\"mrope_section\": [", "\"mrope_section\": [ 1,"), "\"mrope_section\" expected three whole numbers");
  CHECK_SAYS(complaint_config("\"mrope_section\": [", "\"mrope_section\": [ \"1\","), "expected an array of whole numbers");
  CHECK_SAYS(complaint_config("\"mrope_section\": [", "\"mrope_section\": 7, \"x\": ["), "expected an array of whole numbers");
  CHECK_SAYS(complaint_config("\"rope_theta\": ", "\"rope_theta\": \"a\", \"x\": "), "\"rope_theta\" expected a number");
  CHECK_SAYS(complaint_config("\"in_channels\": 3", "\"in_channels\": 1"), "\"in_channels\" is 1; expected 3");
  CHECK_SAYS(complaint_config("\"out_hidden_size\": 64", "\"out_hidden_size\": 65"), "\"out_hidden_size\" is 65; expected 64");
  CHECK_SAYS(complaint_config("\"image_token_id\": 706", "\"image_token_id\": -5"), "\"image_token_id\" expected a token id, found -5");
  CHECK_SAYS(complaint_config("\"selector\": \"CoverageTokenSelector\"", "\"selector\": \"Other\""), "selector \"Other\" is not known");
  CHECK_SAYS(complaint_config("\"model_type\": \"breastgpt\"", "\"model_type\": \"breastgpt\", \"model_type\": \"breastgpt\""), "JSON key \"model_type\" appears twice");
}

TEST_CASE("convert: preprocessor, generation and chat template files") {
  const std::string pre = "preprocessor_config.json", video = "video_preprocessor_config.json";
  CHECK_SAYS(complaint_config("\"patch_size\": 16", "\"patch_size\": 14", pre), "preprocessor_config.json: \"patch_size\" is 14; expected 16");
  CHECK_SAYS(complaint_config("\"merge_size\": 2", "\"merge_size\": 4", pre), "\"merge_size\" is 4; expected 2");
  CHECK_SAYS(complaint_config("\"temporal_patch_size\": 2", "\"temporal_patch_size\": 1", pre), "\"temporal_patch_size\" is 1; expected 2");
  CHECK_SAYS(complaint_config("\"image_mean\": [", "\"image_mean\": [0.48,", pre), "\"image_mean\" is not [0.5, 0.5, 0.5]");
  CHECK_SAYS(complaint_config("\"image_std\": [", "\"image_std\": 3, \"x\": [", pre), "\"image_std\" is not [0.5, 0.5, 0.5]");
  CHECK_SAYS(complaint("tiny-8b", [&](TestCheckpoint& c) { c.files[video] = "{\"patch_size\": 14}"; }), "video_preprocessor_config.json: \"patch_size\" is 14");
  const auto generation = [](const std::string& text) { return complaint("tiny-8b", [=](TestCheckpoint& c) { c.files["generation_config.json"] = text; }); };
  CHECK_SAYS(generation("{\"eos_token_id\": \"x\"}"), "generation_config.json: \"eos_token_id\" expected a whole number");
  CHECK_SAYS(generation("{\"eos_token_id\": [1, null]}"), "expected an array of whole numbers");
  CHECK_SAYS(generation("{\"eos_token_id\": []}"), "0 stop tokens");
  CHECK_SAYS(generation("{\"eos_token_id\": [99999]}"), "token id stop is 99999");
  CHECK_SAYS(complaint("tiny-8b", [](TestCheckpoint& c) { c.files["chat_template.json"] = "{\"chat_template\": 3}"; }), "chat_template.json: \"chat_template\" expected a string");
}

TEST_CASE("convert: tokenizer against configuration and embedding") {
  CHECK_SAYS(complaint("tiny-8b", [](TestCheckpoint& c) { c.files.erase("tokenizer.json"); }), "tokenizer.json: is missing");
  CHECK_SAYS(complaint_config("\"image_token_id\": 706", "\"image_token_id\": 705"), "\"<|image_pad|>\" is token 706, but config.json says 705");
  CHECK_SAYS(complaint_config("\"histo_token_id\": 720", "\"histo_token_id\": 725"), "\"<|histo_pad|>\" is token 720, but config.json says 725");
  CHECK_SAYS(complaint_config("<|histo_pad|>", "<|other|>", "tokenizer.json"), "token 720 is \"<|other|>\", but config.json's histo_token_id");
  CHECK_SAYS(complaint_config("<|im_start|>", "<|x|>", "tokenizer.json"), "has no token \"<|im_start|>\"");
  CHECK_SAYS(complaint_config("<|im_end|>", "<|x|>", "tokenizer.json"), "has no token \"<|im_end|>\"");
  CHECK_SAYS(complaint("tiny-8b", [](TestCheckpoint& c) { c.files.erase("generation_config.json"), c.edit("tokenizer.json", "<|endoftext|>", "<|x|>"); }), "has no token \"<|endoftext|>\"");
  CHECK_SAYS(complaint("tiny-4b", [](TestCheckpoint& c) {  // fewer rows than tokens
    TestTensor& t = c.tensors.at("model.language_model.embed_tokens.weight");
    const size_t row = t.bytes.size() / size_t(t.shape[0]);
    t.shape[0] = 700, t.bytes.resize(700 * row);
  }), "721 tokens, but the embedding matrix has 700 rows");
}

TEST_CASE("convert: targets, space, cancel") {
  const TempDir dir;
  TestCheckpoint c = golden("tiny-4b");
  c.write(dir.file("in"));
  ConvertOptions o;
  o.input = dir.file("in");
  const auto says = [&](const std::string& folder, const std::string& target) {
    o.input = folder, o.target = target;
    try {
      convert_checkpoint(o);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK_SAYS(says(dir.file("absent"), dir.file("x.gguf")), "absent: is not a folder");
  CHECK_SAYS(says(dir.file("in") + "/config.json", dir.file("x.gguf")), "config.json: is not a folder");
  CHECK_SAYS(says(dir.file("in"), dir.file("in") + "/model.safetensors"), "is one of the input files");
  CHECK_SAYS(says(dir.file("in"), dir.file("in") + "/tokenizer.json"), "is one of the input files");
  CHECK_SAYS(says(dir.file("in"), dir.file("in")), "is not a regular file");
  CHECK_SAYS(says(dir.file("in"), dir.file("no/such/folder.gguf")), "cannot be created");
  std::filesystem::create_directory(dir.file("out"));
  int calls = 0;
  for (int stop_after = 0; stop_after < 60; ++stop_after) {  // at every point of the work
    calls = 0;
    o.progress = [&](const char*, uint64_t, uint64_t) { return calls++ < stop_after; };
    CHECK_SAYS(says(dir.file("in"), dir.file("out/x.gguf")), "conversion was cancelled; nothing was left behind");
    CHECK(entries(dir.file("out")) == 0);
  }
  o.progress = {};
  CHECK(says(dir.file("in"), dir.file("out/x.gguf")) == "");
  const std::string whole = read_file(dir.file("out/x.gguf"));
  o.progress = [](const char*, uint64_t done, uint64_t total) { return done < total / 2; };
  CHECK_SAYS(says(dir.file("in"), dir.file("out/x.gguf")), "cancelled");
  CHECK(read_file(dir.file("out/x.gguf")) == whole);  // a failure leaves the older file as it was
  CHECK(entries(dir.file("out")) == 1);
}

TEST_CASE("breastgpt-convert: arguments, output, exit codes") {
  const TempDir dir;
  const std::string in = golden_path("tiny-4b"), target = dir.file("x.gguf");
  std::string out, err;
  const auto run = [&](const std::vector<std::string>& arguments, bool interrupted = false) {
    std::ostringstream o, e;
    ConvertCli cli{o, e};
    cli.show_progress = true;
    cli.interrupted = [=] { return interrupted; };
    const int code = run_convert(arguments, cli);
    out = o.str(), err = e.str();
    return code;
  };
  CHECK(run({"--help"}) == 0);
  CHECK(out.find("exit codes: 0 done; 1 the conversion failed") != std::string::npos);
  CHECK(run({"--version"}) == 0);
  CHECK(out.rfind("breastgpt-convert ", 0) == 0);
  const std::pair<std::vector<std::string>, const char*> wrong[] = {
      {{}, "CHECKPOINT_DIR is missing"},
      {{in}, "-o MODEL.gguf is missing"},
      {{"-o", target}, "CHECKPOINT_DIR is missing"},
      {{in, "-o"}, "-o needs a value"},
      {{in, "-o", target, "--type"}, "--type needs a value"},
      {{in, "-o", target, "--type", "q8"}, "--type \"q8\": expected f32, bf16, f16, q8_0, q6_k or q4_k_m"},
      {{in, "-o", target, "--threads", "0"}, "--threads \"0\": expected 1 to 1024"},
      {{in, "-o", target, "--threads=2x"}, "--threads \"2x\": expected 1 to 1024"},
      {{in, "-o", target, "--quick"}, "unknown option \"--quick\""},
      {{in, "-o", target, "--dry-run=1"}, "unknown option \"--dry-run=1\""},
      {{in, in, "-o", target}, "more than one CHECKPOINT_DIR"},
      {{"", "-o", target}, "CHECKPOINT_DIR is empty"},
  };
  for (const auto& [arguments, words] : wrong) {
    CHECK(run(arguments) == 2);
    CHECK_SAYS(err, words);
    CHECK(out.empty());
  }
  CHECK(run({in, "-o", target, "--dry-run"}) == 0);
  CHECK_SAYS(out, "dry run: nothing written");
  CHECK_FALSE(std::filesystem::exists(target));
  CHECK(run({"--type=f16", "--output", target, "--", in}) == 0);
  CHECK_SAYS(out, "F16: ");
  CHECK_SAYS(out, "F32: ");
  CHECK_SAYS(err, "100 %");
  CHECK(std::filesystem::exists(target));
  CHECK(run({dir.file("absent"), "-o", target}) == 1);
  CHECK_SAYS(err, "is not a folder");
  std::filesystem::remove(target);
  CHECK(run({in, "-o", target}, true) == 1);
  CHECK_SAYS(err, "cancelled");
  CHECK(entries(dir.path.string()) == 0);
}
