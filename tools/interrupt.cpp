// What the programs do when they are told to stop (SIGINT, SIGTERM): nothing at once; the work in hand asks and ends by itself. See options.h.
#include <csignal>

#include "tools/options.h"

namespace tool {
namespace {
volatile std::sig_atomic_t stop_requested = 0;
void on_signal(int) { stop_requested = 1; }
}  // namespace

void catch_signals() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  std::signal(SIGPIPE, SIG_IGN);
}

bool interrupted() { return stop_requested != 0; }

}  // namespace tool
