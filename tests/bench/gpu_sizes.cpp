// See gpu_sizes.h.
#include "tests/bench/gpu_sizes.h"

namespace bg::bench {
namespace {

Shape tiny(const char* name, int64_t heads, bool tied) {
  Shape s = shape_8b();
  s.name = name;
  Config& c = s.config;
  c.text.layers = 1;
  c.text.hidden = 256;
  c.text.ffn = 256;
  c.text.heads = heads;
  c.text.kv_heads = 1;
  c.text.head_dim = 64;
  c.text.vocab = 100;
  c.text.mrope_section[0] = 12;
  c.text.mrope_section[1] = c.text.mrope_section[2] = 10;
  c.text.tied = tied;
  c.vision.depth = 1;
  c.vision.hidden = 144;
  c.vision.ffn = 160;
  c.vision.heads = 2;
  c.vision.positions = 16;
  c.vision.deepstack = {0};
  c.slide.feature_dim = 64;
  c.slide.layers = 2;
  c.slide.heads = 4;
  c.selector.image_tokens = 3;
  c.selector.volume_tokens = c.selector.slide_tokens = 5;
  return s;
}

}  // namespace

Sizes real_sizes() {
  return {.real = true, .large = shape_8b(), .small = shape_4b(), .ring = size_t(1) << 30, .copied = size_t(1) << 30, .repeats = 4096, .square = 8192, .prompts = {64, 300, 512, 1500},
          .contexts = {1024, 8192}, .chunk = 512, .steps = 32, .side = 64, .slices = 32, .volume_patches = 24, .tiles = {5987, 50000}, .slide_prompt = 300,
          .least_rounds = 3, .most_rounds = 15, .round_seconds = 0.02, .figure_seconds = 0.6};
}

Sizes tiny_sizes() {
  return {.real = false, .large = tiny("8B", 4, false), .small = tiny("4B", 4, true), .ring = size_t(1) << 12, .copied = size_t(1) << 16, .repeats = 1, .square = 0, .prompts = {3, 9},
          .contexts = {20, 33}, .chunk = 6, .steps = 2, .side = 4, .slices = 4, .volume_patches = 4, .tiles = {19, 37}, .slide_prompt = 8,
          .least_rounds = 1, .most_rounds = 1, .round_seconds = 0, .figure_seconds = 0};
}

}  // namespace bg::bench
