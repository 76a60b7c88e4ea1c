// See weights.h.
#include "runtime/weights.h"

#include <algorithm>
#include <map>
#include <set>

#include "loaders/error.h"
#include "runtime/names.h"

namespace bg {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string s = "(";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + ")";
}

void check_all(const Gguf& file, const Config& config) {
  std::vector<std::string> wrong;
  std::set<std::string, std::less<>> known;
  for (const TensorSpec& spec : tensor_specs(config)) {
    known.insert(spec.name);
    const GgufTensor* t = file.find(spec.name);
    if (!t)
      wrong.push_back("\"" + spec.name + "\" is missing, expected " + shape_text(spec.shape));
    else if (t->shape != spec.shape)
      wrong.push_back("\"" + spec.name + "\": expected " + shape_text(spec.shape) + ", got " + shape_text(t->shape));
    else if (spec.matrix ? t->type == Type::f64 : t->type != Type::f32)
      wrong.push_back("\"" + spec.name + "\": expected " + (spec.matrix ? "F32, F16, BF16, Q8_0, Q6_K or Q4_K" : "F32") + ", got " + type_name(t->type));
  }
  // One product takes both (kernels/ops.h, gated).
  for (int64_t i = 0; i < config.text.layers; ++i) {
    const std::string b = "blk." + std::to_string(i) + ".";
    const GgufTensor *gate = file.find(b + "ffn_gate.weight"), *up = file.find(b + "ffn_up.weight");
    if (gate && up && (gate->type != up->type || gate->layout != up->layout))
      wrong.push_back("\"" + up->name + "\" must be of the type and layout of \"" + gate->name + "\"");
  }
  for (const GgufTensor& t : file.tensors())
    if (!known.count(t.name)) wrong.push_back("\"" + t.name + "\" is not part of this model");
  if (wrong.empty()) return;
  std::string message = file.path() + ": " + std::to_string(wrong.size()) + " wrong tensors; convert the checkpoint again:";
  for (const std::string& w : wrong) message += "\n  tensor " + w;
  throw Error(Status::bad_file, message);
}

struct Reader {
  const Gguf& file;

  Weight matrix(const std::string& name) const {
    const GgufTensor* t = file.find(name + ".weight");
    return {t->data, t->type, t->shape[0], t->shape[1], t->layout};
  }
  const float* vector(const std::string& name) const { return reinterpret_cast<const float*>(file.find(name)->data); }
  Linear linear(const std::string& name) const { return {matrix(name), vector(name + ".bias")}; }
  Norm layer_norm(const std::string& name) const { return {vector(name + ".weight"), vector(name + ".bias")}; }
  Norm rms_norm(const std::string& name) const { return {vector(name + ".weight"), nullptr}; }
  ConceptWeights concepts(const std::string& name) const {
    return {matrix(name + ".attn_q"), matrix(name + ".attn_k"), matrix(name + ".queries"), matrix(name + ".gate"), vector(name + ".gate.bias")[0]};
  }
  VitWeights::Merger merger(const std::string& name) const { return {layer_norm(name + ".norm"), linear(name + ".fc1"), linear(name + ".fc2")}; }
};

}  // namespace

Weights read_weights(const Gguf& file, const Config& config) {
  check_all(file, config);
  const Reader r{file};
  Weights w;

  w.vit.patch_embed = r.linear("v.patch_embd");
  w.vit.positions = r.matrix("v.position_embd");
  for (int64_t i = 0; i < config.vision.depth; ++i) {
    const std::string b = "v.blk." + std::to_string(i) + ".";
    w.vit.blocks.push_back({r.layer_norm(b + "ln1"), r.layer_norm(b + "ln2"), r.linear(b + "attn_qkv"), r.linear(b + "attn_out"), r.linear(b + "ffn_up"), r.linear(b + "ffn_down")});
  }
  w.vit.merger = r.merger("v.merger");
  for (size_t i = 0; i < config.vision.deepstack.size(); ++i) w.vit.deepstack.push_back(r.merger("v.deepstack." + std::to_string(i)));

  w.decoder.embed = r.matrix("token_embd");
  for (int64_t i = 0; i < config.text.layers; ++i) {
    const std::string b = "blk." + std::to_string(i) + ".";
    w.decoder.layers.push_back({r.rms_norm(b + "attn_norm"), r.rms_norm(b + "ffn_norm"), r.rms_norm(b + "attn_q_norm"), r.rms_norm(b + "attn_k_norm"), r.matrix(b + "attn_q"),
                                r.matrix(b + "attn_k"), r.matrix(b + "attn_v"), r.matrix(b + "attn_output"), r.matrix(b + "ffn_gate"), r.matrix(b + "ffn_up"), r.matrix(b + "ffn_down")});
  }
  w.decoder.norm = r.rms_norm("output_norm");
  w.decoder.output = config.text.tied ? w.decoder.embed : r.matrix("output");
  if (config.plain_qwen()) return w;

  for (int64_t i = 0; i < config.slide.layers; ++i) {
    const std::string b = "s.blk." + std::to_string(i) + ".";
    w.slide.layers.push_back({r.layer_norm(b + "ln1"), r.layer_norm(b + "ln2"), r.linear(b + "attn_q"), r.linear(b + "attn_k"), r.linear(b + "attn_v"), r.linear(b + "attn_out"),
                              r.linear(b + "ffn_up"), r.linear(b + "ffn_down")});
    w.slide.deepstack.push_back(r.linear("s.deepstack." + std::to_string(i)));
  }
  w.slide.projector = r.linear("s.proj");
  if (config.selector.kind == "ConceptSelector") {
    w.concept_top = r.concepts("sel.top");
    w.concept_deep = r.concepts("sel.deep");
  }
  return w;
}

std::vector<Weight*> multiplied(Weights& w) {
  std::vector<Weight*> all = {&w.vit.patch_embed.w};
  for (VitWeights::Block& b : w.vit.blocks) all.insert(all.end(), {&b.qkv.w, &b.proj.w, &b.fc1.w, &b.fc2.w});
  all.insert(all.end(), {&w.vit.merger.fc1.w, &w.vit.merger.fc2.w});
  for (VitWeights::Merger& m : w.vit.deepstack) all.insert(all.end(), {&m.fc1.w, &m.fc2.w});
  for (DecoderWeights::Layer& l : w.decoder.layers) all.insert(all.end(), {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down});
  all.push_back(&w.decoder.output);
  for (SlideWeights::Layer& l : w.slide.layers) all.insert(all.end(), {&l.q.w, &l.k.w, &l.v.w, &l.out.w, &l.up.w, &l.down.w});
  if (w.slide.projector.w.data != nullptr) all.push_back(&w.slide.projector.w);
  for (Linear& l : w.slide.deepstack) all.push_back(&l.w);
  for (ConceptWeights* c : {&w.concept_top, &w.concept_deep})
    if (c->q.data != nullptr) all.insert(all.end(), {&c->q, &c->k, &c->gate});
  return all;
}

AllWeights all_of(Weights& w, const Config& config) {
  AllWeights all;
  const auto vector = [&](const float*& data, int64_t size) {
    if (data != nullptr) all.vectors.push_back({&data, size});
  };
  const auto norm = [&](Norm& n, int64_t size) {
    vector(n.w, size);
    vector(n.b, size);
  };
  const auto linear = [&](Linear& l) {
    all.matrices.push_back(&l.w);
    vector(l.b, l.w.rows);
  };
  const Config::Text& t = config.text;
  for (DecoderWeights::Layer& l : w.decoder.layers) {
    norm(l.attn_norm, t.hidden);
    norm(l.ffn_norm, t.hidden);
    norm(l.q_norm, t.head_dim);
    norm(l.k_norm, t.head_dim);
  }
  norm(w.decoder.norm, t.hidden);
  all.matrices.push_back(&w.decoder.output);
  for (DecoderWeights::Layer& l : w.decoder.layers) all.matrices.insert(all.matrices.end(), {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down});

  const int64_t d = config.vision.hidden, joined = d * config.vision.merge * config.vision.merge;
  linear(w.vit.patch_embed);
  all.matrices.push_back(&w.vit.positions);
  for (VitWeights::Block& b : w.vit.blocks) {
    norm(b.norm1, d);
    norm(b.norm2, d);
    for (Linear* l : {&b.qkv, &b.proj, &b.fc1, &b.fc2}) linear(*l);
  }
  const auto merger = [&](VitWeights::Merger& m, int64_t width) {
    norm(m.norm, width);
    linear(m.fc1);
    linear(m.fc2);
  };
  merger(w.vit.merger, d);
  for (VitWeights::Merger& m : w.vit.deepstack) merger(m, joined);

  for (SlideWeights::Layer& l : w.slide.layers) {
    norm(l.norm1, config.slide.feature_dim);
    norm(l.norm2, config.slide.feature_dim);
    for (Linear* p : {&l.q, &l.k, &l.v, &l.out, &l.up, &l.down}) linear(*p);
  }
  for (Linear& l : w.slide.deepstack) linear(l);
  if (w.slide.projector.w.data != nullptr) linear(w.slide.projector);
  for (ConceptWeights* c : {&w.concept_top, &w.concept_deep})
    if (c->q.data != nullptr) all.matrices.insert(all.matrices.end(), {&c->q, &c->k, &c->queries, &c->gate});
  all.matrices.push_back(&w.decoder.embed);  // only rows of it are read
  return all;
}

std::string weight_types(const DecoderWeights& decoder) {
  std::map<Type, int64_t> values;
  for (const DecoderWeights::Layer& l : decoder.layers)
    for (const Weight& w : {l.q, l.k, l.v, l.o, l.gate, l.up, l.down}) values[w.type] += w.rows * w.cols;
  std::vector<std::pair<int64_t, Type>> order;
  for (const auto& [type, n] : values) order.push_back({-n, type});
  std::sort(order.begin(), order.end());
  std::string text;
  for (const auto& [n, type] : order) text += (text.empty() ? "" : " + ") + std::string(type_name(type));
  return text;
}

}  // namespace bg
