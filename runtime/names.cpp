// The name table as code: one line per kind of tensor, published name and ours side by side. See names.h.
#include "runtime/names.h"

namespace bg {
namespace {

using Shape = std::vector<int64_t>;

class Table {
 public:
  // published and name carry the suffix themselves; `published_shape` only where it differs from ours.
  void matrix(const std::string& published, const std::string& name, const Shape& shape, const Shape& published_shape = {}) {
    specs.push_back({published, name, shape, published_shape.empty() ? shape : published_shape, true, true});
  }
  // A matrix that is only read row by row.
  void table(const std::string& published, const std::string& name, const Shape& shape, const Shape& published_shape = {}) {
    matrix(published, name, shape, published_shape);
    specs.back().multiplied = false;
  }
  void vector(const std::string& published, const std::string& name, int64_t n) { specs.push_back({published, name, {n}, {n}, false, false}); }
  // An affine map (outputs, inputs), and a norm with weight and bias.
  void linear(const std::string& published, const std::string& name, int64_t outputs, int64_t inputs) {
    matrix(published + ".weight", name + ".weight", {outputs, inputs});
    vector(published + ".bias", name + ".bias", outputs);
  }
  void norm(const std::string& published, const std::string& name, int64_t n) {
    vector(published + ".weight", name + ".weight", n);
    vector(published + ".bias", name + ".bias", n);
  }

  std::vector<TensorSpec> specs;
};

void add_decoder(Table& t, const Config::Text& c) {
  const std::string model = "model.language_model.";
  const int64_t h = c.hidden, q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  t.table(model + "embed_tokens.weight", "token_embd.weight", {c.vocab, h});
  t.specs.back().multiplied = c.tied;
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string from = model + "layers." + std::to_string(i) + ".", to = "blk." + std::to_string(i) + ".";
    t.vector(from + "input_layernorm.weight", to + "attn_norm.weight", h);
    t.matrix(from + "self_attn.q_proj.weight", to + "attn_q.weight", {q, h});
    t.matrix(from + "self_attn.k_proj.weight", to + "attn_k.weight", {kv, h});
    t.matrix(from + "self_attn.v_proj.weight", to + "attn_v.weight", {kv, h});
    t.vector(from + "self_attn.q_norm.weight", to + "attn_q_norm.weight", c.head_dim);
    t.vector(from + "self_attn.k_norm.weight", to + "attn_k_norm.weight", c.head_dim);
    t.matrix(from + "self_attn.o_proj.weight", to + "attn_output.weight", {h, q});
    t.vector(from + "post_attention_layernorm.weight", to + "ffn_norm.weight", h);
    t.matrix(from + "mlp.gate_proj.weight", to + "ffn_gate.weight", {c.ffn, h});
    t.matrix(from + "mlp.up_proj.weight", to + "ffn_up.weight", {c.ffn, h});
    t.matrix(from + "mlp.down_proj.weight", to + "ffn_down.weight", {h, c.ffn});
  }
  t.vector(model + "norm.weight", "output_norm.weight", h);
  if (!c.tied) t.matrix("lm_head.weight", "output.weight", {c.vocab, h});
}

void add_merger(Table& t, const std::string& from, const std::string& to, int64_t norm_width, int64_t joined, int64_t hidden) {
  t.norm(from + "norm", to + "norm", norm_width);
  t.linear(from + "linear_fc1", to + "fc1", joined, joined);
  t.linear(from + "linear_fc2", to + "fc2", hidden, joined);
}

void add_vision(Table& t, const Config::Vision& c, int64_t hidden) {
  const std::string model = "model.visual.";
  const int64_t d = c.hidden, joined = c.merge * c.merge * d;
  // A convolution whose stride is its kernel: the published (d, colour, time, row, column) is our row of 1536, in the order of the patch vectors.
  t.matrix(model + "patch_embed.proj.weight", "v.patch_embd.weight", {d, 3 * c.temporal_patch * c.patch * c.patch}, {d, 3, c.temporal_patch, c.patch, c.patch});
  t.vector(model + "patch_embed.proj.bias", "v.patch_embd.bias", d);
  t.table(model + "pos_embed.weight", "v.position_embd.weight", {c.positions, d});
  for (int64_t i = 0; i < c.depth; ++i) {
    const std::string from = model + "blocks." + std::to_string(i) + ".", to = "v.blk." + std::to_string(i) + ".";
    t.norm(from + "norm1", to + "ln1", d);
    t.linear(from + "attn.qkv", to + "attn_qkv", 3 * d, d);
    t.linear(from + "attn.proj", to + "attn_out", d, d);
    t.norm(from + "norm2", to + "ln2", d);
    t.linear(from + "mlp.linear_fc1", to + "ffn_up", c.ffn, d);
    t.linear(from + "mlp.linear_fc2", to + "ffn_down", d, c.ffn);
  }
  add_merger(t, model + "merger.", "v.merger.", d, joined, hidden);
  for (size_t i = 0; i < c.deepstack.size(); ++i)  // the LayerNorm of a DeepStack merger comes after the 2×2 blocks are joined
    add_merger(t, model + "deepstack_merger_list." + std::to_string(i) + ".", "v.deepstack." + std::to_string(i) + ".", joined, joined, hidden);
}

void add_slide(Table& t, const Config::Slide& c, int64_t hidden) {
  const int64_t d = c.feature_dim;
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string from = "slide.layers." + std::to_string(i) + ".", to = "s.blk." + std::to_string(i) + ".";
    t.norm(from + "ln1", to + "ln1", d);
    t.linear(from + "self_attn.q_proj", to + "attn_q", d, d);
    t.linear(from + "self_attn.k_proj", to + "attn_k", d, d);
    t.linear(from + "self_attn.v_proj", to + "attn_v", d, d);
    t.linear(from + "self_attn.out_proj", to + "attn_out", d, d);
    t.norm(from + "ln2", to + "ln2", d);
    t.linear(from + "ffn.0", to + "ffn_up", 4 * d, d);
    t.linear(from + "ffn.2", to + "ffn_down", d, 4 * d);
  }
  t.linear("slide.feature_projector", "s.proj", hidden, d);
  for (int64_t i = 0; i < c.layers; ++i) t.linear("slide.intermediate_projectors." + std::to_string(i), "s.deepstack." + std::to_string(i), hidden, d);
}

void add_concept_selector(Table& t, const std::string& from, const std::string& to, int64_t hidden) {
  constexpr int64_t queries = 32;  // learned concepts
  t.matrix(from + "cross_attn.q_proj.weight", to + "attn_q.weight", {hidden, hidden});
  t.matrix(from + "cross_attn.k_proj.weight", to + "attn_k.weight", {hidden, hidden});
  t.table(from + "concept_queries", to + "queries.weight", {queries, hidden}, {1, queries, hidden});
  t.linear(from + "concept_gate.0", to + "gate", 1, hidden);
}

}  // namespace

std::vector<TensorSpec> tensor_specs(const Config& config) {
  Table t;
  add_decoder(t, config.text);
  add_vision(t, config.vision, config.text.hidden);
  if (config.plain_qwen()) return std::move(t.specs);
  add_slide(t, config.slide, config.text.hidden);
  if (config.selector.kind == "ConceptSelector") {
    add_concept_selector(t, "visual_selector.", "sel.top.", config.text.hidden);
    add_concept_selector(t, "deepstack_selector.", "sel.deep.", config.text.hidden);
  }
  return std::move(t.specs);
}

}  // namespace bg
