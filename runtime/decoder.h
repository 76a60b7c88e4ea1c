// The decoder, MODEL.md §4: token embeddings with visual rows in place → layers over a KV cache → logits.
#pragma once
#include <cstdint>
#include <vector>

#include "runtime/config.h"
#include "runtime/positions.h"
#include "runtime/run.h"
#include "runtime/weights.h"

namespace bg {

// Keys (after norm and rotation) and values of every layer, `context` rows for each of K heads, of the backend's type, BF16 or Q8_0 (heads are then whole blocks
// of 32). Owns its memory. Rows 0 … used−1 of each head are valid.
class KvCache {
 public:
  KvCache(Ops& ops, Type type, const Config::Text& config, int64_t context);  // throws Error{too_large}
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;
  static size_t bytes(Type type, const Config::Text& config, int64_t context);

  Tensor keys(int64_t layer) const { return part(2 * layer); }         // (K·context, d), head after head
  Tensor values(int64_t layer) const { return part(2 * layer + 1); }   // (K·context, d)
  Type type() const { return type_; }
  int64_t context() const { return context_; }
  int64_t used = 0;

 private:
  static size_t part_bytes(Type type, const Config::Text& config, int64_t context);
  Tensor part(int64_t n) const;
  Ops& ops_;
  Type type_;
  int64_t context_, kv_heads_, head_dim_;
  size_t part_bytes_, bytes_;
  void* base_ = nullptr;
};

// One chunk of the sequence: tokens cache.used … cache.used + T − 1.
struct Chunk {
  std::vector<int32_t> ids;          // T token ids; at visual places the placeholder's
  std::vector<Position> positions;   // T
  // Visual rows of this chunk: row `visual_at[j]` of the chunk takes row j of visual[0] as its embedding, and gets row j of visual[1 + i]
  // added after decoder layer i. All (V, D) with V = visual_at.size().
  std::vector<int64_t> visual_at;
  std::vector<Tensor> visual;
  Phase phase = Phase::prompt;       // step: what the model itself said, one token at a time, with logits of the last; the same tensors each time (begin_step)
};

enum class Logits { none, last, all };

// Appends the chunk to the cache and writes logits: nothing, (1, V) of the last token, or (T, V).
void decode(const Run& run, const Config::Text& config, const DecoderWeights& w, KvCache& cache, const Chunk& chunk, Logits which, Tensor logits);

}  // namespace bg
