// breastgpt-convert: the process around run_convert. A signal only sets a flag, so that the half-written file is removed in order; then the
// process ends by that signal, as a shell expects.
#include <csignal>
#include <iostream>
#include <unistd.h>

#include "weights_convert/cli.h"

namespace {
volatile std::sig_atomic_t caught = 0;
void remember(int signal) { caught = signal; }
}  // namespace

int main(int argc, char** argv) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    action.sa_handler = remember;
    sigaction(signal, &action, nullptr);
  }
  bg::ConvertCli cli{std::cout, std::cerr};
  cli.show_progress = isatty(STDERR_FILENO);
  cli.interrupted = [] { return caught != 0; };
  const int code = bg::run_convert({argv + 1, argv + argc}, cli);
  if (caught != 0 && code != bg::exit_ok) {
    std::signal(caught, SIG_DFL);
    std::raise(caught);
  }
  return code;
}
