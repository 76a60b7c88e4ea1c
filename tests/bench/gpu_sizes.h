// The sizes of the GPU benchmark: those of the published models, or tiny ones, with which the whole of it runs on the emulated device in seconds.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/bench/shapes.h"

namespace bg::bench {

struct Sizes {
  bool real;                      // the times mean something
  Shape large, small;             // 8B, 4B
  size_t ring;                    // bytes of weights or caches that are taken in turn: several times the second cache
  size_t copied;                  // bytes that a reading of the bandwidth copies
  int64_t repeats;                // of the loops that measure multiply-adds
  int64_t square;                 // n of the n × n products of cuBLASLt
  std::vector<int64_t> prompts;   // tokens
  std::vector<int64_t> contexts;  // tokens before a step
  int64_t chunk;                  // tokens of a prompt at once, as a session does
  int64_t steps;                  // tokens that one round of decoding makes
  int64_t side, slices;           // patches of a picture's side, slices of a volume of side volume_patches
  int64_t volume_patches;
  std::vector<int64_t> tiles;     // of slides
  int64_t slide_prompt;           // tokens of a question about a slide, the kept tiles among them
  int least_rounds, most_rounds;
  double round_seconds;           // of a round: shorter bodies are repeated
  double figure_seconds;          // rounds are begun until then
};

Sizes real_sizes();
Sizes tiny_sizes();

}  // namespace bg::bench
