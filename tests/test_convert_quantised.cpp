// Conversion to quantised types: which tensor gets which type, the same bytes from the checkpoint as from its F32 file and for any number of threads,
// what is refused; and a small model end to end. The quantisers alone: tests/test_quantised.cpp.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "kernels/blocks.h"
#include "kernels/panels.h"
#include "loaders/error.h"
#include "loaders/gguf.h"
#include "loaders/image.h"
#include "loaders/sha256.h"
#include "runtime/answer.h"
#include "runtime/names.h"
#include "runtime/verify.h"
#include "tests/checkpoint.h"
#include "tests/cli.h"
#include "tests/support.h"
#include "tests/tiny.h"
#include "weights_convert/convert.h"
#include "weights_convert/elements.h"
#include "weights_convert/mix.h"
#include "weights_convert/quantise.h"

using namespace bg;

namespace {

// In rows, as the public tools have it.
ConvertSummary convert(const std::string& input, const std::string& target, std::optional<Type> type, int threads = 1, Layout layout = Layout::rows) {
  ConvertOptions o;
  o.input = input, o.target = target, o.matrices = type, o.threads = threads, o.layout = layout;
  return convert_checkpoint(o);
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

// A breastgpt checkpoint wide enough for blocks of 256: decoder of width 256, ffn 512; ViT of width 24 and slide branch of 40 as in the tiny one.
// Random weights from a seed. Made once.
const std::string& wide_checkpoint() {
  static const TempDir dir;
  static const std::string path = [] {
    TestCheckpoint c = TestCheckpoint::read(golden_path("tiny-breastgpt"));
    nlohmann::json j = nlohmann::json::parse(c.files.at("config.json"));
    j["text_config"]["hidden_size"] = 256, j["text_config"]["intermediate_size"] = 512, j["text_config"]["num_attention_heads"] = 8;
    j["text_config"]["num_hidden_layers"] = 9;
    j["vision_config"]["out_hidden_size"] = 256;
    c.files["config.json"] = j.dump();
    Config config = tiny_model("tiny-breastgpt")->config;
    config.text.hidden = 256, config.text.ffn = 512, config.text.heads = 8, config.text.layers = 9;
    std::mt19937 random(7);
    c.tensors.clear();
    for (const TensorSpec& spec : tensor_specs(config)) {
      int64_t n = 1;
      for (const int64_t size : spec.shape) n *= size;
      const bool norm = spec.shape.size() == 1 && spec.name.find(".bias") == std::string::npos;
      std::normal_distribution<float> values(norm ? 1.0f : 0.0f, norm ? 0.1f : spec.matrix ? 1.5f / std::sqrt(float(spec.shape.back())) : 0.05f);
      std::string bytes(size_t(2 * n), '\0');
      for (int64_t i = 0; i < n; ++i) {
        const float f = values(random);
        uint32_t bits;
        std::memcpy(&bits, &f, 4);
        const uint16_t half = uint16_t(bits >> 16);
        std::memcpy(&bytes[size_t(2 * i)], &half, 2);
      }
      c.tensors[spec.published] = {"BF16", spec.published_shape, std::move(bytes)};
    }
    c.write(dir.file("checkpoint"));
    return dir.file("checkpoint");
  }();
  return path;
}

const std::string& wide_weights(Type type) {
  static const TempDir dir;
  static std::map<Type, std::string> made;
  if (!made.count(type)) {
    made[type] = dir.file(std::string(type_name(type)) + ".gguf");
    convert(wide_checkpoint(), made[type], type);
  }
  return made[type];
}

// Memory of our own (not pages of mapped files), in bytes: RssAnon of /proc/self/status; 0 where the system does not tell.
int64_t own_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("RssAnon:", 0) == 0) return std::stoll(line.substr(8)) * 1024;
  return 0;
}

Type type_of(const Gguf& f, const std::string& name) {
  const GgufTensor* t = f.find(name);
  REQUIRE(t);
  return t->type;
}

struct Said {
  std::vector<int32_t> ids;
  std::vector<double> logprobs;
};

Said say(const std::shared_ptr<const Model>& model, int threads, int64_t chunk, const std::string& backend = "cpu", int64_t budget = 8,
         Precision precision = Precision::float32) {
  SessionOptions o;
  o.backend = backend, o.threads = threads, o.chunk = chunk, o.context = 256, o.precision = precision;
  Session session(model, o);
  const Image image = load_image(golden_path("tiny-images/grey.png"));
  MediumInput in;
  in.pixels = {image.width, image.height, image.rgb.empty() ? nullptr : image.rgb.data(), image.grey16.empty() ? nullptr : image.grey16.data()};
  in.budget = budget;
  session.add(in);
  Generation g;
  g.max_tokens = 12;
  const Answer& a = session.ask("Is there a mass?", g, {});
  return {a.ids, a.logprobs};
}

}  // namespace

TEST_CASE("quantised files: the mix") {
  const Gguf mixed(wide_weights(Type::q4_k)), eight(wide_weights(Type::q8_0)), six(wide_weights(Type::q6_k));
  CHECK(mixed.integer("general.file_type") == 15);
  CHECK(eight.integer("general.file_type") == 7);
  CHECK(six.integer("general.file_type") == 18);
  // Nine layers: the first eighth is layer 0, the last from 63/8 = 7 on, every third between: 3, 6.
  for (int layer = 0; layer < 9; ++layer) {
    const std::string b = "blk." + std::to_string(layer) + ".";
    const bool wider = layer == 0 || layer == 3 || layer == 6 || layer >= 7;
    for (const char* name : {"attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"}) CHECK((type_of(mixed, b + name + ".weight") == Type::q4_k));
    for (const char* name : {"attn_v", "ffn_down"}) CHECK((type_of(mixed, b + name + ".weight") == (wider ? Type::q6_k : Type::q4_k)));
    for (const char* name : {"attn_q", "attn_v", "ffn_down"}) {
      CHECK((type_of(eight, b + name + ".weight") == Type::q8_0));
      CHECK((type_of(six, b + name + ".weight") == Type::q6_k));
    }
    for (const char* name : {"attn_norm", "attn_q_norm"}) CHECK((type_of(mixed, b + name + ".weight") == Type::f32));
  }
  for (const char* name : {"token_embd.weight", "output.weight"}) {
    CHECK((type_of(mixed, name) == Type::q6_k));
    CHECK((type_of(six, name) == Type::q6_k));
    CHECK((type_of(eight, name) == Type::q8_0));
  }
  for (const Gguf* f : {&mixed, &eight, &six}) {
    CHECK((type_of(*f, "v.position_embd.weight") == Type::f32));
    CHECK((type_of(*f, "v.patch_embd.weight") == Type::q8_0));     // rows of 1536
    CHECK((type_of(*f, "v.merger.fc1.weight") == Type::q8_0));     // of 96
    CHECK((type_of(*f, "v.blk.0.attn_qkv.weight") == Type::bf16)); // of 24: no whole block
    CHECK((type_of(*f, "s.blk.0.attn_q.weight") == Type::bf16));   // of 40
    CHECK((type_of(*f, "s.blk.0.ffn_down.weight") == Type::q8_0)); // of 160
    CHECK((type_of(*f, "s.proj.bias") == Type::f32));
  }
  // The selectors' matrices follow the rule for everything outside the decoder.
  const TensorSpec selector{"", "sel.top.attn_q.weight", {256, 256}, {256, 256}, true}, narrow{"", "blk.3.attn_q.weight", {8, 128}, {8, 128}, true},
      none{"", "blk.3.attn_q.weight", {8, 100}, {8, 100}, true};
  CHECK((type_in_mix(selector, 9, Type::q4_k) == Type::q8_0));
  CHECK((type_in_mix(narrow, 9, Type::q4_k) == Type::q8_0));
  CHECK((type_in_mix(none, 9, Type::q4_k) == Type::bf16));
  CHECK((type_in_mix(none, 9, Type::f16) == Type::f16));
}

TEST_CASE("quantised files: the same bytes from the checkpoint, from its F32 and BF16 files, with 1, 2, 3 and 8 threads; hashes are right") {
  const TempDir dir;
  convert(wide_checkpoint(), dir.file("f32.gguf"), Type::f32);
  convert(wide_checkpoint(), dir.file("bf16.gguf"), Type::bf16);
  for (const Type type : {Type::q4_k, Type::q8_0, Type::q6_k}) {
    const Gguf direct(wide_weights(type));
    CHECK(verify_weights(direct).ok());
    for (const char* base : {"f32.gguf", "bf16.gguf"}) {
      convert(dir.file(base), dir.file("x.gguf"), type);
      const Gguf f(dir.file("x.gguf"));
      REQUIRE(f.tensors().size() == direct.tensors().size());
      for (size_t i = 0; i < f.tensors().size(); ++i) {
        const GgufTensor &a = direct.tensors()[i], &b = f.tensors()[i];
        CHECK(a.name == b.name);
        CHECK((a.type == b.type));
        CHECK(a.shape == b.shape);
        CHECK((a.bytes == b.bytes && std::memcmp(a.data, b.data, a.bytes) == 0));
      }
      CHECK(f.texts("breastgpt.sha256") == direct.texts("breastgpt.sha256"));
      CHECK(f.texts("tokenizer.ggml.tokens") == direct.texts("tokenizer.ggml.tokens"));
      CHECK(f.texts("tokenizer.ggml.merges") == direct.texts("tokenizer.ggml.merges"));
      CHECK(f.integers("tokenizer.ggml.token_type") == direct.integers("tokenizer.ggml.token_type"));
      CHECK(f.integers("breastgpt.token.stop") == direct.integers("breastgpt.token.stop"));
      CHECK(f.text("general.name") == direct.text("general.name"));
      const std::string bytes = read_file(dir.file(base));
      CHECK(f.texts("breastgpt.source") == std::vector<std::string_view>{std::string(base) + " " + sha256_hex(bytes.data(), bytes.size())});
    }
  }
  const std::string one = read_file(wide_weights(Type::q4_k));
  for (const int threads : {2, 3, 8}) {
    convert(wide_checkpoint(), dir.file("threads.gguf"), Type::q4_k, threads);
    CHECK(read_file(dir.file("threads.gguf")) == one);
  }
  // A file that is not quantised passes through as well: BF16 numbers are the same in F32 and back.
  convert(dir.file("f32.gguf"), dir.file("back.gguf"), Type::bf16);
  CHECK(Gguf(dir.file("back.gguf")).texts("breastgpt.sha256") == Gguf(dir.file("bf16.gguf")).texts("breastgpt.sha256"));
}

TEST_CASE("quantised files: tensors hold what the quantiser makes of the exact values") {
  const Gguf exact(wide_weights(Type::f32)), mixed(wide_weights(Type::q4_k));
  for (const char* name : {"blk.1.ffn_down.weight", "blk.0.ffn_down.weight", "token_embd.weight", "v.merger.fc1.weight"}) {
    const GgufTensor &x = *exact.find(name), &y = *mixed.find(name);
    std::vector<uint16_t> blocks(y.bytes / 2);
    quantise(blocks.data(), y.type, reinterpret_cast<const float*>(x.data), int64_t(x.bytes / 4));
    CHECK_MESSAGE(std::memcmp(blocks.data(), y.data, y.bytes) == 0, name);
  }
}

TEST_CASE("quantised files: tiny checkpoints whose rows fit no block keep BF16 and still answer") {
  const TempDir dir;
  for (const char* name : {"tiny-8b", "tiny-4b", "tiny-breastgpt"}) {
    for (const Type type : {Type::q8_0, Type::q6_k, Type::q4_k}) {
      const ConvertSummary s = convert(golden_path(name), dir.file("x.gguf"), type);
      CHECK(s.file_bytes == std::filesystem::file_size(dir.file("x.gguf")));
      const Gguf f(dir.file("x.gguf"));
      for (const GgufTensor& t : f.tensors()) CHECK(t.shape.back() % block_values(t.type) == 0);
      const auto model = std::make_shared<const Model>(dir.file("x.gguf"));
      CHECK(say(model, 2, 512, "cpu", model->config.selector.enabled ? 8 : 0).ids.size() > 0);
      bool said = false;
      for (const std::string& line : s.mix) said |= line.find("are no whole") != std::string::npos && line.find("blk.*.ffn_down.weight BF16") != std::string::npos;
      CHECK(said);
    }
  }
}

TEST_CASE("quantised files: memory of its own stays small while it streams") {
  // Three matrices of 42 MB in F32, of zeros, of which nothing but pieces of 4 MiB may be held.
  constexpr int64_t ffn = 1 << 18;
  const TempDir dir;
  TestCheckpoint c = TestCheckpoint::read(golden_path("tiny-4b"));
  std::map<std::string, TestTensor> kept;
  for (const auto& [name, t] : c.tensors) {
    if (name.find("layers.3.") != std::string::npos) continue;
    kept[name] = {t.dtype, t.shape, ""};
    for (const char* part : {"mlp.gate_proj", "mlp.up_proj"})
      if (name.find(part) != std::string::npos) kept[name].shape[0] = ffn;
    if (name.find("mlp.down_proj") != std::string::npos) kept[name].shape[1] = ffn;
  }
  c.edit("config.json", "\"intermediate_size\": 153", "\"intermediate_size\": " + std::to_string(ffn));
  c.edit("config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3");
  for (const auto& [name, text] : c.files) write_file(dir.file(name), text);
  write_sparse_safetensors(dir.file("model.safetensors"), kept);
  ConvertOptions o;
  o.input = dir.path.string(), o.target = dir.file("x.gguf"), o.matrices = Type::q8_0, o.threads = 2;
  const int64_t before = own_memory();
  int64_t peak = 0;
  o.progress = [&](const char*, uint64_t, uint64_t) { return peak = std::max(peak, own_memory() - before), true; };
  const ConvertSummary summary = convert_checkpoint(o);
  CHECK(summary.by_type.at("Q8_0 in panels").bytes > uint64_t(3 * 40 * ffn));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which keep memory of their own
  CHECK(before > 0);
  CHECK(peak < 32 << 20);
#endif
}

namespace {

// Byte for byte the same tensors, in the same places.
void check_same_tensors(const Gguf& a, const Gguf& b) {
  REQUIRE(a.tensors().size() == b.tensors().size());
  for (size_t i = 0; i < a.tensors().size(); ++i) {
    const GgufTensor &x = a.tensors()[i], &y = b.tensors()[i];
    CHECK_MESSAGE((x.name == y.name && x.type == y.type && x.layout == y.layout && x.shape == y.shape), x.name);
    CHECK_MESSAGE((x.bytes == y.bytes && std::memcmp(x.data, y.data, x.bytes) == 0), x.name);
  }
  CHECK(a.texts("breastgpt.sha256") == b.texts("breastgpt.sha256"));
  CHECK(a.integer("general.file_type") == b.integer("general.file_type"));
}

}  // namespace

TEST_CASE("layouts: panels and back are the same bytes, for every type, from a checkpoint as from a file") {
  const TempDir dir;
  for (const Type type : {Type::f32, Type::f16, Type::bf16, Type::q8_0, Type::q6_k, Type::q4_k}) {
    CAPTURE(type_name(type));
    const Gguf rows(wide_weights(type));
    convert(wide_weights(type), dir.file("panels.gguf"), std::nullopt, 3, Layout::panels);
    convert(dir.file("panels.gguf"), dir.file("back.gguf"), std::nullopt, 2);
    check_same_tensors(rows, Gguf(dir.file("back.gguf")));
    const Gguf panels(dir.file("panels.gguf"));
    CHECK(verify_weights(panels).ok());
    convert(wide_checkpoint(), dir.file("direct.gguf"), type, 1, Layout::panels);
    check_same_tensors(panels, Gguf(dir.file("direct.gguf")));
    convert(dir.file("panels.gguf"), dir.file("again.gguf"), std::nullopt, 1, Layout::panels);
    check_same_tensors(panels, Gguf(dir.file("again.gguf")));
    for (const GgufTensor& t : panels.tensors()) {
      const bool table = t.name == "token_embd.weight" || t.name == "v.position_embd.weight";  // not tied: both are read row by row
      CHECK_MESSAGE((t.layout == Layout::panels) == (t.shape.size() == 2 && !table), t.name);
    }
    CHECK(Model(wide_weights(type)).packed_bytes > 0);
    CHECK(Model(dir.file("panels.gguf")).packed_bytes == 0);
    if (is_quantised(type)) continue;
    convert(dir.file("panels.gguf"), dir.file("quantised.gguf"), Type::q4_k);
    if (type != Type::f16) check_same_tensors(Gguf(wide_weights(Type::q4_k)), Gguf(dir.file("quantised.gguf")));
  }
}

TEST_CASE("layouts: the same answers from panels, from rows packed in memory, and from rows as they are") {
  const TempDir dir;
  for (const Type type : {Type::bf16, Type::q4_k}) {
    convert(wide_weights(type), dir.file("panels.gguf"), std::nullopt, 1, Layout::panels);
    const auto rows = std::make_shared<const Model>(wide_weights(type)), panels = std::make_shared<const Model>(dir.file("panels.gguf"));
    for (const Precision precision : {Precision::float32, Precision::fast}) {
      const Said base = say(rows, 1, 512, "cpu", 8, precision);
      for (const int threads : {1, 3}) {
        const Said got = say(panels, threads, 7, "cpu", 8, precision);
        CHECK(got.ids == base.ids);
        CHECK(got.logprobs == base.logprobs);
      }
    }
    CHECK(say(rows, 1, 512, "ref").logprobs == say(panels, 1, 512, "ref").logprobs);
    CHECK(say(rows, 1, 512, "cpu/portable").logprobs == say(panels, 1, 512, "cpu/portable").logprobs);
  }
}

TEST_CASE("layouts: rows are packed once, and go on as rows where there is no memory") {
  const Model model(wide_weights(Type::bf16));
  CHECK(PackedWeights::make(model.weights, 2, model.packed_bytes - 1) == nullptr);
  const auto packed = PackedWeights::make(model.weights, 2, model.packed_bytes);
  REQUIRE(packed);
  Weights from = model.weights, to = packed->weights();
  CHECK(PackedWeights::bytes(to) == 0);
  const std::vector<Weight*> rows = multiplied(from), panels = multiplied(to);
  REQUIRE(rows.size() == panels.size());
  std::vector<float> a, b;
  for (size_t i = 0; i < rows.size(); ++i) {
    CHECK((panels[i]->layout == Layout::panels && reinterpret_cast<uintptr_t>(panels[i]->data) % 64 == 0));
    a.assign(size_t(rows[i]->cols), 1), b.assign(size_t(rows[i]->cols), 2);
    for (const int64_t n : {int64_t(0), rows[i]->rows / 2, rows[i]->rows - 1}) {
      read_row(a.data(), *rows[i], n);
      read_row(b.data(), *panels[i], n);
      CHECK(a == b);
    }
  }
  CHECK((from.decoder.embed.data == to.decoder.embed.data));  // not tied
  const Model tied(tiny_weights("tiny-4b"));
  if (tied.config.text.tied) {
    const auto copy = PackedWeights::make(tied.weights, 1, ~uint64_t(0));
    CHECK((copy->weights().decoder.embed.data == copy->weights().decoder.output.data && copy->weights().decoder.embed.layout == Layout::panels));
  }
  // Two sessions take the same copy.
  CHECK(&model.in_panels(1, {}) == &model.in_panels(2, {}));
}

TEST_CASE("quantised files: what is refused") {
  const TempDir dir;
  const std::string target = dir.file("x.gguf");
  CHECK(contains(message_of([&] { convert(wide_weights(Type::q8_0), target, Type::q4_k); }), "is Q8_0, quantised already; give the checkpoint's folder"));
  CHECK(contains(message_of([&] { convert(dir.file("absent.gguf"), target, Type::q4_k); }), "absent.gguf: cannot be opened"));
  write_file(dir.file("text.gguf"), "no weights at all, only text that is long enough");
  CHECK(contains(message_of([&] { convert(dir.file("text.gguf"), target, Type::q4_k); }), "not a GGUF file"));
  const std::string bf16 = wide_weights(Type::bf16);
  CHECK(contains(message_of([&] { convert(bf16, bf16, Type::q8_0); }), "is one of the input files"));
  TestCheckpoint c = TestCheckpoint::read(wide_checkpoint());
  const auto with = [&](const char* name, uint16_t bits) {
    TestCheckpoint changed = c;
    std::memcpy(&changed.tensors.at(name).bytes[10], &bits, 2);
    changed.write(dir.file("in"));
    const std::string said = message_of([&] { convert(dir.file("in"), target, Type::q4_k); });
    std::filesystem::remove_all(dir.file("in"));
    return said;
  };
  CHECK(contains(with("model.language_model.layers.1.mlp.up_proj.weight", 0x7fc0), "layers.1.mlp.up_proj.weight\", element 5 is nan; weights must be finite"));
  CHECK(contains(with("model.language_model.layers.1.mlp.up_proj.weight", 0xff80), "element 5 is -inf"));
  CHECK(contains(with("model.language_model.layers.1.mlp.up_proj.weight", 0x4780), "element 5 is 65536, too large for Q4_K; convert with --type bf16 or f32"));
  CHECK_FALSE(std::filesystem::exists(target));
  // A model file whose norm is quantised, or whose matrix is F64, is not one of ours.
  std::string bytes = read_file(wide_weights(Type::q8_0));
  const std::string name = "output_norm.weight";
  const size_t at = bytes.find(name) + name.size() + 4 + 8;  // after n and the size: the type
  bytes[at] = 8;
  write_file(dir.file("norm.gguf"), bytes);
  CHECK(contains(message_of([&] { Model m(dir.file("norm.gguf")); }), "\"output_norm.weight\": expected F32, got Q8_0"));
}

TEST_CASE("quantised files: one model, the same tokens for any number of threads, any chunk and instruction set") {
  for (const Type type : {Type::q8_0, Type::q6_k, Type::q4_k}) {
    CAPTURE(type_name(type));
    const auto model = std::make_shared<const Model>(wide_weights(type));
    CHECK(model->weight_types == (type == Type::q4_k ? "Q4_K + Q6_K" : type_name(type)));
    const Said base = say(model, 1, 512);
    CHECK(base.ids.size() == 12);
    for (const int threads : {2, 3, 8}) {
      const Said got = say(model, threads, 512);
      CHECK(got.ids == base.ids);
      CHECK(got.logprobs == base.logprobs);
    }
    for (const int64_t chunk : {1, 3, 17}) {
      const Said got = say(model, 2, chunk);
      CHECK(got.ids == base.ids);
      CHECK(got.logprobs == base.logprobs);
    }
    CHECK(say(model, 2, 512, "cpu/portable").ids == base.ids);
    const Said exact = say(model, 1, 512, "ref64");
    CHECK(exact.ids == base.ids);
    for (size_t i = 0; i < exact.logprobs.size() && exact.ids == base.ids; ++i) CHECK(std::fabs(exact.logprobs[i] - base.logprobs[i]) < 1e-4);
  }
}

// A prompt cut into single tokens must not take what the tokens after it take (Phase).
TEST_CASE("quantised files: fast, the same bits for any number of threads and any chunk, on every instruction set") {
  int count = 0;
  const Isa* isas = built_isas(&count);
  for (const Type type : {Type::bf16, Type::q8_0, Type::q6_k, Type::q4_k}) {
    CAPTURE(type_name(type));
    const auto model = std::make_shared<const Model>(wide_weights(type));
    for (int i = 0; i < count; ++i) {
      if (!runs(isas[i])) continue;
      const std::string backend = std::string("cpu/") + isa_name(isas[i]);
      CAPTURE(backend);
      const Said base = say(model, 1, 512, backend, 8, Precision::fast);
      CHECK(base.ids.size() >= 4);  // of 12: a random model may end earlier, by what the instruction set rounds
      for (const int64_t chunk : {1, 3, 17}) {
        const Said got = say(model, 3, chunk, backend, 8, Precision::fast);
        CHECK(got.ids == base.ids);
        CHECK(got.logprobs == base.logprobs);
      }
    }
  }
}

TEST_CASE("quantised files: the answer is that of the F32 file of the same floats, bit for bit") {
  const TempDir dir;
  const auto quantised = std::make_shared<const Model>(wide_weights(Type::q4_k));
  TestCheckpoint c = TestCheckpoint::read(wide_checkpoint());
  for (const TensorSpec& spec : tensor_specs(quantised->config)) {
    const GgufTensor& t = *quantised->file.find(spec.name);
    const int64_t n = int64_t(t.bytes / block_bytes(t.type)) * block_values(t.type);
    std::string bytes(size_t(4 * n), '\0');
    std::vector<float> values(static_cast<size_t>(n));
    if (t.type == Type::q8_0) floats_of_q8_0(values.data(), reinterpret_cast<const BlockQ8_0*>(t.data), n);
    else if (t.type == Type::q4_k) floats_of_q4_k(values.data(), reinterpret_cast<const BlockQ4_K*>(t.data), n);
    else if (t.type == Type::q6_k) floats_of_q6_k(values.data(), reinterpret_cast<const BlockQ6_K*>(t.data), n);
    else REQUIRE(convert_elements(values.data(), Type::f32, t.data, t.type, n) == -1);
    std::memcpy(bytes.data(), values.data(), bytes.size());
    c.tensors[spec.published] = {"F32", spec.published_shape, std::move(bytes)};
  }
  c.write(dir.file("checkpoint"));
  convert(dir.file("checkpoint"), dir.file("f32.gguf"), Type::f32);
  const Said narrow = say(quantised, 2, 512), wide = say(std::make_shared<const Model>(dir.file("f32.gguf")), 1, 7);
  CHECK(narrow.ids == wide.ids);
  CHECK(narrow.logprobs == wide.logprobs);
}

TEST_CASE("quantised files: the programs") {
  const TempDir dir;
  const CliResult made = program("breastgpt-convert", {wide_checkpoint(), "-o", dir.file("q4.gguf"), "--type", "q4_k_m", "--threads", "2"});
  CHECK(made.code == 0);
  CHECK(contains(made.out, "Q4_K in panels: 53 tensors"));
  CHECK(contains(made.out, "embedding and output: Q6_K 2"));
  CHECK(contains(made.out, "decoder layers: Q4_K 53, Q6_K 10"));
  CHECK(contains(made.out, "ViT: BF16 16, F32 1, Q8_0 9"));
  CHECK(contains(made.out, "rows of 24 are no whole Q8_0 blocks: v.blk.*.attn_qkv.weight BF16 (4)"));
  CHECK(program("breastgpt-convert", {wide_checkpoint(), "-o", dir.file("rows.gguf"), "--type", "q4_k_m", "--layout", "rows"}).code == 0);
  CHECK(read_file(dir.file("rows.gguf")) == read_file(wide_weights(Type::q4_k)));
  CHECK(program("breastgpt-convert", {dir.file("q4.gguf"), "-o", dir.file("back.gguf"), "--layout=rows"}).code == 0);
  check_same_tensors(Gguf(dir.file("back.gguf")), Gguf(dir.file("rows.gguf")));
  CHECK(contains(breastgpt({"plan", "-m", dir.file("rows.gguf"), "Q?"}).out, "packed "));
  CHECK_FALSE(contains(breastgpt({"plan", "-m", dir.file("q4.gguf"), "Q?"}).out, "packed "));
  const CliResult wrong = program("breastgpt-convert", {wide_checkpoint(), "-o", dir.file("x.gguf"), "--layout", "tiles"});
  CHECK(wrong.code == 2);
  CHECK(contains(wrong.err, "--layout \"tiles\": expected panels or rows"));
  CHECK(program("breastgpt-convert", {wide_weights(Type::bf16), "-o", dir.file("q8.gguf"), "--type=q8_0", "--dry-run"}).code == 0);
  CHECK_FALSE(std::filesystem::exists(dir.file("q8.gguf")));
  const CliResult info = breastgpt({"info", dir.file("q4.gguf")});
  CHECK(info.code == 0);
  CHECK(contains(info.out, "weights Q4_K + Q6_K, sha256 "));
  int64_t parameters = 0;
  const Gguf exact(wide_weights(Type::f32));
  for (const GgufTensor& t : exact.tensors()) parameters += int64_t(t.bytes / 4);
  char text[40];
  std::snprintf(text, sizeof text, "%.3f G parameters", double(parameters) / 1e9);
  CHECK(contains(info.out, text));
  CHECK(breastgpt({"verify", dir.file("q4.gguf")}).code == 0);
  const std::string features = golden_path("mixed-media/slide-70.safetensors");
  const CliResult slide = breastgpt({"ask", "-m", dir.file("q4.gguf"), "--slide", features, "--max-tokens", "4", "--json", "Is there a tumour?"});
  CHECK(slide.code == 0);
  CHECK(contains(slide.out, "\"Q4_K + Q6_K\""));
}
