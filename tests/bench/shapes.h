// The sizes of the published models, as their config.json states them (tests only: the runtime reads them from the weights file).
#pragma once
#include "runtime/config.h"

namespace bg::bench {

struct Shape {
  const char* name;  // "8B"
  Config config;
};

Shape shape_8b();
Shape shape_4b();
Shape shape_06b();  // a decoder alone (Qwen3 0.6B): what fits everywhere and is bound by other things than large matrices

}  // namespace bg::bench
