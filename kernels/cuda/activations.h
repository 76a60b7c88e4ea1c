// Activations of one float, for the element kernels (elements.cu) and for what products do with their sums (linear.cu). Included by *.cu.
// Errors with expf and erff within 2 ulp = 4u (the device's; e^x by expf, never by an intrinsic): the contract has 16u·(|x| + |y|) for gelu, 16u·|y| for silu·up.
//   gelu_tanh: with s = |z|, z as below off by 5u·s: e^z 4u + 5u·s, so 5u·s·σ(−s)·|x| ≤ 1.4u·|x|, and 4u + 2u of |y|
//   gelu_erf: erf 4u, and 1.5u of its argument, (2/√π)·a·e^(−a²) ≤ 0.49 of it: 2.4u·|x|; the sum u, half, product u
//   silu: e^−g 4u, sum and quotient u each; where e^−g overflows, g·σ(g) is below 2^-120
#pragma once
#include "kernels/cuda/simt.h"

namespace bg::BG_CUDA {

// x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))) = x/(1 + e^z), z = −√(8/π)·(x + 0.044715·x³)
__device__ inline float gelu_tanh(float x) { return x / (1.0f + expf(x * fmaf(x * x, -0.0713548162726f, -1.59576912160573f))); }

// x/2·(1 + erf(x/√2))
__device__ inline float gelu_erf(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// x/(1 + e^−x)
__device__ inline float silu(float x) { return x / (1.0f + expf(-x)); }

}  // namespace bg::BG_CUDA
