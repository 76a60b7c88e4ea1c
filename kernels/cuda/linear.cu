// Products with BF16, Q8_0, Q4_K and Q6_K weights on tensor cores, x rounded to bf16 (arithmetic: linear.h; order of loads and sums: fragments.h), for any number of
// rows, made for few: what bounds them is reading the weights once. In: x (T, D) floats, weights in panels. Out: y, with what Then or `gated` says done to it.
// Matrices in rows give the same bits slowly (RowBytes): on a device weights are in panels.
//
//   multiply   a block: one panel (16 outputs), or two, or the same panel of gate and up; a warp: chunks of 512 inputs of them, kTiles·8 rows of x. Eight warps at
//              most; with D = 4096 each has one chunk, so that 256 panels keep 132 processors reading. A warp asks for kBatch groups at a time, 12 … 17 loads of a lane,
//              2.2 … 4.1 KB, before it uses the first: 16 warps have 35 … 65 KB under way on a processor, where 3 TB/s times 0.8 µs is 18 KB.
//              The sums of chunks meet in shared memory and are added in ascending order.
//     grid     tiles of outputs × tiles of rows, the latter next to each other: they share the weights, by the second cache.
//     shared   slots of (panels, rows, 16) floats, one a chunk: 0.5 KB for one row and D = 4096, at most 40 KB; one row: 1 KB a warp for its chunk of x.
//     bytes    the weights once, and x (2 bytes a value) once a block, out of the caches; FLOP 2·T·N·D of the mma's 2·max(8, T)·N·D.
//     floor    8B at 3 TB/s, one row, BF16 / Q8_0 / Q4_K: q, k, v 16.8 / 8.9 / 4.7 µs; o 11.2 / 5.9 / 3.1; gate and up 67 / 36 / 19; down 34 / 18 / 9.4; head 415 / 220 / 117.
//     work     sm_90, one row, instructions of a warp for 16 × 32 weights: BF16 10, Q8_0 55, Q4_K 48, Q6_K 71, and x: at 3 TB/s and 1.7 GHz 0.2, 1.4, 2.5, 2.5 of the 4
//              that a processor issues in a clock.
//   one row    is rounded by the warps that read it, after they asked for weights, so a step has no other kernel here.
//   round_rows more rows: 6 bytes a value, once a product; 256 threads of eight values.
// More than kLargeRows rows go to linear_large.cu.
// Not measured yet.
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/host_pieces.h"

namespace bg::BG_CUDA {
namespace {

constexpr int kMostWarps = 8;
constexpr size_t kMostSlots = 40 << 10;  // bytes

// ---- x

// Of 32 inputs from j on, those of lane p; from D on zeros. aligned: x is, to 16 bytes.
template <bool kPairs>
__device__ __forceinline__ void load_eight(float (&v)[8], const float* x, int j, int p, int D, bool aligned) {
  if (aligned && j + 32 <= D) {
    if constexpr (kPairs) {
      SIMT_UNROLL
      for (int i = 0; i < 8; i += 2) {
        const float2 two = *reinterpret_cast<const float2*>(x + j + input_of<true>(p, i));
        v[i] = two.x, v[i + 1] = two.y;
      }
    } else {
      SIMT_UNROLL
      for (int i = 0; i < 8; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(x + j + input_of<false>(p, i));
        v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
      }
    }
  } else {
    SIMT_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int at = j + input_of<kPairs>(p, i);
      v[i] = at < D ? x[at] : 0.0f;
    }
  }
}

constexpr int kRoundThreads = 256;

// RoundedRows of x. Blocks: parts of eight rows, `parts` of each.
template <bool kPairs, bool kSums>
__global__ void __launch_bounds__(kRoundThreads) round_rows(uint4* tiles, uint2* sums, Rows x, int64_t blocks, int64_t parts, bool aligned) {
  const int64_t tile = blockIdx.x / parts, left = x.rows - 8 * tile, rows = left < 8 ? left : 8;
  const int64_t i = blockIdx.x % parts * kRoundThreads + threadIdx.x, t = i / 4 % rows;
  const bool mine = i / 4 / rows < blocks;
  const int b = mine ? int(i / 4 / rows) : 0;  // all lanes take part in sums
  const int p = int(i % 4);
  float v[8];
  load_eight<kPairs>(v, x.data + (8 * tile + t) * x.stride, 32 * b, p, int(x.cols), aligned);
  const uint4 rounded = round_eight<kPairs>(v);
  if (mine) tiles[(tile * blocks + b) * 32 + 4 * t + p] = rounded;
  if constexpr (kSums) {
    const float sum = sum_of_32(rounded);
    if (mine && p == 0) store_sum(sums + (tile * (blocks / 8) + b / 8) * 32 + 4 * t, b % 8, sum);
  }
}

// kTiles·8 rows of RoundedRows, at one group of the weights: what a lane has of them.
template <int kTiles>
struct TileRows {
  const uint4* tiles;
  const uint2* sum;
  int64_t tile_step, sum_step, left;  // left: rows from the lane's first on
  __device__ TileRows(const RoundedRows& x, int64_t first_tile, int64_t inputs, int lane)
      : tiles(x.tiles + (first_tile * x.blocks + inputs / 32) * 32 + lane), sum(x.sums + (first_tile * (x.blocks / 8) + inputs / 256) * 32 + lane), tile_step(x.blocks * 32),
        sum_step(x.blocks / 8 * 32), left(x.rows - 8 * first_tile - lane / 4) {}
  __device__ __forceinline__ uint4 operator()(int b, int i) const { return 8 * i < left ? tiles[i * tile_step + 32 * b] : make_uint4(0, 0, 0, 0); }
  __device__ __forceinline__ uint2 sums(int i) const { return 8 * i < left ? sum[i * sum_step] : make_uint2(0, 0); }
};

// A chunk of one row in the shared memory of its warp. It fills all eight columns, which costs nothing: only the first is kept.
constexpr int kChunkBlocks = kFastChunk / 32, kChunkSums = kFastChunk / 256;
struct OneChunk {
  uint4 tile[kChunkBlocks * 4];
  uint2 sum[kChunkSums * 4];
};
struct OneRow {
  const uint4* tile;
  const uint2* sum;
  __device__ OneRow(const OneChunk& x, int inputs, int lane) : tile(x.tile + inputs / 32 * 4 + lane % 4), sum(x.sum + inputs / 256 * 4 + lane % 4) {}
  __device__ __forceinline__ uint4 operator()(int b, int) const { return tile[4 * b]; }
  __device__ __forceinline__ uint2 sums(int) const { return *sum; }
};

template <Type T>
__device__ __forceinline__ void round_chunk(OneChunk* to, const Rows& x, int chunk, bool aligned, int lane) {
  __syncwarp();  // the chunk before has been read
  SIMT_ROLLED
  for (int i = 0; i < kChunkBlocks * 4; i += 32) {
    const int b = (i + lane) / 4, p = lane % 4;
    float v[8];
    load_eight<T == Type::bf16>(v, x.data, chunk * kFastChunk + 32 * b, p, int(x.cols), aligned);
    const uint4 rounded = round_eight<T == Type::bf16>(v);
    to->tile[i + lane] = rounded;
    if constexpr (T == Type::q4_k) {
      const float sum = sum_of_32(rounded);
      if (p == 0) store_sum(to->sum + b / 8 * 4, b % 8, sum);
    }
  }
  __syncwarp();
}

// ---- weights

// A matrix in rows as if it were in panels, four bytes at a time (kernels/panels.cpp).
template <Type T>
struct RowBytes {
  const unsigned char* w;
  int64_t rows, cols, panel;

  __device__ uint32_t half(int64_t r, size_t block, int at) const {  // r: of the panel
    const int64_t n = panel * kPanelRows + r;
    return n < rows ? half_of(w + size_t(n) * stored_bytes(T, cols) + block * block_bytes(T) + at) : 0;
  }
  static __device__ uint32_t half_of(const unsigned char* p) { return uint32_t(p[0]) | uint32_t(p[1]) << 8; }
  __device__ uint32_t word(int64_t r, size_t block, int at) const { return half(r, block, at) | half(r, block, at + 2) << 16; }
  __device__ uint32_t two_rows(int64_t r, size_t block, int at) const { return half(r, block, at) | half(r + 1, block, at) << 16; }

  __device__ uint32_t four(size_t at) const {
    const size_t group = at / Group<T>::kBytes;
    const int k = int(at % Group<T>::kBytes / 4), line = k / 16, r = k % 16;  // word r of a line
    if constexpr (T == Type::bf16) {
      const size_t j = group * 32 + size_t(2 * line);
      return (int64_t(j) < cols ? half(r, j, 0) : 0) | (int64_t(j) + 1 < cols ? half(r, j + 1, 0) << 16 : 0);
    } else if constexpr (T == Type::q8_0) {
      const size_t block = group * 2 + size_t(line < 16 ? line / 8 : r / 8);
      const bool stored = int64_t(block) < cols / 32;
      if (line < 16) return stored ? word(r, block, 2 + line % 8 * 4) ^ 0x80808080u : 0x80808080u;
      return stored ? two_rows(r % 8 * 2, block, 0) : 0;
    } else if constexpr (T == Type::q4_k) {
      if (line == 0) return two_rows(r % 8 * 2, group, r / 8 * 2);
      return word(r, group, 4 * line);  // scales from byte 4 on, codes from 16 on
    } else {
      if (line == 0) return r < 8 ? two_rows(r * 2, group, 208) : 0;
      if (line < 5) return word(r, group, 192 + 4 * (line - 1));
      if (line >= 37) return word(r, group, 128 + 4 * (line - 37));
      const int low = line - 5, first = low / 16 * 64 + low % 8 * 4;
      const uint32_t f = word(r, group, first), s = word(r, group, first + 32);
      return low / 8 % 2 == 0 ? (f & 0x0f0f0f0fu) | (s & 0x0f0f0f0fu) << 4 : (f >> 4 & 0x0f0f0f0fu) | (s & 0xf0f0f0f0u);
    }
  }
  __device__ uint2 eight(size_t at) const { return make_uint2(four(at), four(at + 4)); }
};

template <Type T, Layout L>
__device__ __forceinline__ auto bytes_of(const unsigned char* w, const Target& target, int64_t cols, int64_t panel) {
  if constexpr (L == Layout::panels)
    return PanelBytes{w + size_t(panel) * panel_bytes(T, cols)};
  else
    return RowBytes<T>{w, target.rows, cols, panel};
}

// ---- products

// Of two panels both are multiplied by what was read of x, where that is much; else one after the other, which leaves registers for more warps.
template <int kPanels, int kTiles>
constexpr int kJoint = kTiles > 1 ? kPanels : 1;
// Groups of a panel that a warp asks for before it uses the first.
template <Type T, int kPanels>
constexpr int kBatch = (T == Type::bf16 ? 4 : T == Type::q8_0 ? 2 : kPanels) / kPanels;

// Blocks that a processor should hold at a time: 80, 128 or 255 registers, without a spill.
template <Type T, Layout L, int kTiles>
constexpr int kBlocks = kTiles > 1 || L == Layout::rows ? 1 : T == Type::bf16 || T == Type::q8_0 ? 3 : 2;

// Sums of chunks in shared memory: slot, panel, row of x, row of the panel. 20 floats from one row of x to the next keep a warp's stores in different banks.
template <int kPanels, int kTiles, bool kOne>
struct Slots {
  static constexpr int kRows = kOne ? 1 : 8 * kTiles, kPitch = kOne ? 16 : 20, kFloats = kPanels * kRows * kPitch;
  float* data;
  __device__ __forceinline__ float& at(int slot, int q, int t, int r) const { return data[slot * kFloats + (q * kRows + t) * kPitch + r]; }
  // c: of panels from `part` on.
  template <int n>
  __device__ __forceinline__ void put(int slot, int part, const float (&c)[n][kTiles][4], int lane) const {
    const int g = lane / 4, p = lane % 4;
    SIMT_UNROLL
    for (int q = 0; q < n; ++q) {
      SIMT_UNROLL
      for (int i = 0; i < kTiles; ++i) {
        if (!kOne || p == 0) *reinterpret_cast<float2*>(&at(slot, part + q, 8 * i + 2 * p, 2 * g)) = make_float2(c[q][i][0], c[q][i][2]);
        if (!kOne) *reinterpret_cast<float2*>(&at(slot, part + q, 8 * i + 2 * p + 1, 2 * g)) = make_float2(c[q][i][1], c[q][i][3]);
      }
    }
  }
};

// Of all chunks so many are summed up at a time; the sum so far has a slot of its own then.
__host__ __device__ __forceinline__ int kept(int slots, int chunks) { return slots < chunks ? slots + 1 : slots; }

// x: the one row (kOne), or all of them in `rounded`.
template <Type T, Layout L, int kPanels, int kTiles, bool kOne>
__global__ void __launch_bounds__(32 * kMostWarps, kBlocks<T, L, kTiles>) multiply(Rows x, bool aligned, RoundedRows rounded, const __grid_constant__ Targets targets, int row_tiles, int slots) {
  using W = Group<T>;
  constexpr int kGroups = kFastChunk / W::kInputs;
  constexpr int kTogether = kJoint<kPanels, kTiles>, kGroupsAtOnce = kBatch<T, kTogether>;
  SIMT_DYNAMIC_SHARED(float, shared);
  const Slots<kPanels, kTiles, kOne> sums{shared};
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32), warps = int(blockDim.x / 32);

  const int tile = int(blockIdx.x) / row_tiles, row_tile = int(blockIdx.x) % row_tiles * kTiles;
  const Target& target = target_at(targets, tile);
  const int panel = (tile - int(target.first)) * (targets.gated ? 1 : kPanels), panels = int(divide_up(target.rows, kPanelRows));
  // The block's panel q. Past the last: the last once more, never stored.
  const auto bytes = [&](int q) {
    if (targets.gated) return bytes_of<T, L>(q == 0 ? target.w : target.up, target, targets.cols, panel);
    return bytes_of<T, L>(target.w, target, targets.cols, panel + q < panels ? panel + q : panels - 1);
  };

  const int groups = int(divide_up(targets.cols, int64_t(W::kInputs))), chunks = divide_up(groups, kGroups);
  auto* const mine = reinterpret_cast<OneChunk*>(shared + kept(slots, chunks) * sums.kFloats) + warp;  // kOne
  for (int done = 0; done < chunks; done += slots) {
    const int end = done + slots < chunks ? done + slots : chunks;
    for (int chunk = done + warp; chunk < end; chunk += warps) {
      const int first = chunk * kGroups, last = first + kGroups < groups ? first + kGroups : groups;
      SIMT_ROLLED
      for (int part = 0; part < kPanels; part += kTogether) {
        float c[kTogether][kTiles][4] = {};
        decltype(bytes(0)) from[kTogether];
        SIMT_UNROLL
        for (int q = 0; q < kTogether; ++q) from[q] = bytes(part + q);
        for (int group = first; group < last; group += kGroupsAtOnce) {
          W w[kGroupsAtOnce][kTogether];
          SIMT_UNROLL
          for (int i = 0; i < kGroupsAtOnce; ++i) {
            SIMT_UNROLL
            for (int q = 0; q < kTogether; ++q)
              if (group + i < last) w[i][q].load(from[q], size_t(group + i) * W::kBytes, lane);
          }
          if constexpr (kOne)
            if (part == 0 && group == first) round_chunk<T>(mine, x, chunk, aligned, lane);
          SIMT_UNROLL
          for (int i = 0; i < kGroupsAtOnce; ++i) {
            if (group + i >= last) break;
            if constexpr (kOne)
              accumulate(c, w[i], OneRow(*mine, (group + i - first) * W::kInputs, lane), lane);
            else
              accumulate(c, w[i], TileRows<kTiles>(rounded, row_tile, int64_t(group + i) * W::kInputs, lane), lane);
          }
        }
        sums.put(chunk - done, part, c, lane);
      }
    }
    __syncthreads();
    for (int o = int(threadIdx.x); o < sums.kRows * int(kPanelRows); o += int(blockDim.x)) {
      const int t = o / int(kPanelRows), r = o % int(kPanelRows);
      float sum[kPanels];
      SIMT_UNROLL
      for (int q = 0; q < kPanels; ++q) {
        sum[q] = done == 0 ? 0.0f : sums.at(slots, q, t, r);
        for (int chunk = done; chunk < end; ++chunk) sum[q] += sums.at(chunk - done, q, t, r);
        if (end < chunks) sums.at(slots, q, t, r) = sum[q];
      }
      const int64_t row = 8 * int64_t(row_tile) + t, n = panel * kPanelRows + r;
      if (end < chunks || row >= (kOne ? 1 : rounded.rows)) continue;
      if (targets.gated) {
        if (n < target.rows) finish_gated(target.out, row, n, sum[0], sum[kPanels - 1]);
      } else {
        SIMT_UNROLL
        for (int q = 0; q < kPanels; ++q)
          if (n + q * kPanelRows < target.rows) finish(target.out, row, n + q * kPanelRows, sum[q]);
      }
    }
    __syncthreads();
  }
}

// ---- launches

bool is_aligned(const Rows& x) { return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride % 4 == 0; }

template <Type T, Layout L, int kPanels, int kTiles, bool kOne>
void launch(const Context& c, const Rows& x, const RoundedRows& rounded, Targets targets) {
  using S = Slots<kPanels, kTiles, kOne>;
  const int64_t tiles = number_tiles(targets, kPanelRows * (targets.gated ? 1 : kPanels));
  const int64_t row_tiles = kOne ? 1 : divide_up(rounded.rows, int64_t(S::kRows)), chunks = divide_up(targets.cols, int64_t(kFastChunk));
  const int64_t warps = divide_up(chunks, divide_up(chunks, int64_t(kMostWarps)));  // all with as many chunks, or one less
  const int64_t rounds = int64_t(kMostSlots / (S::kFloats * sizeof(float))) / warps, slots = warps * (rounds * warps < chunks ? rounds : divide_up(chunks, warps));
  const size_t shared = size_t(kept(int(slots), int(chunks))) * S::kFloats * sizeof(float) + (kOne ? size_t(warps) * sizeof(OneChunk) : 0);
  BG_LAUNCH(c.device, (multiply<T, L, kPanels, kTiles, kOne>), dim3(unsigned(tiles * row_tiles)), unsigned(32 * warps), shared, x, is_aligned(x), rounded, targets, int(row_tiles), int(slots));
}

// body<type of the weights>()
template <class Body>
void with_type(Type type, const Body& body) {
  switch (type) {
    case Type::bf16: return body.template operator()<Type::bf16>();
    case Type::q8_0: return body.template operator()<Type::q8_0>();
    case Type::q4_k: return body.template operator()<Type::q4_k>();
    default: return body.template operator()<Type::q6_k>();
  }
}

// x into c.scratch, for weights of this type.
RoundedRows round(const Context& c, const Rows& x, Type type) {
  const int64_t blocks = divide_up(x.cols, int64_t(64)) * 2, tiles = divide_up(x.rows, int64_t(8));
  auto* const to = reinterpret_cast<uint4*>(c.scratch);
  auto* const sums = reinterpret_cast<uint2*>(to + tiles * blocks * 32);
  const int64_t parts = divide_up(blocks * 4 * (x.rows < 8 ? x.rows : 8), int64_t(kRoundThreads));
  const dim3 grid{unsigned(tiles * parts)};
  if (type == Type::bf16)
    BG_LAUNCH(c.device, (round_rows<true, false>), grid, kRoundThreads, 0, to, sums, x, blocks, parts, is_aligned(x));
  else if (type == Type::q4_k)
    BG_LAUNCH(c.device, (round_rows<false, true>), grid, kRoundThreads, 0, to, sums, x, blocks, parts, is_aligned(x));
  else
    BG_LAUNCH(c.device, (round_rows<false, false>), grid, kRoundThreads, 0, to, sums, x, blocks, parts, is_aligned(x));
  return {to, sums, x.rows, blocks};
}

void multiply_rounded(const Context& c, Type type, Layout layout, const RoundedRows& x, const Targets& targets) {
  const Rows none{};
  if (layout == Layout::rows) return with_type(type, [&]<Type T>() { launch<T, Layout::rows, 2, 1, false>(c, none, x, targets); });
  if (x.rows > kLargeRows) return by_pieces(c, type, x.rows, targets, [&](const Targets& t) { linear_large(c, type, x, t); });
  with_type(type, [&]<Type T>() {
    if constexpr (T == Type::bf16)  // the others would not fit the registers
      if (x.rows > 16) return launch<T, Layout::panels, 2, 4, false>(c, none, x, targets);
    if (x.rows > 8) return launch<T, Layout::panels, 2, 2, false>(c, none, x, targets);
    if (targets.gated) return launch<T, Layout::panels, 2, 1, false>(c, none, x, targets);
    launch<T, Layout::panels, 1, 1, false>(c, none, x, targets);
  });
}

// As many rows at a time as fit the scratch when rounded.
void multiply(const Context& c, const Rows& x, Type type, Layout layout, const Targets& targets) {
  if (x.rows == 1 && layout == Layout::panels) {
    return with_type(type, [&]<Type T>() {
      if (targets.gated) return launch<T, Layout::panels, 2, 1, true>(c, x, {}, targets);
      launch<T, Layout::panels, 1, 1, true>(c, x, {}, targets);
    });
  }
  if (c.vendor != nullptr && x.rows >= kVendorRows && layout == Layout::panels) return linear_vendor(c, x, type, targets);
  const size_t eight_rows = size_t(divide_up(x.cols, int64_t(64))) * 2 * (512 + 32);  // tiles and sums
  const int64_t most = int64_t(kScratchBytes / eight_rows) * 8;
  for (int64_t t = 0; t < x.rows; t += most) {
    const Rows piece{x.data + t * x.stride, x.rows - t < most ? x.rows - t : most, x.cols, x.stride};
    Targets to = targets;
    for (int i = 0; i < to.n; ++i) to.at[i].out.y += t * to.at[i].out.stride;
    multiply_rounded(c, type, layout, round(c, piece, type), to);
  }
}

bool is_float(const Context& c, const Weight& w) { return c.precision == Precision::float32 || w.type == Type::f32 || w.type == Type::f16; }
const unsigned char* data_of(const Weight& w) { return static_cast<const unsigned char*>(w.data); }

}  // namespace

// Products of one kind together, kMostTargets in a launch.
void linear(const Context& c, Tensor x, const Product* products, int64_t n) {
  if (x.rows == 0) return;
  if (c.precision == Precision::float32) return linear_float(c, x, products, n);
  const auto alike = [&](int64_t a, int64_t b) { return products[a].w.type == products[b].w.type && products[a].w.layout == products[b].w.layout; };
  for (int64_t i = 0; i < n; ++i) {
    if (is_float(c, products[i].w)) {
      linear_float(c, x, products + i, 1);
      continue;
    }
    bool first = true;  // of its kind
    for (int64_t k = 0; k < i; ++k) first = first && !alike(i, k);
    Targets targets{{}, 0, x.cols, false};
    for (int64_t k = i; first && k < n; ++k) {
      if (alike(i, k)) targets.at[targets.n++] = {data_of(products[k].w), nullptr, products[k].w.rows, 0, output_of(products[k])};
      if (targets.n < kMostTargets && k + 1 < n) continue;
      if (targets.n > 0) multiply(c, rows_of(x), products[i].w.type, products[i].w.layout, targets);
      targets.n = 0;
    }
  }
}

void gated(const Context& c, Tensor y, Tensor x, Weight gate, Weight up) {
  if (x.rows == 0) return;
  if (is_float(c, gate)) return gated_float(c, y, x, gate, up);
  const Output out{static_cast<float*>(y.data), y.stride, nullptr, Then::store};
  multiply(c, rows_of(x), gate.type, gate.layout, {{{data_of(gate), data_of(up), gate.rows, 0, out}}, 1, x.cols, true});
}

}  // namespace bg::BG_CUDA
