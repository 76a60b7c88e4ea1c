// Volumes, slides and mixed prompts end to end: a Session against tests/oracle/mixed.py (transformers in float64, selection and LongNet written from the
// specification). Every stage that the golden has, the kept rows of every level, the positions, the last logits and 32 greedy tokens.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "loaders/error.h"
#include "loaders/image.h"
#include "loaders/slide_features.h"
#include "loaders/volume.h"
#include "runtime/answer.h"
#include "tests/checkpoint.h"
#include "tests/support.h"
#include "tests/tiny.h"
#include "weights_convert/convert.h"

using namespace bg;

namespace {

// Files stay open as long as the session adds them.
struct Files {
  Image image;
  Volume volume;
  SlideFeatures slide;
};

MediumInput open_medium(const std::string& kind, const std::string& path, bool no_prescale, Files& files) {
  MediumInput in;
  if (kind == "image") {
    files.image = load_image(path);
    in.pixels = {files.image.width, files.image.height, files.image.rgb.data(), nullptr};
  } else if (kind == "volume") {
    files.volume = load_volume(path);
    in.kind = MediumKind::volume;
    in.voxels = {files.volume.nx, files.volume.ny, files.volume.nz, files.volume.voxels.data()};
    in.volume.prescale = !no_prescale;
  } else {
    files.slide = load_slide_features(path);
    in.kind = MediumKind::slide;
    in.features = files.slide.features.data();
    in.tiles = files.slide.tiles;
    in.width = files.slide.width;
  }
  return in;
}

struct CaseRun {
  std::map<std::string, std::vector<double>> stages;
  std::vector<int32_t> tokens;
  std::vector<std::vector<Kept>> kept;  // per medium, per level
  std::vector<double> logprobs;
};

CaseRun run_case(const std::string& name, const std::string& backend, int threads, int64_t chunk, bool trace) {
  const TinyCase tiny = tiny_case(name, "mixed-cases");
  TempDir folder;
  SessionOptions options;
  options.backend = backend;
  options.threads = threads;
  options.chunk = chunk;
  options.context = 256;
  options.precision = Precision::float32;
  if (trace) options.trace_folder = folder.file("trace");
  options.trace_data = trace;
  CaseRun out;
  {
    Session session(tiny_model(tiny.checkpoint, "f32", tiny.edits), options);
    if (!tiny.system.empty()) session.system(tiny.system);
    for (const auto& [kind, path] : tiny.media) {
      Files files;
      session.add(open_medium(kind, path, tiny.no_prescale, files));
    }
    Generation g;
    g.max_tokens = 32;
    const Answer& a = session.ask(tiny.turns[0].text, g, {});
    out.tokens = a.ids;
    out.logprobs = a.logprobs;
    for (const auto& medium : session.media()) out.kept.push_back(medium->kept);
  }
  if (trace) out.stages = read_trace_data(folder.file("trace"));
  return out;
}

std::vector<double> first(const std::vector<double>& v, size_t n) { return {v.begin(), v.begin() + std::ptrdiff_t(std::min(n, v.size()))}; }

void check_case(const std::string& name, const std::string& backend) {
  CAPTURE(name);
  CAPTURE(backend);
  const Golden golden(golden_path("mixed-cases/" + name + "/golden.safetensors"));
  const CaseRun got = run_case(name, backend, 2, 512, true);

  std::vector<double> positions;  // (T, 3) here, (3, T) there
  const std::vector<double> wanted = golden.values("positions");
  const size_t T = wanted.size() / 3;
  for (size_t t = 0; t < T; ++t)
    for (size_t axis = 0; axis < 3; ++axis) positions.push_back(wanted[axis * T + t]);
  CHECK(got.stages.at("prompt.positions") == positions);
  CHECK(got.stages.at("prompt.tokens") == golden.values("input_ids"));

  for (size_t m = 0; m < got.kept.size(); ++m)
    for (size_t l = 0; l < got.kept[m].size(); ++l) {
      const std::string key = "medium." + std::to_string(m) + ".kept." + (l == 0 ? "top" : "deep." + std::to_string(l - 1));
      CAPTURE(key);
      CHECK(got.kept[m][l].index == golden.integers(key));
      const std::string order = "medium." + std::to_string(m) + ".gain." + (l == 0 ? "top" : "deep." + std::to_string(l - 1));
      if (!golden.has(order)) continue;
      double total = 0, reached = 0;
      for (double g : golden.values(order)) total += g;
      for (double g : got.kept[m][l].gain) reached += g;
      CHECK(std::abs(reached - total) <= 1e-5 * total);
      CHECK(reached <= got.kept[m][l].whole * (1 + 1e-5));
    }

  int compared = 0;
  double worst = 0;
  for (const std::string& stage : golden.names()) {
    if (stage.rfind("vit.", 0) != 0 && stage.rfind("decoder.", 0) != 0 && stage.rfind("slide.", 0) != 0) continue;
    CAPTURE(stage);
    REQUIRE(got.stages.count(stage) == 1);
    std::vector<double> want = golden.values(stage);
    // The session makes logits of the prompt's last token alone; what follows in its trace are the answer's steps.
    if (stage == "decoder.logits") want = {want.end() - 726, want.end()};
    const double error = relative_error(first(got.stages.at(stage), want.size()), want);
    CHECK(error <= (stage == "decoder.logits" ? 1e-4 : 1e-5));
    worst = std::max(worst, error);
    ++compared;
  }
  CHECK(compared >= 1);
  std::vector<int64_t> tokens = golden.integers("tokens");
  tokens.resize(got.tokens.size());
  CHECK(std::vector<int64_t>(got.tokens.begin(), got.tokens.end()) == tokens);
  MESSAGE(name, " on ", backend, ": ", compared, " stages, largest relative error ", worst);
}

}  // namespace

TEST_CASE("mixed: volumes, slides and mixed prompts equal the float64 reference") {
  for (const char* name : {"volume-6", "volume-16-prescale", "slide-7", "slide-7-text", "slide-all", "slide-1500", "mixed-markers", "mixed-image-markers", "mixed-no-markers"}) check_case(name, "cpu");
  for (const char* name : {"volume-6", "slide-7-text", "mixed-image-markers"}) check_case(name, "cpu/portable");
  for (const char* name : {"slide-7", "mixed-markers"}) check_case(name, "ref");
  for (const char* name : {"volume-6", "slide-7-text", "mixed-image-markers"}) check_case(name, "emulated");
}

TEST_CASE("mixed: the same bits for any number of threads and any chunk") {
  for (const char* name : {"slide-1500", "mixed-image-markers"}) {
    CAPTURE(name);
    const CaseRun base = run_case(name, "cpu", 1, 512, false);
    for (int threads : {2, 3, 8}) CHECK(run_case(name, "cpu", threads, 512, false).logprobs == base.logprobs);
    for (int64_t chunk : {1, 5}) CHECK(run_case(name, "cpu", 2, chunk, false).logprobs == base.logprobs);
  }
}

TEST_CASE("mixed: a plan covers volumes and slides, and the selector can be chosen") {
  const TinyCase tiny = tiny_case("mixed-markers", "mixed-cases");
  const auto model = tiny_model(tiny.checkpoint, "f32", tiny.edits);
  std::vector<std::unique_ptr<Files>> files;
  std::vector<MediumInput> inputs;
  for (const auto& [kind, path] : tiny.media) {
    files.push_back(std::make_unique<Files>());
    inputs.push_back(open_medium(kind, path, tiny.no_prescale, *files.back()));
  }
  for (const char* selector : {"", "coverage", "coverage-text", "none"}) {
    CAPTURE(selector);
    SessionOptions o;
    o.context = 512;
    o.selector = selector;
    o.memory_cap = Session::plan(*model, o, inputs, "", tiny.turns[0].text).total();
    Session session(model, o);
    for (const MediumInput& in : inputs) session.add(in);
    Generation g;
    g.max_tokens = 2;
    session.ask(tiny.turns[0].text, g, {});
    for (const auto& medium : session.media()) CHECK(int64_t(medium->kept[0].index.size()) == (std::string(selector) == "none" ? medium->tokens : medium->kept_tokens()));
  }
  SessionOptions o;
  o.context = 512;
  o.selector = "concept";
  CHECK_THROWS_WITH_AS(Session(model, o), "this checkpoint has no weights for the concept selector; use coverage or coverage-text", Error);
  o.selector = "luck";
  CHECK_THROWS_WITH_AS(Session(model, o), "unknown selector \"luck\"; there are coverage, coverage-text, concept, none", Error);
}

TEST_CASE("mixed: options are scored exactly, and the conversation stays as it was") {
  const auto model = tiny_model("tiny-8b");
  SessionOptions o;
  o.context = 256;
  o.threads = 2;
  o.precision = Precision::float32;
  Session session(model, o), fresh(model, o);
  const std::vector<std::string> options = {"benign", "malignant mass", "A"};
  const std::vector<Score> scores = session.score("Name it.", options);
  double sum = 0;
  for (size_t i = 0; i < options.size(); ++i) {
    // The same log-likelihood token by token: what a session answers greedily is not forced, so decode the option by hand.
    const std::unique_ptr<Ops> ops = make_ops("ref64", 1, Precision::float32);
    Arena arena(*ops, size_t(64) << 20);
    const bg::Run run{*ops, arena, nullptr, nullptr};
    const Config::Text& c = model->config.text;
    std::vector<Cell> cells;
    Prompt(model->config, model->tokenizer).user(cells, "Name it.", {});
    Chunk chunk;
    for (const Cell& cell : cells) chunk.ids.push_back(cell.id);
    const size_t prompt = chunk.ids.size();
    chunk.ids.insert(chunk.ids.end(), scores[i].ids.begin(), scores[i].ids.end());
    for (int64_t p = 0; p < int64_t(chunk.ids.size()); ++p) chunk.positions.push_back({p, p, p});
    KvCache cache(*ops, ops->type(), c, 256);
    const Tensor logits = arena.tensor(int64_t(chunk.ids.size()), c.vocab);
    decode(run, c, model->weights.decoder, cache, chunk, Logits::all, logits);
    double want = 0;
    std::vector<double> row(size_t(c.vocab));
    for (size_t t = prompt; t < chunk.ids.size(); ++t) {
      ops->read(row.data(), logits.row_range(int64_t(t) - 1, 1));
      double norm = 0;
      for (double v : row) norm += std::exp(v);
      want += row[size_t(chunk.ids[t])] - std::log(norm);
    }
    CHECK(std::abs(scores[i].logprob - want) <= 1e-4 * std::abs(want));
    CHECK(scores[i].end_logprob < 0);
    sum += scores[i].probability;
  }
  CHECK(std::abs(sum - 1) < 1e-12);
  CHECK(scores[1].ids.size() > 1);
  Generation g;
  g.max_tokens = 8;
  CHECK(session.ask("Name it.", g, {}).logprobs == fresh.ask("Name it.", g, {}).logprobs);
  CHECK_THROWS_WITH_AS(session.score("Q", {"only"}), "at least two options are needed to choose between", Error);
  CHECK_THROWS_WITH_AS(session.score("Q", {"a", ""}), "an option is empty", Error);
}

TEST_CASE("mixed: what cannot be asked is refused") {
  SessionOptions o;
  o.context = 256;
  Session plain(tiny_model("tiny-8b"), o), session(tiny_model("tiny-breastgpt"), o);
  std::vector<float> data(4 * 41, 1.0f);
  MediumInput slide;
  slide.kind = MediumKind::slide;
  slide.features = data.data();
  slide.tiles = 4;
  slide.width = 41;
  CHECK_THROWS_WITH_AS(plain.add(slide), "this model (qwen3_vl) takes pictures and text; a slide needs a breastgpt model", Error);
  CHECK_THROWS_WITH_AS(session.add(slide), "slide features of width 41; this model takes 40 (CONCH v1.5)", Error);
  slide.width = 40;
  slide.tiles = 0;
  CHECK_THROWS_WITH_AS(session.add(slide), "a slide of 0 tiles; 1 … 2000000 are taken", Error);
  slide.tiles = 4;
  session.add(slide);
  Generation g;
  g.max_tokens = 1;
  CHECK_THROWS_WITH_AS(session.ask("<volume>?", g, {}), "the question has 1 <volume> markers but only 0 new volumes; add the media first or remove the markers", Error);
  Files files;
  const MediumInput volume = open_medium("volume", golden_path("mixed-media/plain.nii.gz"), true, files);
  session.add(volume);
  session.add(volume);
  CHECK_THROWS_WITH_AS(session.ask("Q", g, {}),
                       "two volumes side by side cannot be told apart by the model; put text between their <volume> markers, such as \"T1: <volume> T2: <volume>\"", Error);
  CHECK(session.ask("T1: <volume> T2: <volume>", g, {}).ids.size() <= 1);
}

namespace {

// tiny-breastgpt with a learned selector of seeded weights.
std::shared_ptr<const Model> concept_model(const TempDir& folder) {
  TestCheckpoint c = TestCheckpoint::read(golden_path("tiny-breastgpt"));
  std::mt19937 random(5);
  const auto values = [&](int64_t n) {
    std::string s;
    for (int64_t i = 0; i < n; ++i) {
      const float v = float(int32_t(random())) * 0x1p-32f;
      s.append(reinterpret_cast<const char*>(&v), 4);
    }
    return s;
  };
  const int64_t h = 64;
  for (const std::string part : {"visual_selector.", "deepstack_selector."}) {
    c.tensors[part + "cross_attn.q_proj.weight"] = {"F32", {h, h}, values(h * h)};
    c.tensors[part + "cross_attn.k_proj.weight"] = {"F32", {h, h}, values(h * h)};
    c.tensors[part + "concept_queries"] = {"F32", {1, 32, h}, values(32 * h)};
    c.tensors[part + "concept_gate.0.weight"] = {"F32", {1, h}, values(h)};
    c.tensors[part + "concept_gate.0.bias"] = {"F32", {1}, values(1)};
  }
  c.edit("config.json", "CoverageTokenSelector", "ConceptSelector");
  c.write(folder.file("checkpoint"));
  ConvertOptions options;
  options.input = folder.file("checkpoint");
  options.target = folder.file("concept.gguf");
  options.matrices = Type::f32;
  convert_checkpoint(options);
  return std::make_shared<const Model>(options.target);
}

}  // namespace

TEST_CASE("mixed: the learned selector in a session, for pictures and slides") {
  const TempDir folder;
  const std::shared_ptr<const Model> model = concept_model(folder);
  CHECK(model->config.selector.kind == "ConceptSelector");
  Files picture, slide;
  std::vector<MediumInput> inputs = {open_medium("image", golden_path("tiny-images/grey.png"), false, picture), open_medium("slide", golden_path("mixed-media/slide-70.safetensors"), false, slide)};
  for (MediumInput& in : inputs) in.budget = 9;
  std::vector<std::vector<std::vector<int64_t>>> kept;
  for (const char* backend : {"ref64", "cpu", "ref"}) {
    SessionOptions o;
    o.backend = backend;
    o.threads = 3;
    o.context = 256;
    o.precision = Precision::float32;
    o.memory_cap = Session::plan(*model, o, inputs, "", "Is it benign?").total();
    Session session(model, o);
    for (const MediumInput& in : inputs) session.add(in);
    CHECK(session.media()[0]->kept.empty());  // the choice waits for the text
    Generation g;
    g.max_tokens = 2;
    session.ask("Is it benign?", g, {});
    kept.emplace_back();
    for (const auto& medium : session.media())
      for (const Kept& k : medium->kept) {
        CHECK(k.index.size() == 9);
        CHECK(std::is_sorted(k.index.begin(), k.index.end()));
        kept.back().push_back(k.index);
      }
  }
  CHECK(kept[0].size() == 8);
  CHECK(kept[1] == kept[0]);
  CHECK(kept[2] == kept[0]);
}
