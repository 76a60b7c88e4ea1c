// The command line of breastgpt-convert, without the process around it: arguments in, text and an exit code out.
#pragma once
#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace bg {

enum ExitCode { exit_ok = 0, exit_failed = 1, exit_usage = 2 };

struct ConvertCli {
  std::ostream& out;                          // the summary, --help, --version
  std::ostream& err;                          // errors
  bool show_progress = false;                 // a bar on err
  std::function<bool()> interrupted = {};     // asked often; true stops the conversion and removes what was written
};

int run_convert(const std::vector<std::string>& arguments, const ConvertCli& cli);

}  // namespace bg
