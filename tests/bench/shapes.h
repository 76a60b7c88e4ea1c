// The sizes of the published models, as their config.json states them (tests only: the runtime reads them from the weights file).
#pragma once
#include "runtime/config.h"
#include "runtime/decoder.h"

namespace bg::bench {

struct Shape {
  const char* name;  // "8B"
  Config config;
};

Shape shape_8b();
Shape shape_4b();
Shape shape_06b();  // a decoder alone (Qwen3 0.6B): what fits everywhere and is bound by other things than large matrices

Chunk text_chunk(int64_t first, int64_t count, int64_t vocab, Phase phase = Phase::prompt);  // tokens first … first + count − 1 of some text

}  // namespace bg::bench
