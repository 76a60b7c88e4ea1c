// breastgpt ask: pictures and questions in, answers out. The answer streams to stdout, progress goes to stderr when that is a terminal.
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "tools/session.h"

namespace tool {
namespace {

using Json = nlohmann::ordered_json;

const std::vector<Option> kOwnOptions = {
    {"--max-tokens", "N", "length of an answer; default 1024"},
    {"--temperature", "X", "0 (default): the likeliest token; above: sampling"},
    {"--top-k", "N", "sampling: only the N likeliest tokens; default all"},
    {"--top-p", "X", "sampling: only the likeliest tokens whose share reaches X; default 1"},
    {"--repetition-penalty", "X", "default 1: none"},
    {"--seed", "N", "sampling: the same seed gives the same text"},
    {"--chat", "", "after the questions given, read more from stdin, one per line"},
    {"--json", "", "one JSON object: answers, token ids, log-probabilities, timings, kept tokens, hashes"},
    {"--trace", "DIR", "write one line per stage of the model to DIR/trace.jsonl (DIR must be new)"},
    {"--trace-data", "", "with --trace: the tensors too, as safetensors; they show what the model saw"},
};

bool stderr_is_terminal() {
  static const bool yes = isatty(STDERR_FILENO) == 1;
  return yes;
}

void show_progress(void*, const char* stage, int64_t done, int64_t total) {
  if (std::string(stage) == "answer" || std::string(stage) == "layers") return;
  std::fprintf(stderr, done == total ? "\r\033[K" : "\r%s %3lld %%", stage, static_cast<long long>(total > 0 ? done * 100 / total : 0));
}

int is_cancelled(void*) { return interrupted(); }

int print_text(void* failed, const char* text, size_t bytes) {
  const bool written = std::fwrite(text, 1, bytes, stdout) == bytes && std::fflush(stdout) == 0;
  if (!written) *static_cast<bool*>(failed) = true;
  return !written;
}

bg_generation generation(const Options& o) {
  bg_generation g = bg_generation_default();
  g.max_tokens = o.integer("--max-tokens", g.max_tokens, 1, int64_t(1) << 31);
  g.temperature = o.real("--temperature", g.temperature);
  g.top_k = o.integer("--top-k", 0, 0, int64_t(1) << 31);
  g.top_p = o.real("--top-p", g.top_p);
  g.repetition_penalty = o.real("--repetition-penalty", g.repetition_penalty);
  g.seed = uint64_t(o.integer("--seed", 0, 0, INT64_MAX));
  return g;
}

Json image_json(const bg_session* session, int64_t index, const std::string& path, const bg_image_file* file) {
  bg_error error;
  bg_image_report r{};
  r.struct_size = sizeof r;
  check(bg_session_image_report(session, index, &r, &error), error);
  Json kept = Json::array();
  for (int64_t level = 0; level < r.levels; ++level) {
    const int64_t* index_of = nullptr;
    const double* gains = nullptr;
    int64_t count = 0;
    check(bg_session_image_kept(session, index, level, &index_of, &gains, &count, &error), error);
    Json entry = {{"level", level == 0 ? "top" : "deepstack." + std::to_string(level - 1)}, {"tokens", std::vector<int64_t>(index_of, index_of + count)}};
    if (gains) entry["gains"] = std::vector<double>(gains, gains + count);
    kept.push_back(entry);
  }
  Json j = {{"file", path},
            {"format", bg_image_file_format(file)},
            {"file_sha256", bg_image_file_sha256(file)},
            {"pixels_sha256", r.pixels_sha256},
            {"size", {r.width, r.height}},
            {"prescaled", {r.prescaled_width, r.prescaled_height}},
            {"resized", {r.resized_width, r.resized_height}},
            {"grey16", r.grey16}};
  if (std::string(r.grey16) != "none") j["window"] = {r.window_low, r.window_high};
  j["grid"] = {r.grid_rows, r.grid_cols};
  j["tokens"] = r.tokens;
  j["kept"] = kept;
  return j;
}

Json turn_json(const bg_answer& a) {
  return {{"answer", a.text},
          {"stopped", a.stopped != 0},
          {"token_ids", std::vector<int32_t>(a.ids, a.ids + a.count)},
          {"logprobs", std::vector<double>(a.logprobs, a.logprobs + a.count)},
          {"prompt_tokens", a.prompt_tokens},
          {"reused_tokens", a.reused_tokens},
          {"seconds", {{"image", a.image_seconds}, {"prompt", a.prompt_seconds}, {"answer", a.decode_seconds}}}};
}

}  // namespace

int run_ask(int argc, char** argv) {
  const Options o("ask", "-m model.gguf [--image a.png ...] [options] \"question\" [\"next question\" ...]", with_session_options(kOwnOptions), argc, argv);
  if (o.help()) {
    std::printf("%s\nPictures come before the question, or where it says <image>. Further questions continue the conversation.\n", o.help_text().c_str());
    return kOk;
  }
  std::vector<std::string> questions = o.arguments();
  if (questions.empty() && !o.has("--chat")) throw Failure{kUsage, "no question given; see breastgpt ask --help"};
  const bool json = o.has("--json");

  // Options are all read before the first file is opened.
  std::vector<std::string> strings;
  bg_session_params params = session_params(o, strings);
  bg_callbacks callbacks{sizeof callbacks, nullptr, nullptr, stderr_is_terminal() ? show_progress : nullptr, is_cancelled};
  params.callbacks = &callbacks;
  const bg_image_params image = image_params(o);
  const bg_generation how = generation(o);
  const std::string system = system_text(o);

  const ModelPtr model = open_model(o.required("--model"));
  std::vector<ImagePtr> images = open_images(o);
  bg_error error;
  bg_session* opened = nullptr;
  check(bg_session_open(model.get(), &params, &opened, &error), error);
  const SessionPtr session(opened);
  if (!system.empty()) check(bg_session_system(session.get(), system.c_str(), &error), error);
  for (const ImagePtr& file : images) check(bg_session_add_image(session.get(), bg_image_file_pixels(file.get()), &image, &error), error);

  Json turns = Json::array();
  const auto ask = [&](const std::string& question) {
    const bg_answer* answer = nullptr;
    bool failed = false;
    check(bg_session_ask(session.get(), question.c_str(), &how, json ? nullptr : print_text, &failed, &answer, &error), error);
    if (failed) throw Failure{kFailed, "stdout cannot be written"};
    if (json)
      turns.push_back(turn_json(*answer));
    else
      std::printf("\n");
  };
  for (const std::string& question : questions) ask(question);
  if (o.has("--chat"))
    for (std::string line; std::getline(std::cin, line);)
      if (!line.empty()) ask(line);

  if (json) {
    bg_model_info info{};
    info.struct_size = sizeof info;
    check(bg_model_get_info(model.get(), &info, &error), error);
    Json pictures = Json::array();
    for (size_t i = 0; i < images.size() && !turns.empty(); ++i) pictures.push_back(image_json(session.get(), int64_t(i), o.all("--image")[i], images[i].get()));
    const Json out = {{"version", bg_version()},
                      {"model", {{"file", info.path}, {"type", info.type}, {"weights", info.weight_type}, {"weights_sha256", info.weights_sha256}, {"selector", info.selector}}},
                      {"backend", strings[0] == "cpu" ? std::string("cpu/") + bg_instruction_set() : strings[0]},
                      {"threads", params.threads},
                      {"images", pictures},
                      {"turns", turns}};
    std::printf("%s\n", out.dump(1, ' ', false, Json::error_handler_t::replace).c_str());
  }
  if (std::fflush(stdout) != 0) throw Failure{kFailed, "stdout cannot be written"};
  return kOk;
}

}  // namespace tool
