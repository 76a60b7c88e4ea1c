// The public C API: its documented example, every function's refusals, growth of structures, and what the shared libraries export.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <sstream>
#include <thread>

#include "runtime/breastgpt.h"
#include "runtime/breastgpt_files.h"
#include "runtime/mention.h"
#include "tests/support.h"
#include "tests/tiny.h"

extern "C" int example_ask(const char* weights, const uint8_t* rgb, int64_t width, int64_t height, char* answer, size_t size, bg_error* error);  // tests/example.c

namespace {

struct Model {
  bg_model* p = nullptr;
  Model(const std::string& path) {
    bg_error e;
    REQUIRE(bg_model_open(path.c_str(), &p, &e) == BG_OK);
  }
  ~Model() { bg_model_close(p); }
};

std::string status_message(bg_status got, bg_status wanted, const bg_error& e) {
  CHECK(got == wanted);
  CHECK(e.status == wanted);
  return e.message;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("api: the header's example compiles as C and answers") {
  bg_error error;
  bg_image_file* file = nullptr;
  REQUIRE(bg_image_file_open(golden_path("images/demo.jpg").c_str(), 0, &file, &error) == BG_OK);
  const bg_image* image = bg_image_file_pixels(file);
  char answer[8192] = "";
  const std::string weights = tiny_weights("tiny-breastgpt");
  CHECK_MESSAGE(example_ask(weights.c_str(), image->rgb, image->width, image->height, answer, sizeof answer, &error) == 0, error.message);
  CHECK(std::strlen(answer) > 0);
  CHECK(std::string(bg_image_file_format(file)) == "JPEG");
  CHECK(std::strlen(bg_image_file_sha256(file)) == 64);
  bg_image_file_close(file);
  CHECK(example_ask("no such file", nullptr, 1, 1, answer, sizeof answer, &error) == 1);
  CHECK(error.status == BG_NOT_FOUND);
}

TEST_CASE("api: one model, several sessions at once, closed in any order") {
  bg_model* model = nullptr;
  bg_error error;
  REQUIRE(bg_model_open(tiny_weights("tiny-8b").c_str(), &model, &error) == BG_OK);
  bg_session* sessions[3] = {};
  bg_session_params params = bg_session_params_default();
  params.threads = 2;
  params.context = 128;
  for (bg_session*& s : sessions) REQUIRE(bg_session_open(model, &params, &s, &error) == BG_OK);
  bg_model_close(model);  // sessions keep what they need
  std::string texts[3];
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&, i] {
      bg_generation g = bg_generation_default();
      g.max_tokens = 12;
      const bg_answer* a = nullptr;
      bg_error e;
      if (bg_session_ask(sessions[i], "Name a sign.", &g, nullptr, nullptr, &a, &e) == BG_OK) texts[i] = a->text;
    });
  for (std::thread& t : threads) t.join();
  CHECK_FALSE(texts[0].empty());
  CHECK(texts[0] == texts[1]);
  CHECK(texts[1] == texts[2]);
  for (bg_session* s : sessions) bg_session_close(s);
}

TEST_CASE("api: info, verify, plan, reports") {
  const Model model(tiny_weights("tiny-breastgpt", "f32", {{"image_token_num", "5"}}));
  bg_error e;
  bg_model_info info{};
  info.struct_size = sizeof info;
  REQUIRE(bg_model_get_info(model.p, &info, &e) == BG_OK);
  CHECK(std::string(info.type) == "breastgpt");
  CHECK(info.image_tokens == 5);
  CHECK(std::strlen(info.weights_sha256) == 64);
  CHECK(bg_model_verify(model.p, nullptr, &e) == BG_OK);

  bg_session_params params = bg_session_params_default();
  params.context = 200;
  const int64_t width = 120, height = 90;
  const bg_medium_size size = {BG_IMAGE, width, height, 1};
  bg_memory_plan plan{};
  plan.struct_size = sizeof plan;
  REQUIRE(bg_plan(model.p, &params, &size, 1, nullptr, nullptr, 0, nullptr, "Q?", &plan, &e) == BG_OK);
  CHECK(plan.total == plan.packed_weights + plan.kv_cache + plan.media + plan.workspace + plan.pixels);
  CHECK(plan.packed_weights > 0);  // the file is in rows
  params.backend = "ref";
  params.kv_type = "f32";
  bg_memory_plan exact = plan;
  REQUIRE(bg_plan(model.p, &params, &size, 1, nullptr, nullptr, 0, nullptr, "Q?", &exact, &e) == BG_OK);
  CHECK(exact.packed_weights == 0);
  params.backend = "cpu";
  REQUIRE(bg_plan(model.p, &params, &size, 1, nullptr, nullptr, 0, nullptr, "Q?", &plan, &e) == BG_OK);
  CHECK(exact.kv_cache == plan.kv_cache);
  CHECK(plan.workspace > 0);

  bg_session* session = nullptr;
  REQUIRE(bg_session_open(model.p, &params, &session, &e) == BG_OK);
  std::vector<uint16_t> grey(size_t(width * height));
  for (size_t i = 0; i < grey.size(); ++i) grey[i] = uint16_t(i * 5);
  const bg_image image = {sizeof image, width, height, nullptr, grey.data()};
  REQUIRE(bg_session_add_image(session, &image, nullptr, &e) == BG_OK);
  CHECK(bg_session_media_count(session) == 1);
  bg_medium_report r{};
  r.struct_size = sizeof r;
  REQUIRE(bg_session_medium_report(session, 0, &r, &e) == BG_OK);
  CHECK(std::string(r.grey16) == "min-max");
  CHECK(r.tokens == r.grid_rows * r.grid_cols);
  CHECK(r.kept_tokens == 5);
  const int64_t* kept = nullptr;
  const double* gains = nullptr;
  int64_t count = 0;
  double coverage = 0;
  REQUIRE(bg_session_medium_kept(session, 0, 3, &kept, &gains, &count, &coverage, &e) == BG_OK);
  CHECK(count == 5);
  CHECK(gains != nullptr);
  CHECK(coverage > 0);
  CHECK(coverage <= 1);
  for (int64_t i = 1; i < count; ++i) CHECK(kept[i - 1] < kept[i]);

  CHECK(contains(status_message(bg_session_medium_kept(session, 0, 4, &kept, &gains, &count, &coverage, &e), BG_INVALID_ARGUMENT, e), "level 4"));
  CHECK(contains(status_message(bg_session_medium_report(session, 1, &r, &e), BG_INVALID_ARGUMENT, e), "medium 1: this session has 1"));
  bg_session_close(session);
}

TEST_CASE("api: structures of another size are read by their size, or refused") {
  const Model model(tiny_weights("tiny-8b"));
  bg_error e;
  bg_session* session = nullptr;
  bg_session_params params = bg_session_params_default();
  params.struct_size = 0;
  CHECK(contains(status_message(bg_session_open(model.p, &params, &session, &e), BG_INVALID_ARGUMENT, e), "set it to sizeof(bg_session_params)"));
  CHECK(session == nullptr);
  params.struct_size = offsetof(bg_session_params, context);  // an older caller: the rest takes its defaults
  params.context = -1;
  params.threads = 1;
  CHECK(bg_session_open(model.p, &params, &session, &e) == BG_OK);
  bg_session_close(session);
  bg_model_info info{};
  CHECK(contains(status_message(bg_model_get_info(model.p, &info, &e), BG_INVALID_ARGUMENT, e), "sizeof(bg_model_info)"));
}

TEST_CASE("api: precision, the type of keys and values, instruction sets") {
  const Model model(tiny_weights("tiny-8b"));
  bg_error e;
  bg_session* session = nullptr;
  bg_session_params params = bg_session_params_default();
  params.context = 64;
  params.precision = "double";
  CHECK(contains(status_message(bg_session_open(model.p, &params, &session, &e), BG_INVALID_ARGUMENT, e), "unknown precision \"double\"; there are fast"));
  params.kv_type = "fp8";
  for (const char* precision : {"fast", "float32"}) {
    params.precision = precision;
    CHECK(contains(status_message(bg_session_open(model.p, &params, &session, &e), BG_INVALID_ARGUMENT, e), "there are auto, f32, bf16, q8_0"));
  }
  params.kv_type = "auto";
  REQUIRE(bg_session_open(model.p, &params, &session, &e) == BG_OK);
  bg_session_close(session);

  std::vector<std::string> usable;
  int here = 0;
  CHECK(std::string(bg_built_instruction_set(0, nullptr)) == "portable");
  CHECK(bg_built_instruction_set(-1, &here) == nullptr);
  for (int i = 0; const char* name = bg_built_instruction_set(i, &here); ++i) {
    const std::string backend = std::string("cpu/") + name;
    params.backend = backend.c_str();
    const bg_status opened = bg_session_open(model.p, &params, &session, &e);
    CHECK_MESSAGE(opened == (here ? BG_OK : BG_UNSUPPORTED), name);
    bg_session_close(session);
    if (here) usable.push_back(name);
  }
  CHECK(std::find(usable.begin(), usable.end(), bg_instruction_set()) != usable.end());
}

TEST_CASE("api: NULL and nonsense are refused, never followed") {
  bg_error e;
  bg_model* none = nullptr;
  CHECK(contains(status_message(bg_model_open(nullptr, &none, &e), BG_INVALID_ARGUMENT, e), "path is NULL"));
  CHECK(contains(status_message(bg_model_open("x", nullptr, &e), BG_INVALID_ARGUMENT, e), "model is NULL"));
  CHECK(contains(status_message(bg_model_open("no-such-file.gguf", &none, &e), BG_NOT_FOUND, e), "no-such-file.gguf"));
  CHECK(contains(status_message(bg_model_verify(nullptr, nullptr, &e), BG_INVALID_ARGUMENT, e), "model is NULL"));
  bg_session* session = nullptr;
  CHECK(contains(status_message(bg_session_open(nullptr, nullptr, &session, &e), BG_INVALID_ARGUMENT, e), "model is NULL"));
  CHECK(bg_session_ask(nullptr, "q", nullptr, nullptr, nullptr, nullptr, nullptr) == BG_INVALID_ARGUMENT);  // no error structure either
  bg_session_close(nullptr);
  bg_model_close(nullptr);
  bg_image_file_close(nullptr);

  const Model model(tiny_weights("tiny-8b"));
  bg_session_params params = bg_session_params_default();
  params.threads = 1;
  REQUIRE(bg_session_open(model.p, &params, &session, &e) == BG_OK);
  const uint8_t rgb[3] = {1, 2, 3};
  const uint16_t grey[1] = {1};
  const bg_image both = {sizeof both, 1, 1, rgb, grey}, neither = {sizeof neither, 1, 1, nullptr, nullptr}, empty = {sizeof empty, 0, 5, rgb, nullptr};
  CHECK(contains(status_message(bg_session_add_image(session, &both, nullptr, &e), BG_INVALID_ARGUMENT, e), "exactly one of rgb and grey16"));
  CHECK(bg_session_add_image(session, &neither, nullptr, &e) == BG_INVALID_ARGUMENT);
  CHECK(bg_session_add_image(session, &empty, nullptr, &e) == BG_INVALID_ARGUMENT);
  CHECK(contains(status_message(bg_session_system(session, nullptr, &e), BG_INVALID_ARGUMENT, e), "text is NULL"));
  bg_session_close(session);
  for (int s = 0; s <= 9; ++s) CHECK(std::strlen(bg_status_name(bg_status(s))) > 0);
}

TEST_CASE("api: volumes, slides, scores and boxes") {
  const Model model(tiny_weights("tiny-breastgpt"));
  bg_error e;
  bg_session* session = nullptr;
  bg_session_params params = bg_session_params_default();
  params.context = 400;
  params.threads = 2;
  REQUIRE(bg_session_open(model.p, &params, &session, &e) == BG_OK);
  bg_volume_file* file = nullptr;
  REQUIRE(bg_volume_file_open(golden_path("mixed-media/plain.nii.gz").c_str(), &file, &e) == BG_OK);
  bg_volume_params vp = bg_volume_params_default();
  vp.no_prescale = 1;
  CHECK_MESSAGE(bg_session_add_volume(session, bg_volume_file_voxels(file), &vp, &e) == BG_OK, e.message);
  bg_volume_file_close(file);
  bg_slide_file* slide = nullptr;
  REQUIRE(bg_slide_file_open(golden_path("mixed-media/slide-70.safetensors").c_str(), &slide, &e) == BG_OK);
  const bg_slide features = {sizeof features, bg_slide_file_tiles(slide), bg_slide_file_width(slide), bg_slide_file_features(slide)};
  CHECK(bg_session_add_slide(session, &features, 9, &e) == BG_OK);
  bg_slide_file_close(slide);
  bg_medium_report r{};
  r.struct_size = sizeof r;
  REQUIRE(bg_session_medium_report(session, 0, &r, &e) == BG_OK);
  CHECK(r.kind == BG_VOLUME);
  CHECK(r.tokens == r.grid_frames * r.grid_rows * r.grid_cols);
  REQUIRE(bg_session_medium_report(session, 1, &r, &e) == BG_OK);
  CHECK(r.kind == BG_SLIDE);
  CHECK(r.tokens == 70);
  CHECK(r.kept_tokens == 9);

  const char* options[] = {"yes", "no"};
  const bg_score* scores = nullptr;
  REQUIRE(bg_session_score(session, "Is it?", options, 2, &scores, &e) == BG_OK);
  CHECK(std::abs(scores[0].probability + scores[1].probability - 1) < 1e-12);
  CHECK(scores[0].tokens >= 1);
  CHECK(contains(status_message(bg_session_score(session, "Q", nullptr, 2, &scores, &e), BG_INVALID_ARGUMENT, e), "options must hold one text per option"));
  CHECK(contains(status_message(bg_session_score(session, "Q", options, 1, &scores, &e), BG_INVALID_ARGUMENT, e), "at least two options"));

  const bg_box* boxes = nullptr;
  int64_t count = -1;
  REQUIRE(bg_session_boxes(session, &boxes, &count, &e) == BG_OK);
  CHECK(count == 0);
  const bg_volume none = {sizeof none, 2, 2, 2, nullptr};
  CHECK(contains(status_message(bg_session_add_volume(session, &none, nullptr, &e), BG_INVALID_ARGUMENT, e), "bg_volume.voxels is NULL"));
  const bg_slide empty = {sizeof empty, 3, 40, nullptr};
  CHECK(contains(status_message(bg_session_add_slide(session, &empty, 0, &e), BG_INVALID_ARGUMENT, e), "bg_slide.features is NULL"));
  CHECK(bg_session_add_slide(session, &features, -1, &e) == BG_INVALID_ARGUMENT);
  bg_session_close(session);
}

TEST_CASE("api: boxes name their medium") {
  CHECK(bg::mentioned_medium("at [1,2,3,4]", 3, 2) == 0);
  CHECK(bg::mentioned_medium("In image 2 at [1,2,3,4]", 14, 2) == 1);
  CHECK(bg::mentioned_medium("Picture 1 ... VOLUME 2: [", 24, 3) == 1);
  CHECK(bg::mentioned_medium("slide 5 [", 8, 3) == -1);
  CHECK(bg::mentioned_medium("image 2 later [1] image 3", 14, 3) == 1);
  CHECK(bg::mentioned_medium("reimage 2 [", 10, 3) == 0);
  CHECK(bg::mentioned_medium("image 99999999999999999999 [", 27, 3) == -1);
  CHECK(bg::mentioned_medium("[", 0, 0) == -1);
}

TEST_CASE("api: the shared library exports bg_ symbols and nothing else") {
  const char* library = std::getenv("BG_CORE_SO");
  if (!library) {
    MESSAGE("skipped: BG_CORE_SO is not set (sanitizer builds have no shared library)");
    return;
  }
  TempDir folder;
  REQUIRE(std::system(("nm -D --defined-only " + std::string(library) + " > " + folder.file("symbols")).c_str()) == 0);
  std::istringstream in(read_file(folder.file("symbols")));
  std::set<std::string> exported;
  std::string address, kind, name;
  while (in >> address >> kind >> name) {
    // Weak C++ library templates instantiated here cannot be hidden; they bind to any equal copy.
    if (kind == "W" || kind == "V" || kind == "u") continue;
    CHECK_MESSAGE(name.rfind("bg_", 0) == 0, name);
    exported.insert(name);
  }
  // Every function that the header declares, and no other.
  std::set<std::string> declared;
  const std::string header = read_file("runtime/breastgpt.h");
  for (size_t at = header.find("\nBG_API"); at != std::string::npos; at = header.find("\nBG_API", at + 1)) {
    const size_t open = header.find('(', at), begin = header.find_last_of(" *", open) + 1;
    declared.insert(header.substr(begin, open - begin));
  }
  CHECK(declared.size() >= 15);
  CHECK(exported == declared);
}
