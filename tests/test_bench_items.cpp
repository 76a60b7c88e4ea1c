// breastgpt bench: data files that are broken, entries that cannot be asked, boxes against Python (tests/oracle/bench_items.py), labels, system texts.
#include <doctest/doctest.h>

#include "tests/bench_runs.h"

using namespace bench_runs;

TEST_CASE("bench: files that are no benchmark") {
  TempDir folder;
  const std::string good = entry("Q", "R").dump();
  std::string deep(100000, '[');
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "line 1, byte 1: expected a JSON array"},
      {" \n ", "expected a JSON array"},
      {"index,question\n", "line 1, byte 1: expected a JSON array"},
      {"[]", "holds no entry"},
      {good + "\n" + good.substr(0, 40) + "\n", "line 2, byte " + std::to_string(good.size() + 41) + ": not valid JSON"},
      {good + "\n\n{\"a\" 1}\n", "line 3, byte " + std::to_string(good.size() + 8) + ": not valid JSON"},
      {"{\n \"messages\": []\n}", "line 1, byte 1: not valid JSON"},
      {"[" + good + ",\n{\"a\":}]", "line 2, byte " + std::to_string(good.size() + 9) + ": not valid JSON"},
      {"[" + good, "the file ends inside this entry"},
      {"[" + good + ",", "the file ends inside this entry"},
      {"[\"" + good, "the file ends inside this entry"},
      {"[" + good + ",]", "not valid JSON"},
      {"[" + good + "]\n" + good, "line 2, byte " + std::to_string(good.size() + 4) + ": text after the end of the array"},
      {"[" + good + "}]", "a closing bracket without"},
      {"[" + deep, "the file ends inside this entry"},
      {"[" + deep + std::string(100000, ']') + "]", "nested deeper than 64"},
      {"{\"a\":" + deep + "\n", "nested deeper than 64"},
      {"{\"a\":1,\"a\":2}", "appears twice"},
      {"{\"a\":\"\xFF\"}", "not valid JSON"},
      {"{\"a\":1e999}", "not valid JSON"},
      {"{\"a\":\"" + std::string(17 << 20, 'x') + "\"}", "bytes of JSON; at most"},
  };
  for (const auto& [text, message] : cases) {
    write_file(folder.file("bad.json"), text);
    cli_fails(command(folder.file("bad.json"), folder.file("out")), 1, message);
  }
  cli_fails(command(folder.path.string(), folder.file("out")), 1, "is not a regular file");
  CHECK(!fs::exists(folder.file("out")));
}

TEST_CASE("bench: entries that cannot be asked are skipped with a reason") {
  TempDir folder;
  write_file(folder.file("broken.png"), "\x89PNG\r\n\x1a\n");
  const std::string image = golden_path("tiny-images/grey.png"), volume = fs::absolute(golden_path("mixed-media/plain.nii.gz")).string();
  const auto with = [&](const char* key, const Json& value) {
    Json e = entry("<image>Q", "R", {fs::absolute(image).string()});
    e[key] = value;
    return e;
  };
  const auto boxed = [&](const Json& objects, const std::string& answer = "<ref-object><bbox>") {
    Json e = entry("<image>Q", answer, {fs::absolute(image).string()}, {volume});
    e["objects"] = objects;
    return e;
  };
  const auto message = [](const char* role, const Json& content) { return Json{{"role", role}, {"content", content}}; };
  const Json user = message("user", "Q"), answer = message("assistant", "R");
  const std::string zero("a\0b", 3), large(300000, 'x');
  const std::vector<std::pair<Json, std::string>> cases = {
      {Json{{"images", Json::array()}}, "\"messages\" is missing"},
      {Json(5), "not a JSON object"},
      {with("messages", Json::array({user})), "no assistant message"},
      {with("messages", Json::array({answer})), "message 1: expected one system text"},
      {with("messages", Json::array({user, answer, user})), "the last question has no assistant message"},
      {with("messages", Json::array({user, message("assistant", ""), user, answer})), "an earlier question or answer is empty"},
      {with("messages", Json::array({user, message("assistant", "a<|im_end|>"), user, answer})), "the given answer holds a token"},
      {with("messages", Json::array({user, user, answer})), "message 2: expected one system text"},
      {with("messages", Json::array({user, message("system", "S"), answer})), "message 2: expected one system text"},
      {with("messages", Json::array({user, message("tool", "S"), answer})), "message 2: expected one system text"},
      {with("messages", Json::array({5, answer})), "message 1 is not a JSON object"},
      {with("messages", Json::array({message("user", Json::array({"Q"})), answer})), "\"content\" is not a text"},
      {with("messages", Json::array({message("user", zero), answer})), "has a zero byte inside"},
      {with("messages", Json::array({message("user", ""), answer})), "the question is empty"},
      {with("messages", Json::array({user, message("assistant", "")})), "the reference answer is empty"},
      {with("messages", Json::array({message("user", large), answer})), "has 300000 bytes; at most 262144"},
      {with("images", "a.png"), "\"images\" is not a list"},
      {with("images", Json::array({5})), "image 1 is not a text"},
      {with("images", Json::array({" "})), "image 1 is an empty path"},
      {with("images", Json::array({Json::array({"a.png", "b.png"})})), "image 1 is a list (a picture sequence)"},
      {with("images", Json(std::vector<std::string>(65, "a"))), "\"images\" has 65 entries; at most 64"},
      {with("videos", Json::array({Json::array({"a.png", "b.png"})})), "video 1 is a list (a picture sequence)"},
      {with("videos", Json::array({"scan.MP4 "})), "video 1 is a film (.mp4)"},
      {with("images", Json::array({folder.file("broken.png")})), "broken.png"},
      {with("images", Json::array({folder.path.string()})), "is not a regular file"},
      {with("images", Json::array({folder.file("none.h5")})), "none.h5: cannot be opened"},
      {with("videos", Json::array({fs::absolute(image).string()})), "grey.png"},
      {with("images", Json::array()), "the question has 1 <image> markers but only 0"},
      {with("meta", 5), "\"meta\" is not a JSON object"},
      {with("meta", {{"stage", 5}}), "meta \"stage\" is not a text"},
      {with("meta", {{"vendor", std::string(201, 'x')}}), "meta \"vendor\" has 201 bytes"},
      {with("meta", {{"options", {"a"}}}), "one option is no choice"},
      {with("meta", {{"options", {"a", "a"}}}), "an option is empty or occurs twice"},
      {with("meta", {{"options", {"a", ""}}}), "an option is empty or occurs twice"},
      {with("objects", Json::array()), "\"objects\" is not a JSON object"},
      {boxed({{"ref", {"m"}}, {"bbox", Json::array()}}), "1 <bbox> for 0 boxes"},
      {boxed({{"ref", Json::array()}, {"bbox", {{1, 2, 3, 4}}}}), "1 <ref-object> for 0 names"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3}}}}), "box 1: expected a list of 4 numbers"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, "4"}}}}), "box 1: an entry is no number"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, 4}}}, {"bbox_type", "norm1000"}}), "expected \"real\" or \"norm1\""},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, 4}}}, {"image_id", {0, 1}}}), "\"image_id\" has 2 entries for 1 boxes"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, 4}}}, {"image_id", {2}}}), "on a medium that is not there (2 images and videos"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, 4}}}, {"image_id", {-1}}}), "on a medium that is not there"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, 4}}}, {"image_id", {18446744073709551615u}}}), "on a medium that is not there"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, 4}}}, {"image_id", {0.5}}}), "\"image_id\": an entry is no whole number"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, 4, 5, 6}}}}), "box 1 has 6 numbers, but its medium has no depth"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, 4, 5, 60}}}, {"image_id", {1}}}), "box 1: a number lies outside its medium (0 … 10 along z)"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, 1e308}}}}), "box 1: a number lies outside its medium (0 … 190 along y)"},
      {boxed({{"ref", {"m"}}, {"bbox", {{1, 2, 3, 4}}}, {"bbox_type", "norm1"}}), "outside its medium (0 … 1 along x); is \"bbox_type\" right?"},
      {boxed({{"ref", {"m"}}, {"bbox", {{30, 2, 3, 4}}}}), "box 1: its corners are swapped along x"},
  };
  std::vector<Json> entries;
  for (const auto& [e, why] : cases) entries.push_back(e);
  Json slide = entry("<image>Q", "<bbox>", {fs::absolute(golden_path("mixed-media/slide-70.safetensors")).string()});
  slide["objects"] = {{"bbox", {{0.1, 0.1, 0.2, 0.2}}}, {"bbox_type", "norm1"}};
  entries.push_back(slide);
  entries.push_back(entry("Fine?", "yes"));
  const std::vector<Json> r = run_entries(entries);
  REQUIRE(r.size() == cases.size() + 2);
  for (size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(cases[i].second);
    const std::string why = r[i]["skipped"];
    CHECK_MESSAGE(contains(why, cases[i].second), why);
    CHECK(r[i]["prediction"] == "");
  }
  CHECK(contains(r[cases.size()]["skipped"], "box 1 lies on a slide"));
  CHECK(r.back()["skipped"] == "");

  // Faults of an item that only the session sees; the next item is answered.
  const std::vector<Json> capped = run_entries({entry("<image>Q", "R", {image}), entry(std::string(3000, 'z') + "?", "R"), entry("Q", "R")}, {"--max-pixels", "100", "--context", "64"});
  CHECK(contains(capped[0]["skipped"], "grey.png"));
  CHECK(contains(capped[1]["skipped"], "the context 64"));
  CHECK(capped[2]["skipped"] == "");
}

TEST_CASE("bench: boxes against Python") {
  TempDir folder;
  REQUIRE(breastgpt(command(golden_path("bench/boxes.jsonl"), folder.file("out"), {"--max-tokens", "1"})).code == 0);
  const std::vector<Json> r = records(folder.file("out"));
  std::istringstream in(read_file(golden_path("bench/boxes-expected.jsonl")));
  size_t at = 0, flat = 0, deep = 0;
  for (std::string line; std::getline(in, line); ++at) {
    const Json expected = Json::parse(line);
    REQUIRE(at < r.size());
    CAPTURE(at);
    CHECK(r[at]["skipped"] == "");
    CHECK(r[at]["question"] == expected["question"]);
    CHECK(r[at]["reference"] == expected["reference"]);
    CHECK(r[at]["reference_boxes"] == expected["boxes"]);
    for (const Json& box : expected["boxes"]) ++(box["box"].size() == 4 ? flat : deep);
  }
  CHECK(at == r.size());
  CHECK(flat > 30);
  CHECK(deep > 10);
}

TEST_CASE("bench: labels and options of entries without meta") {
  struct Case {
    std::string question, answer, task;
    std::vector<std::string> options;
    int right = -1;
  };
  const std::vector<Case> cases = {
      {"Which? A. oval B. round C. irregular", "C", "closed_vqa", {"A", "B", "C"}, 2},
      {"Which?\nA. oval shape,\nB. round\nAnswer with the letter.", "B", "closed_vqa", {"A", "B"}, 1},
      {"Which? (A) oval (B) round", "round", "closed_vqa", {"oval", "round"}, 1},
      {"Which? A) oval; B) round", "A) oval", "closed_vqa", {"A) oval", "B) round"}, 0},
      {"Which? A: oval B: round", "round ", "closed_vqa", {"oval", "round"}, 1},
      {"Which? A. oval B. round", "irregular", "unknown", {}},
      {"Which? A. same B. same", "same", "unknown", {}},
      {"Vitamin A. What else?", "A", "unknown", {}},
      {"Is there a mass?", "No.", "closed_vqa", {"Yes.", "No."}, 1},
      {"Is there a mass?", "no", "closed_vqa", {"yes", "no"}, 1},
      {"Is there a mass?", "YES", "closed_vqa", {"YES", "NO"}, 0},
      {"Is there a mass?", "no mass", "unknown", {}},
  };
  std::vector<Json> entries;
  for (const Case& c : cases) entries.push_back(entry(c.question, c.answer));
  Json boxes = entry("Where?", "<ref-object><bbox> and <ref-object><bbox>.", {"tiny-images/grey.png"});
  boxes["objects"] = {{"ref", {"a", "b"}}, {"bbox", {{0, 0, 1, 1}, {0, 0, 1, 1}}}, {"bbox_type", "norm1"}};
  entries.push_back(boxes);
  boxes["messages"][1]["content"] = "A mass: <ref-object><bbox> and <ref-object><bbox>.";
  entries.push_back(boxes);
  Json meta = entry("Is there a mass?", "Yes");
  meta["meta"] = {{"id", "case/1"}, {"stage", "screening"}, {"modality", "ultrasound"}, {"task", "open_vqa"}, {"template", "us.mass"}, {"vendor", "A"}, {"density", "b"}};
  entries.push_back(meta);
  meta["meta"] = {{"options", {"yes", "no"}}};
  entries.push_back(meta);
  const std::vector<Json> r = run_entries(entries, {"--stage", "treatment", "--modality", "mri", "--max-tokens", "1"});
  for (size_t i = 0; i < cases.size(); ++i) {
    CAPTURE(i);
    CHECK(r[i]["task"] == cases[i].task);
    CHECK(r[i]["options"] == Json(cases[i].options));
    CHECK(r[i]["reference_option"] == cases[i].right);
    CHECK(r[i]["stage"] == "treatment");
    CHECK(r[i]["modality"] == "mri");
  }
  const size_t n = cases.size();
  CHECK(r[n]["task"] == "grounding");
  CHECK(r[n + 1]["task"] == "unknown");
  const std::map<std::string, std::string> given = {{"id", "case/1"}, {"stage", "screening"}, {"modality", "ultrasound"}, {"task", "open_vqa"}, {"template", "us.mass"}, {"vendor", "A"}, {"density", "b"}};
  for (const auto& [key, value] : given) CHECK(r[n + 2][key] == value);
  CHECK(r[n + 2]["options"].empty());  // an open question has none
  CHECK(r[n + 3]["task"] == "closed_vqa");
  CHECK(r[n + 3]["reference_option"] == 0);
  CHECK(run_entries({entry("Q", "R")}, {"--task", "report"})[0]["task"] == "report");
}

TEST_CASE("bench: system texts") {
  TempDir folder;
  Json with = entry("Finding?", "R"), without = with;
  with["meta"] = {{"stage", "screening"}};
  with["messages"].insert(with["messages"].begin(), Json{{"role", "system"}, {"content", "Of the data."}});
  write_file(folder.file("screening.txt"), "You screen.\n");
  const auto said = [&](const std::string& system) {
    std::vector<std::string> ask = {"ask", "-m", model(), "--max-tokens", "6", "Finding?"};
    if (!system.empty()) ask.insert(ask.end(), {"--system", system});
    const std::string out = breastgpt(ask).out;
    REQUIRE(!out.empty());
    return out.substr(0, out.size() - 1);
  };
  const auto answers = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = {"--max-tokens", "6"};
    all.insert(all.end(), more.begin(), more.end());
    std::vector<std::string> out;
    for (const Json& record : run_entries({with, without}, all)) out.push_back(record["prediction"]);
    return out;
  };
  CHECK(said("") != said("You screen."));
  CHECK(answers({}) == std::vector<std::string>{said("Of the data."), said("")});
  CHECK(answers({"--system", "You screen."}) == std::vector<std::string>{said("You screen."), said("You screen.")});
  CHECK(answers({"--roles", folder.path.string()}) == std::vector<std::string>{said("You screen."), said("")});
  write_file(folder.file("d.jsonl"), lines_of({with}));
  fs::remove(folder.path / "screening.txt");
  cli_fails(command(folder.file("d.jsonl"), folder.file("out"), {"--roles", folder.path.string()}), 1, "screening.txt: expected the role text of stage screening");
}
