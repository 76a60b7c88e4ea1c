// breastgpt ask: pictures, volumes, slides and questions in, answers out. The answer streams to stdout, progress goes to stderr when that is a terminal.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "loaders/sha256.h"
#include "tools/evidence.h"
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
    {"--choices", "A,B,C", "instead of an answer: the probability of each of these answers"},
    {"--abstain", "MARGIN", "with --choices: say \"uncertain\" when the best two are closer than MARGIN (0 … 1)"},
    {"--draw", "FILE.png", "the answer's boxes painted on the picture or on the volume's slices"},
    {"--draw-mask", "FILE.nii.gz", "the answer's boxes as a mask on the volume's grid"},
    {"--evidence", "FILE", "kept tokens over each picture or volume (.png), tiles of a slide (.geojson beside it)"},
    {"--thumbnail", "FILE", "picture of the whole slide, for --evidence"},
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

void print_log(void*, int level, const char* message) { std::fprintf(stderr, "%s: %s\n", level == 0 ? "error" : level == 1 ? "warning" : "note", message); }

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

Json medium_json(const bg_session* session, int64_t index, const MediumFile& file) {
  bg_error error;
  bg_medium_report r{};
  r.struct_size = sizeof r;
  check(bg_session_medium_report(session, index, &r, &error), error);
  Json kept = Json::array();
  for (int64_t level = 0; level < r.levels; ++level) {
    const int64_t* tokens = nullptr;
    const double* gains = nullptr;
    int64_t count = 0;
    double coverage = 0;
    check(bg_session_medium_kept(session, index, level, &tokens, &gains, &count, &coverage, &error), error);
    Json entry = {{"level", level == 0 ? "top" : "deepstack." + std::to_string(level - 1)}, {"tokens", std::vector<int64_t>(tokens, tokens + count)}};
    if (gains) {
      entry["gains"] = std::vector<double>(gains, gains + count);
      entry["coverage"] = coverage;
    }
    kept.push_back(entry);
  }
  static const char* const names[] = {"image", "volume", "slide"};
  Json j = {{"kind", names[r.kind]}, {"file", file.path}, {"format", file.format()}, {"file_sha256", file.sha256()}, {"data_sha256", r.sha256}};
  if (r.kind == BG_IMAGE) {
    j["size"] = {r.width, r.height};
    j["prepared"] = {r.prepared_width, r.prepared_height};
    j["resized"] = {r.resized_width, r.resized_height};
    j["grey16"] = r.grey16;
    if (std::string(r.grey16) != "none") j["window"] = {r.window_low, r.window_high};
    j["grid"] = {r.grid_rows, r.grid_cols};
  } else if (r.kind == BG_VOLUME) {
    j["size"] = {r.width, r.height, r.depth};
    j["prepared"] = {r.prepared_width, r.prepared_height, r.prepared_depth};
    j["resized"] = {r.resized_width, r.resized_height, r.resized_depth};
    j["window"] = {r.window_low, r.window_high};
    j["grid"] = {r.grid_frames, r.grid_rows, r.grid_cols};
  }
  j["tokens"] = r.tokens;
  j["kept"] = kept;
  return j;
}

// Boxes of the last answer; millimetres where the volume's header places its voxels.
Json boxes_json(bg_session* session, const std::vector<MediumFile>& media) {
  const bg_box* boxes = nullptr;
  int64_t count = 0;
  bg_error error;
  check(bg_session_boxes(session, &boxes, &count, &error), error);
  Json out = Json::array();
  for (int64_t i = 0; i < count; ++i) {
    const bg_box& b = boxes[i];
    const auto n = std::ptrdiff_t(b.dimensions);
    Json j = {{"label", b.label}, {"low", std::vector<double>(b.low, b.low + n)}, {"high", std::vector<double>(b.high, b.high + n)}};
    if (b.point) j["point"] = true;
    if (b.swapped) j["swapped"] = true;
    if (b.outside) j["outside"] = true;
    if (b.medium < 0) {
      j["medium"] = nullptr;
    } else {
      j["medium"] = b.medium;
      j["source"] = {{"low", std::vector<double>(b.source_low, b.source_low + n)}, {"high", std::vector<double>(b.source_high, b.source_high + n)}};
      double low[3], high[3];
      const MediumFile& file = media[size_t(b.medium)];
      if (file.kind == BG_VOLUME && bg_volume_file_millimetres(file.volume.get(), b.source_low, low) && bg_volume_file_millimetres(file.volume.get(), b.source_high, high))
        j["millimetres"] = {{"low", std::vector<double>(low, low + 3)}, {"high", std::vector<double>(high, high + 3)}};
    }
    out.push_back(j);
  }
  return out;
}

// "A,B,C" → its parts.
std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out{""};
  for (char c : text) {
    if (c == ',')
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

// --choices: what the options score, the best of them or "uncertain".
Json choose(bg_session* session, const std::string& question, const std::vector<std::string>& options, double abstain, bool json) {
  std::vector<const char*> texts;
  for (const std::string& option : options) texts.push_back(option.c_str());
  const bg_score* scores = nullptr;
  bg_error error;
  check(bg_session_score(session, question.c_str(), texts.data(), int64_t(texts.size()), &scores, &error), error);
  size_t best = 0;
  for (size_t i = 1; i < options.size(); ++i)
    if (scores[i].probability > scores[best].probability) best = i;
  double second = 0;
  for (size_t i = 0; i < options.size(); ++i)
    if (i != best) second = std::max(second, scores[i].probability);
  const double margin = scores[best].probability - second;
  const std::string answer = margin < abstain ? "uncertain" : options[best];
  Json list = Json::array();
  for (size_t i = 0; i < options.size(); ++i) {
    list.push_back({{"option", options[i]}, {"logprob", scores[i].logprob}, {"end_logprob", scores[i].end_logprob}, {"probability", scores[i].probability}, {"tokens", scores[i].tokens}});
    if (!json) std::printf("%-24s log p %10.5f  probability %.5f\n", options[i].c_str(), scores[i].logprob, scores[i].probability);
  }
  if (!json) std::printf("%s (margin %.5f)\n", answer.c_str(), margin);
  return {{"answer", answer}, {"margin", margin}, {"choices", list}};
}

Json turn_json(const bg_answer& a) {
  return {{"answer", a.text},
          {"stopped", a.stopped != 0},
          {"token_ids", std::vector<int32_t>(a.ids, a.ids + a.count)},
          {"logprobs", std::vector<double>(a.logprobs, a.logprobs + a.count)},
          {"prompt_tokens", a.prompt_tokens},
          {"reused_tokens", a.reused_tokens},
          {"seconds", {{"media", a.media_seconds}, {"prompt", a.prompt_seconds}, {"answer", a.decode_seconds}}}};
}

}  // namespace

int run_ask(int argc, char** argv) {
  const Options o("breastgpt ask", "-m model.gguf [--image a.png] [--volume b.nii.gz] [--slide c.h5] [options] \"question\" [\"next question\" ...]", with_session_options(kOwnOptions), argc, argv);
  if (o.help()) {
    std::printf("%s\nMedia come before the question, or where it says <image>, <volume> or <slide>. Further questions continue the conversation.\n", o.help_text().c_str());
    return kOk;
  }
  std::vector<std::string> questions = questions_of(o);
  if (questions.empty() && !o.has("--chat")) throw Failure{kUsage, "no question given; see breastgpt ask --help"};
  const bool json = o.has("--json");
  const std::vector<std::string> options = o.has("--choices") ? split(o.text("--choices")) : std::vector<std::string>();
  if (o.has("--abstain") && options.empty()) throw Failure{kUsage, "--abstain needs --choices"};
  if (!options.empty() && (questions.size() != 1 || o.has("--chat"))) throw Failure{kUsage, "--choices takes one question"};
  if (!options.empty() && (o.has("--draw") || o.has("--draw-mask"))) throw Failure{kUsage, "--choices gives no boxes to draw"};
  const double abstain = o.real("--abstain", 0);
  if (!(abstain >= 0 && abstain <= 1)) throw Failure{kUsage, "--abstain " + o.text("--abstain") + ": the margin must be 0 … 1"};

  // Options are all read before the first file is opened.
  std::vector<std::string> strings;
  bg_session_params params = session_params(o, strings);
  bg_callbacks callbacks{sizeof callbacks, nullptr, print_log, stderr_is_terminal() ? show_progress : nullptr, is_cancelled};
  params.callbacks = &callbacks;
  const bg_image_params image = image_params(o);
  const bg_volume_params volume = volume_params(o);
  const int64_t slide_tokens = slide_budget(o);
  const bg_generation how = generation(o);
  const std::string system = system_text(o);

  const ModelPtr model = open_model(o.required("--model"));
  const std::vector<MediumFile> media = open_media(o);
  const Pictures pictures(o, media);
  bg_error error;
  bg_session* opened = nullptr;
  check(bg_session_open(model.get(), &params, &opened, &error), error);
  const SessionPtr session(opened);
  if (!system.empty()) check(bg_session_system(session.get(), system.c_str(), &error), error);
  for (const MediumFile& file : media) add_medium(session.get(), file, image, volume, slide_tokens);

  Json turns = Json::array();
  const auto ask = [&](const std::string& question) {
    if (!options.empty()) {
      turns.push_back(choose(session.get(), question, options, abstain, json));
      return;
    }
    const bg_answer* answer = nullptr;
    bool failed = false;
    check(bg_session_ask(session.get(), question.c_str(), &how, json ? nullptr : print_text, &failed, &answer, &error), error);
    if (failed) throw Failure{kFailed, "stdout cannot be written"};
    if (!json) std::printf("\n");
    if (json) turns.push_back(turn_json(*answer));
    if (json) turns.back()["boxes"] = boxes_json(session.get(), media);
  };
  for (const std::string& question : questions) ask(question);
  if (o.has("--chat"))
    for (std::string line; std::getline(std::cin, line);)
      if (!line.empty()) ask(line);
  if (!turns.empty() || !json) pictures.write(session.get());

  if (json) {
    bg_model_info info{};
    info.struct_size = sizeof info;
    check(bg_model_get_info(model.get(), &info, &error), error);
    Json seen = Json::array();
    for (size_t i = 0; i < media.size() && !turns.empty(); ++i) seen.push_back(medium_json(session.get(), int64_t(i), media[i]));
    const Json out = {{"version", bg_version()},
                      {"model", {{"file", info.path}, {"type", info.type}, {"weights", info.weight_type}, {"weights_sha256", info.weights_sha256}, {"selector", strings[2].empty() ? info.selector : strings[2]}}},
                      {"backend", strings[0] == "cpu" ? std::string("cpu/") + bg_instruction_set() : strings[0]},
                      {"precision", params.precision},
                      {"kv", params.kv_type},
                      {"threads", params.threads},
                      {"system_sha256", system.empty() ? Json(nullptr) : Json(bg::sha256_hex(system.data(), system.size()))},
                      {"media", seen},
                      {"turns", turns}};
    std::printf("%s\n", out.dump(1, ' ', false, Json::error_handler_t::replace).c_str());
  }
  if (std::fflush(stdout) != 0) throw Failure{kFailed, "stdout cannot be written"};
  return kOk;
}

}  // namespace tool
