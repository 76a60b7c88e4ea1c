// The products of Precision::fast with BF16, Q8_0, Q4_K and Q6_K weights: what linear.cu (any number of rows) and linear_large.cu (many) share. One arithmetic, so
// that neither kernel, tile, grid, number of rows nor layout changes a bit.
//
// Arithmetic of p_tn = Σ_j x_tj·w_nj:
//   x is rounded once to bf16, ties to even. Inputs from D on count as 0, up to a whole group of the type's panel (below).
//   D is cut into chunks of kFastChunk inputs. c = 0 at a chunk's start; its groups in ascending order, as accumulate (fragments.h) adds them:
//     BF16  groups of 32: c = mma(c, w, x), 16 inputs at a time
//     Q8_0  groups of 64, for each 32: z = mma(mma(0, q, x), q, x), c = fmaf(z, d, c)
//     Q4_K  groups of 256, for each 32: z = mma(mma(0, q, x), q, x), q = 0 … 15, c = fmaf(z, d·s, c);
//           then z = mma(0, m, X), c = fmaf(−z, dmin, c): X the eight sums of 32 rounded inputs, each as a bf16 and the bf16 of what is left (to 2^−16)
//     Q6_K  groups of 256, for each 16: z = mma(0, q − 32, x), c = fmaf(z, d·s, c)
//   p = ((0 + c_0) + c_1) + …, then epilogue.h.
// Codes are exact in bf16, their products with x in float. mma is the m16n8k16 of the tensor cores with 16 rows of w as A and 8 rows of x as B; how inputs lie in its
// k is fixed by fragments.h. An output depends on its row of w and its row of x only, so garbage in unused columns of B does no harm.
// Error: rounding x 2^−8·Σ|terms| (half of bf16's last bit, 2^−7, where a mantissa is 1); tensor cores add with 2u per term, so the sums (2·D + 64)·u·Σ|terms|. Q4_K's
// terms are |d·s·q·x| and |dmin·m·x|; the second have 31u in a sum of 32, 256u in its two parts, 32u in the mma, and D is at least 256.
#pragma once
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/epilogue.h"
#include "kernels/panels.h"

namespace bg::BG_CUDA {

constexpr int kFastChunk = 512;     // inputs; whole groups of every type
constexpr int kMostTargets = 4;     // products of one launch
constexpr int64_t kLargeRows = 32;  // more rows than these go to linear_large

// x rounded, in c.scratch, as the lanes of a warp hold B: tiles[(t/8 · blocks + j/32)·32 + lane] are the eight values that lane 4·(t%8) + p needs of the 32 inputs
// from j on: b0, b1 of the first mma, b0, b1 of the second. So 512 neighbouring bytes are 8 rows × 32 inputs, to be read (or copied to shared memory) as they are.
// Rows after the last were never written: they hold anything. Inputs from D on are 0.
// sums[(t/8 · blocks/8 + j/256)·32 + lane]: b0, b1 of Q4_K's mma with the minima, where any product of the call has them.
struct RoundedRows {
  const uint4* tiles;
  const uint2* sums;
  int64_t rows;    // T
  int64_t blocks;  // of 32 inputs in a row, ⌈D/64⌉·2
};

// One matrix (N, D) of several that share x, or gate and up of `gated`, and what becomes of it.
struct Target {
  const unsigned char* w;
  const unsigned char* up;  // gated only
  int64_t rows;             // N
  int64_t first;            // of its tiles of outputs in the launch: whoever launches fills it in
  Output out;
};
struct Targets {
  Target at[kMostTargets];
  int n;
  int64_t cols;  // D
  bool gated;    // n = 1: y = silu(x·wᵀ)·(x·upᵀ)
};

// The tiles of all targets of a launch, `width` outputs each, one target after the other: numbers them, returns how many there are.
inline int64_t number_tiles(Targets& targets, int64_t width) {
  int64_t tiles = 0;
  for (int i = 0; i < targets.n; ++i) {
    targets.at[i].first = tiles;
    tiles += divide_up(targets.at[i].rows, width);
  }
  return tiles;
}
// Whose tile it is. Targets are read where the launch put them (__grid_constant__): a copy would cost registers all the way to the end.
__device__ __forceinline__ const Target& target_at(const Targets& targets, int64_t tile) {
  int found = 0;
  SIMT_UNROLL
  for (int i = 1; i < kMostTargets; ++i)
    if (i < targets.n && tile >= targets.at[i].first) found = i;
  return targets.at[found];
}
// The block's number → its tile of rows of x and its tile of outputs: tiles of rows in groups, which go through the weights together, and in a group next to each other,
// so that the blocks that run at a time share weights and x in the second cache.
struct TilePlace {
  int64_t rows, outputs;
};
__device__ __forceinline__ TilePlace place_of(int64_t block, int64_t group_tiles, int64_t row_tiles, int64_t output_tiles) {
  const int64_t group = block / (group_tiles * output_tiles), left = row_tiles - group * group_tiles, width = left < group_tiles ? left : group_tiles;
  const int64_t in_group = block - group * group_tiles * output_tiles;
  return {group * group_tiles + in_group % width, in_group / width};
}

// linear_large.cu. Panels, and many rows.
void linear_large(const Context& c, Type type, const RoundedRows& x, const Targets& targets);
// linear_cublas.cu. Panels, and kVendorRows rows at least, with a Context::vendor.
void linear_vendor(const Context& c, const Rows& x, Type type, const Targets& targets);
// linear_float.cu. F32 and F16 weights, and all of them in Precision::float32.
void linear_float(const Context& c, Tensor x, const Product* products, int64_t n);
void gated_float(const Context& c, Tensor y, Tensor x, Weight gate, Weight up);

}  // namespace bg::BG_CUDA
