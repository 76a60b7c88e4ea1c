// See random_model.h.
#include "tests/bench/random_model.h"

#include <algorithm>

#include "kernels/panels.h"
#include "runtime/names.h"
#include "weights_convert/mix.h"

namespace bg::bench {
namespace {

// The matrices of a part with their types, no data yet.
std::vector<std::pair<std::string, Weight>> matrices_of(const Config& config, Part part, Type asked) {
  std::vector<std::pair<std::string, Weight>> out;
  for (const TensorSpec& spec : tensor_specs(config)) {
    const Part of = spec.name.rfind("v.", 0) == 0 ? Part::vision : spec.name.rfind("s.", 0) == 0 ? Part::slide : Part::decoder;
    if (of != part || !spec.matrix) continue;
    out.push_back({spec.name, {nullptr, type_in_mix(spec, config.text.layers, asked), spec.shape[0], spec.shape[1], Layout::panels}});
  }
  return out;
}

// Rounded up so that every matrix begins where a model's does (runtime/device_weights.cpp).
size_t bytes_of(const Weight& w) { return (weight_bytes(w.type, w.rows, w.cols, w.layout) + 255) / 256 * 256; }

}  // namespace

size_t RandomModel::bytes(const Config& config, Part part, Type asked) {
  size_t n = 0;
  for (const auto& [name, w] : matrices_of(config, part, asked)) n += bytes_of(w);
  return n;
}

RandomModel::RandomModel(const Config& config, Part part, Type asked)
    : config_(config), bytes_(bytes(config, part, asked)), memory_(std::make_unique<Memory>(bytes_)), own_(2 * kVector, 1.0f), ones_(own_.data()), small_(own_.data() + kVector) {
  std::fill(own_.begin() + kVector, own_.end(), 0.01f);
  lay_out(part, asked, memory_->data(), [](void* to, Type type, size_t n) { fill_panels(static_cast<char*>(to), type, n); });
}

RandomModel::RandomModel(const Config& config, Part part, Type asked, char* matrices, const float* ones, const float* small, const Fill& fill)
    : config_(config), bytes_(bytes(config, part, asked)), ones_(ones), small_(small) {
  lay_out(part, asked, matrices, fill);
}

void RandomModel::lay_out(Part part, Type asked, char* at, const Fill& fill) {
  for (auto& [name, w] : matrices_of(config_, part, asked)) {
    fill(at, w.type, weight_bytes(w.type, w.rows, w.cols, w.layout));
    matrices_[name] = {at, w.type, w.rows, w.cols, w.layout};
    at += bytes_of(w);
  }
}

DecoderWeights RandomModel::decoder() const {
  DecoderWeights w;
  w.embed = matrix("token_embd");
  for (int64_t i = 0; i < config_.text.layers; ++i) {
    const std::string b = "blk." + std::to_string(i) + ".";
    w.layers.push_back({norm(false), norm(false), norm(false), norm(false), matrix(b + "attn_q"), matrix(b + "attn_k"), matrix(b + "attn_v"),
                        matrix(b + "attn_output"), matrix(b + "ffn_gate"), matrix(b + "ffn_up"), matrix(b + "ffn_down")});
  }
  w.norm = norm(false);
  w.output = config_.text.tied ? w.embed : matrix("output");
  return w;
}

VitWeights RandomModel::vision() const {
  VitWeights w;
  w.patch_embed = linear("v.patch_embd");
  w.positions = matrix("v.position_embd");
  for (int64_t i = 0; i < config_.vision.depth; ++i) {
    const std::string b = "v.blk." + std::to_string(i) + ".";
    w.blocks.push_back({norm(true), norm(true), linear(b + "attn_qkv"), linear(b + "attn_out"), linear(b + "ffn_up"), linear(b + "ffn_down")});
  }
  w.merger = merger("v.merger");
  for (size_t i = 0; i < config_.vision.deepstack.size(); ++i) w.deepstack.push_back(merger("v.deepstack." + std::to_string(i)));
  return w;
}

SlideWeights RandomModel::slide() const {
  SlideWeights w;
  for (int64_t i = 0; i < config_.slide.layers; ++i) {
    const std::string b = "s.blk." + std::to_string(i) + ".";
    w.layers.push_back({norm(true), norm(true), linear(b + "attn_q"), linear(b + "attn_k"), linear(b + "attn_v"), linear(b + "attn_out"),
                        linear(b + "ffn_up"), linear(b + "ffn_down")});
    w.deepstack.push_back(linear("s.deepstack." + std::to_string(i)));
  }
  w.projector = linear("s.proj");
  return w;
}

}  // namespace bg::bench
