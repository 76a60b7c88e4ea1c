// See decoder.h.
#include "runtime/decoder.h"

#include "loaders/error.h"

namespace bg {

size_t KvCache::part_bytes(Type type, const Config::Text& c, int64_t context) {
  return (stored_bytes(type, context * c.kv_heads * c.head_dim) + 63) / 64 * 64;
}

size_t KvCache::bytes(Type type, const Config::Text& c, int64_t context) { return size_t(2 * c.layers) * part_bytes(type, c, context); }

KvCache::KvCache(Ops& ops, Type type, const Config::Text& c, int64_t context)
    : ops_(ops), type_(type), context_(context), kv_heads_(c.kv_heads), head_dim_(c.head_dim), part_bytes_(part_bytes(type, c, context)), bytes_(bytes(type, c, context)) {
  base_ = ops.allocate(bytes_);
  if (!base_) throw Error(Status::too_large, "no memory for a KV cache of " + std::to_string(context) + " tokens (" + std::to_string(bytes_) + " bytes); use a smaller context");
}

KvCache::~KvCache() { ops_.release(base_, bytes_); }

Tensor KvCache::part(int64_t n) const { return {static_cast<char*>(base_) + size_t(n) * part_bytes_, type_, kv_heads_ * context_, head_dim_, head_dim_}; }

namespace {

struct Rotary {
  Tensor cos, sin;  // (T, d/2)
};

// §4: h += Wo·attn(RMS(h)); q and k are RMS-normalised per head, then rotated.
void attention(const Run& run, const Config::Text& c, const DecoderWeights::Layer& w, KvCache& cache, int64_t layer, Tensor h, Rotary rotary, Phase phase,
               const std::string& name) {
  Ops& ops = run.ops;
  Arena::Scope scope(run.arena);
  const int64_t T = h.rows, past = cache.used;
  const Tensor x = run.arena.tensor(T, c.hidden), q = run.arena.tensor(T, c.heads * c.head_dim), o = run.arena.tensor(T, c.heads * c.head_dim);
  const Tensor k = run.arena.tensor(T, c.kv_heads * c.head_dim), v = run.arena.tensor(T, c.kv_heads * c.head_dim);
  ops.rms_norm(x, h, w.attn_norm.w, c.rms_eps);
  const Product qkv[] = {{q, w.q}, {k, w.k}, {v, w.v}};
  ops.linear(x, qkv, 3, phase);
  ops.rotate_into_cache(cache.keys(layer), cache.values(layer), q, k, v, c.heads, c.kv_heads, w.q_norm.w, w.k_norm.w, c.rms_eps, rotary.cos, rotary.sin, past);
  ops.attention_causal(o, q, cache.keys(layer), cache.values(layer), c.heads, c.kv_heads, past);
  run.add_product(h, o, w.o, nullptr, x, name + ".attn", phase);
}

// §4: h += Wdown·(silu(Wgate·x)·(Wup·x)), x = RMS(h).
void mlp(const Run& run, const Config::Text& c, const DecoderWeights::Layer& w, Tensor h, Phase phase, const std::string& name) {
  Ops& ops = run.ops;
  Arena::Scope scope(run.arena);
  const int64_t T = h.rows;
  const Tensor x = run.arena.tensor(T, c.hidden), f = run.arena.tensor(T, c.ffn);
  ops.rms_norm(x, h, w.ffn_norm.w, c.rms_eps);
  ops.gated(f, x, w.gate, w.up, phase);
  run.add_product(h, f, w.down, nullptr, x, name + ".mlp", phase);
}

// §4: logits = Wout·RMS(h).
void write_logits(const Run& run, const Config::Text& c, const DecoderWeights& w, Tensor h, Tensor logits) {
  const Tensor x = run.arena.tensor(h.rows, c.hidden);
  run.ops.rms_norm(x, h, w.norm.w, c.rms_eps);
  run.tap("decoder.norm", x);
  const Product output{logits, w.output};
  run.ops.linear(x, &output, 1, Phase::step);  // one row nearly always
  run.tap("decoder.logits", logits);
}

}  // namespace

void decode(const Run& run, const Config::Text& c, const DecoderWeights& w, KvCache& cache, const Chunk& chunk, Logits which, Tensor logits) {
  Ops& ops = run.ops;
  Arena::Scope scope(run.arena);
  const int64_t T = int64_t(chunk.ids.size());
  const bool step = chunk.phase == Phase::step && run.trace == nullptr;
  if (T > cache.context() - cache.used) throw Error(Status::internal, "the KV cache is full");

  if (step) ops.begin_step(cache.used);
  const Tensor h = run.arena.tensor(T, c.hidden);
  ops.embed(h, w.embed, chunk.ids.data());
  if (!chunk.visual_at.empty()) ops.scatter_rows(h, chunk.visual[0], chunk.visual_at.data());
  run.tap("decoder.embed", h);

  const RotaryTable table = decoder_rotary(chunk.positions, c);
  const Rotary rotary{run.arena.tensor(T, table.cols), run.arena.tensor(T, table.cols)};
  ops.write(rotary.cos, table.cos.data());
  ops.write(rotary.sin, table.sin.data());

  for (int64_t i = 0; i < c.layers; ++i) {
    if (T > 1) run.step("layers", i, c.layers);
    const std::string name = "decoder.layer." + std::to_string(i);
    attention(run, c, w.layers[size_t(i)], cache, i, h, rotary, chunk.phase, name);
    mlp(run, c, w.layers[size_t(i)], h, chunk.phase, name);
    // §4: DeepStack level i joins after layer i.
    if (!chunk.visual_at.empty() && size_t(i) + 1 < chunk.visual.size()) ops.scatter_add_rows(h, chunk.visual[size_t(i) + 1], chunk.visual_at.data());
    run.tap(name + ".out", h);
  }
  cache.used += T;
  if (which != Logits::none) write_logits(run, c, w, which == Logits::all ? h : h.row_range(T - 1, 1), logits);
  if (step) ops.end_step();
}

}  // namespace bg
