// The definition of every operation (contract and bounds: kernels/ops.h), for T = float and double: plain loops, one thread, no intrinsics.
// A row of weights is read into a small buffer of its own, logits are sorted in one; nothing else is allocated.
// Where kernels/cpu/ differs from these beyond the bound, these are right.
// Not here: speed.
#pragma once
#include <cstring>

#include "kernels/blocks.h"
#include "kernels/half.h"
#include "kernels/ops.h"

namespace bg::ref {

template <class T>
T* row(const Tensor& x, int64_t t) {
  return static_cast<T*>(x.data) + t * x.stride;
}

// rows.cpp
template <class T> void write(Tensor y, const float* x);
template <class T, class Host> void read(Host* y, Tensor x);
template <class T> void copy(Tensor y, Tensor x);
// One row of a cache, bf16 or q8_0 (whole blocks): rounded into it, and what it then holds.
void round_row(void* y, Type type, const float* x, int64_t n);
void widen_row(float* y, Type type, const void* x, int64_t n);
template <class T> void gather_rows(Tensor y, Tensor x, const int64_t* index);
template <class T> void scatter_rows(Tensor y, Tensor x, const int64_t* index);
template <class T> void scatter_add_rows(Tensor y, Tensor x, const int64_t* index);
template <class T> void embed(Tensor y, Weight w, const int32_t* ids);
template <class T> void add_interpolated(Tensor y, Weight table, const int32_t* index, const float* weight);
// linear.cpp, norm.cpp, activation.cpp, rotary.cpp, attention.cpp
template <class T> void linear(Tensor x, const Product& p);
template <class T> void gated(Tensor y, Tensor x, Weight gate, Weight up);
template <class T> void layer_norm(Tensor y, Tensor x, const float* w, const float* b, float eps);
template <class T> void rms_norm(Tensor y, Tensor x, const float* w, float eps);
template <class T> void gelu_tanh(Tensor y, Tensor x);
template <class T> void gelu_erf(Tensor y, Tensor x);
template <class T> void silu_mul(Tensor y, Tensor gate, Tensor up);
template <class T> void add(Tensor y, Tensor x);
template <class T> void rotary(Tensor y, int64_t heads, Tensor cos, Tensor sin);
template <class T> void attention_frames(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame);
template <class T> void attention_causal(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past);
// dilated.cpp, concept.cpp
template <class T> void attention_dilated(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n);
template <class T> void products(Tensor y, Tensor a, Tensor b);
template <class T> void scale(Tensor y, double a);
size_t concept_scratch(int64_t columns);
template <class T> void concept_scores(Tensor y, Tensor z, int64_t heads, void* scratch);

// sample.cpp
template <class T> Likeliest likeliest(Tensor logits);
template <class T> double candidates(Candidate* found, Tensor logits, int64_t k, double temperature);
template <class T> void penalise(Tensor logits, const int32_t* ids, int64_t n, double penalty);

// coverage.cpp
template <class T> size_t coverage_scratch(int64_t L, int64_t D, int64_t m);
template <class T> double coverage_select(int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch, CoverageReport* report);
// How C is counted in integers (coverage.cpp has the equations): visual entries and gains in units of 2^−bits, text entries in 2^text_shift of them.
struct CoverageUnits {
  int bits = 0, text_shift = 0;
  double visual_scale = 0, text_scale = 0;  // times E_ij/Z_i: C_ij in its units
};
CoverageUnits coverage_units(int64_t L, int64_t m);
int coverage_sum_bits(int64_t L);                                // Z is counted in units of 2^−this
double coverage_scale(int64_t z, int64_t L, double scale);       // scale/Z, 0 where Z is
// The k greedy columns of C (rows, L) in units of 2^−bits, every gain evaluated at every step. best (rows) is scratch; results as in Ops::coverage_select.
double greedy_plain(int64_t* index, double* gain, const int64_t* c, int64_t rows, int64_t L, int64_t k, int64_t* best, int bits);
// The choice from E (m+L, L), text rows first. c (m+L, L) and best (m+L) are scratch.
template <class T>
double coverage_of_exponentials(int64_t* index, double* gain, const T* e, int64_t m, int64_t L, int64_t k, int64_t* c, int64_t* best);
// Choices in the order taken → ascending index, each with its gain; returns Σ gain in the order taken.
double in_index_order(int64_t* index, double* gain, int64_t k);

// memory.cpp: 64-byte aligned zero-filled host memory; large blocks come from the system page by page as they are touched. nullptr when there is none left.
void* allocate(size_t bytes);
void release(void* p, size_t bytes);

}  // namespace bg::ref
