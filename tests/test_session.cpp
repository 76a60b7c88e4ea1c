// Sessions: what the cache, chunks, threads and turns must never change; and what a session refuses.
#include <doctest/doctest.h>

#include <cmath>

#include "loaders/error.h"
#include "loaders/image.h"
#include "runtime/answer.h"
#include "tests/support.h"
#include "tests/tiny.h"

using namespace bg;

namespace {

Pixels pixels_of(const Image& image) { return {image.width, image.height, image.rgb.empty() ? nullptr : image.rgb.data(), image.grey16.empty() ? nullptr : image.grey16.data()}; }

MediumInput input_of(const Image& image, int64_t budget = 0) {
  MediumInput in;
  in.pixels = pixels_of(image);
  in.budget = budget;
  return in;
}

struct Said {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<double>> logprobs;
  std::vector<int64_t> reused;
};

// All user turns of a case through a Session; the trace's stages must be the same bits too, so the folder's text is part of the result.
Said say(const std::string& name, SessionOptions options, bool images_first = true) {
  const TinyCase tiny = tiny_case(name);
  Session session(tiny_model(tiny.checkpoint, "f32", tiny.edits), options);
  if (!tiny.system.empty()) session.system(tiny.system);
  if (images_first)
    for (const std::string& path : tiny.images) {
      const Image image = load_image(path);
      session.add(input_of(image));
    }
  Said said;
  std::string question;
  for (const TinyCase::Turn& turn : tiny.turns) {
    if (turn.role == "user") question = turn.text;
    if (turn.role != "generate") continue;
    Generation g;
    g.max_tokens = std::stoll(turn.text);
    const Answer& a = session.ask(question, g, {});
    said.ids.push_back(a.ids);
    said.logprobs.push_back(a.logprobs);
    said.reused.push_back(a.reused_tokens);
  }
  return said;
}

SessionOptions options_with(int threads, int64_t chunk, const std::string& backend = "cpu") {
  SessionOptions o;
  o.backend = backend;
  o.threads = threads;
  o.chunk = chunk;
  o.context = 256;
  o.precision = Precision::float32;  // the goldens are exact
  return o;
}

std::vector<int64_t> wide(const std::vector<int32_t>& ids) { return {ids.begin(), ids.end()}; }

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("session: greedy tokens equal the reference's, one turn and two") {
  for (const char* name : {"8b-image", "4b-image", "8b-two-images", "8b-text", "breastgpt-5", "breastgpt-8-text", "breastgpt-all"}) {
    CAPTURE(name);
    const Golden golden(golden_path(std::string("tiny-cases/") + name + "/golden.safetensors"));
    const Said said = say(name, options_with(2, 512));
    std::vector<int64_t> wanted = golden.integers("tokens");
    wanted.resize(said.ids[0].size());  // the reference went on past a stop token
    CHECK(wide(said.ids[0]) == wanted);
  }
  const Golden golden(golden_path("tiny-cases/8b-session/golden.safetensors"));
  const Said said = say("8b-session", options_with(2, 512));
  REQUIRE(said.ids.size() == 2);
  CHECK(wide(said.ids[0]) == golden.integers("first.tokens"));
  std::vector<int64_t> wanted = golden.integers("tokens");
  wanted.resize(said.ids[1].size());
  CHECK(wide(said.ids[1]) == wanted);
  CHECK(said.reused[0] == 0);
  CHECK(said.reused[1] >= 38);  // the first turn's prompt came from the cache
}

TEST_CASE("session: the same bits for any number of threads and any chunk") {
  for (const char* name : {"8b-two-images", "breastgpt-8-text", "8b-session"}) {
    CAPTURE(name);
    const Said base = say(name, options_with(1, 512));
    for (int threads : {2, 3, 8}) CHECK(say(name, options_with(threads, 512)).logprobs == base.logprobs);
    for (int64_t chunk : {1, 3, 17}) {
      const Said got = say(name, options_with(2, chunk));
      CHECK(got.ids == base.ids);
      CHECK(got.logprobs == base.logprobs);
    }
    CHECK(say(name, options_with(2, 512, "cpu/portable")).ids == base.ids);
  }
}

TEST_CASE("session: trace lines are the same for 1 and 3 threads") {
  TempDir folder;
  for (int threads : {1, 3}) {
    SessionOptions o = options_with(threads, 512);
    o.trace_folder = folder.file(std::to_string(threads));
    say("8b-image", o);
  }
  CHECK(read_file(folder.file("1/trace.jsonl")) == read_file(folder.file("3/trace.jsonl")));
  CHECK(read_file(folder.file("1/trace.jsonl")).size() > 1000);
}

TEST_CASE("session: keys and values in BF16 and Q8_0: the same bits for any chunk and threads, half and a quarter of the memory, nearly the same answers") {
  const std::string name = "8b-image";
  const TinyCase tiny = tiny_case(name);
  const auto model = tiny_model(tiny.checkpoint, "f32", tiny.edits);
  const Said exact = say(name, options_with(1, 512));
  for (const std::string kv : {"f32", "bf16", "q8_0"}) {
    CAPTURE(kv);
    const auto options = [&](int threads, int64_t chunk, Precision precision = Precision::float32) {
      SessionOptions o = options_with(threads, chunk);
      o.kv_type = kv;
      o.precision = precision;
      return o;
    };
    const Config::Text& c = model->config.text;
    const double values = double(2 * c.layers * 256 * c.kv_heads * c.head_dim);
    CHECK(Session::plan(*model, options(1, 512), {}, "", "Q?").kv_cache == uint64_t(values * (kv == "f32" ? 4 : kv == "bf16" ? 2 : 34.0 / 32)));
    for (const Precision precision : {Precision::float32, Precision::fast}) {
      const Said base = say(name, options(1, 512, precision));
      for (const auto& [threads, chunk] : {std::pair<int, int64_t>{3, 512}, {2, 5}, {1, 1}}) {
        const Said got = say(name, options(threads, chunk, precision));
        CHECK(got.ids == base.ids);
        CHECK(got.logprobs == base.logprobs);
      }
      // The first token's likelihood: what follows may differ.
      CHECK(std::fabs(base.logprobs[0][0] - exact.logprobs[0][0]) <= 0.05);
      if (kv == "f32" && precision == Precision::float32) CHECK(base.logprobs == exact.logprobs);
      if (kv != "f32" && precision == Precision::float32) CHECK(base.logprobs != exact.logprobs);
    }
  }
  SessionOptions o = options_with(1, 512);
  const uint64_t wide_kv = Session::plan(*model, o, {}, "", "Q?").kv_cache;
  o.precision = Precision::fast;
  CHECK(Session::plan(*model, o, {}, "", "Q?").kv_cache * 2 == wide_kv);  // auto
}

TEST_CASE("session: a trace changes no bit") {
  for (const char* name : {"8b-image", "breastgpt-8-text"}) {
    for (const Precision precision : {Precision::float32, Precision::fast}) {
      TempDir folder;
      SessionOptions o = options_with(2, 512);
      o.precision = precision;
      const Said plain = say(name, o);
      o.trace_folder = folder.file("trace");
      CHECK(say(name, o).logprobs == plain.logprobs);
    }
  }
}

TEST_CASE("session: text-guided selection reconsiders earlier pictures as a fresh session would") {
  const TinyCase tiny = tiny_case("breastgpt-8-text");
  const auto model = tiny_model(tiny.checkpoint, "f32", tiny.edits);
  const Image image = load_image(tiny.images[0]);
  Generation g;
  g.max_tokens = 5;
  Session talk(model, options_with(1, 512));
  talk.add(input_of(image));
  talk.ask("Describe the margin of the lesion.", g, {});
  const std::vector<int64_t> before = talk.media()[0]->kept[0].index;
  // After a failing turn the session goes on as if it had not been asked.
  CHECK(message_of([&] { talk.ask(std::string(20000, 'x'), g, {}); }).find("tokens, the context 256") != std::string::npos);
  const Answer second = talk.ask("Now say whether calcifications are present in the upper half, and where the skin is.", g, {});
  CHECK(second.logprobs.size() == second.ids.size());
  CHECK(talk.media()[0]->kept[0].index.size() == before.size());
  for (double v : second.logprobs) CHECK(v <= 0);
}

TEST_CASE("session: a stop from the text callback ends the answer; the conversation goes on") {
  Session session(tiny_model("tiny-8b"), options_with(1, 512));
  Generation g;
  g.max_tokens = 30;
  int calls = 0;
  const Answer first = session.ask("Name a sign.", g, [&](const std::string&) { return ++calls < 3; });
  CHECK(calls >= 3);
  CHECK(first.ids.size() < 30);
  CHECK_FALSE(first.stopped);
  CHECK(session.ask("And another.", g, {}).reused_tokens > 0);
}

TEST_CASE("session: sampling depends on the seed alone") {
  const auto ask = [](uint64_t seed, int64_t chunk) {
    Session session(tiny_model("tiny-8b"), options_with(2, chunk));
    Generation g;
    g.max_tokens = 20;
    g.sampling.temperature = 1.5;
    g.sampling.top_k = 50;
    g.sampling.top_p = 0.95;
    g.sampling.repetition_penalty = 1.1;
    g.sampling.seed = seed;
    return session.ask("Name a sign.", g, {}).ids;
  };
  CHECK(ask(1, 512) == ask(1, 2));
  CHECK(ask(1, 512) != ask(2, 512));
}

TEST_CASE("session: a plan is what a run takes, and a cap refuses before work starts") {
  const TinyCase tiny = tiny_case("breastgpt-8-text");
  const auto model = tiny_model(tiny.checkpoint, "f32", tiny.edits);
  const Image image = load_image(tiny.images[0]);
  for (int64_t chunk : {4, 512}) {
    SessionOptions o = options_with(1, chunk);
    const MemoryPlan plan = Session::plan(*model, o, {input_of(image)}, "role", "What is it?");
    CHECK(plan.kv_cache == size_t(2 * model->config.text.layers * 256 * model->config.text.kv_heads * model->config.text.head_dim * 4));
    const auto run = [&](uint64_t cap) {
      o.memory_cap = cap;
      Session session(model, o);
      session.system("role");
      session.add(input_of(image));
      Generation g;
      g.max_tokens = 3;
      session.ask("What is it?", g, {});
    };
    run(plan.total());
    const std::string refused = message_of([&] { run(plan.kv_cache); });
    CHECK(refused.find("this request needs") != std::string::npos);
    CHECK(refused.find("KV cache") != std::string::npos);
  }
}

TEST_CASE("session: cancel and progress") {
  SessionOptions o = options_with(1, 512);
  bool stop = false;
  std::vector<std::string> stages;
  o.callbacks.progress = [&](const char* stage, int64_t done, int64_t total) {
    CHECK(done <= total);
    stages.push_back(stage);
  };
  o.callbacks.cancel = [&] { return stop; };
  Session session(tiny_model("tiny-8b"), o);
  const Image image = load_image(golden_path("tiny-images/spots.png"));
  stop = true;
  CHECK(message_of([&] { session.add(input_of(image)); }) == "cancelled by the caller during image");
  CHECK(session.media().empty());
  stop = false;
  session.add(input_of(image));
  stop = true;
  CHECK(message_of([&] { session.ask("Q", {}, {}); }) == "cancelled by the caller during prompt");
  stop = false;
  Generation g;
  g.max_tokens = 2;
  CHECK(session.ask("Q", g, {}).ids.size() == 2);
  for (const char* wanted : {"image", "prompt", "layers", "answer"}) CHECK(std::find(stages.begin(), stages.end(), wanted) != stages.end());
}

TEST_CASE("session: every refusal says what and why") {
  const auto model = tiny_model("tiny-8b");
  const auto open = [&](const std::function<void(SessionOptions&)>& change) {
    return message_of([&] {
      SessionOptions o = options_with(1, 512);
      change(o);
      Session session(model, o);
    });
  };
  CHECK(open([](SessionOptions& o) { o.backend = "gpu"; }).find("unknown backend \"gpu\"") != std::string::npos);
  CHECK(open([](SessionOptions& o) { o.threads = 0; }).find("threads must be 1 … 1024, got 0") != std::string::npos);
  CHECK(open([](SessionOptions& o) { o.context = 1 << 20; }).find("this model takes 1 … 2048") != std::string::npos);
  CHECK(open([](SessionOptions& o) { o.chunk = 0; }).find("at least 1") != std::string::npos);
  CHECK(open([](SessionOptions& o) { o.kv_type = "q4_0"; }).find("unknown type \"q4_0\" for the KV cache; there are auto, f32, bf16") != std::string::npos);
  const std::string narrow = message_of([&] {
    SessionOptions o = options_with(1, 512);
    o.kv_type = "q8_0";
    Session session(tiny_model("tiny-4b"), o);
  });
  CHECK(narrow.find("needs heads of whole blocks of 32; this model's have 16") != std::string::npos);
  CHECK(open([](SessionOptions& o) { o.backend = "ref64", o.kv_type = "bf16"; }).find("ref64 keeps keys and values in its own type") != std::string::npos);
  CHECK(open([](SessionOptions& o) { o.kv_type = "f32"; }).empty());
  CHECK(open([](SessionOptions& o) { o.backend = "ref", o.kv_type = "f32"; }).empty());
  CHECK(open([](SessionOptions& o) { o.trace_folder = "/dev/null/x"; }).find("cannot make this folder") != std::string::npos);

  Session session(model, options_with(1, 512));
  Generation g;
  g.max_tokens = 1;
  const auto ask = [&](const std::string& q) { return message_of([&] { session.ask(q, g, {}); }); };
  CHECK(ask("").find("question is empty") != std::string::npos);
  CHECK(ask("See <image>.").find("1 <image> markers but only 0 new images") != std::string::npos);
  CHECK(ask(std::string(4000, '!') + " a b c d e f").find("shorten the question") != std::string::npos);
  const auto sample_error = [&](const std::function<void(Generation&)>& change) {
    Generation bad = g;
    change(bad);
    return message_of([&] { session.ask("Q", bad, {}); });
  };
  CHECK(sample_error([](Generation& b) { b.max_tokens = 0; }).find("max tokens must be at least 1") != std::string::npos);
  CHECK(sample_error([](Generation& b) { b.sampling.temperature = -1; }).find("temperature") != std::string::npos);
  CHECK(sample_error([](Generation& b) { b.sampling.temperature = NAN; }).find("temperature") != std::string::npos);
  CHECK(sample_error([](Generation& b) { b.sampling.top_k = -1; }).find("top-k") != std::string::npos);
  CHECK(sample_error([](Generation& b) { b.sampling.top_p = 0; }).find("top-p") != std::string::npos);
  CHECK(sample_error([](Generation& b) { b.sampling.repetition_penalty = 0; }).find("repetition penalty") != std::string::npos);
  const Image image = load_image(golden_path("tiny-images/spots.png"));
  CHECK(message_of([&] { session.add(input_of(image, 5)); }).find("no tokens are selected here") != std::string::npos);
  CHECK(message_of([&] { session.add(input_of(image, -5)); }).find("must be positive") != std::string::npos);
  session.ask("Q", g, {});
  CHECK(message_of([&] { session.system("late"); }).find("before the first question") != std::string::npos);
}

TEST_CASE("session: a given turn stands in the prompt as if it had been answered here") {
  const TinyCase tiny = tiny_case("8b-turns");
  const Golden golden(golden_path("tiny-cases/8b-turns/golden.safetensors"));
  Session session(tiny_model(tiny.checkpoint), options_with(2, 512));
  session.system(tiny.system);
  const Image image = load_image(tiny.images[0]);
  session.add(input_of(image));
  CHECK_THROWS_WITH_AS(session.given("<image>\nA mass?", "Yes.<|im_end|>"), doctest::Contains("only box and object tokens"), Error);
  session.given(tiny.turns[0].text, tiny.turns[1].text);
  Generation g;
  g.max_tokens = 64;
  const std::vector<int32_t> ids = session.ask(tiny.turns[2].text, g, {}).ids;
  CHECK(std::vector<int64_t>(ids.begin(), ids.end()) == golden.integers("tokens"));
}
