// The command line: one table per command is both the parser and the help text, so that help is complete.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/breastgpt.h"

namespace tool {

// Exit codes, as documented in --help and the README.
enum Exit { kOk = 0, kFailed = 1, kUsage = 2, kDiffers = 3, kInterrupted = 130 };

struct Failure {
  int code;
  std::string message;
};

struct Option {
  const char* name;   // "--image"
  const char* value;  // "FILE", or "" for a switch
  const char* help;
  const char* short_name = "";
};

class Options {
 public:
  // command: as typed, "breastgpt ask". Throws Failure{kUsage} for an unknown option, a missing value, or a value given to a switch.
  Options(const std::string& command, const std::string& usage, const std::vector<Option>& table, int argc, char** argv);

  bool help() const { return help_; }
  std::string help_text() const;
  bool has(const std::string& name) const { return values_.count(name) > 0; }
  std::string text(const std::string& name, const std::string& otherwise = "") const;  // the last one given
  const std::vector<std::string>& all(const std::string& name) const;
  int64_t integer(const std::string& name, int64_t otherwise, int64_t low, int64_t high) const;
  double real(const std::string& name, double otherwise) const;
  uint64_t bytes(const std::string& name) const;  // "800M", "2G", "123456"; 0 when absent
  std::string required(const std::string& name) const;
  const std::vector<std::string>& arguments() const { return arguments_; }
  // All options given, in their order: (name, value).
  const std::vector<std::pair<std::string, std::string>>& given() const { return given_; }

 private:
  std::string command_, usage_;
  std::vector<Option> table_;
  std::map<std::string, std::vector<std::string>> values_;
  std::vector<std::string> arguments_;
  std::vector<std::pair<std::string, std::string>> given_;
  bool help_ = false;
};

double parse_real(const std::string& text, const std::string& what);  // throws Failure{kUsage}

// Calls that return a bg_status: anything but BG_OK becomes a Failure.
void check(bg_status status, const bg_error& error);

int run_ask(int argc, char** argv);
int run_plan(int argc, char** argv);
int run_info(int argc, char** argv);
int run_verify(int argc, char** argv);
int run_compare(int argc, char** argv);
int run_features(int argc, char** argv);
int run_bench(int argc, char** argv);

// SIGINT and SIGTERM are noted, SIGPIPE is ignored. interrupted() is polled through the cancel callback.
void catch_signals();
bool interrupted();

}  // namespace tool
