// The command line. Uses only the public C API (runtime/breastgpt.h, runtime/breastgpt_files.h).
// The path of one picture to one answer: tools/ask.cpp → runtime/answer.cpp → runtime/preprocess.cpp → runtime/vit.cpp → runtime/selector.cpp →
// runtime/decoder.cpp.
#include <cstdio>
#include <cstring>

#include "tools/options.h"

namespace {

struct Command {
  const char* name;
  int (*run)(int, char**);
  const char* help;
};

const Command kCommands[] = {
    {"ask", tool::run_ask, "answer a question about pictures"},
    {"plan", tool::run_plan, "the memory that a question would need, before anything is computed"},
    {"info", tool::run_info, "what a weights file holds and what this machine runs"},
    {"verify", tool::run_verify, "recompute the SHA-256 of every tensor of a weights file"},
    {"features", tool::run_features, "what a slide's feature file holds, and its conversion (.h5, .safetensors)"},
    {"bench", tool::run_bench, "answer a benchmark's items: predictions and a report"},
    {"compare", tool::run_compare, "find the first stage where two traces part"},
};

void help() {
  std::printf("breastgpt %s: runs the BreastGPT model on this machine. Research software: not a medical device.\n\nusage: breastgpt COMMAND ...\n\n", bg_version());
  for (const Command& c : kCommands) std::printf("  %-9s %s\n", c.name, c.help);
  std::printf("\nbreastgpt COMMAND --help tells the rest. breastgpt-convert makes a weights file from a checkpoint.\n\n"
              "exit codes: 0 done; 1 failed, the message on stderr says why; 2 wrong command line; 3 compare found a difference; 130 interrupted\n");
}

}  // namespace

int main(int argc, char** argv) {
  tool::catch_signals();
  const char* name = argc > 1 ? argv[1] : "--help";
  if (!std::strcmp(name, "--help") || !std::strcmp(name, "-h") || !std::strcmp(name, "help")) {
    help();
    return argc > 1 ? tool::kOk : tool::kUsage;
  }
  if (!std::strcmp(name, "--version")) {
    std::printf("breastgpt %s\n", bg_version());
    return tool::kOk;
  }
  for (const Command& c : kCommands) {
    if (std::strcmp(name, c.name)) continue;
    try {
      return c.run(argc - 2, argv + 2);
    } catch (const tool::Failure& f) {
      std::fprintf(stderr, "breastgpt %s: %s\n", c.name, f.message.c_str());
      return f.code;
    } catch (const std::exception& e) {
      std::fprintf(stderr, "breastgpt %s: %s\n", c.name, e.what());
      return tool::kFailed;
    }
  }
  std::fprintf(stderr, "breastgpt: unknown command \"%s\"; see breastgpt --help\n", name);
  return tool::kUsage;
}
