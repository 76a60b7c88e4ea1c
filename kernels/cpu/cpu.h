// The operations of the CPU backend: how each is cut into blocks for the threads. Contract, equations and bounds: kernels/ops.h; definition:
// the file of the same name in kernels/ref/; inner loops: *.isa.cpp. All activations float32.
// Not here: arithmetic that depends on the instruction set.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/threads.h"
#include "kernels/ops.h"

namespace bg::cpu {

struct Context {
  const IsaTable& isa;
  Precision precision;
  Threads& threads;
  char* scratch;           // kThreadScratch bytes for each thread
  char* packed;            // kPackedBytes: the rows of x that a product works on
  std::mutex& packed_turn;

  char* scratch_of(int thread) const { return scratch + size_t(thread) * kThreadScratch; }
};
constexpr size_t kPackedBytes = 32 << 20;

inline float* row(const Tensor& x, int64_t t) { return static_cast<float*>(x.data) + t * x.stride; }

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// body(first, count) for runs of `rows` rows that cost about `work` simple steps each; enough rows in a run that sharing out is worth its price.
template <class Body>
void for_runs(const Context& c, int64_t rows, int64_t work, const Body& body) {
  constexpr int64_t kStepsPerBlock = 1 << 15;
  const int64_t per_block = work >= kStepsPerBlock ? 1 : kStepsPerBlock / (work > 0 ? work : 1);
  c.threads.run(divide_up(rows, per_block), [&](int64_t block, int) {
    const int64_t first = block * per_block;
    body(first, rows - first < per_block ? rows - first : per_block);
  });
}

// body(t) for each of them.
template <class Body>
void for_rows(const Context& c, int64_t rows, int64_t work, const Body& body) {
  for_runs(c, rows, work, [&](int64_t first, int64_t count) {
    for (int64_t t = first; t < first + count; ++t) body(t);
  });
}

// rows.cpp
void write(const Context& c, Tensor y, const float* x);
void read(const Context& c, float* y, Tensor x);
void read(const Context& c, double* y, Tensor x);
void copy(const Context& c, Tensor y, Tensor x);
void put_row(const Context& c, void* y, Type type, const float* x, int64_t n);  // one row of it
void gather_rows(const Context& c, Tensor y, Tensor x, const int64_t* index);
void scatter_rows(const Context& c, Tensor y, Tensor x, const int64_t* index);
void scatter_add_rows(const Context& c, Tensor y, Tensor x, const int64_t* index);
void embed(const Context& c, Tensor y, Weight w, const int32_t* ids);
void add_interpolated(const Context& c, Tensor y, Weight table, const int32_t* index, const float* weight);
// linear.cpp, norm.cpp, activation.cpp, rotary.cpp, attention.cpp
void linear(const Context& c, Tensor x, const Product* products, int64_t n, Phase phase);
void gated(const Context& c, Tensor y, Tensor x, Weight gate, Weight up, Phase phase);
void layer_norm(const Context& c, Tensor y, Tensor x, const float* w, const float* b, float eps);
void rms_norm(const Context& c, Tensor y, Tensor x, const float* w, float eps);
void gelu_tanh(const Context& c, Tensor y, Tensor x);
void gelu_erf(const Context& c, Tensor y, Tensor x);
void silu_mul(const Context& c, Tensor y, Tensor gate, Tensor up);
void add(const Context& c, Tensor y, Tensor x);
void rotary(const Context& c, Tensor y, int64_t heads, Tensor cos, Tensor sin);
void rotate_into_cache(const Context& c, Tensor keys, Tensor values, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk,
                       float eps, Tensor cos, Tensor sin, int64_t past);
void attention_frames(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame);
void attention_causal(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past);
// For both attentions: how many query rows of `rows` one call takes, so that there is work for all threads; and the rows of k and v, one head's (keys, d), every
// step-th.
int64_t attend_rows(const Context& c, int64_t heads, int64_t rows, int64_t d);
AttendArgs attend_args(const Context& c, const Tensor& k, const Tensor& v, int64_t step);
// dilated.cpp, concept.cpp
void attention_dilated(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n);
void products(const Context& c, Tensor y, Tensor a, Tensor b);  // in linear.cpp
void scale(const Context& c, Tensor y, double a);
size_t concept_scratch(int64_t columns);
void concept_scores(const Context& c, Tensor y, Tensor z, int64_t heads, void* scratch);
// sample.cpp
double candidates(const Context& c, Candidate* found, Tensor logits, int64_t k, double temperature);

// coverage.cpp
size_t coverage_scratch(const Context& c, int64_t L, int64_t D, int64_t m, int64_t k, size_t allowed);
double coverage_select(const Context& c, int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch, size_t bytes, CoverageReport* report);

}  // namespace bg::cpu
