// A part of a model with random weights on the device, its work in bytes and FLOP, and the workspace that the runtime's own code asks for.
#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "runtime/decoder.h"
#include "runtime/plan.h"
#include "tests/bench/gpu_parts.h"
#include "tests/bench/random_model.h"

namespace bg::bench {

class GpuModel {
 public:
  GpuModel(const Bench& b, const Config& config, Part part, Type asked);
  const RandomModel& weights() const { return *model_; }
  // The same numbers in host memory, for what the runtime reads there (the slides' projectors).
  std::unique_ptr<RandomModel> on_host(const Bench& b, std::vector<char>& memory) const;

 private:
  Config config_;
  Part part_;
  Type asked_;
  Block vectors_, matrices_;
  std::optional<RandomModel> model_;
};

const char* mix_name(Type asked);
double bytes_of(const Weight& w);
double flop_of(const Weight& w);  // of one row

// Weights and multiply-adds that every token meets; the output matrix only where logits are wanted.
struct DecoderWork {
  explicit DecoderWork(const DecoderWeights& w);
  double bytes = 0, flop = 0, output_bytes, output_flop;
  // A prompt of T tokens after none, with logits of the last.
  Load prompt(const Config::Text& c, int64_t T) const;
};

// The memory that `body` takes, from the planning run of its own code; then the run itself has that much.
class Workspace {
 public:
  Workspace(const Bench& b, const std::function<void(const Run& run)>& body);
  Run run() { return {ops_, *arena_}; }

 private:
  Ops& ops_;
  std::unique_ptr<Ops> plan_;
  std::optional<Arena> arena_;
};


// All of a prompt, in chunks as a session reads it: visual rows stand at the first places. Logits of the last token.
void read_prompt(const Run& run, const Config::Text& c, const DecoderWeights& w, KvCache& cache, int64_t tokens, int64_t chunk, const std::vector<Tensor>& visual, Tensor logits);

}  // namespace bg::bench
