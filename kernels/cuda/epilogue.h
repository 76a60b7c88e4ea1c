// What becomes of a product in the same pass: bias, then store, add or an activation (ops.h, Then). One place, so that every kernel of linear gives the same bits.
// Included by linear*.cu.
#pragma once
#include "kernels/cuda/activations.h"
#include "kernels/cuda/cuda.h"

namespace bg::BG_CUDA {

// Where the products of one matrix go.
struct Output {
  float* y;           // (T, N)
  int64_t stride;     // from row to row
  const float* bias;  // (N) or nullptr
  Then then;
};
inline Output output_of(const Product& p) { return {static_cast<float*>(p.y.data), p.y.stride, p.bias, p.then}; }

// y_tn = what becomes of p = Σ_j x_tj·w_nj
__device__ inline void finish(const Output& o, int64_t t, int64_t n, float p) {
  if (o.bias != nullptr) p += o.bias[n];
  float& y = o.y[t * o.stride + n];
  switch (o.then) {
    case Then::store: y = p; break;
    case Then::add: y += p; break;
    case Then::gelu_tanh: y = gelu_tanh(p); break;
    case Then::gelu_erf: y = gelu_erf(p); break;
  }
}

// y_tn = silu(gate)·up
__device__ inline void finish_gated(const Output& o, int64_t t, int64_t n, float gate, float up) { o.y[t * o.stride + n] = silu(gate) * up; }

}  // namespace bg::BG_CUDA
