// Sessions on a GPU: the emulated one in every test run, and a real one where the machine has it. The same tokens as on the CPU, weights that do not fit, both
// memory plans, and what a failing GPU leaves standing.
#include <doctest/doctest.h>

#include <cmath>

#include "kernels/cuda/device.h"
#include "loaders/image.h"
#include "runtime/answer.h"
#include "tests/cli.h"
#include "tests/expect_error.h"
#include "tests/support.h"
#include "tests/tiny.h"

using namespace bg;

namespace {

std::vector<std::string> gpus() {
  std::string why;
  return cuda_devices(&why) > 0 ? std::vector<std::string>{"emulated", "cuda"} : std::vector<std::string>{"emulated"};
}

SessionOptions on(const std::string& backend, Precision precision = Precision::float32) {
  SessionOptions o;
  o.backend = backend;
  o.threads = 2;
  o.context = 256;
  o.precision = precision;
  return o;
}

struct Said {
  std::vector<int32_t> ids;
  std::vector<double> logprobs;
  bool operator==(const Said& o) const { return ids == o.ids && logprobs == o.logprobs; }
};

struct Picture {
  Image image = load_image(golden_path("tiny-images/spots.png"));
  MediumInput input() const {
    MediumInput in;
    in.pixels = {image.width, image.height, image.rgb.data(), nullptr};
    return in;
  }
};

Said ask(Session& session, const std::string& question, int64_t tokens = 12) {
  Generation g;
  g.max_tokens = tokens;
  const Answer& a = session.ask(question, g, {});
  return {a.ids, a.logprobs};
}

Said look_and_ask(const std::shared_ptr<const Model>& model, const SessionOptions& options) {
  const Picture picture;
  Session session(model, options);
  session.add(picture.input());
  return ask(session, "Is there a mass?");
}

}  // namespace

TEST_CASE("gpu: a picture and a question give the CPU's tokens, log-probabilities within the stages' bound") {
  for (const char* type : {"f32", "bf16"}) {
    const auto model = tiny_model("tiny-breastgpt", type);
    const Said cpu = look_and_ask(model, on("cpu"));
    for (const std::string& gpu : gpus()) {
      CAPTURE(gpu);
      const Said said = look_and_ask(model, on(gpu));
      CHECK(said.ids == cpu.ids);
      REQUIRE(said.logprobs.size() == cpu.logprobs.size());
      for (size_t i = 0; i < said.logprobs.size(); ++i) CHECK(std::fabs(said.logprobs[i] - cpu.logprobs[i]) <= 1e-4);  // both sides of logits that may be off by 1e-4 of their norm
    }
  }
}

TEST_CASE("gpu: the same bits for any chunk, number of threads, place of the weights, and turn of another session") {
  const auto model = tiny_model("tiny-breastgpt", "bf16");
  for (const std::string& gpu : gpus()) {
    CAPTURE(gpu);
    for (const Precision precision : {Precision::float32, Precision::fast}) {
      SessionOptions options = on(gpu, precision);
      const Said whole = look_and_ask(model, options);
      options.chunk = 7;
      options.threads = 3;
      CHECK(look_and_ask(model, options) == whole);
      // A part of the weights stays with the host: the memory of a session, and some.
      const auto other = tiny_model("tiny-breastgpt", "bf16");
      const Picture picture;
      const auto plan = [&] { return Session::plan(*other, options, {picture.input()}, "", "Is there a mass?"); };
      const uint64_t weights = DeviceWeights::plan(other->weights, other->config, UINT64_MAX).device;
      options.vram = plan().device_total();
      while (plan().device_weights == 0) options.vram += weights / 3;
      CHECK(plan().host_weights > 0);
      CHECK(plan().pieces > 0);
      emulated_piece_bytes();
      CHECK(look_and_ask(other, options) == whole);
      const uint64_t copied = emulated_piece_bytes();  // of the picture: a prompt in chunks of 7 rows has none
      CHECK((gpu == "emulated") == (copied > 0));
      options.chunk = 64;
      CHECK(look_and_ask(other, options) == whole);
      CHECK((gpu == "emulated") == (emulated_piece_bytes() > copied));
    }
  }
}

TEST_CASE("gpu: what is said token by token is what a prompt of the same tokens gives, over the end of a recording") {
  const auto model = tiny_model("tiny-8b", "bf16");
  SessionOptions options = on("emulated", Precision::fast);
  options.context = 1200;
  Session session(model, options);
  std::string question;
  while (model->tokenizer.encode(question).size() < 990) question += "mass ";
  const Said said = ask(session, question, 40);  // 1024 tokens lie on the way
  REQUIRE(said.ids.size() == 40);
  // The same tokens as a prompt: the log-probability of each is what the session said of it.
  const std::unique_ptr<Ops> ops = make_ops("emulated", 2, Precision::fast);
  std::vector<Cell> cells;
  Prompt(model->config, model->tokenizer).user(cells, question, {});
  Chunk chunk;
  for (const Cell& cell : cells) chunk.ids.push_back(cell.id);
  const size_t prompt = chunk.ids.size();
  CHECK(prompt < 1024);
  CHECK(prompt + 40 > 1024);
  chunk.ids.insert(chunk.ids.end(), said.ids.begin(), said.ids.end());
  for (int64_t p = 0; p < int64_t(chunk.ids.size()); ++p) chunk.positions.push_back({p, p, p});
  Arena arena(*ops, size_t(64) << 20);
  const Run run{*ops, arena, nullptr, nullptr};
  KvCache cache(*ops, Type::bf16, model->config.text, 1200);
  const Tensor logits = arena.tensor(int64_t(chunk.ids.size()), model->config.text.vocab);
  decode(run, model->config.text, model->weights.decoder, cache, chunk, Logits::all, logits);
  for (size_t i = 0; i < said.ids.size(); ++i) {
    const Likeliest best = ops->likeliest(logits.row_range(int64_t(prompt + i) - 1, 1));
    CHECK(best.id == said.ids[i]);
    CHECK(best.logprob == said.logprobs[i]);
  }
}

TEST_CASE("gpu: sampling with a seed gives the CPU's tokens") {
  const auto model = tiny_model("tiny-8b");
  const Sampling kinds[] = {{0.8, 20, 1, 1, 7}, {1, 0, 1, 1, 8}, {0.7, 0, 0.9, 1.3, 9}, {0, 0, 1, 1.5, 0}};
  for (const Sampling& sampling : kinds) {
    CAPTURE(sampling.seed);
    Generation g;
    g.max_tokens = 16;
    g.sampling = sampling;
    Session cpu(model, on("cpu")), gpu(model, on("emulated"));
    const Answer &here = cpu.ask("Describe it.", g, {}), &there = gpu.ask("Describe it.", g, {});
    CHECK(there.ids == here.ids);
    REQUIRE(there.logprobs.size() == here.logprobs.size());
    for (size_t i = 0; i < here.logprobs.size(); ++i) CHECK(std::fabs(there.logprobs[i] - here.logprobs[i]) <= 1e-4);
  }
}

TEST_CASE("gpu: the matrix of a large slide's selection is kept where the GPU has memory left, and planned for") {
  const auto model = tiny_model("tiny-breastgpt", "bf16");
  MediumInput slide;
  slide.kind = MediumKind::slide;
  slide.tiles = 16'000;  // 1 GB of similarities
  slide.width = model->config.slide.feature_dim;
  SessionOptions options = on("emulated");
  const auto plan = [&](uint64_t vram) {
    options.vram = vram;
    return Session::plan(*model, options, {slide}, "", "Is there a tumour?");
  };
  const MemoryPlan small = plan(1'500'000'000), large = plan(4'000'000'000);
  CHECK(small.device_total() < 1'000'000'000);
  CHECK(large.workspace >= small.workspace + uint64_t(4) * 16'000 * 16'000 - 4 * 16'000 * 1000);
  CHECK(large.device_total() <= options.vram);
}

TEST_CASE("gpu: what a session takes of the GPU is what its plan said") {
  const auto model = tiny_model("tiny-breastgpt", "bf16");
  const Picture picture;
  SessionOptions options = on("emulated", Precision::fast);
  const MemoryPlan plan = Session::plan(*model, options, {picture.input()}, "", "Is there a mass?");
  CHECK(plan.on_device);
  CHECK(plan.packed == 0);
  CHECK(plan.total() == plan.pixels + plan.staging);
  limit_emulated_memory(kEmulatedMemory);
  const uint64_t others = limit_emulated_memory(kEmulatedMemory);  // what tables of other tests hold
  look_and_ask(model, options);
  const uint64_t peak = limit_emulated_memory(kEmulatedMemory) - others;
  CHECK(peak <= plan.device_total());
  CHECK(double(peak) >= 0.97 * double(plan.device_total()));

  // With a part of the weights in host memory, and room for pieces of them.
  const auto other = tiny_model("tiny-breastgpt", "bf16");
  const auto plan_of_other = [&] { return Session::plan(*other, options, {picture.input()}, "", "Is there a mass?"); };
  options.vram = plan.device_total();
  while (plan_of_other().device_weights == 0) options.vram += plan.device_weights / 3;
  const MemoryPlan parted = plan_of_other();
  CHECK(parted.host_weights > 0);
  CHECK(parted.pieces == plan.device_weights / 8);
  CHECK(parted.device_total() == plan.device_total() - parted.host_weights + parted.pieces);
  look_and_ask(other, options);
  const uint64_t parted_peak = limit_emulated_memory(kEmulatedMemory) - others - plan.device_weights;  // the first model's weights are still there
  CHECK(parted_peak <= parted.device_total());
  CHECK(double(parted_peak) >= 0.97 * double(parted.device_total()));

  options.vram = plan.device_total() / 2 - plan.device_weights;
  Session small(model, options);
  expect_error([&] { small.add(picture.input()); }, Status::too_large, "of the GPU");
  options.vram = 0;
  limit_emulated_memory(others + plan.workspace / 2);
  CHECK_THROWS_AS(Session(model, options), DeviceError);  // through the C API: BG_DEVICE (boundary.h)
  limit_emulated_memory(kEmulatedMemory);
}

TEST_CASE("gpu: a kernel that fails ends its session, and nothing else") {
  const auto model = tiny_model("tiny-breastgpt", "bf16");
  const Picture picture;
  const Said good = look_and_ask(model, on("emulated"));
  int failures = 0;
  for (int64_t n = 1; n < 2000; n = n * 3 / 2 + 1) {
    Session session(model, on("emulated"));
    fail_emulated_launch(n);
    try {
      session.add(picture.input());
      ask(session, "Is there a mass?");
    } catch (const Error& e) {
      ++failures;
      CHECK(e.status() == Status::device);
      CHECK(contains(e.what(), "this session is over"));
      fail_emulated_launch(0);
      expect_error([&] { ask(session, "And now?"); }, Status::device, "its GPU failed; open another");
    }
    fail_emulated_launch(0);
  }
  CHECK(failures >= 8);
  CHECK(look_and_ask(model, on("emulated")) == good);
}

TEST_CASE("gpu: names of GPUs and their memory are checked") {
  const auto model = tiny_model("tiny-8b");
  expect_error([&] { Session(model, on("cuda:x")); }, Status::invalid_argument, "cuda:N with the number of a GPU");
  SessionOptions options = on("cpu");
  options.vram = 1 << 20;
  expect_error([&] { Session(model, options); }, Status::invalid_argument, "vram limits the memory of a GPU");
  options.vram = 0;
  options.cublas = true;
  expect_error([&] { Session(model, options); }, Status::invalid_argument, "cuBLAS multiplies on a GPU");
  std::string why;
  const int count = cuda_devices(&why);
  const CliResult r = breastgpt({"ask", "-m", "weights_convert/demo/breastgpt-demo.gguf", "--backend", "cuda:" + std::to_string(count), "Is there a mass?"});
  CHECK(r.code == 1);
  CHECK(contains(r.err, "CUDA"));
  const CliResult info = breastgpt({"info"});
  CHECK(info.code == 0);
  CHECK(contains(info.out, "GPU code:"));
  CHECK(contains(info.out, "GPUs:"));
}
