// breastgpt-stage as a hospital's engineer runs it: what it writes, equal to the independent renderer (tests/oracle/stage.py), and what it refuses.
// Needs BG_BUILD (make sets it).
#include <doctest/doctest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "tests/cli.h"
#include "tests/support.h"

namespace {

using Json = nlohmann::json;

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream in(line);
  return {std::istream_iterator<std::string>(in), {}};
}

std::vector<std::string> lines_of(const std::string& path) {
  std::istringstream in(read_file(path));
  std::vector<std::string> out;
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

std::vector<Json> items_of(const std::string& path) {
  std::vector<Json> out;
  for (const std::string& line : lines_of(path)) out.push_back(Json::parse(line));
  return out;
}

const char* const kHeader = "case,modality,image,volume,slide,vendor,density,mass,shape,mass_box,birads\n";
const char* const kRow = "u1,ultrasound,a.png,,,A,,yes,oval,40 30 80 70,2\n";
const char* const kTemplate =
    R"({"id":"us.shape","stage":"screening","modality":"ultrasound","task":"closed_vqa","media":["image"],"ask":["What shape?"],)"
    R"("options":["oval","round"],"answer":"{shape}"})";

// A table, templates and an output in a folder of their own. `templates` is what stands in the list; `words` the maps.
struct Case {
  TempDir dir;
  std::string csv, json, out;

  Case(const std::string& table, const std::string& templates, const std::string& words = "{}")
      : csv(dir.file("f.csv")), json(dir.file("t.json")), out(dir.file("out.jsonl")) {
    write_file(csv, table);
    write_file(json, "{\"words\":" + words + ",\"templates\":[" + templates + "]}");
  }

  CliResult build(std::vector<std::string> more = {}) const {
    std::vector<std::string> args = {"build", csv, json, "-o", out};
    args.insert(args.end(), more.begin(), more.end());
    return program("breastgpt-stage", args);
  }

  std::vector<Json> items(std::vector<std::string> more = {}) const {
    const CliResult r = build(std::move(more));
    CHECK_MESSAGE(r.code == 0, r.err);
    return r.code == 0 ? items_of(out) : std::vector<Json>(100);
  }

  // build and check agree: the same message, nothing written.
  void fails(const std::vector<std::string>& parts) const {
    for (const CliResult& r : {build(), program("breastgpt-stage", {"check", json, csv})}) {
      CHECK(r.code == 1);
      CHECK(r.out.empty());
      for (const std::string& part : parts) CHECK_MESSAGE(contains(r.err, part), (part + " is not in " + r.err));
    }
    CHECK(std::distance(std::filesystem::directory_iterator(dir.path), {}) == 2);
  }
};

std::string repeated(const std::string& text, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += text;
  return out;
}

std::string changed(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("stage: the same as the independent renderer") {
  const std::vector<std::string> commands = lines_of(golden_path("stage/commands.txt"));
  REQUIRE(commands.size() >= 4);
  for (const std::string& command : commands) {
    CAPTURE(command);
    const TempDir dir;
    const std::vector<std::string> words = words_of(command);
    std::vector<std::string> args = {"build", golden_path("stage/findings.csv"), "-o", dir.file("out.jsonl")};
    args.insert(args.end(), words.begin() + 1, words.end());
    const CliResult r = program("breastgpt-stage", args);
    REQUIRE_MESSAGE(r.code == 0, r.err);
    const std::vector<Json> ours = items_of(dir.file("out.jsonl")), theirs = items_of(golden_path("stage/" + words[0]));
    CHECK(ours.size() == theirs.size());
    for (size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
      CAPTURE(i);
      CHECK_MESSAGE(ours[i] == theirs[i], ours[i].dump());
    }
    CHECK(contains(r.out, "items:                      " + std::to_string(theirs.size()) + "\n"));
  }
}

TEST_CASE("stage: our own templates are in order") {
  const CliResult r = program("breastgpt-stage", {"check", "tools/templates", "--roles", "tools/templates/roles"});
  CHECK_MESSAGE(r.code == 0, r.err);
  CHECK(contains(r.out, "nothing wrong in "));
  CHECK(std::stoi(r.out.substr(17)) >= 136);
}

TEST_CASE("stage: one item, byte for byte") {
  const Case c(std::string(kHeader) + kRow, kTemplate);
  write_file(c.dir.file("screening.txt"), "\n You look.\r\n");
  CHECK(c.build({"--roles", c.dir.path.string(), "--root", "data/"}).code == 0);
  CHECK(read_file(c.out) ==
        R"({"messages":[{"role":"system","content":"You look."},{"role":"user","content":"<image>What shape?"},{"role":"assistant","content":"oval"}],)"
        R"("images":["data/a.png"],"videos":[],"meta":{"id":"u1/us.shape","case":"u1","template":"us.shape","stage":"screening","modality":"ultrasound","task":"closed_vqa",)"
        R"("options":["oval","round"],"vendor":"A"}})"
        "\n");
}

TEST_CASE("stage: media and boxes") {
  const std::string t = R"({"id":"x","stage":"treatment","modality":"mri","task":"grounded_caption","media":["volume","image","slide"],"ask":["See {box:mass_box}."],)"
                        R"("ref":{"mass_box":"mass"},"answer":["A {shape} mass",{"when":{"birads":["5"]},"text":", {vendor}"},)"
                        R"({"when":{"birads":["*"]},"text":" {box:mass_box} {{1}}"}]})";
  const Case c(std::string(kHeader) + "m1,mri,a.png; b.png,v.nii;w.nii,s.h5,,d,yes,oval,1 2.5 -3 4e1  5 6,4\n", t);
  const std::vector<Json> items = c.items();
  REQUIRE(items.size() == 1);
  CHECK(items[0]["messages"][0] == Json({{"role", "user"}, {"content", "<video><video><image><image><image>See <ref-object><bbox>."}}));
  CHECK(items[0]["messages"][1]["content"] == "A oval mass <ref-object><bbox> {1}");
  CHECK(items[0]["images"] == Json({"a.png", "b.png", "s.h5"}));
  CHECK(items[0]["videos"] == Json({"v.nii", "w.nii"}));
  const Json objects = Json::parse(R"({"ref":["mass","mass"],"bbox":[[1,2.5,-3,40,5,6],[1,2.5,-3,40,5,6]],"bbox_type":"real","image_id":[3,3]})");
  CHECK(items[0]["objects"] == objects);
  CHECK(items[0]["objects"]["bbox"][0][0].is_number_integer());
  CHECK(items[0]["meta"]["density"] == "d");
  CHECK(!items[0]["meta"].contains("vendor"));
  CHECK(!items[0]["meta"].contains("options"));
}

TEST_CASE("stage: which rows a template takes") {
  std::string table = kHeader;
  table += "a,ultrasound,a.png,,,,,yes,oval,,1\n";    // all there
  table += "b,ultrasound,,,,,,yes,oval,,1\n";         // no picture
  table += "c,ultrasound,c.png,,,,,yes,,,1\n";        // the answer's column empty
  table += "d,ultrasound,d.png,,,,,no,oval,,1\n";     // "when" does not hold
  table += "e,Ultrasound,e.png,,,,,yes,oval,,1\n";    // another modality
  table += "f,ultrasound,f.png,,,,,yes,round,,\n";    // the empty column is only in a part that is left out
  table += "g,ultrasound,g.png,,,,,yes,round,,2\n";
  const std::string t = R"({"id":"x","stage":"screening","modality":"ultrasound","task":"open_vqa","media":["image"],"when":{"mass":["maybe","yes"]},"ask":["?"],)"
                        R"("answer":["{shape}",{"when":{"shape":["oval"]},"text":" {birads}"},{"when":{"birads":["2",""]},"text":" two"}]})";
  const std::string never = changed(changed(t, "\"x\"", "\"never\""), "\"maybe\",\"yes\"", "\"Yes\""), none = changed(changed(t, "\"x\"", "\"no.part\""), "\"{shape}\",", "");
  const Case c(table, t + "," + never + "," + none);
  std::vector<std::string> seen;
  for (const Json& item : c.items()) seen.push_back(item["meta"]["id"].get<std::string>() + "=" + item["messages"][1]["content"].get<std::string>());
  CHECK(seen == std::vector<std::string>{"a/x=oval 1", "a/no.part= 1", "f/x=round two", "f/no.part= two", "g/x=round two", "g/no.part= two"});
  const std::string out = c.build().out;
  for (const char* line : {"cases:                      7 in ", "items:                      6\n", "  by stage:                 screening 6\n",
                           "  by modality:              ultrasound 6\n",
                           "  by task:                  open_vqa 6\n", "rows skipped, column empty: image 1, shape 1\n",
                           "rows without an item:       Ultrasound 1, ultrasound 3\n",
                           "templates without an item:  1: \"never\"\n"})
    CHECK_MESSAGE(contains(out, line), out);
  CHECK(program("breastgpt-stage", {"check", c.csv, c.json}).out == out);
}

TEST_CASE("stage: seed, --per-template and filters") {
  std::string table = kHeader;
  for (int i = 0; i < 60; ++i) table += "u" + std::to_string(i) + ",ultrasound,a.png,,,A,,yes,oval,40 30 80 70,2\n";
  const std::string asked = changed(kTemplate, "\"What shape?\"", "\"A\",\"B\",\"C\"");
  const std::string caption = R"({"id":"us.caption","stage":"diagnosis","modality":"ultrasound","task":"caption","media":["image"],"ask":["Describe."],"answer":"{shape}"})";
  const Case c(table, asked + "," + caption);
  const std::vector<Json> all = c.items();
  REQUIRE(all.size() == 120);
  std::map<std::string, int> wordings;
  for (const Json& item : all) ++wordings[item["messages"][0]["content"].get<std::string>()];
  CHECK(wordings.size() == 4);
  for (const auto& [wording, n] : wordings) CHECK(n >= 10);
  CHECK(c.items({"--seed", "0"}) == all);
  CHECK(c.items({"--seed", "1"}) != all);

  const std::vector<Json> few = c.items({"--per-template", "7"}), fewer = c.items({"--per-template", "5"});
  CHECK(few.size() == 14);
  CHECK(fewer.size() == 10);
  CHECK(std::includes(all.begin(), all.end(), few.begin(), few.end(), [&](const Json& a, const Json& b) {  // in the order of all
    return std::find(all.begin(), all.end(), a) < std::find(all.begin(), all.end(), b);
  }));
  for (const Json& item : fewer) CHECK(std::find(few.begin(), few.end(), item) != few.end());
  CHECK(c.items({"--per-template", "1000"}) == all);
  CHECK(c.items({"--stage", "diagnosis"}).size() == 60);
  CHECK(c.items({"--task", "closed_vqa", "--modality", "ultrasound"}).size() == 60);
}

TEST_CASE("stage: the ways a spreadsheet writes a table") {
  const std::string t = R"({"id":"x","stage":"screening","modality":"ct","task":"open_vqa","media":["image"],"ask":["?"],"answer":"{note} {mass_box}"})";
  const std::string head = "case,modality,image,note,mass_box\n", rows = "1,ct,\"a,1.png;b.png\",\"say \"\"hi\"\",\nthen é\",1 2\n\n2,ct,b.png,plain; text,\"\"\"\"\n";
  const std::vector<Json> items = Case(head + rows, t).items();
  REQUIRE(items.size() == 2);
  CHECK(items[0]["messages"][1]["content"] == "say \"hi\",\nthen é 1 2");
  CHECK(items[0]["images"] == Json({"a,1.png", "b.png"}));
  CHECK(items[1]["messages"][1]["content"] == "plain; text \"");
  CHECK(Case("\xEF\xBB\xBF" + head + rows, t).items() == items);
  CHECK(Case(head + rows.substr(0, rows.size() - 1), t).items() == items);
  std::string crlf;
  for (const char ch : head + "1,ct,\"a,1.png;b.png\",\"say \"\"hi\"\",") crlf += ch == '\n' ? std::string("\r\n") : std::string(1, ch);
  CHECK(Case(crlf + "\nthen é\",1 2\r\n\r\n2,ct,b.png,plain; text,\"\"\"\"\r\n", t).items() == items);
  for (const char separator : {';', '\t'}) {
    std::string text = "case|modality|\"image\"|note|mass_box\n1|ct|\"a,1.png;b.png\"|\"say \"\"hi\"\",\nthen é\"|1 2\n2|ct|b.png|\"plain; text\"|\"\"\"\"\n";
    std::replace(text.begin(), text.end(), '|', separator);
    CHECK(Case(text, t).items() == items);
  }
}

TEST_CASE("stage: --skip-missing leaves out the templates whose columns the table lacks") {
  const std::string other =
      R"({"id":"us.echo","stage":"screening","modality":"ultrasound","task":"open_vqa","media":["image"],"ask":["What echo?"],"answer":"{echo_pattern}"})";
  const Case c(std::string(kHeader) + kRow, std::string(kTemplate) + "," + other);
  CHECK(c.build().code == 1);
  const CliResult r = c.build({"--skip-missing"});
  CHECK_MESSAGE(r.code == 0, r.err);
  CHECK(contains(r.out, "templates left out:         1: \"us.echo\""));
  CHECK(items_of(c.out).size() == 1);
}

TEST_CASE("stage: what is wrong with a table") {
  struct Wrong {
    std::string table;
    std::vector<std::string> parts;
  };
  const std::string head = kHeader, row = kRow;
  const std::vector<Wrong> all = {
      {"", {"f.csv: is empty; expected a header row"}},
      {"\n\r\n", {"f.csv: is empty"}},
      {head, {"f.csv: has a header and no rows"}},
      {"case|modality|image\nu1|ultrasound|a\n",
       {"f.csv: line 1: the header has no column \"case\"; nearest: \"case|modality|image\" ", "(one column in all: fields are separated by commas, semicolons or tabs)"}},
      {changed(head, "modality", "Modality") + row, {"line 1: the header has no column \"modality\"; nearest: \"Modality\", "}},
      {changed(head, "vendor", "mass") + row, {"line 1: the header has the column \"mass\" twice"}},
      {changed(head, "vendor", "") + row, {"line 1: column 6 of the header has no name; name it or delete it"}},
      {head + row + changed(row, "u1,", "u2,x,"), {"f.csv: line 3: 12 fields, the header has 11; a field with a separator"}},
      {head + row + "\n" + row, {"f.csv: line 4: case \"u1\" was already on line 2; one row is one case"}},
      {head + changed(row, "u1", ""), {"line 2: column \"case\" is empty"}},
      {head + changed(row, "u1", "\"u\n1\""), {"line 2: column \"case\" has a line end or another control character"}},
      {head + changed(row, "ultrasound", ""), {"line 2: column \"modality\" is empty; write for example ultrasound"}},
      {head + row + "u2,ultrasound,\"a.png\n\n" + row, {"f.csv: line 3: the quote that opens here is never closed"}},
      {head + row + changed(row, "a.png", "\"a\"\"\nb\"c"), {"f.csv: line 4: text after a closing quote (the field opened on line 3)"}},
      {head + changed(row, "a.png", "a \"1\".png"), {"line 2: a quote inside a field that does not begin with one"}},
      {head + changed(row, ",A,", ",A\r,"), {"line 2: a carriage return without a line feed"}},
      {head + row + changed(row, "oval", "\xFC" "ber"), {"f.csv: line 3: is not UTF-8; save the file as UTF-8"}},
      {head + changed(row, "oval", "\xED\xA0\x80"), {"line 2: is not UTF-8"}},
      {head + changed(row, "oval", "\xC0\xAF"), {"line 2: is not UTF-8"}},
      {head + changed(row, "oval", "\xF4\x90\x80\x80"), {"line 2: is not UTF-8"}},
      {head + row + "u2\xE2\x82", {"line 3: is not UTF-8"}},
      {head + changed(row, "oval", std::string(1, '\0')), {"f.csv: contains zero bytes: UTF-16, or no text at all"}},
      {head + changed(row, "oval", std::string(70'000, 'x')), {"line 2: a field of 70000 bytes; at most 65536"}},
      {head + changed(row, "oval", "\"" + std::string(70'000, '\n') + "\""),
       {"line 2: the quoted field that opens here is longer than 65536 bytes; is its closing quote missing?"}},
      {head + "u1" + std::string(1000, ',') + "\n", {"line 2: more than 1000 fields"}},
      {head + "u1,ultrasound\n" + changed(row, "u1", "") + row, {"line 2: 2 fields", "line 3: column \"case\" is empty"}},  // both are told
  };
  for (const Wrong& w : all) Case(w.table, kTemplate).fails(w.parts);
}

TEST_CASE("stage: what is wrong with a template") {
  struct Wrong {
    std::string from, to;
    std::vector<std::string> parts;
  };
  const std::string text = "\"answer\":\"{shape}\"";
  const auto answer = [&](const std::string& a) { return "\"answer\":" + a; };
  const std::vector<Wrong> all = {
      {"\"answer\"", "\"anwser\"", {"t.json: template us.shape: unknown key \"anwser\"; known: \"id\", \"stage\""}},
      {"\"answer\":", "\"options\":", {"JSON key \"options\" appears twice in one object"}},
      {"\"id\":\"us.shape\",", "", {"t.json: template 1: \"id\" is missing or no text"}},
      {"\"us.shape\"", "\"us/shape\"", {"template 1: id \"us/shape\": expected 1 to 100 letters, digits, dots, hyphens and underscores"}},
      {"\"us.shape\"", "\"" + std::string(101, 'x') + "\"", {"template 1: id "}},
      {"\"screening\"", "\"screning\"", {"template us.shape: \"stage\": \"screning\" is none of \"screening\", \"diagnosis\", \"treatment\""}},
      {"\"closed_vqa\"", "\"vqa\"", {"\"task\": \"vqa\" is none of \"closed_vqa\", \"open_vqa\", \"grounding\", \"grounded_caption\", \"caption\", \"report\""}},
      {"\"closed_vqa\"", "7", {"\"task\": expected a text in quotes"}},
      {"\"closed_vqa\"", "\"open_vqa\"", {"\"options\" belong to task closed_vqa; this one is open_vqa"}},
      {"\"options\":[\"oval\",\"round\"],", "", {"\"options\" is missing"}},
      {"[\"oval\",\"round\"]", "[\"oval\"]", {"\"options\": expected at least two"}},
      {"[\"oval\",\"round\"]", "[\"oval\",\"oval\"]", {"\"options\": has \"oval\" twice"}},
      {"\"ultrasound\"", "\"ultra sound\"", {"\"modality\": expected one word"}},
      {"\"ultrasound\"", "\"\"", {"\"modality\": is empty"}},
      {"\"media\":[\"image\"],", "", {"\"media\" is missing"}},
      {"[\"image\"]", "[\"picture\"]", {"\"media\": \"picture\" is none of \"image\", \"slide\", \"volume\""}},
      {"[\"image\"]", "[]", {"\"media\": expected a list of texts that is not empty"}},
      {"[\"What shape?\"]", "\"What shape?\"", {"\"ask\": expected a list of texts"}},
      {"What shape?", "<image>What?", {"\"ask\": contains <image>; media come from \"media\""}},
      {"What shape?", std::string(20'000, 'x'), {"\"ask\": 20000 bytes; at most 16384"}},
      {"\"What shape?\"", "\"x\"" + repeated(",\"x\"", 1000), {"\"ask\": 1001 entries; at most 1000"}},
      {"{shape}", "{shape", {"\"answer\": { at byte 1 is not closed; a brace in the text is written {{"}},
      {"{shape}", "{sh{ape}", {"\"answer\": { at byte 1 is not closed"}},
      {"{shape}", "a}b", {"\"answer\": } at byte 2 closes nothing; a brace in the text is written }}"}},
      {"{shape}", "{}", {"placeholder \"{}\" names no column"}},
      {"{shape}", "{box:}", {"placeholder \"{box:}\" names no column"}},
      {"{shape}", "{shape|asses}", {"placeholder \"{shape|asses}\" uses a map that is not in \"words\" of this file; nearest: \"assess\""}},
      {"{shape}", "{box:mass_box}", {"placeholder \"{box:mass_box}\" has no name: add \"ref\": {\"mass_box\": "}},
      {text, answer("[]"), {"\"answer\": expected a text or a list of parts"}},
      {text, answer("\"\""), {"\"answer\": is empty"}},
      {text, answer("[{\"text\":\"a\"}]"), {"\"answer\": a part is a text or {\"when\": {...}, \"text\": \"...\"}"}},
      {text, answer("[{\"text\":\"a\",\"when\":{},\"else\":1}]"), {"\"answer\": unknown key \"else\"; known: \"when\", \"text\""}},
      {text, answer("[{\"text\":\"a\",\"when\":[]}]"), {"\"answer\": \"when\": expected an object from columns to lists of values"}},
      {"\"ask\"", "\"when\":{\"mass\":\"yes\"},\"ask\"", {"\"when\": \"mass\": expected a list of texts"}},
      {"\"ask\"", "\"ref\":[],\"ask\"", {"\"ref\": expected an object"}},
      {"{shape}", "{shap}",
       {"t.json: template us.shape: column \"shap\" is not in ", "f.csv; nearest: \"shape\", \"case\", ", "leave such templates out with --skip-missing"}},
      {"\"ask\"", "\"when\":{\"Mass\":[\"yes\"]},\"ask\"", {"column \"Mass\" is not in ", "nearest: \"mass\""}},
  };
  for (const Wrong& w : all) {
    CAPTURE(w.to);
    Case(std::string(kHeader) + kRow, changed(kTemplate, w.from, w.to), R"({"assess":{"1":"negative"}})").fails(w.parts);
  }
  const std::string good = std::string(kHeader) + kRow;
  Case(good, std::string(kTemplate) + "," + kTemplate).fails({"t.json: template us.shape: this id is taken in this file; every template needs its own"});
  Case(good, "").fails({"t.json: \"templates\" must be a list with at least one template"});
  Case(good, "7").fails({"t.json: template 1: expected an object"});
  Case(good, kTemplate, "[]").fails({"t.json: \"words\": expected an object of maps"});
  Case(good, kTemplate, "{\"a\":{\"1\":2}}").fails({"\"words\": \"a\": \"1\": expected a text in quotes"});
  Case(good, std::string(kTemplate) + ",\n\n{\"id\" \"x\"}").fails({"t.json: line 3: is not valid JSON from here"});
  Case(good, "1e999").fails({"t.json: is not valid JSON: a number is out of range"});
  Case(good, "\"\xFF\"").fails({"t.json: line 1: is not UTF-8"});
  Case(good, std::string(100'000, '[')).fails({"t.json: line 1: is not valid JSON"});
  Case(good, std::string(100, '[') + std::string(100, ']')).fails({"JSON nested deeper than 64"});
  // What is wrong with several templates is told at once, up to a number.
  std::string many = changed(kTemplate, "{shape}", "{") + "," + changed(changed(kTemplate, "us.shape", "b"), "screening", "x");
  Case(good, many).fails({"template us.shape: \"answer\"", "template b: \"stage\""});
  for (int i = 0; i < 50; ++i) many += ",0";
  Case(good, many).fails({"template 20: expected an object", "stopped after 20 problems"});
}

TEST_CASE("stage: what is wrong where a row meets a template") {
  const std::string t = R"({"id":"x","stage":"screening","modality":"ultrasound","task":"open_vqa","media":["image"],"ref":{"mass_box":"mass"},)"
                        R"("ask":["?"],"answer":"A {box:mass_box} {birads|assess}"})";
  const std::string words = R"({"assess":{"1":"negative","2":"benign"}})";
  const auto fails = [&](const std::string& from, const std::string& to, const std::vector<std::string>& parts) {
    Case(std::string(kHeader) + changed(kRow, from, to), t, words).fails(parts);
  };
  const std::string box = "40 30 80 70";
  fails("70,2", "70,7", {"f.csv: line 2: case \"u1\", ", "t.json: template x: column \"birads\" has a value that is not in \"words\": \"assess\", which has \"1\", \"2\""});
  fails(box, "40 30 40 70", {"line 2: case \"u1\", ", "template x: column \"mass_box\": x1 of the box is not below x2"});
  fails(box, "40 70 80 30", {"y1 of the box is not below y2"});
  fails(box, "40 30 80", {"a box of 3 numbers; expected \"x1 y1 x2 y2\" or \"x1 y1 z1 x2 y2 z2\""});
  fails(box, "1 2 3 4 5 6 7 8", {"a box of more than 6 numbers"});
  fails(box, "1 2 3 4 5 6", {"a box of 6 numbers, but \"image\" has no depth"});
  for (const char* bad : {"nan", "inf", "x", "0x10", "1e999", "2e9", "1;"}) fails("80", bad, {"number 3 of the box is no finite number up to 1e9"});
  fails("a.png", "a.png;;b.png", {"column \"image\" has an empty path; expected paths with ; between"});
  fails("a.png", "a.png; ", {"column \"image\" has an empty path"});
  fails("a.png", "a" + repeated(";a", 64), {"column \"image\" has more than 64 paths"});

  const Case marker(std::string(kHeader) + changed(kRow, "oval", "a<image>b"), kTemplate);
  marker.fails({"template us.shape: column \"shape\" contains <image>, which would be taken for a medium or a box"});
  const Case option(std::string(kHeader) + changed(kRow, "oval", "Oval"), kTemplate);
  option.fails({"f.csv: line 2: case \"u1\", ",
                "template us.shape: the answer is not one of the \"options\" \"oval\", \"round\"; correct the row, add the option, or narrow \"when\""});
  CHECK(!contains(option.build().err, "Oval"));  // no value of the table in a message
  Case(std::string(kHeader) + kRow, changed(t, "A {box:mass_box} ", ""), R"({"assess":{"2":""}})").fails({"template x: the answer is empty"});
  Case(std::string(kHeader) + changed(kRow, "oval", std::string(60'000, 'x')),
       changed(t, "A {box:mass_box}", repeated("{shape}", 20)), words).fails({"the text is longer than 1048576 bytes"});
  // A wording that the seed does not take is checked as well.
  const std::string second = changed(kTemplate, "\"What shape?\"", "\"What shape?\",\"{birads|one}?\"");
  for (const char* seed : {"0", "1", "2", "3"}) CHECK(Case(std::string(kHeader) + kRow, second, R"({"one":{"1":"1"}})").build({"--seed", seed}).code == 1);
}

TEST_CASE("stage: command lines, files") {
  const auto run = [](const std::vector<std::string>& args) { return program("breastgpt-stage", args); };
  const auto fails = [&](const std::vector<std::string>& args, int code, const std::string& message) {
    const CliResult r = run(args);
    CHECK(r.code == code);
    CHECK_MESSAGE(contains(r.err, message), (message + " is not in " + r.err));
    CHECK(r.out.empty());
  };
  for (const char* command : {"build", "check"}) {
    const CliResult help = run({command, "--help"});
    CHECK(help.code == 0);
    CHECK(contains(help.out, std::string("usage: breastgpt-stage ") + command + " "));
    CHECK(contains(help.out, "--per-template") == (std::string(command) == "build"));
  }
  CHECK(contains(run({"--help"}).out, "usage: breastgpt-stage build findings.csv TEMPLATES... -o bench.jsonl"));
  CHECK(run({}).code == 2);
  fails({"make"}, 2, "breastgpt-stage: unknown command \"make\"");
  fails({"build", "--sed", "1"}, 2, "breastgpt-stage build: unknown option --sed; see breastgpt-stage build --help");
  const Case c(std::string(kHeader) + kRow, kTemplate);
  const auto file = [&](const char* name) { return c.dir.file(name); };
  fails({"build", c.csv, "-o", c.out}, 2, "expected findings.csv and at least one template file or folder");
  fails({"build", c.csv, c.json}, 2, "--output is missing");
  fails({"build", c.json, c.csv, "-o", c.out}, 2, "t.json: expected the table first, then the templates");
  fails({"check", c.csv}, 2, "expected template files or folders and at most one table");
  fails({"check", c.json, c.csv, c.csv}, 2, "at most one table");
  fails({"build", c.csv, c.json, "-o", c.out, "--per-template", "0"}, 2, "--per-template 0: expected a whole number from 1");
  fails({"build", c.csv, c.json, "-o", c.out, "--seed", "-1"}, 2, "--seed -1");
  fails({"build", c.csv, c.json, "-o", c.out, "--stage", "cure"}, 2, "--stage cure: expected one of \"screening\", \"diagnosis\", \"treatment\"");
  fails({"build", c.csv, c.json, "-o", c.out, "--task", "vqa"}, 2, "--task vqa: expected one of \"closed_vqa\"");
  fails({"build", c.csv, c.json, "-o", c.out, "--modality", "ct"}, 1, "no template is left by --stage, --task and --modality; the modalities are \"ultrasound\"");
  fails({"build", c.csv, c.json, "-o", c.out, "--root", "\xFF"}, 2, "--root: is not UTF-8");
  fails({"build", c.csv, c.json, "-o", file("no/out.jsonl")}, 1, "cannot be created");
  fails({"build", c.csv, c.json, "-o", c.dir.path.string() + "/./f.csv"}, 2, "f.csv: is an input; give another name");
  fails({"build", file("absent.csv"), c.json, "-o", c.out}, 1, "absent.csv: there is no such file");
  fails({"build", c.csv, file("absent.json"), "-o", c.out}, 1, "absent.json: there is no such file");
  fails({"build", "/dev/null", c.json, "-o", c.out}, 1, "/dev/null: is not a regular file");
  fails({"build", c.csv, c.json, "-o", c.out, "--roles", c.dir.path.string()}, 1, "screening.txt: there is no such file");
  write_file(file("screening.txt"), " \n");
  fails({"build", c.csv, c.json, "-o", c.out, "--roles", c.dir.path.string()}, 1, "screening.txt: is empty; expected the system message of the stage");
  write_file(file("screening.txt"), "<bbox>");
  fails({"build", c.csv, c.json, "-o", c.out, "--roles", c.dir.path.string()}, 1, "screening.txt: contains <bbox>");
  std::filesystem::create_directory(file("empty"));
  fails({"check", file("empty")}, 1, "empty: has no .json file");
  write_file(file("empty/a.json"), read_file(c.json));
  fails({"check", c.json, file("empty")}, 1, "a.json: template us.shape: this id is taken in " + c.json);
  write_file(file("rooted.csv"), std::string(kHeader) + changed(kRow, "a.png", "/a.png"));
  fails({"build", file("rooted.csv"), c.json, "-o", c.out, "--root", "d"}, 1, "column \"image\" has a path that begins with /; leave --root out");
  CHECK(run({"build", file("rooted.csv"), c.json, "-o", c.out}).code == 0);
  // A run that fails leaves an earlier result alone.
  const std::string before = read_file(c.out);
  write_file(file("other.csv"), std::string(kHeader) + changed(kRow, "ultrasound", "Ultrasound"));
  fails({"build", file("other.csv"), c.json, "-o", c.out}, 1, "other.csv: no template applies to any row; breastgpt-stage check tells why; nothing was written");
  CHECK(read_file(c.out) == before);
  // A hospital without some modality may have none of its columns.
  CHECK(run({"build", c.csv, c.json, "tools/templates/treatment-mri.json", "-o", c.out}).code == 0);
}

TEST_CASE("stage: damaged bytes end in a message, not in a signal") {
  const TempDir dir;
  const std::string csv = read_file(golden_path("stage/findings.csv")), json = read_file(golden_path("stage/extra.json"));
  std::mt19937 random(4);
  for (int i = 0; i < 150; ++i) {
    std::string table = csv, templates = json, &text = i % 2 ? table : templates;
    for (int n = 0; n < 3; ++n) {
      const size_t at = random() % text.size();
      if (random() % 4 == 0) text.resize(at + 1);
      text[at] = random() % 2 ? "\"{}[],;\n\r:|<0"[random() % 13] : char(random());
    }
    write_file(dir.file("f.csv"), table);
    write_file(dir.file("t.json"), templates);
    const CliResult r = program("breastgpt-stage", {"build", dir.file("f.csv"), dir.file("t.json"), "-o", dir.file("out")});
    CHECK_MESSAGE((r.code == 0 || (r.code == 1 && !r.err.empty())), (std::to_string(r.code) + " " + r.err));
  }
}
