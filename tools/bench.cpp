// breastgpt bench: a benchmark in the published format → predictions.jsonl and a report. Each item is answered on its own; what is done is kept in
// out/parts, so that a run may be ended at any moment and go on, or be shared by several processes, with the same files in the end.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "loaders/error.h"
#include "loaders/new_file.h"
#include "loaders/sha256.h"
#include "tools/bench/dataset.h"
#include "tools/bench/parts.h"
#include "tools/bench/report.h"
#include "tools/bench/runner.h"

namespace tool {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

const std::vector<Option> kOwnOptions = {
    {"--output", "DIR", "folder of the results; an unfinished run in it goes on", "-o"},
    {"--root", "DIR|OLD=NEW", "relative media paths are below DIR (default: the data file's folder); OLD=NEW: another beginning of paths; repeatable"},
    {"--shard", "I/N", "only the items of part I of N; the last of N processes puts the results together"},
    {"--limit", "N", "only the first N items"},
    {"--max-tokens", "N", "length of an answer; default 1024"},
    {"--system", "TEXT|@FILE", "system text of every item, in place of the data's"},
    {"--roles", "DIR", "system text by stage: screening.txt, diagnosis.txt, treatment.txt, in place of the data's"},
    {"--stage", "NAME", "of items that do not say (published files have no \"meta\"): screening, diagnosis, treatment"},
    {"--modality", "NAME", "of items that do not say: ultrasound, mammography, ct, mri, pathology"},
    {"--task", "NAME", "of items that do not say: closed_vqa, open_vqa, grounding, grounded_caption, caption, report"},
};

// A session's options without the media, which the data name.
std::vector<Option> bench_options() {
  std::vector<Option> options = with_session_options({});
  for (const std::string name : {"--image", "--volume", "--slide", "--system"})
    options.erase(std::find_if(options.begin(), options.end(), [&](const Option& o) { return o.name == name; }));
  options.insert(options.begin() + 1, kOwnOptions.begin(), kOwnOptions.end());
  return options;
}

int is_cancelled(void*) { return interrupted(); }

// Role texts by stage, read from --roles.
void apply_roles(const std::string& folder, std::vector<Item>& items, Json& hashes) {
  for (const std::string stage : {"screening", "diagnosis", "treatment"}) {
    if (std::none_of(items.begin(), items.end(), [&](const Item& item) { return item.stage == stage; })) continue;
    const std::string path = (fs::path(folder) / (stage + ".txt")).string();
    std::ifstream in(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    while (!text.empty() && text.back() == '\n') text.pop_back();
    if (text.empty() || text.size() > kMostRecordText) throw Failure{kFailed, path + ": expected the role text of stage " + stage};
    hashes[stage] = bg::sha256_hex(text.data(), text.size());
    for (Item& item : items)
      if (item.stage == stage) item.system = text;
  }
}

// Everything that the results depend on: the first line of each part.
Json describe_run(const Options& o, const bg_model_info& model, const Dataset& data, const Json& roles, const std::string& system) {
  Json files = Json::array();
  for (const DataFile& file : data.files) files.push_back({{"name", file.name}, {"sha256", file.sha256}});
  const std::string backend = o.text("--backend", "cpu");
  Json options = {{"backend", backend == "cpu" ? std::string("cpu/") + bg_instruction_set() : backend},
                  {"precision", o.text("--precision", "fast")},
                  {"kv", o.text("--kv", "auto")},
                  {"max-tokens", o.integer("--max-tokens", 1024, 1, 16384)}};
  // Not here: --threads and --chunk, which never change a result.
  for (const char* name : {"--selector", "--image-tokens", "--volume-tokens", "--slide-tokens", "--max-image-tokens", "--max-pixels", "--window", "--context", "--memory-cap",
                           "--stage", "--modality", "--task", "--limit"})
    if (o.has(name)) options[name + 2] = o.text(name);
  for (const char* name : {"--pil-exact", "--no-prescale"})
    if (o.has(name)) options[name + 2] = true;
  if (o.has("--root")) options["root"] = o.all("--root");
  if (!system.empty()) options["system"] = bg::sha256_hex(system.data(), system.size());
  if (!roles.empty()) options["roles"] = roles;
  const std::string name = fs::path(model.path).filename().string();
  return {{"version", bg_version()}, {"model", name}, {"weights", model.weights_sha256}, {"data", files}, {"items", data.items.size()}, {"options", options}};
}

BenchInfo bench_info(const Options& o, const bg_model_info& model, const Json& run) {
  BenchInfo info;
  info.model_file = run["model"];
  info.weights_sha256 = model.weights_sha256;
  info.model_type = model.type;
  info.selector = o.text("--selector", model.selector);
  info.weight_type = model.weight_type;
  for (const Json& file : run["data"]) info.datasets.emplace_back(file["name"], file["sha256"]);
  info.items = run["items"];
  info.settings.emplace_back("breastgpt", run["version"]);
  for (const auto& [name, value] : run["options"].items()) info.settings.emplace_back(name, value.is_string() ? value.get<std::string>() : value.dump());
  return info;
}

// "12 of 480 items, 3.2 a second, 2 min left" on a terminal, over itself.
class Progress {
 public:
  Progress(int64_t done, int64_t total) : done_(done), first_(done), total_(total) {}
  ~Progress() { clear(); }
  void step() {
    ++done_;
    if (!shown_) return;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    const double rate = double(done_ - first_) / std::max(seconds, 1e-9), left = double(total_ - done_) / rate;
    std::fprintf(stderr, "\r\033[K%lld of %lld items, %.3g a second, %.0f %s left", static_cast<long long>(done_), static_cast<long long>(total_), rate,
                 left < 100 ? left : left / 60, left < 100 ? "s" : "min");
  }
  void clear() const {
    if (shown_) std::fprintf(stderr, "\r\033[K");
  }
  int64_t done() const { return done_; }

 private:
  int64_t done_, first_, total_;
  bool shown_ = isatty(STDERR_FILENO) == 1;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void answer_part(const bg_model* model, const RunnerSettings& settings, const std::vector<Item>& items, Shard shard, Part& part) {
  const int64_t count = int64_t(items.size()), own = count < shard.i ? 0 : (count - shard.i) / shard.n + 1;
  Progress progress((part.next() - shard.i + 1) / shard.n, own);
  try {
    for (; part.next() < count; progress.step()) {
      if (interrupted()) throw Failure{kInterrupted, ""};
      part.append(to_line(answer_item(model, settings, items[size_t(part.next())])));
    }
  } catch (const Failure& f) {
    progress.clear();
    const std::string state = std::to_string(progress.done()) + " of " + std::to_string(own) + " items are done; the same command goes on from there";
    throw Failure{f.code, f.code == kInterrupted ? "interrupted: " + state : f.message + " (" + state + ")"};
  }
}

// Text from a file on its way to a terminal: control characters as '?'.
std::string printable(std::string text) {
  std::replace_if(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, '?');
  return text;
}

void list_skipped(const std::vector<Record>& records) {
  constexpr int64_t most = 100;
  int64_t skipped = 0;
  for (const Record& r : records)
    if (!r.skipped.empty() && skipped++ < most) std::printf("skipped %s: %s\n", printable(r.id).c_str(), printable(r.skipped).c_str());
  if (skipped > most) std::printf("and %lld more: see \"skipped\" in predictions.jsonl\n", static_cast<long long>(skipped - most));
}

// Temporary files of a process that was killed while it put the results together; with the lock held they are nobody's.
void remove_leftovers(const std::string& out) {
  for (const fs::directory_entry& entry : fs::directory_iterator(out)) {
    const std::string name = entry.path().filename().string();
    for (const std::string result : {"predictions.jsonl", "report.json", "report.md", "report.html"})
      if (name.compare(0, result.size() + 6, result + ".part-") == 0) fs::remove(entry.path());
  }
}

// When all parts are there: predictions.jsonl and the report. Any process may do it, and again: the files are the same.
void merge(const std::string& out, int64_t n, const Json& run, int64_t items, const BenchInfo& info) {
  const MergeLock lock(out);
  const Parts parts = read_parts(out, n, run, items);
  if (!parts.missing.empty()) {
    std::printf("not complete yet: part");
    for (size_t i = 0; i < parts.missing.size() && i < 20; ++i) std::printf(" %lld", static_cast<long long>(parts.missing[i]));
    std::printf("%s of %lld; the results come with the last one\n", parts.missing.size() > 20 ? " …" : "", static_cast<long long>(n));
    return;
  }
  remove_leftovers(out);
  const std::string path = (fs::path(out) / "predictions.jsonl").string();
  std::vector<Record> records;
  bg::NewFile file(path);
  for (const std::string& line : parts.lines) {
    records.push_back(record_from_json(line, path));
    file.append((line + "\n").data(), line.size() + 1);
  }
  write_report(out, info, records);
  file.commit();
  list_skipped(records);
  std::fputs(summary_text(info, records).c_str(), stdout);
  std::printf("%s: predictions.jsonl, report.json, report.md, report.html\n", out.c_str());
}

}  // namespace

int run_bench(int argc, char** argv) {
  const Options o("breastgpt bench", "-m model.gguf -o out/ [--shard I/N] [options] data.json [data.jsonl ...]", bench_options(), argc, argv);
  if (o.help()) {
    std::printf("%s\nData: BreastStage-Bench files, a JSON array or one JSON object on each line. One question each; what cannot be answered is skipped and listed.\n",
                o.help_text().c_str());
    return kOk;
  }
  // Options are all read before the first file is opened.
  const std::string out = o.required("--output"), model_path = o.required("--model");
  if (o.arguments().empty()) throw Failure{kUsage, "no data file given; see breastgpt bench --help"};
  if (o.has("--system") && o.has("--roles")) throw Failure{kUsage, "--system and --roles both give the system text; leave one out"};
  const Shard shard = o.has("--shard") ? parse_shard(o.text("--shard")) : Shard{};
  const int64_t limit = o.integer("--limit", 0, 1, 1'000'000);
  const Roots roots(o.all("--root"));
  std::vector<std::string> strings;
  RunnerSettings settings;
  settings.session = session_params(o, strings);
  const bg_callbacks callbacks{sizeof callbacks, nullptr, nullptr, nullptr, is_cancelled};
  settings.session.callbacks = &callbacks;
  settings.image = image_params(o);
  settings.volume = volume_params(o);
  settings.slide_tokens = slide_budget(o);
  settings.max_pixels = o.integer("--max-pixels", 0, 1, INT64_MAX);
  settings.max_tokens = o.integer("--max-tokens", 1024, 1, 16384);
  const std::string system = system_text(o);

  const ModelPtr model = open_model(model_path);
  bg_error error;
  bg_model_info info{};
  info.struct_size = sizeof info;
  check(bg_model_get_info(model.get(), &info, &error), error);
  bg_session* probe = nullptr;  // wrong options are told now, not for each item
  check(bg_session_open(model.get(), &settings.session, &probe, &error), error);
  bg_session_close(probe);

  Dataset data = read_dataset(o.arguments(), {o.text("--stage"), o.text("--modality"), o.text("--task")}, roots, limit);
  Json roles = Json::object();
  if (o.has("--roles")) apply_roles(o.text("--roles"), data.items, roles);
  if (!system.empty())
    for (Item& item : data.items) item.system = system;

  try {
    const Json run = describe_run(o, info, data, roles, system);
    Part part(out, shard, run, int64_t(data.items.size()));
    answer_part(model.get(), settings, data.items, shard, part);
    merge(out, shard.n, run, int64_t(data.items.size()), bench_info(o, info, run));
  } catch (const bg::Error& e) {
    throw Failure{kFailed, e.what()};
  }
  if (std::fflush(stdout) != 0) throw Failure{kFailed, "stdout cannot be written"};
  return kOk;
}

}  // namespace tool
