// breastgpt bench as a user runs it: runs that are killed, resumed and shared, command lines. What the scores are worth is tested elsewhere; here the
// files must be the same bytes however a run came about. Data files and entries: test_bench_items.cpp.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <thread>

#include "runtime/breastgpt_files.h"
#include "tests/bench_runs.h"

using namespace bench_runs;

namespace {

int64_t line_count(const std::string& path) {
  const std::string text = read_file(path);
  return std::count(text.begin(), text.end(), '\n');
}

// Starts the program and ends it with a signal once its part file has `lines` lines. Returns waitpid's status.
int start_and_signal(const std::vector<std::string>& args, const std::string& part, int64_t lines, int signal) {
  const char* build = std::getenv("BG_BUILD");
  const std::string program = std::string(build ? build : "build/release") + "/breastgpt";
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& a : args) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const int null = open("/dev/null", O_RDWR);
    dup2(null, 1);
    dup2(null, 2);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  int status = 0;
  for (int i = 0; i < 20000; ++i) {
    if (waitpid(child, &status, WNOHANG) == child) return status;
    if (line_count(part) >= lines) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  kill(child, signal);
  waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("bench: array and JSONL, media of every kind, what is missing is listed") {
  TempDir folder;
  fs::create_directories(folder.path / "array");
  fs::create_directories(folder.path / "lines");
  const std::vector<Json> entries = some_entries();
  write_file(folder.file("array/data.json"), "\xEF\xBB\xBF " + Json(entries).dump(2) + "\n");
  write_file(folder.file("lines/data.json"), "\n" + lines_of(entries) + "\r\n\n" + entries[0].dump());
  const CliResult array = breastgpt(command(folder.file("array/data.json"), folder.file("a")));
  REQUIRE_MESSAGE(array.code == 0, array.err);
  CHECK(array.err.empty());  // no progress when stderr is no terminal
  CHECK(contains(array.out, "10 of 12 items answered, 2 skipped"));
  CHECK(contains(array.out, "skipped data.json#5: "));
  CHECK(contains(array.out, "tiny-images/none.png: cannot be opened: No such file"));
  REQUIRE(breastgpt(command(folder.file("lines/data.json"), folder.file("l"), {"--limit", "12", "--threads", "1", "--chunk", "7"})).code == 0);
  CHECK(read_file(folder.file("a/predictions.jsonl")) == read_file(folder.file("l/predictions.jsonl")));
  for (const char* name : {"predictions.jsonl", "report.json", "report.md", "report.html"}) CHECK(results(folder.file("a")).count(name) == 1);

  const std::vector<Json> r = records(folder.file("a"));
  REQUIRE(r.size() == 12);
  for (size_t i = 0; i < r.size(); ++i) {
    CHECK(r[i]["index"] == i);
    CHECK(r[i]["id"] == "data.json#" + std::to_string(i + 1));
    CHECK(r[i]["skipped"].get<std::string>().empty() == (i % 6 != 4));
  }
  CHECK(r[0]["options"] == Json({"yes", "no"}));
  CHECK(r[1]["options"] == Json({"A", "B"}));
  CHECK(r[1]["reference_option"] == 1);
  CHECK(r[1]["option_probabilities"].size() == 2);
  CHECK(r[2]["options"].empty());
  CHECK(Json::parse(read_file(folder.file("a/report.json")))["items"]["skipped"] == 2);
}

TEST_CASE("bench: an item is what ask answers") {
  const std::vector<Json> entries = some_entries(4);
  const std::vector<Json> r = run_entries(entries, {"--max-tokens", "5"});
  const char* media[4][2] = {{"--image", "tiny-images/spots.png"}, {"--image", "tiny-images/grey.png"}, {"--volume", "mixed-media/plain.nii.gz"}, {"--slide", "mixed-media/slide-70.safetensors"}};
  for (size_t i = 0; i < 4; ++i) {
    std::vector<std::string> ask = {"ask", "-m", model(), media[i][0], golden_path(media[i][1]), "--json", "--no-prescale", "--max-tokens", "5", r[i]["question"]};
    if (i == 1) ask.insert(ask.end(), {"--system", "Screening."});
    const Json j = Json::parse(breastgpt(ask).out, nullptr, false);
    REQUIRE(j.is_object());
    CHECK(j["turns"][0]["answer"] == r[i]["prediction"]);
    CHECK(j["turns"][0]["stopped"].get<bool>() == (r[i]["stopped"] == 1));
    double sum = 0;
    for (const Json& v : j["turns"][0]["logprobs"]) sum += v.get<double>();
    CHECK(std::abs(sum / double(j["turns"][0]["logprobs"].size()) - r[i]["mean_logprob"].get<double>()) < 1e-9);
  }
  const Json j = Json::parse(breastgpt({"ask", "-m", model(), "--image", golden_path("tiny-images/grey.png"), "--system", "Screening.", "--choices", "A,B", "--json", r[1]["question"]}).out, nullptr, false);
  for (size_t i = 0; i < 2; ++i) CHECK(std::abs(j["turns"][0]["choices"][i]["probability"].get<double>() - r[1]["option_probabilities"][i].get<double>()) < 1e-9);
}

TEST_CASE("bench: earlier turns are given with their own media, the last one is asked") {
  Json two = entry("<image>Is there a mass?", "yes", {"tiny-images/spots.png", "tiny-images/grey.png"}, {"mixed-media/plain.nii.gz"});
  two["messages"].push_back({{"role", "user"}, {"content", "And in <image>?"}});
  two["messages"].push_back({{"role", "assistant"}, {"content", "no"}});
  const std::vector<Json> r = run_entries({two}, {"--max-tokens", "5"});
  CHECK(r[0]["question"] == "And in <image>?");
  CHECK(r[0]["reference"] == "no");

  bg_model* model = nullptr;
  bg_session* session = nullptr;
  const bg_answer* answer = nullptr;
  REQUIRE(bg_model_open(bench_runs::model().c_str(), &model, nullptr) == BG_OK);
  REQUIRE(bg_session_open(model, nullptr, &session, nullptr) == BG_OK);
  const auto add_image = [&](const char* path) {
    bg_image_file* file = nullptr;
    REQUIRE(bg_image_file_open(golden_path(path).c_str(), 0, &file, nullptr) == BG_OK);
    REQUIRE(bg_session_add_image(session, bg_image_file_pixels(file), nullptr, nullptr) == BG_OK);
    bg_image_file_close(file);
  };
  bg_volume_file* volume = nullptr;
  bg_volume_params params = bg_volume_params_default();
  params.no_prescale = 1;
  REQUIRE(bg_volume_file_open(golden_path("mixed-media/plain.nii.gz").c_str(), &volume, nullptr) == BG_OK);
  add_image("tiny-images/spots.png");
  REQUIRE(bg_session_add_volume(session, bg_volume_file_voxels(volume), &params, nullptr) == BG_OK);  // no marker: before the first question
  REQUIRE(bg_session_given(session, "<image>Is there a mass?", "yes", nullptr) == BG_OK);
  add_image("tiny-images/grey.png");
  bg_generation how = bg_generation_default();
  how.max_tokens = 5;
  REQUIRE(bg_session_ask(session, "And in <image>?", &how, nullptr, nullptr, &answer, nullptr) == BG_OK);
  CHECK(r[0]["prediction"] == answer->text);
  bg_volume_file_close(volume);
  bg_session_close(session);
  bg_model_close(model);
}

TEST_CASE("bench: roots") {
  TempDir folder;
  fs::create_directories(folder.path / "there" / "deep");
  fs::copy(golden_path("tiny-images/spots.png"), folder.path / "there" / "deep" / "spots.png");
  fs::copy(golden_path("tiny-images/grey.png"), folder.path / "grey.png");
  write_file(folder.file("d.jsonl"), lines_of({entry("Q", "R", {"/old/place/spots.png"}), entry("Q", "R", {"/old/placebo/spots.png"}), entry("Q", "R", {"grey.png"}), entry("Q", "R", {"deep/spots.png"})}));
  const auto skipped = [&](const std::vector<std::string>& roots) {
    static int run = 0;
    const std::string out = folder.file("out" + std::to_string(++run));
    std::vector<std::string> args = {"bench", "-m", model(), "-o", out, "--max-tokens", "1", folder.file("d.jsonl")};
    for (const std::string& root : roots) args.insert(args.end(), {"--root", root});
    const CliResult r = breastgpt(args);
    REQUIRE_MESSAGE(r.code == 0, r.err);
    std::string marks;
    for (const Json& record : records(out)) marks += record["skipped"].get<std::string>().empty() ? '.' : 's';
    return marks;
  };
  CHECK(skipped({}) == "ss.s");  // the data file's folder
  CHECK(skipped({"/old/place=" + folder.file("there/deep")}) == ".s.s");
  CHECK(skipped({"/old/=there/", "/old/place/=deep/"}) == "ss.s");  // the first that fits: there/place/spots.png
  CHECK(skipped({"/old/place/=deep/", folder.file("there"), folder.path.string()}) == ".s..");
}

TEST_CASE("bench: killed and resumed, at any byte, is the whole run") {
  TempDir folder;
  write_file(folder.file("d.jsonl"), lines_of(some_entries(24)));
  const std::string whole = folder.file("whole"), part = "/parts/1-of-1.jsonl";
  REQUIRE(breastgpt(command(folder.file("d.jsonl"), whole)).code == 0);
  const auto expected = results(whole);
  CHECK(expected.size() == 4);

  const auto killed = command(folder.file("d.jsonl"), folder.file("killed"));
  const int status = start_and_signal(killed, folder.file("killed") + part, 4, SIGKILL);
  CHECK(WIFSIGNALED(status));
  CHECK(line_count(folder.file("killed") + part) < 25);
  CHECK(results(folder.file("killed")).empty());
  CHECK(breastgpt(killed).code == 0);
  CHECK(results(folder.file("killed")) == expected);
  CHECK(read_file(folder.file("killed") + part) == read_file(whole + part));
  CHECK(breastgpt(killed).code == 0);  // again: nothing is left to do
  CHECK(results(folder.file("killed")) == expected);

  const auto interrupted = command(folder.file("d.jsonl"), folder.file("interrupted"));
  const int ended = start_and_signal(interrupted, folder.file("interrupted") + part, 3, SIGINT);
  CHECK((WIFEXITED(ended) && WEXITSTATUS(ended) == 130));
  CHECK(breastgpt(interrupted).code == 0);
  CHECK(results(folder.file("interrupted")) == expected);

  // Cut inside the header, right after it, inside a record, right before its line break; and a kill while the results were written.
  const std::string bytes = read_file(whole + part);
  const size_t header = bytes.find('\n') + 1, second = bytes.find('\n', bytes.find('\n', header) + 1) + 1;
  for (size_t cut : {size_t(0), size_t(10), header - 1, header, header + 1, second - 1, second, bytes.size() - 1}) {
    CAPTURE(cut);
    const std::string out = folder.file("cut-" + std::to_string(cut));
    fs::create_directories(out + "/parts");
    write_file(out + part, bytes.substr(0, cut));
    write_file(out + "/predictions.jsonl.part-1", "half");
    write_file(out + "/report.md.part-1", "half");
    CHECK(breastgpt(command(folder.file("d.jsonl"), out)).code == 0);
    CHECK(results(out) == expected);
  }
}

TEST_CASE("bench: parts in any order are the whole run; the Slurm script") {
  TempDir folder;
  write_file(folder.file("d.jsonl"), lines_of(some_entries(7)));
  REQUIRE(breastgpt(command(folder.file("d.jsonl"), folder.file("whole"))).code == 0);
  for (const char* shard : {"3/3", "1/3"}) {
    const CliResult r = breastgpt(command(folder.file("d.jsonl"), folder.file("three"), {"--shard", shard}));
    CHECK(r.code == 0);
    CHECK(contains(r.out, "not complete yet: part "));
    CHECK(contains(r.out, std::string(shard) == "3/3" ? " 1 2 of 3" : " 2 of 3"));
    CHECK(results(folder.file("three")).empty());
  }
  CHECK(breastgpt(command(folder.file("d.jsonl"), folder.file("three"), {"--shard", "2/3"})).code == 0);
  CHECK(results(folder.file("three")) == results(folder.file("whole")));

  // More parts than items.
  for (int i = 1; i <= 9; ++i) CHECK(breastgpt(command(folder.file("d.jsonl"), folder.file("nine"), {"--shard", std::to_string(i) + "/9"})).code == 0);
  CHECK(results(folder.file("nine")) == results(folder.file("whole")));

  // The script with the variables that Slurm sets.
  const char* build = std::getenv("BG_BUILD");
  const std::string program = std::string(build ? build : "build/release") + "/breastgpt";
  const auto submit = [&](const std::string& variables, const std::string& arguments) {
    return std::system((variables + " BREASTGPT=" + shell_quoted(program) + " BENCH_OPTIONS=" + shell_quoted("--max-tokens 2 --no-prescale --root " + golden_path("")) +
                        " bash tools/bench/breastgpt-bench.slurm " + arguments + " > " + shell_quoted(folder.file("log")) + " 2>&1")
                           .c_str());
  };
  const std::string arguments = shell_quoted(model()) + " " + shell_quoted(folder.file("d.jsonl")) + " " + shell_quoted(folder.file("slurm"));
  CHECK(submit("SLURM_ARRAY_TASK_ID=1 SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=2 SLURM_CPUS_PER_TASK=2", arguments) == 0);
  CHECK(submit("SHARDS=2 SLURM_ARRAY_TASK_ID=2 SLURM_ARRAY_TASK_COUNT=1 SLURM_ARRAY_TASK_MIN=2 SLURM_ARRAY_TASK_MAX=2", arguments) == 0);
  CHECK(results(folder.file("slurm")) == results(folder.file("whole")));
  CHECK(WEXITSTATUS(submit("SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_COUNT=1 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_MAX=3", arguments)) == 2);
  CHECK(contains(read_file(folder.file("log")), "give --array=1-N"));
  CHECK(WEXITSTATUS(submit("SLURM_ARRAY_TASK_ID=1", "one two")) == 2);
}

TEST_CASE("bench: what does not go together is refused") {
  TempDir folder;
  const std::string data = folder.file("d.jsonl"), out = folder.file("out"), part = out + "/parts/1-of-1.jsonl";
  write_file(data, lines_of(some_entries(3)));
  REQUIRE(breastgpt(command(data, out)).code == 0);
  const std::string bytes = read_file(part);
  cli_fails(command(data, out, {"--max-tokens", "3"}), 1, "1-of-1.jsonl: was made by another run (options/max-tokens: 2 there, 3 now); give another folder with -o");
  cli_fails(command(data, out, {"--pil-exact"}), 1, "(options/pil-exact: nothing there, true now)");
  cli_fails(command(data, out, {"--limit", "3"}), 1, "(options/limit: nothing there, \"3\" now)");
  cli_fails(command(data, out, {"--system", "You are careful."}), 1, "options/system: nothing there");
  cli_fails(command(data, out, {"--backend", "ref"}), 1, "now)");
  cli_fails(command(data, out, {"--shard", "1/2"}), 1, "holds parts of a run in 1, this one is in 2; give the same --shard i/1");
  CHECK(breastgpt(command(data, out, {"--threads", "2", "--chunk", "16"})).code == 0);
  write_file(data, lines_of(some_entries(4)));
  cli_fails(command(data, out), 1, "items: 3 there, 4 now");
  write_file(data, lines_of(some_entries(3)));

  std::vector<std::string> lines;
  std::istringstream in(bytes);
  for (std::string line; std::getline(in, line);) lines.push_back(line + "\n");
  const auto spoilt = [&](const std::string& text, const std::string& message) {
    write_file(part, text);
    cli_fails(command(data, out), 1, message);
    CHECK(read_file(part) == text);
  };
  spoilt("{}\n", "1-of-1.jsonl: line 1 is not the header of this part");
  spoilt("[[[\n", "line 1 is not the header of this part");
  spoilt(lines[0] + "{\n", "1-of-1.jsonl: line 2: is not valid JSON");
  spoilt(lines[0] + lines[2], "line 2: is not the record of item 0; delete the file");
  spoilt(bytes + lines[1], "line 5: is not the record of any item");
  write_file(part, bytes);

  // Held by another process, as far as this one can tell.
  const int held = open(part.c_str(), O_RDWR);
  REQUIRE(flock(held, LOCK_EX | LOCK_NB) == 0);
  cli_fails(command(data, out), 1, "1-of-1.jsonl: another process works on this part");
  close(held);
  CHECK(breastgpt(command(data, out)).code == 0);

  fs::remove(part);
  fs::create_directories(part);
  cli_fails(command(data, out), 1, "cannot be");
  write_file(folder.file("file"), "");
  cli_fails(command(data, folder.file("file")), 1, "cannot be made");
}

TEST_CASE("bench: wrong command lines") {
  TempDir folder;
  const std::string data = folder.file("d.jsonl"), out = folder.file("out");
  write_file(data, lines_of({entry("Q", "R")}));
  cli_fails({"bench", "-m", model(), "-o", out}, 2, "no data file given");
  cli_fails({"bench", "-m", model(), data}, 2, "--output is missing");
  cli_fails({"bench", "-o", out, data}, 2, "--model is missing");
  cli_fails(command(data, out, {"--image", "a.png"}), 2, "unknown option --image");
  for (const char* shard : {"0/3", "4/3", "1", "1/", "a/b", "1/3x", "01/3", "1/200000", "99999999999999999999/3"}) cli_fails(command(data, out, {"--shard", shard}), 2, "expected i/n");
  cli_fails(command(data, out, {"--root", "=x"}), 2, "expected a folder, or OLD=NEW");
  cli_fails(command(data, out, {"--limit", "0"}), 2, "--limit 0: expected a whole number");
  cli_fails(command(data, out, {"--max-tokens", "100000"}), 2, "from 1 to 16384");
  cli_fails(command(data, out, {"--system", "a", "--roles", "b"}), 2, "both give the system text");
  cli_fails(command(data, out, {"--backend", "gpu"}), 1, "unknown backend \"gpu\"");
  cli_fails(command(folder.file("none.json"), out), 1, "none.json: cannot be opened");
  CHECK(!fs::exists(out));
}
