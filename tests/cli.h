// The programs as a user runs them: what the tests of the command line share. BG_BUILD (make sets it) is the build folder.
#pragma once
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/support.h"

struct CliResult {
  int code = -1;
  std::string out, err;
};

inline std::string shell_quoted(const std::string& s) {
  std::string out = "'";
  for (char c : s) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

inline CliResult program(const std::string& name, const std::vector<std::string>& args, const std::string& input = "/dev/null") {
  static TempDir folder;
  const char* build = std::getenv("BG_BUILD");
  std::string command = shell_quoted(std::string(build ? build : "build/release") + "/" + name);
  for (const std::string& a : args) command += " " + shell_quoted(a);
  command += " < " + shell_quoted(input) + " > " + shell_quoted(folder.file("out")) + " 2> " + shell_quoted(folder.file("err"));
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(folder.file("out")), read_file(folder.file("err"))};
}

inline CliResult breastgpt(const std::vector<std::string>& args, const std::string& input = "/dev/null") { return program("breastgpt", args, input); }

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// The command ends with `code`, says `message` on stderr and nothing on stdout.
inline void cli_fails(const std::vector<std::string>& args, int code, const std::string& message) {
  CAPTURE(message);
  const CliResult r = breastgpt(args);
  CHECK(r.code == code);
  CHECK_MESSAGE(contains(r.err, message), r.err);
  CHECK(r.out.empty());
}
