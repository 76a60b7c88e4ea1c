// Products whose arithmetic is float32: every type of weight in Precision::float32, F32 and F16 weights in any precision, and `products` of two activations.
// In: x (T, D) floats, w (N, D) in panels or rows. Out: y (T, N), with what Then says done to it.
//
// The sum of an output: over chunks of kChunk inputs, ascending, each chunk a chain of fmaf from 0 over its inputs, ascending; a quantised weight is the float of
// kernels/blocks.h. Neither kernel below, nor tile, grid or layout, changes a bit. Error: at most kChunk + D/kChunk ≤ D + 1 roundings on a term's way, and the bias.
//
//   multiply_rows   T ≤ kFewRows, bound by memory: a block a panel and 1 or 4 rows of x, a thread (row of the panel, chunk), a line of the panel by 16 threads.
//     grid     panels × groups of rows, the latter next to each other; block 16·(chunks, at most 16 for one row, 8 for four); shared 18, 38 KB: x of the chunks, their sums.
//     bytes    w once (further groups of rows find it in the second cache); FLOP 2·T·N·D.
//   multiply_tiles  a block kTokens × kOutputs of y, a thread (kTokens/8) × (kOutputs/16) of them in registers, twice: the chunk's sum and the total. Steps of 16 inputs,
//                   two of them in shared memory; x comes by asynchronous copies of four bytes, since rows begin anywhere, F32 weights by those of 16, others through
//                   registers, where they become floats once for the block.
//     grid     tiles in groups of kGroup tiles of rows that go through the weights together; block 128; shared 128·(kTokens + kOutputs + 8) bytes: 26 KB for 64 × 128,
//              13 KB for 32 × 64, which is for few tiles.
//     bytes    per step of 64 × 128 out of the second cache: 4 KB of x and 8 KB (F32) … 1.1 KB (Q4_K) of w, FLOP 2^18: 21 … 50 FLOP per byte.
//   widen_panels    matrices in rows become F32 panels in c.scratch first.
// Not measured yet.
#include "kernels/cuda/host_pieces.h"
#include "kernels/cuda/pieces.h"
#include "kernels/cuda/values.h"

namespace bg::BG_CUDA {
namespace {

constexpr int64_t kChunk = 256;

// ---- few rows

constexpr int64_t kFewRows = 16;
constexpr int kPadded = int(kChunk) + 4;  // floats of a chunk of x in shared memory: two chunks that a warp reads lie in different banks

// sums[t] = the chain of one chunk for row t of x. x: kRows rows, `stride` floats apart.
template <Type T, int kInputs, int kRows>
__device__ __forceinline__ void chain(float (&sum)[kRows], const Piece<T, kInputs>& piece, const float* x, int stride, int64_t j) {
  float w[kInputs];
  piece.values(w, j);
  SIMT_UNROLL
  for (int i = 0; i < kInputs; i += 4) {
    SIMT_UNROLL
    for (int t = 0; t < kRows; ++t) {
      const float4 v = *reinterpret_cast<const float4*>(x + t * stride + i);
      sum[t] = fmaf(v.x, w[i], sum[t]);
      sum[t] = fmaf(v.y, w[i + 1], sum[t]);
      sum[t] = fmaf(v.z, w[i + 2], sum[t]);
      sum[t] = fmaf(v.w, w[i + 3], sum[t]);
    }
  }
}

template <Type T, int kRows, bool kGated>
__global__ void __launch_bounds__(kRows == 1 ? 256 : 128, kRows == 1 ? 2 : 3) multiply_rows(Rows x, const __grid_constant__ Targets targets, int64_t groups) {
  constexpr int kMostChunks = kRows == 1 ? 16 : 8, kInputs = is_quantised(T) && !kGated ? 32 : 16, kWeights = kGated ? 2 : 1;
  constexpr int kStride = kMostChunks * kPadded;
  SIMT_SHARED(float, xs, kRows * kStride);
  SIMT_SHARED(float, parts, kMostChunks * kWeights * kRows * 16);  // sums of chunks
  SIMT_SHARED(float, totals, kWeights * kRows * 16);
  const int64_t t0 = blockIdx.x % groups * kRows, tile = blockIdx.x / groups, D = x.cols, chunks = divide_up(D, kChunk);
  const Target& target = target_at(targets, tile);
  const int64_t at = tile - target.first;
  const size_t offset = size_t(at) * panel_bytes(T, D);
  const unsigned char* const panel[2] = {target.w + offset, kGated ? target.up + offset : nullptr};
  const int threads = int(blockDim.x), me = int(threadIdx.x), r = me % 16, c = me / 16, at_once = threads / 16;

  for (int i = me; i < kWeights * kRows * 16; i += threads) totals[i] = 0;
  for (int64_t first = 0; first < chunks; first += at_once) {
    const int64_t begin = (first + c) * kChunk, end = begin + kChunk < D ? begin + kChunk : D;
    Piece<T, kInputs> piece[kWeights] = {}, next[kWeights] = {};
    SIMT_UNROLL
    for (int g = 0; g < kWeights; ++g)
      if (begin < D) piece[g].load(panel[g], r, begin, D);
    for (int i = me; i < kRows * at_once * int(kChunk); i += threads) {
      const int t = i / (at_once * int(kChunk)), k = i % (at_once * int(kChunk));
      const int64_t j = first * kChunk + k;
      xs[t * kStride + k / int(kChunk) * kPadded + k % int(kChunk)] = j < D && t0 + t < x.rows ? x.data[(t0 + t) * x.stride + j] : 0.0f;
    }
    __syncthreads();
    float sum[kWeights][kRows] = {};
    for (int64_t j = begin; j < end; j += kInputs) {
      SIMT_UNROLL
      for (int g = 0; g < kWeights; ++g)
        if (j + kInputs < end) next[g].load(panel[g], r, j + kInputs, D);
      SIMT_UNROLL
      for (int g = 0; g < kWeights; ++g) {
        chain(sum[g], piece[g], xs + c * kPadded + (j - begin), kStride, j);
        piece[g] = next[g];
      }
    }
    SIMT_UNROLL
    for (int g = 0; g < kWeights; ++g)
      SIMT_UNROLL
      for (int t = 0; t < kRows; ++t) parts[((c * kWeights + g) * kRows + t) * 16 + r] = sum[g][t];
    __syncthreads();
    const int there = chunks - first < at_once ? int(chunks - first) : at_once;
    for (int i = me; i < kWeights * kRows * 16; i += threads) {
      float total = totals[i];
      for (int k = 0; k < there; ++k) total += parts[k * kWeights * kRows * 16 + i];
      totals[i] = total;
    }
  }
  __syncthreads();
  for (int i = me; i < kRows * 16; i += threads) {
    const int64_t t = t0 + i / 16, n = at * kPanelRows + i % 16;
    if (t >= x.rows || n >= target.rows) continue;
    if constexpr (kGated)
      finish_gated(target.out, t, n, totals[i], totals[kRows * 16 + i]);
    else
      finish(target.out, t, n, totals[i]);
  }
}

// ---- many rows

constexpr int kStep = 16, kTileThreads = 128;
constexpr int64_t kGroup = 16;       // token tiles that go through the weights together
constexpr int64_t kManyTiles = 128;  // of 64 × 128: fewer would leave most of a GPU idle

// to[i][row] = x_{first + row, j + i}, i < kStep, 0 outside x; 4 bytes at a time, because rows begin anywhere.
template <int kTokens>
__device__ __forceinline__ void copy_tokens(float* to, const Rows& x, int64_t first, int64_t j) {
  const int i = int(threadIdx.x) % kStep;
  SIMT_UNROLL
  for (int k = 0; k < kTokens * kStep / kTileThreads; ++k) {
    const int row = int(threadIdx.x) / kStep + k * (kTileThreads / kStep);
    const bool valid = first + row < x.rows && j + i < x.cols;
    simt::copy_async<4>(to + i * (kTokens + 4) + row, valid ? x.data + (first + row) * x.stride + j + i : x.data, valid);
  }
}

// Where column `column` of a tile lies: row n of w, or with the two of `gated` of the gate in its first half, of up in its second. Columns after the last
// panel read that one again; nobody stores them.
template <Type T, int kOutputs, bool kGated>
__device__ __forceinline__ const unsigned char* panel_of(const Target& target, int64_t tile, int column, int64_t D) {
  constexpr int kWidth = kGated ? kOutputs / 2 : kOutputs;
  const int64_t n = tile * kWidth + column % kWidth, panel = n / kPanelRows, last = (target.rows - 1) / kPanelRows;
  return (column < kWidth ? target.w : target.up) + size_t(panel < last ? panel : last) * panel_bytes(T, D);
}

// How the weights of a tile come to shared memory, [kStep][kOutputs + 4] floats: `start` begins, `land` ends it when the step before has been computed.
template <Type T, int kOutputs, bool kGated>
struct Weights {
  static constexpr int kInputs = kStep * kOutputs / kTileThreads;
  const unsigned char* panel;
  int64_t D;
  Piece<T, kInputs> piece;
  __device__ Weights(const Target& target, int64_t tile, int64_t D_) : panel(panel_of<T, kOutputs, kGated>(target, tile, column(), D_)), D(D_) {}
  static __device__ int column() { return int(threadIdx.x) % kOutputs; }
  static __device__ int first() { return int(threadIdx.x) / kOutputs * kInputs; }
  __device__ void start(float*, int64_t j) { piece.load(panel, column() % 16, j + first(), D); }
  __device__ void land(float* to, int64_t j) const {
    float v[kInputs];
    piece.values(v, j + first());
    SIMT_UNROLL
    for (int i = 0; i < kInputs; ++i) to[(first() + i) * (kOutputs + 4) + column()] = v[i];
  }
};

// The lines of F32 panels are rows of the tile as they are.
template <int kOutputs, bool kGated>
struct Weights<Type::f32, kOutputs, kGated> {
  static constexpr int kQuads = kOutputs / 4;
  const unsigned char* panel;
  int64_t D;
  __device__ Weights(const Target& target, int64_t tile, int64_t D_) : panel(panel_of<Type::f32, kOutputs, kGated>(target, tile, 4 * quad(), D_)), D(D_) {}
  static __device__ int quad() { return int(threadIdx.x) % kQuads; }
  __device__ void start(float* to, int64_t j) const {
    SIMT_UNROLL
    for (int k = 0; k < kStep * kQuads / kTileThreads; ++k) {
      const int i = int(threadIdx.x) / kQuads + k * (kTileThreads / kQuads);
      const bool valid = j + i < D;
      simt::copy_async<16>(to + i * (kOutputs + 4) + 4 * quad(), valid ? panel + 64 * (j + i) + quad() % 4 * 16 : panel, valid);
    }
  }
  __device__ void land(float*, int64_t) const {}
};

template <Type T, int kTokens, int kOutputs, bool kGated>
__global__ void __launch_bounds__(kTileThreads, kTokens == 64 ? 2 : 4) multiply_tiles(Rows x, const __grid_constant__ Targets targets, int64_t output_tiles) {
  constexpr int kM = kTokens / 32, kN = kOutputs / 64;  // groups of four tokens and of four outputs of a thread
  static_assert(!kGated || kN == 2, "a thread has as many outputs of the gate as of up");
  constexpr int kX = kStep * (kTokens + 4), kW = kStep * (kOutputs + 4);
  SIMT_SHARED(float, shared, 2 * kX + 2 * kW);
  float *const xs = shared, *const ws = shared + 2 * kX;  // [step][input][token], [step][input][output]
  const TilePlace place = place_of(blockIdx.x, kGroup, divide_up(x.rows, int64_t(kTokens)), output_tiles);
  const Target& target = target_at(targets, place.outputs);
  const int64_t t0 = place.rows * kTokens, tile = place.outputs - target.first, D = x.cols;
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int tokens = 4 * (warp / 2 * 4 + lane / 8), outputs = 4 * (warp % 2 * 8 + lane % 8);  // of the first groups; the next are 32 and 64 on
  Weights<T, kOutputs, kGated> weights(target, tile, D);

  float total[4 * kM][4 * kN] = {}, sum[4 * kM][4 * kN] = {};
  copy_tokens<kTokens>(xs, x, t0, 0);
  weights.start(ws, 0);
  simt::copy_commit();
  weights.land(ws, 0);
  int now = 0;
  for (int64_t j = 0; j < D; j += kStep, now ^= 1) {
    simt::copy_wait<0>();
    __syncthreads();  // this step is there, and nobody reads the one before any more
    const bool more = j + kStep < D;
    if (more) {
      copy_tokens<kTokens>(xs + (now ^ 1) * kX, x, t0, j + kStep);
      weights.start(ws + (now ^ 1) * kW, j + kStep);
      simt::copy_commit();
    }
    SIMT_UNROLL_BY(2)
    for (int i = 0; i < kStep; ++i) {
      float a[4 * kM], b[4 * kN];
      SIMT_UNROLL
      for (int m = 0; m < kM; ++m) {
        const float4 v = *reinterpret_cast<const float4*>(xs + now * kX + i * (kTokens + 4) + tokens + 32 * m);
        a[4 * m] = v.x, a[4 * m + 1] = v.y, a[4 * m + 2] = v.z, a[4 * m + 3] = v.w;
      }
      SIMT_UNROLL
      for (int n = 0; n < kN; ++n) {
        const float4 v = *reinterpret_cast<const float4*>(ws + now * kW + i * (kOutputs + 4) + outputs + 64 * n);
        b[4 * n] = v.x, b[4 * n + 1] = v.y, b[4 * n + 2] = v.z, b[4 * n + 3] = v.w;
      }
      SIMT_UNROLL
      for (int m = 0; m < 4 * kM; ++m)
        SIMT_UNROLL
        for (int n = 0; n < 4 * kN; ++n) sum[m][n] = fmaf(a[m], b[n], sum[m][n]);
    }
    if (more) weights.land(ws + (now ^ 1) * kW, j + kStep);
    if (more && (j + kStep) % kChunk != 0) continue;
    SIMT_UNROLL
    for (int m = 0; m < 4 * kM; ++m)
      SIMT_UNROLL
      for (int n = 0; n < 4 * kN; ++n) total[m][n] += sum[m][n], sum[m][n] = 0;
  }

  // Through shared memory, 32 tokens at a time: rows of y are written in lines.
  constexpr int kWidth = kGated ? kOutputs / 2 : kOutputs, kPitch = kOutputs + 4;
  static_assert(32 * kPitch <= 2 * kX + 2 * kW, "32 tokens fit");
  SIMT_UNROLL
  for (int m = 0; m < kM; ++m) {
    __syncthreads();
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i)
      SIMT_UNROLL
      for (int n = 0; n < kN; ++n)
        *reinterpret_cast<float4*>(shared + (tokens + i) * kPitch + outputs + 64 * n) =
            make_float4(total[4 * m + i][4 * n], total[4 * m + i][4 * n + 1], total[4 * m + i][4 * n + 2], total[4 * m + i][4 * n + 3]);
    __syncthreads();
    for (int i = int(threadIdx.x); i < 32 * kWidth; i += kTileThreads) {
      const float* p = shared + i / kWidth * kPitch + i % kWidth;
      const int64_t t = t0 + 32 * m + i / kWidth, n = tile * kWidth + i % kWidth;
      if (t >= x.rows || n >= target.rows) continue;
      if constexpr (kGated)
        finish_gated(target.out, t, n, p[0], p[kWidth]);
      else
        finish(target.out, t, n, p[0]);
    }
  }
}

// ---- launches

template <Type T, int kRows, bool kGated>
void launch_rows(const Context& c, const Rows& x, Targets targets) {
  const int64_t groups = divide_up(x.rows, int64_t(kRows)), chunks = divide_up(x.cols, kChunk), most = kRows == 1 ? 16 : 8;
  const int64_t blocks = groups * number_tiles(targets, kPanelRows);
  BG_LAUNCH(c.device, (multiply_rows<T, kRows, kGated>), dim3(unsigned(blocks)), dim3(unsigned(16 * (chunks < most ? chunks : most))), 0, x, targets, groups);
}

template <Type T, int kTokens, int kOutputs, bool kGated>
void launch_tiles(const Context& c, const Rows& x, Targets targets) {
  const int64_t tiles = number_tiles(targets, kGated ? kOutputs / 2 : kOutputs), blocks = tiles * divide_up(x.rows, int64_t(kTokens));
  BG_LAUNCH(c.device, (multiply_tiles<T, kTokens, kOutputs, kGated>), dim3(unsigned(blocks)), kTileThreads, 0, x, targets, tiles);
}

template <Type T, bool kGated>
void multiply_panels(const Context& c, const Rows& x, Targets targets) {
  if (x.rows == 1) return launch_rows<T, 1, kGated>(c, x, targets);
  if (x.rows <= kFewRows) return launch_rows<T, 4, kGated>(c, x, targets);
  if constexpr (!kGated)  // the matrices of `gated` are large
    if (number_tiles(targets, 128) * divide_up(x.rows, int64_t(64)) < kManyTiles) return launch_tiles<T, 32, 64, false>(c, x, targets);
  launch_tiles<T, 64, 128, kGated>(c, x, targets);
}

// body<type of the weights>()
template <class Body>
void with_type(Type type, const Body& body) {
  switch (type) {
    case Type::f16: return body.template operator()<Type::f16>();
    case Type::bf16: return body.template operator()<Type::bf16>();
    case Type::q8_0: return body.template operator()<Type::q8_0>();
    case Type::q4_k: return body.template operator()<Type::q4_k>();
    case Type::q6_k: return body.template operator()<Type::q6_k>();
    default: return body.template operator()<Type::f32>();
  }
}

void multiply(const Context& c, const Rows& x, Type type, const Targets& targets) {
  by_pieces(c, type, x.rows, targets, [&](const Targets& t) {
    with_type(type, [&]<Type T>() { t.gated ? multiply_panels<T, true>(c, x, t) : multiply_panels<T, false>(c, x, t); });
  });
}

// ---- matrices in rows: as F32 panels in scratch, some outputs at a time. Models are uploaded in panels; rows are small matrices that were computed.

// A block a panel: its lines in order.
template <Type T>
__global__ void __launch_bounds__(256) widen_panels(float* to, Reader<T, Layout::rows> w, int64_t first, int64_t rows) {
  const int64_t panel = blockIdx.x, D = w.cols;
  for (int64_t i = threadIdx.x; i < D * kPanelRows; i += 256) {
    const int64_t n = first + panel * kPanelRows + i % kPanelRows;
    to[panel * D * kPanelRows + i] = n < rows ? w(n, i / kPanelRows) : 0.0f;
  }
}

// Rows [first, first + count) of w.
const unsigned char* widen(const Context& c, char* to, const Weight& w, int64_t first, int64_t count) {
  auto* const panels = reinterpret_cast<float*>(to);
  with_type(w.type, [&]<Type T>() {
    const auto values = reader_of<T, Layout::rows>(w);
    BG_LAUNCH(c.device, (widen_panels<T>), dim3(unsigned(panels_of(count))), 256, 0, panels, values, first, w.rows);
  });
  return reinterpret_cast<const unsigned char*>(to);
}

// w, or gate and up, as many outputs at a time as fit the scratch as floats.
void multiply_stored_rows(const Context& c, const Rows& x, const Weight& w, const Weight* up, const Output& out) {
  const size_t panel = panel_bytes(Type::f32, w.cols);
  const int64_t most = int64_t(kScratchBytes / (up != nullptr ? 2 : 1) / panel) * kPanelRows;
  if (most == 0) throw DeviceError("a matrix in rows of " + std::to_string(w.cols) + " inputs: a panel of it does not fit the scratch");
  for (int64_t first = 0; first < w.rows; first += most) {
    const int64_t count = w.rows - first < most ? w.rows - first : most;
    Target piece{widen(c, c.scratch, w, first, count), nullptr, count, 0, out};
    if (up != nullptr) piece.up = widen(c, c.scratch + size_t(panels_of(count)) * panel, *up, first, count);
    piece.out.y += first;
    if (out.bias != nullptr) piece.out.bias += first;
    multiply(c, x, Type::f32, {{piece}, 1, w.cols, up != nullptr});
  }
}

const unsigned char* data_of(const Weight& w) { return static_cast<const unsigned char*>(w.data); }

}  // namespace

void linear_float(const Context& c, Tensor x, const Product* products, int64_t n) {
  if (x.rows == 0) return;
  for (int64_t i = 0; i < n; ++i)
    if (products[i].w.layout == Layout::rows) multiply_stored_rows(c, rows_of(x), products[i].w, nullptr, output_of(products[i]));
  for (const Type type : {Type::f32, Type::f16, Type::bf16, Type::q8_0, Type::q4_k, Type::q6_k}) {
    Targets targets{{}, 0, x.cols, false};
    for (int64_t i = 0; i < n; ++i) {
      const Weight& w = products[i].w;
      if (w.layout == Layout::panels && w.type == type) targets.at[targets.n++] = {data_of(w), nullptr, w.rows, 0, output_of(products[i])};
      if (targets.n < kMostTargets && i + 1 < n) continue;
      if (targets.n > 0) multiply(c, rows_of(x), type, targets);
      targets.n = 0;
    }
  }
}

void gated_float(const Context& c, Tensor y, Tensor x, Weight gate, Weight up) {
  if (x.rows == 0) return;
  const Output out{static_cast<float*>(y.data), y.stride, nullptr, Then::store};
  if (gate.layout == Layout::rows) return multiply_stored_rows(c, rows_of(x), gate, &up, out);
  multiply(c, rows_of(x), gate.type, {{{data_of(gate), data_of(up), gate.rows, 0, out}}, 1, x.cols, true});
}

// b as a matrix in rows.
void products(const Context& c, Tensor y, Tensor a, Tensor b) {
  if (a.rows == 0) return;
  multiply_stored_rows(c, rows_of(a), {b.data, Type::f32, b.rows, b.cols}, nullptr, {static_cast<float*>(y.data), y.stride, nullptr, Then::store});
}

}  // namespace bg::BG_CUDA
