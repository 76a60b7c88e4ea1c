// See decoder.h.
#include "runtime/decoder.h"

#include "loaders/error.h"

namespace bg {

size_t KvCache::bytes(const Ops& ops, const Config::Text& c, int64_t context) {
  return size_t(2 * c.layers) * size_t(context) * size_t(c.kv_heads * c.head_dim) * type_size(ops.type());
}

KvCache::KvCache(Ops& ops, const Config::Text& c, int64_t context) : ops_(ops), context_(context), cols_(c.kv_heads * c.head_dim), bytes_(bytes(ops, c, context)) {
  base_ = ops.allocate(bytes_);
  if (!base_) throw Error(Status::too_large, "no memory for a KV cache of " + std::to_string(context) + " tokens (" + std::to_string(bytes_) + " bytes); use a smaller context");
}

KvCache::~KvCache() { ops_.release(base_, bytes_); }

Tensor KvCache::part(int64_t n) const {
  const Tensor first{base_, ops_.type(), context_, cols_, cols_};
  return first.row_range(n * context_, context_);
}

namespace {

struct Rotary {
  Tensor cos, sin;  // (T, d/2)
};

// §4: h += Wo·attn(RMS(h)); q and k are RMS-normalised per head, then rotated; keys and values go straight into the cache.
void attention(const Run& run, const Config::Text& c, const DecoderWeights::Layer& w, KvCache& cache, int64_t layer, Tensor h, Rotary rotary, const std::string& name) {
  Ops& ops = run.ops;
  Arena::Scope scope(run.arena);
  const int64_t T = h.rows, past = cache.used;
  const Tensor x = run.arena.tensor(T, c.hidden), q = run.arena.tensor(T, c.heads * c.head_dim), o = run.arena.tensor(T, c.heads * c.head_dim);
  const Tensor k = cache.keys(layer).row_range(past, T), v = cache.values(layer).row_range(past, T);
  ops.rms_norm(x, h, w.attn_norm.w, c.rms_eps);
  ops.linear(q, x, w.q, nullptr);
  ops.linear(k, x, w.k, nullptr);
  ops.linear(v, x, w.v, nullptr);
  ops.rms_norm(q.split_rows(c.heads), q.split_rows(c.heads), w.q_norm.w, c.rms_eps);
  ops.rms_norm(k.split_rows(c.kv_heads), k.split_rows(c.kv_heads), w.k_norm.w, c.rms_eps);
  ops.rotary(q, c.heads, rotary.cos, rotary.sin);
  ops.rotary(k, c.kv_heads, rotary.cos, rotary.sin);
  ops.attention_causal(o, q, cache.keys(layer).row_range(0, past + T), cache.values(layer).row_range(0, past + T), c.heads, c.kv_heads, past);
  ops.linear(x, o, w.o, nullptr);
  run.tap(name + ".attn", x);
  ops.add(h, x);
}

// §4: h += Wdown·(silu(Wgate·x)·(Wup·x)), x = RMS(h).
void mlp(const Run& run, const Config::Text& c, const DecoderWeights::Layer& w, Tensor h, const std::string& name) {
  Ops& ops = run.ops;
  Arena::Scope scope(run.arena);
  const int64_t T = h.rows;
  const Tensor x = run.arena.tensor(T, c.hidden), gate = run.arena.tensor(T, c.ffn), up = run.arena.tensor(T, c.ffn);
  ops.rms_norm(x, h, w.ffn_norm.w, c.rms_eps);
  ops.linear(gate, x, w.gate, nullptr);
  ops.linear(up, x, w.up, nullptr);
  ops.silu_mul(gate, gate, up);
  ops.linear(x, gate, w.down, nullptr);
  run.tap(name + ".mlp", x);
  ops.add(h, x);
}

}  // namespace

void decode(const Run& run, const Config::Text& c, const DecoderWeights& w, KvCache& cache, const Chunk& chunk, Logits which, Tensor logits) {
  Ops& ops = run.ops;
  Arena::Scope scope(run.arena);
  const int64_t T = int64_t(chunk.ids.size());
  if (T > cache.context() - cache.used) throw Error(Status::internal, "the KV cache is full");

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
    attention(run, c, w.layers[size_t(i)], cache, i, h, rotary, name);
    mlp(run, c, w.layers[size_t(i)], h, name);
    // §4: DeepStack level i joins after layer i.
    if (!chunk.visual_at.empty() && size_t(i) + 1 < chunk.visual.size()) ops.scatter_add_rows(h, chunk.visual[size_t(i) + 1], chunk.visual_at.data());
    run.tap(name + ".out", h);
  }
  cache.used += T;
  if (which == Logits::none) return;

  const Tensor last = which == Logits::all ? h : h.row_range(T - 1, 1);
  const Tensor x = run.arena.tensor(last.rows, c.hidden);
  ops.rms_norm(x, last, w.norm.w, c.rms_eps);
  run.tap("decoder.norm", x);
  ops.linear(logits, x, w.output, nullptr);
  run.tap("decoder.logits", logits);
}

}  // namespace bg
