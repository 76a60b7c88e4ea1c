// Products of many rows with BF16, Q8_0, Q4_K and Q6_K weights on tensor cores: the arithmetic of linear.h, so the bits of linear.cu, made for computing rather than
// for reading. In: x rounded (RoundedRows), weights in panels. Out: y, with what Then or `gated` says done to it.
//
//   multiply_large  a block: kTokens (64 or 128) rows of x × eight panels (128 outputs; of `gated` 64, four panels of the gate and four of up). A warp: 64 rows × two
//                   panels, which with `gated` are the same one of gate and up; its sums of a chunk and their total are 128 registers. Steps of 64 inputs are copied
//                   to shared memory as they are stored, weights too, kStages of them under way; a warp takes A from there by the loads of fragments.h and unpacks it
//                   in registers for its eight mma columns of rows, B in 16-byte words. Neither read meets a bank twice: a warp's are 256 or 512 bytes in a row.
//     grid     tiles in groups of kGroup tiles of rows that go through the weights together: in a group the rows are next to each other and share them.
//     block    32·kTokens/16 threads (128, 256); shared kStages·(kTokens·128 + 8·(2048 BF16, 1088, 768 + kTokens·4, 1152)) bytes: 33 … 48 KB for 64 rows, two blocks
//              a processor; 74 … 96 KB for 128.
//     per step of 128 × 128: 32 KB (BF16), 25, 22 + 4/4, 25 out of the second cache, 2^21 FLOP: 64 … 95 FLOP per byte; 64 × 128: 43 … 73.
//     per warp and 32 inputs: 32 mma; besides 2 (Q8_0, Q4_K) or 4 (Q6_K) float instructions for each, and 28 … 80 to unpack.
// Not measured yet.
#include "kernels/cuda/fragments.h"

namespace bg::BG_CUDA {
namespace {

constexpr int kInputs = 64, kSteps = 4;  // inputs of a step; steps of a group of Q4_K and Q6_K
constexpr int kPanels = 8;               // of a block
constexpr int kWarpTiles = 8;            // of eight rows, of a warp
constexpr int64_t kGroup = 16;
constexpr int64_t kManyTiles = 200;      // of 128 × 128: fewer go to a GPU's processors unevenly, and 64 rows at a time do less so

// ---- one step of a panel in shared memory: its code lines, and the scales that belong to them

template <Type T>
constexpr int kPanelStep = T == Type::bf16 ? 2048 : T == Type::q8_0 ? 1088 : T == Type::q4_k ? 768 : 1152;  // bytes

// Where the i-th 16 bytes of it come from.
template <Type T>
__device__ __forceinline__ int source_of(int step, int i) {
  const int part = step % kSteps;
  if constexpr (T == Type::q4_k) {  // d, dmin and scales: 256 bytes; codes
    return step / kSteps * Group<T>::kBytes + 16 * i + (i < 16 ? 0 : 512 * part);
  } else if constexpr (T == Type::q6_k) {  // d, the scales of these inputs; low halves; high bits, which serve two steps
    const int group = step / kSteps * Group<T>::kBytes;
    if (i < 4) return group + 16 * i;
    if (i < 8) return group + 64 + 64 * part + 16 * (i - 4);
    if (i < 40) return group + 320 + 512 * part + 16 * (i - 8);
    return group + 2368 + 512 * (part / 2) + 16 * (i - 40);
  } else {
    return step * kPanelStep<T> + 16 * i;
  }
}

// By a warp. BF16 panels may end in the middle of a step: zeros then.
template <Type T>
__device__ __forceinline__ void copy_panel(unsigned char* to, const unsigned char* panel, int step, int64_t cols, int lane) {
  constexpr int kPieces = kPanelStep<T> / 16;
  SIMT_UNROLL
  for (int k = 0; k < (kPieces + 31) / 32; ++k) {
    const int i = lane + 32 * k;
    const bool valid = T != Type::bf16 || i < kPieces / 2 || int64_t(step) * kInputs + 32 < cols;
    if (i < kPieces) simt::copy_async<16>(to + 16 * i, valid ? panel + source_of<T>(step, i) : panel, valid);
  }
}

struct SharedBytes {
  const unsigned char* at;
  __device__ __forceinline__ uint32_t four(size_t i) const { return *reinterpret_cast<const uint32_t*>(at + i); }
  __device__ __forceinline__ uint2 eight(size_t i) const { return *reinterpret_cast<const uint2*>(at + i); }
};

// Block b (32 inputs) of part `part` of a group, as block 0 of a Group: the words that fragments(·, 0) and scale(0, ·) look at.
template <Type T>
__device__ __forceinline__ void load_block(Group<T>& w, const unsigned char* at, int part, int b, int lane) {
  const SharedBytes from{at};
  const size_t row = size_t(lane / 4), line = size_t(64 * (lane % 4)) + 8 * row;
  if constexpr (T == Type::bf16) {
    w.load(from, size_t(b) * Group<T>::kBytes, lane);
  } else if constexpr (T == Type::q8_0) {
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) w.line[i] = from.eight(size_t(512 * b + 256 * i) + line);
    w.d[0] = from.four(size_t(1024 + 32 * b) + 4 * row);
  } else if constexpr (T == Type::q4_k) {
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const uint2 v = from.eight(size_t(256 + 256 * i) + line);
      w.line[i] = make_uint2(v.x >> (4 * b), v.y >> (4 * b));
    }
    w.d = from.four(4 * row);
    w.scales[0] = from.eight(64 + 8 * row), w.scales[2] = from.eight(192 + 8 * row);
  } else {
    const int high_bits = part % 2 * 4 + 2 * b;
    SIMT_UNROLL
    for (int i = 0; i < 2; ++i) {
      const uint2 low = from.eight(size_t(128 + 256 * i) + line), high = from.eight(size_t(640 + 256 * i) + line);
      w.low[i] = make_uint2(low.x >> (4 * b), low.y >> (4 * b)), w.high[i] = make_uint2(high.x >> high_bits, high.y >> high_bits);
    }
    const uint2 scales = from.eight(64 + 8 * row);
    w.scales[0] = make_uint2(scales.x >> (16 * b), scales.y >> (16 * b));
    w.d = from.four(4 * row);
  }
}

// c[q][i] += one step of panel q × eight rows i, in the order of accumulate (fragments.h). x: of the warp's first eight rows.
template <Type T>
__device__ __forceinline__ void accumulate_step(float (&c)[2][kWarpTiles][4], const unsigned char* const (&panel)[2], const uint4* x, int part, int lane) {
  SIMT_UNROLL_BY((T == Type::bf16 ? 2 : 1))  // both blocks' codes would not fit the registers
  for (int b = 0; b < 2; ++b) {
    uint32_t a[2][2][4];
    float2 scale[2][2];
    SIMT_UNROLL
    for (int q = 0; q < 2; ++q) {
      Group<T> w;
      load_block<T>(w, panel[q], part, b, lane);
      w.fragments(a[q], 0);
      if constexpr (T != Type::bf16) scale[q][0] = w.scale(T == Type::q4_k ? 2 * part + b : 0, 0);
      if constexpr (T == Type::q6_k) scale[q][1] = w.scale(0, 1);
    }
    SIMT_UNROLL
    for (int i = 0; i < kWarpTiles; ++i) {
      const uint4 v = x[64 * i + 32 * b + lane];
      const uint32_t inputs[2][2] = {{v.x, v.y}, {v.z, v.w}};
      SIMT_UNROLL
      for (int q = 0; q < 2; ++q) {
        if constexpr (T == Type::bf16) {
          simt::mma_bf16(c[q][i], a[q][0], inputs[0]);
          simt::mma_bf16(c[q][i], a[q][1], inputs[1]);
        } else if constexpr (T == Type::q6_k) {
          SIMT_UNROLL
          for (int k = 0; k < 2; ++k) {
            float z[4] = {};
            simt::mma_bf16(z, a[q][k], inputs[k]);
            fold(c[q][i], z, scale[q][k]);
          }
        } else {
          float z[4] = {};
          simt::mma_bf16(z, a[q][0], inputs[0]);
          simt::mma_bf16(z, a[q][1], inputs[1]);
          fold(c[q][i], z, scale[q][0]);
        }
      }
    }
  }
}

// At the end of a group of Q4_K: less the minima times the sums of its inputs.
__device__ __forceinline__ void accumulate_minima(float (&c)[2][kWarpTiles][4], const unsigned char* const (&panel)[2], const uint2* sums, int lane) {
  SIMT_UNROLL
  for (int q = 0; q < 2; ++q) {
    const SharedBytes from{panel[q]};
    const size_t row = size_t(lane / 4);
    Group<Type::q4_k> w;
    w.scales[1] = from.eight(128 + 8 * row), w.scales[2] = from.eight(192 + 8 * row);
    uint32_t m[4];
    w.minima(m, lane);
    const float2 dmin = two_halves(from.four(32 + 4 * row));
    SIMT_UNROLL
    for (int i = 0; i < kWarpTiles; ++i) {
      const uint2 v = sums[32 * i + lane];
      const uint32_t two[2] = {v.x, v.y};
      float z[4] = {};
      simt::mma_bf16(z, m, two);
      fold(c[q][i], z, make_float2(-dmin.x, -dmin.y));
    }
  }
}

// ---- the block

// Shared memory of a step, in this order: eight panels, tiles of x, and their sums.
template <Type T, int kTokens>
struct Stage {
  static constexpr int kX = kPanels * kPanelStep<T>, kSums = kX + kTokens / 8 * 1024, kBytes = kSums + (T == Type::q4_k ? kTokens / 8 * 256 : 0);
  static constexpr int kStages = kTokens == 128 ? 3 : 2;
  static constexpr int kPitch = 16 * kPanels + 4;  // floats from one row to the next, when the sums go out through shared memory
  static constexpr size_t kShared = size_t(kStages * kBytes) > sizeof(float) * kTokens * kPitch ? size_t(kStages * kBytes) : sizeof(float) * kTokens * kPitch;
};

template <Type T, int kTokens>
__device__ __forceinline__ void copy_step(unsigned char* to, const unsigned char* const (&panel)[kPanels * 16 / kTokens], const RoundedRows& x, int first_tile, int step,
                                          int64_t cols) {
  using S = Stage<T, kTokens>;
  constexpr int kWarps = kTokens / 16, kThreads = 32 * kWarps;
  const int thread = simt::fresh(int(threadIdx.x)), lane = thread % 32, warp = thread / 32;
  SIMT_UNROLL
  for (int k = 0; k < kPanels / kWarps; ++k) copy_panel<T>(to + (warp + k * kWarps) * kPanelStep<T>, panel[k], step, cols, lane);
  const int tiles = int(divide_up(x.rows, int64_t(8))) - first_tile;  // those behind: anything, never stored
  SIMT_UNROLL
  for (int k = 0; k < kTokens / 8 * 64 / kThreads; ++k) {
    const int i = thread + k * kThreads, tile = i / 64;
    if (tile < tiles) simt::copy_async<16>(to + S::kX + 16 * i, x.tiles + (int64_t(first_tile + tile) * x.blocks + 2 * step) * 32 + i % 64);
  }
  if constexpr (T == Type::q4_k) {
    const int i = thread, tile = i / 16;  // 16 bytes each
    if (step % kSteps == kSteps - 1 && tile < tiles)
      simt::copy_async<16>(to + S::kSums + 16 * i, x.sums + (int64_t(first_tile + tile) * (x.blocks / 8) + step / kSteps) * 32 + i % 16 * 2);
  }
}

// What a block computes: rows 8·first_tile … of x, tile `tile` of the target's outputs.
struct Part {
  const Target& target;
  int first_tile, tile;
};
template <int kTokens>
__device__ __forceinline__ Part part_of(int block, const RoundedRows& x, const Targets& targets, int64_t output_tiles) {
  const TilePlace place = place_of(block, kGroup, divide_up(x.rows, int64_t(kTokens)), output_tiles);
  const Target& target = target_at(targets, place.outputs);
  return {target, int(place.rows) * (kTokens / 8), int(place.outputs - target.first)};
}

template <Type T, int kTokens>
__global__ void __launch_bounds__(2 * kTokens, kTokens == 128 ? 1 : 2) multiply_large(RoundedRows x, const __grid_constant__ Targets targets, int64_t output_tiles) {
  using S = Stage<T, kTokens>;
  constexpr int kWarps = kTokens / 16, kThreads = 32 * kWarps, kStages = S::kStages;
  SIMT_DYNAMIC_SHARED(unsigned char, shared);
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32);
  const auto [target, first_tile, tile] = part_of<kTokens>(int(blockIdx.x), x, targets, output_tiles);
  const int panels = int(panels_of(target.rows));

  // Which panel is in which of the eight places: in order, or the gate's in even, up's in odd ones. Past the last panel the last once more, never stored.
  const unsigned char* mine[kPanels / kWarps];
  SIMT_UNROLL
  for (int k = 0; k < kPanels / kWarps; ++k) {
    const int at = warp + k * kWarps;
    const int panel = targets.gated ? tile * (kPanels / 2) + at / 2 : tile * kPanels + at;
    mine[k] = (targets.gated && at % 2 == 1 ? target.up : target.w) + size_t(panel < panels ? panel : panels - 1) * panel_bytes(T, targets.cols);
  }

  const int outputs = warp % 4, rows = warp / 4;  // two panels, 64 rows of x
  const bool busy = int64_t(first_tile) * 8 + 64 * rows < x.rows && (targets.gated ? tile * (kPanels / 2) + outputs : tile * kPanels + 2 * outputs) < panels;
  float c[2][kWarpTiles][4] = {}, total[2][kWarpTiles][4] = {};
  const int steps = int(divide_up(targets.cols, int64_t(kInputs)));
  SIMT_UNROLL
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) copy_step<T, kTokens>(shared + s * S::kBytes, mine, x, first_tile, s, targets.cols);
    simt::copy_commit();
  }
  int stage = 0;
  for (int step = 0; step < steps; ++step) {
    simt::copy_wait<kStages - 2>();
    __syncthreads();  // this step is there, and the place of the one before is free
    const int next = step + kStages - 1;
    if (next < steps) copy_step<T, kTokens>(shared + (stage == 0 ? kStages - 1 : stage - 1) * S::kBytes, mine, x, first_tile, next, targets.cols);
    simt::copy_commit();
    const unsigned char* const at = shared + stage * S::kBytes;
    stage = stage + 1 < kStages ? stage + 1 : 0;
    if (!busy) continue;
    const unsigned char* const panel[2] = {at + 2 * outputs * kPanelStep<T>, at + (2 * outputs + 1) * kPanelStep<T>};
    const int part = step % kSteps;
    accumulate_step<T>(c, panel, reinterpret_cast<const uint4*>(at + S::kX) + rows * kWarpTiles * 64, part, lane);
    if constexpr (T == Type::q4_k)
      if (part == kSteps - 1) accumulate_minima(c, panel, reinterpret_cast<const uint2*>(at + S::kSums) + rows * kWarpTiles * 32, lane);
    if ((step + 1) % (kFastChunk / kInputs) != 0 && step + 1 < steps) continue;
    SIMT_UNROLL
    for (int q = 0; q < 2; ++q)
      SIMT_UNROLL
      for (int i = 0; i < kWarpTiles; ++i)
        SIMT_UNROLL
        for (int e = 0; e < 4; ++e) total[q][i][e] += c[q][i][e], c[q][i][e] = 0;
  }

  // Out through shared memory, so that rows of y are written in lines.
  simt::copy_wait<0>();
  __syncthreads();
  float* const out = reinterpret_cast<float*>(shared);
  const int g = lane / 4, p = lane % 4;
  SIMT_UNROLL
  for (int q = 0; q < 2; ++q) {
    SIMT_UNROLL
    for (int i = 0; i < kWarpTiles; ++i) {
      float* const to = out + (64 * rows + 8 * i + 2 * p) * S::kPitch + 16 * (2 * outputs + q) + 2 * g;
      *reinterpret_cast<float2*>(to) = make_float2(total[q][i][0], total[q][i][2]);
      *reinterpret_cast<float2*>(to + S::kPitch) = make_float2(total[q][i][1], total[q][i][3]);
    }
  }
  __syncthreads();
  const Part part_again = part_of<kTokens>(simt::fresh(int(blockIdx.x)), x, targets, output_tiles);  // not kept in registers all the way
  const int width = targets.gated ? 8 * kPanels : 16 * kPanels;
  for (int i = int(threadIdx.x); i < kTokens * width; i += kThreads) {
    const int64_t t = int64_t(part_again.first_tile) * 8 + i / width, n = int64_t(part_again.tile) * width + i % width;
    if (t >= x.rows || n >= part_again.target.rows) continue;
    const float* const from = out + i / width * S::kPitch;
    const int r = i % width;
    if (targets.gated)
      finish_gated(part_again.target.out, t, n, from[r / 16 * 32 + r % 16], from[r / 16 * 32 + 16 + r % 16]);
    else
      finish(part_again.target.out, t, n, from[r]);
  }
}

template <Type T, int kTokens>
void launch(const Context& c, const RoundedRows& x, Targets targets) {
  const int64_t tiles = number_tiles(targets, targets.gated ? 8 * kPanels : 16 * kPanels), blocks = tiles * divide_up(x.rows, int64_t(kTokens));
  BG_LAUNCH(c.device, (multiply_large<T, kTokens>), dim3(unsigned(blocks)), 2 * kTokens, (Stage<T, kTokens>::kShared), x, targets, tiles);
}

template <Type T>
void launch(const Context& c, const RoundedRows& x, Targets targets) {
  const int64_t tiles = number_tiles(targets, targets.gated ? 8 * kPanels : 16 * kPanels) * divide_up(x.rows, int64_t(128));
  if (tiles >= kManyTiles)
    launch<T, 128>(c, x, targets);
  else
    launch<T, 64>(c, x, targets);
}

}  // namespace

void linear_large(const Context& c, Type type, const RoundedRows& x, const Targets& targets) {
  switch (type) {
    case Type::bf16: return launch<Type::bf16>(c, x, targets);
    case Type::q8_0: return launch<Type::q8_0>(c, x, targets);
    case Type::q4_k: return launch<Type::q4_k>(c, x, targets);
    default: return launch<Type::q6_k>(c, x, targets);
  }
}

}  // namespace bg::BG_CUDA
