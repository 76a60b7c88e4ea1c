// What the tests of breastgpt bench share: small data files and the program run on them.
#pragma once
#include <doctest/doctest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli.h"
#include "tests/support.h"
#include "tests/tiny.h"

namespace bench_runs {

using Json = nlohmann::json;
namespace fs = std::filesystem;

inline std::string model() { return tiny_weights("tiny-breastgpt", "bf16", {{"histo_token_num", "7"}, {"image_token_num", "5"}, {"video_token_num", "6"}}); }

inline Json entry(const std::string& question, const std::string& answer, const std::vector<std::string>& images = {}, const std::vector<std::string>& videos = {}) {
  return {{"messages", {{{"role", "user"}, {"content", question}}, {{"role", "assistant"}, {"content", answer}}}}, {"images", images}, {"videos", videos}};
}

inline std::string lines_of(const std::vector<Json>& entries) {
  std::string out;
  for (const Json& e : entries) out += e.dump() + "\n";
  return out;
}

// Media of every kind, one missing, one with options, one with a system text.
inline std::vector<Json> some_entries(int count = 12) {
  const std::vector<Json> kinds = {
      entry("<image>Is there a mass?", "yes", {"tiny-images/spots.png "}), entry("<image>Which shape? A. oval B. round", "B", {"tiny-images/grey.png"}),
      entry("<video>Describe.", "A volume.", {}, {"mixed-media/plain.nii.gz  "}), entry("<image>Grade?", "2", {"mixed-media/slide-70.safetensors"}),
      entry("<image>Lost?", "yes", {"tiny-images/none.png"}), entry("What is BI-RADS 4?", "Suspicious.")};
  std::vector<Json> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(kinds[size_t(i) % kinds.size()]);
    out.back()["messages"][0]["content"] = out.back()["messages"][0]["content"].get<std::string>() + " (" + std::to_string(i) + ")";
    if (i % 4 == 1) out.back()["messages"].insert(out.back()["messages"].begin(), Json{{"role", "system"}, {"content", "Screening."}});
  }
  return out;
}

inline std::vector<std::string> command(const std::string& data, const std::string& out, const std::vector<std::string>& more = {}) {
  std::vector<std::string> args = {"bench", "-m", model(), "-o", out, "--root", golden_path(""), "--max-tokens", "2", "--no-prescale", data};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

// name → bytes of the results, parts left out.
inline std::map<std::string, std::string> results(const std::string& out) {
  std::map<std::string, std::string> files;
  for (const fs::directory_entry& e : fs::directory_iterator(out))
    if (e.is_regular_file()) files[e.path().filename().string()] = read_file(e.path().string());
  return files;
}

inline std::vector<Json> records(const std::string& out) {
  std::vector<Json> list;
  std::istringstream in(read_file(out + "/predictions.jsonl"));
  for (std::string line; std::getline(in, line);) list.push_back(Json::parse(line));
  return list;
}

inline std::vector<Json> run_entries(const std::vector<Json>& entries, const std::vector<std::string>& more = {}) {
  TempDir folder;
  write_file(folder.file("d.jsonl"), lines_of(entries));
  const CliResult r = breastgpt(command(folder.file("d.jsonl"), folder.file("out"), more));
  REQUIRE_MESSAGE(r.code == 0, r.err);
  return records(folder.file("out"));
}

}  // namespace bench_runs
