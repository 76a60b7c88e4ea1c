// See selector.h.
#include "runtime/selector.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "loaders/error.h"

namespace bg {
namespace {

constexpr int64_t kConceptHeads = 8;      // MODEL.md §3b; divides D (check_config)
constexpr int64_t kConceptBlock = 1024;   // feature rows whose keys are in memory at a time

Kept keep_all(int64_t L) {
  Kept kept;
  kept.index.resize(size_t(L));
  std::iota(kept.index.begin(), kept.index.end(), 0);
  return kept;
}

// g = σ(w·mean(T) + b); w·mean(T) is the mean of w·T_i.
double concept_gate(const Run& run, const ConceptWeights& w, Tensor text) {
  Arena::Scope scope(run.arena);
  const Tensor y = run.arena.tensor(text.rows, 1);
  run.ops.linear(y, text, w.gate, nullptr);
  std::vector<double> values(size_t(text.rows));
  run.ops.read(values.data(), y);
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / double(text.rows);
  return 1 / (1 + std::exp(-(mean + double(w.gate_bias))));
}

// q_h = (Wq·[g·queries ; (1−g)·T])_h/√d for each head, (C, d).
std::vector<Tensor> concept_queries(const Run& run, const ConceptWeights& w, Tensor text) {
  Ops& ops = run.ops;
  const int64_t n = w.queries.rows, C = n + text.rows, D = text.cols, d = D / kConceptHeads;
  std::vector<Tensor> q;
  for (int64_t h = 0; h < kConceptHeads; ++h) q.push_back(run.arena.tensor(C, d));
  Arena::Scope scope(run.arena);
  const double g = concept_gate(run, w, text);
  const Tensor concepts = run.arena.tensor(C, D), all = run.arena.tensor(C, D), learned = concepts.row_range(0, n), words = concepts.row_range(n, text.rows);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  ops.embed(learned, w.queries, ids.data());
  ops.copy(words, text);
  ops.scale(learned, g);
  ops.scale(words, 1 - g);
  ops.linear(all, concepts, w.q, nullptr);
  for (int64_t h = 0; h < kConceptHeads; ++h) {
    ops.copy(q[size_t(h)], all.col_range(h * d, d));
    ops.scale(q[size_t(h)], 1 / std::sqrt(double(d)));
  }
  return q;
}

// §3b for L features, of which rows(first, n) gives some. Only their scores against every concept stay in memory, (L, H·C).
Kept choose_concepts(const Run& run, const ConceptWeights& w, int64_t L, Tensor text, int64_t k, const std::function<Tensor(int64_t first, int64_t n)>& rows) {
  if (L <= k) return keep_all(L);
  if (text.rows == 0) throw Error(Status::invalid_argument, "the ConceptSelector weighs its concepts by the text of the prompt, and there is none; give a question");
  Ops& ops = run.ops;
  Arena::Scope scope(run.arena);
  const int64_t D = text.cols, d = D / kConceptHeads, C = w.queries.rows + text.rows;
  const std::vector<Tensor> q = concept_queries(run, w, text);
  const Tensor z = run.arena.tensor(L, kConceptHeads * C), y = run.arena.tensor(L, 1);
  for (int64_t first = 0; first < L; first += kConceptBlock) {
    Arena::Scope block(run.arena);
    const int64_t n = std::min(kConceptBlock, L - first);
    const Tensor keys = run.arena.tensor(n, D);
    ops.linear(keys, rows(first, n), w.k, nullptr);
    for (int64_t h = 0; h < kConceptHeads; ++h) ops.products(z.row_range(first, n).col_range(h * C, C), keys.col_range(h * d, d), q[size_t(h)]);
  }
  ops.concept_scores(y, z, kConceptHeads, run.arena.bytes(ops.concept_scratch(z.cols)));

  std::vector<double> score(static_cast<size_t>(L));
  ops.read(score.data(), y);
  Kept kept = keep_all(L);
  std::vector<int64_t>& index = kept.index;
  std::partial_sort(index.begin(), index.begin() + k, index.end(), [&](int64_t a, int64_t b) {
    return score[size_t(a)] != score[size_t(b)] ? score[size_t(a)] > score[size_t(b)] : a < b;
  });
  index.resize(size_t(k));
  std::sort(index.begin(), index.end());
  for (const int64_t i : index) kept.gain.push_back(std::exp(score[size_t(i)]));
  kept.coverage = std::accumulate(kept.gain.begin(), kept.gain.end(), 0.0);
  for (const double s : score) kept.whole += std::exp(s);
  return kept;
}

}  // namespace

Kept select_coverage(const Run& run, Tensor v, Tensor text, int64_t k, size_t memory_allowed) {
  if (v.rows <= k) return keep_all(v.rows);
  Kept kept;
  Arena::Scope scope(run.arena);
  kept.index.resize(size_t(k));
  kept.gain.resize(size_t(k));
  const size_t bytes = run.ops.coverage_scratch(v.rows, v.cols, text.rows, k, memory_allowed);
  void* scratch = run.arena.bytes(bytes);
  CoverageReport report;
  kept.coverage = run.ops.coverage_select(kept.index.data(), kept.gain.data(), v, text, k, scratch, bytes, &report);
  kept.whole = report.most;
  return kept;
}

Kept select_concept(const Run& run, const ConceptWeights& w, Tensor v, Tensor text, int64_t k) {
  return choose_concepts(run, w, v.rows, text, k, [&](int64_t first, int64_t n) { return v.row_range(first, n); });
}

Kept select_concept(const Run& run, const ConceptWeights& w, const Linear& projector, Tensor states, Tensor text, int64_t k) {
  return choose_concepts(run, w, states.rows, text, k, [&](int64_t first, int64_t n) {
    const Tensor v = run.arena.tensor(n, projector.w.rows);
    run.ops.linear(v, states.row_range(first, n), projector.w, projector.b);
    return v;
  });
}

}  // namespace bg
