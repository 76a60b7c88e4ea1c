// The programs as a user runs them: exit codes, messages, JSON, traces, compare. Needs BG_BUILD (make sets it).
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/cli.h"
#include "tests/support.h"
#include "tests/tiny.h"

using Json = nlohmann::json;

namespace {

void fails(const std::vector<std::string>& args, int code, const std::string& message) { cli_fails(args, code, message); }

const std::string kDemo = "images/demo.jpg";

}  // namespace

TEST_CASE("cli: help is complete and every command has it") {
  const CliResult top = breastgpt({"--help"});
  CHECK(top.code == 0);
  for (const char* command : {"ask", "plan", "info", "verify", "features", "bench", "compare"}) {
    CHECK(contains(top.out, command));
    const CliResult r = breastgpt({command, "--help"});
    CHECK(r.code == 0);
    CHECK(contains(r.out, std::string("usage: breastgpt ") + command));
    CHECK(r.err.empty());
  }
  CHECK(contains(top.out, "exit codes"));
  CHECK(contains(breastgpt({"--version"}).out, "breastgpt 0."));
  CHECK(breastgpt({}).code == 2);
}

TEST_CASE("cli: wrong command lines") {
  const std::string model = tiny_weights("tiny-8b");
  fails({"sing"}, 2, "unknown command \"sing\"");
  fails({"ask", "-m", model}, 2, "no question given");
  fails({"ask", "q"}, 2, "--model is missing");
  fails({"ask", "--frobnicate", "q"}, 2, "unknown option --frobnicate; see breastgpt ask --help");
  fails({"ask", "q", "-m"}, 2, "-m needs a value: FILE");
  fails({"ask", "--json=1", "q"}, 2, "--json takes no value");
  fails({"ask", "-m", model, "--max-tokens", "many", "q"}, 2, "--max-tokens many: expected a whole number");
  fails({"ask", "-m", model, "--max-tokens", "0", "q"}, 2, "expected a whole number from 1");
  fails({"ask", "-m", model, "--temperature", "hot", "q"}, 2, "--temperature: expected a number");
  fails({"ask", "-m", model, "--window", "5", "q"}, 2, "expected LEVEL,WIDTH");
  fails({"ask", "-m", model, "--window", "5,-1", "q"}, 2, "the width must be positive");
  fails({"ask", "-m", model, "--memory-cap", "lots", "q"}, 2, "expected bytes such as 800M");
  fails({"ask", "-m", model, "--trace-data", "q"}, 2, "--trace-data needs --trace");
  fails({"plan", "-m", model}, 2, "plan takes one question");
  fails({"verify"}, 2, "no weights file given");
  fails({"info", "a", "b"}, 2, "one weights file at a time");
  fails({"compare", "a"}, 2, "two trace folders");
}

TEST_CASE("cli: failures name the file") {
  const std::string model = tiny_weights("tiny-8b");
  TempDir folder;
  write_file(folder.file("no.gguf"), "GGUF but not really");
  write_file(folder.file("no.png"), "\x89PNG\r\n\x1a\n");
  fails({"ask", "-m", folder.file("missing.gguf"), "q"}, 1, "missing.gguf");
  fails({"ask", "-m", folder.file("no.gguf"), "q"}, 1, "no.gguf");
  fails({"ask", "-m", model, "--image", folder.file("no.png"), "q"}, 1, "no.png");
  fails({"ask", "-m", model, "--image", folder.file("none.png"), "q"}, 1, "none.png");
  fails({"ask", "-m", model, "--image", golden_path(kDemo), "--max-pixels", "100", "q"}, 1, "demo.jpg");
  fails({"ask", "-m", model, "--system", "@" + folder.file("role.txt"), "q"}, 1, "role.txt: cannot be read");
  fails({"ask", "-m", model, "--backend", "gpu", "q"}, 1, "unknown backend \"gpu\"");
  fails({"ask", "-m", model, "--precision", "int8", "q"}, 1, "unknown precision \"int8\"; there are fast, float32");
  fails({"plan", "-m", model, "--kv", "f8", "q"}, 1, "unknown type \"f8\" for the KV cache");
  fails({"ask", "-m", model, "--memory-cap", "1K", "q"}, 1, "the cap is");
  fails({"ask", "-m", model, "--context", "64", std::string(600, 'z') + " 1 2 3 4 5 6 7 8 9"}, 1, "the context 64");
  fails({"compare", folder.path.string(), folder.path.string()}, 1, "trace.jsonl: cannot be read");
}

TEST_CASE("cli: ask, json, chat, plan, info, verify") {
  const std::string model = tiny_weights("tiny-breastgpt", "bf16");
  const std::string image = golden_path(kDemo);
  const CliResult plain = breastgpt({"ask", "-m", model, "--image", image, "--max-tokens", "16", "What is it?"});
  CHECK(plain.code == 0);
  CHECK(plain.err.empty());  // no progress when stderr is no terminal
  const CliResult json = breastgpt({"ask", "-m", model, "--image", image, "--max-tokens", "16", "--json", "--threads", "1", "What is it?", "And now?"});
  CHECK(json.code == 0);
  const Json j = Json::parse(json.out, nullptr, false);
  REQUIRE(j.is_object());
  CHECK(j["turns"][0]["answer"].get<std::string>() + "\n" == plain.out);
  CHECK(j["turns"].size() == 2);
  CHECK(j["turns"][1]["reused_tokens"].get<int>() > 0);
  CHECK(j["turns"][0]["token_ids"].size() == j["turns"][0]["logprobs"].size());
  CHECK(j["media"][0]["kept"].size() == 4);
  CHECK(j["media"][0]["kept"][0]["tokens"].size() == 64);
  CHECK(j["media"][0]["file_sha256"].get<std::string>().size() == 64);
  CHECK(j["model"]["weights_sha256"].get<std::string>().size() == 64);
  CHECK(j["version"].is_string());
  CHECK(j["system_sha256"].is_null());
  const Json role = Json::parse(breastgpt({"ask", "-m", model, "--system", "You read images.", "--max-tokens", "1", "--json", "Q"}).out, nullptr, false);
  REQUIRE(role.is_object());
  CHECK(role["system_sha256"] == "654ded326dfdebc868beb3ac8562de09f844e0a45f4e1858ae99c92acc95e5f1");  // sha256sum

  TempDir folder;
  write_file(folder.file("lines"), "What is it?\n\nAnd now?\n");
  const CliResult chat = breastgpt({"ask", "-m", model, "--image", image, "--max-tokens", "16", "--chat"}, folder.file("lines"));
  CHECK(chat.out == j["turns"][0]["answer"].get<std::string>() + "\n" + j["turns"][1]["answer"].get<std::string>() + "\n");

  const CliResult plan = breastgpt({"plan", "-m", model, "--image", image, "What is it?"});
  CHECK(plan.code == 0);
  for (const char* row : {"weights", "packed", "KV cache", "visual rows", "workspace", "pixels", "total"}) CHECK(contains(plan.out, row));
  const std::string machine = breastgpt({"info"}).out;
  for (const char* row : {"this machine: backend cpu/", "instructions: built in and here: portable", "huge pages:   "}) CHECK(contains(machine, row));
  CHECK(contains(breastgpt({"info", model}).out, "selector:     CoverageTokenSelector"));

  CHECK(breastgpt({"verify", model}).code == 0);
  std::string bytes = read_file(model);
  bytes[bytes.size() - 100] ^= 1;
  write_file(folder.file("bent.gguf"), bytes);
  fails({"verify", folder.file("bent.gguf")}, 1, "the SHA-256 of 1 tensors is not the one in the file's list");
}

TEST_CASE("cli: traces are compared stage by stage") {
  const std::string model = tiny_weights("tiny-8b");
  TempDir folder;
  const auto trace = [&](const std::string& name, const std::vector<std::string>& more) {
    std::vector<std::string> args = {"ask", "-m", model, "--image", golden_path("tiny-images/spots.png"), "--max-tokens", "3", "--trace", folder.file(name), "What?"};
    args.insert(args.end(), more.begin(), more.end());
    const CliResult r = breastgpt(args);
    CHECK_MESSAGE(r.code == 0, r.err);
  };
  trace("one", {"--threads", "1", "--trace-data", "--precision", "float32"});
  trace("three", {"--threads", "3", "--trace-data", "--precision", "float32"});
  trace("portable", {"--backend", "cpu/portable", "--trace-data", "--precision", "float32"});
  trace("bare", {"--backend", "ref"});
  CliResult r = breastgpt({"compare", folder.file("one"), folder.file("three")});
  CHECK(r.code == 0);
  CHECK(contains(r.out, "stages, all equal"));
  r = breastgpt({"compare", folder.file("one"), folder.file("bare")});
  CHECK(r.code == 3);
  CHECK(contains(r.out, "first difference at line"));
  CHECK(contains(r.out, "run both with --trace-data"));
  r = breastgpt({"compare", "--tolerance", "1e-5", folder.file("one"), folder.file("portable")});
  CHECK(r.code == 0);
  CHECK(contains(r.out, "all "));
  fails({"ask", "-m", model, "--trace", folder.file("one"), "Q"}, 1, "already there; name a new folder");
  write_file(folder.file("one/trace.jsonl"), "{\"n\":0\n");
  r = breastgpt({"compare", folder.file("one"), folder.file("three")});
  CHECK(r.code == 1);
  CHECK(contains(r.err, "line 1 is not a line of a trace"));
}
