// See shapes.h.
#include "tests/bench/shapes.h"

namespace bg::bench {
namespace {

Config decoder(int64_t layers, int64_t hidden, int64_t ffn, int64_t heads, bool tied) {
  Config c;
  c.model_type = "breastgpt";
  c.text.layers = layers;
  c.text.hidden = hidden;
  c.text.ffn = ffn;
  c.text.heads = heads;
  c.text.kv_heads = 8;
  c.text.head_dim = 128;
  c.text.vocab = 151936;
  c.text.context = 262144;
  c.text.rope_theta = 5e6;
  c.text.mrope_section[0] = 24;
  c.text.mrope_section[1] = c.text.mrope_section[2] = 20;
  c.text.tied = tied;
  return c;
}

void add_vision(Config& c, int64_t depth, int64_t hidden, int64_t ffn, const std::vector<int64_t>& deepstack) {
  c.vision.depth = depth;
  c.vision.hidden = hidden;
  c.vision.ffn = ffn;
  c.vision.heads = 16;
  c.vision.positions = 2304;
  c.vision.deepstack = deepstack;
}

}  // namespace

Shape shape_8b() {
  Shape s{"8B", decoder(36, 4096, 12288, 32, false)};
  add_vision(s.config, 27, 1152, 4304, {8, 16, 24});
  return s;
}

Shape shape_4b() {
  Shape s{"4B", decoder(36, 2560, 9728, 32, true)};
  add_vision(s.config, 24, 1024, 4096, {5, 11, 17});
  return s;
}

Shape shape_06b() { return {"0.6B", decoder(28, 1024, 3072, 16, true)}; }

Chunk text_chunk(int64_t first, int64_t count, int64_t vocab, Phase phase) {
  Chunk c;
  c.phase = phase;
  for (int64_t t = first; t < first + count; ++t) {
    c.ids.push_back(int32_t((t * 7919 + 13) % vocab));
    c.positions.push_back({t, t, t});
  }
  return c;
}

}  // namespace bg::bench
