// What the next token is chosen by, of a row of V logits.
//   likeliest   1024 logits a block of 256. V·8 bytes read in two launches (the second time out of the second cache), V double e^x: at V = 151,936
//               0.6 MB, 0.2 µs at 3 TB/s; the two launches, the download and, where doubles are slow (1/64: 6 µs on 128 processors), e^x take longer.
//   candidates  the same two launches; then
//     select_largest  4096 logits (V / 2048 where that is more) a block of 256: the k largest of them, as keys that all differ. A digit of 11 bits after the other is
//                     counted in shared memory (8 KB), until it is clear which keys are as large as the k-th: 3 … 4 passes over 16 KB, 38 blocks.
//     sort_largest    one block of 1024: the k largest of what the blocks found (38·k keys: 311 KB for k = 1024, 3 … 4 times out of the second cache), then a bitonic
//                     sort of k in shared memory (16 KB): 55 steps for 1024. Out: 8 bytes each.
//   penalise    a thread a token.
// The order in which keys are collected is that of atomics, and is lost in the next step: a set of keys that all differ has one order.
// Not measured yet. Sums in double: of a thread, of the warps, of the blocks, each in ascending order.
#include <math.h>

#include <vector>

#include "kernels/cuda/cuda.h"

namespace bg::BG_CUDA {
namespace {

constexpr int kThreads = 256;

// Logit j as a number that orders as the logit does, and before a later one where they are equal: the largest is the choice.
__device__ inline uint64_t key_of(float logit, int64_t j) {
  const uint32_t bits = simt::bits_of(logit + 0.0f), ordered = bits >> 31 ? ~bits : bits | 0x80000000u;  // −0 becomes 0
  return uint64_t(ordered) << 32 | uint32_t(~uint32_t(j));
}
__host__ __device__ inline float logit_of(uint64_t key) {
  const uint32_t ordered = uint32_t(key >> 32);
  return __builtin_bit_cast(float, ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}
constexpr uint64_t kNotFinite = ~uint64_t(0);

constexpr int kChunk = 4 * kThreads;  // logits of a block

// What a block found in its logits. key: the largest; kNotFinite where one of them is not.
struct Best {
  uint64_t key;
  double sum;  // Σ e^((z − the largest of all)/temperature)
};

// f(a, b) over a block's values, in a tree: on thread 0.
template <class T, class F>
__device__ inline T over_block(T value, F f) {
  SIMT_SHARED(T, of_warp, kThreads / 32);
  for (int o = 16; o > 0; o /= 2) value = f(value, __shfl_down_sync(0xffffffffu, value, unsigned(o)));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x > 0) return value;
  for (int w = 1; w < kThreads / 32; ++w) value = f(value, of_warp[w]);
  return value;
}

__device__ inline uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

__global__ void __launch_bounds__(kThreads) find_largest(Best* best, const float* z, int64_t V) {
  uint64_t most = 0;
  bool finite = true;
  for (int k = 0; k < 4; ++k) {
    const int64_t j = int64_t(blockIdx.x) * kChunk + k * kThreads + threadIdx.x;
    if (j >= V) continue;
    finite = finite && fabsf(z[j]) <= 3.4028235e38f;
    most = larger(most, key_of(z[j], j));
  }
  most = over_block(finite ? most : kNotFinite, [](uint64_t a, uint64_t b) { return larger(a, b); });
  if (threadIdx.x == 0) best[blockIdx.x].key = most;
}

__global__ void __launch_bounds__(kThreads) sum_exponentials(Best* best, const float* z, int64_t V, double temperature) {
  SIMT_SHARED(uint64_t, most, 1);
  uint64_t mine = 0;
  for (int64_t b = threadIdx.x; b < gridDim.x; b += kThreads) mine = larger(mine, best[b].key);
  mine = over_block(mine, [](uint64_t a, uint64_t b) { return larger(a, b); });
  if (threadIdx.x == 0) *most = mine;
  __syncthreads();
  const double largest = logit_of(*most);
  double sum = 0;
  for (int k = 0; k < 4; ++k) {
    const int64_t j = int64_t(blockIdx.x) * kChunk + k * kThreads + threadIdx.x;
    if (j >= V) continue;
    const double from = double(z[j]) - largest;
    sum += exp(temperature == 1 ? from : from / temperature);  // a division takes a while where doubles are slow
  }
  sum = over_block(sum, [](double a, double b) { return a + b; });
  if (threadIdx.x == 0) best[blockIdx.x].sum = sum;
}

// ---- the k largest

constexpr int kDigitBits = 11, kDigits = 1 << kDigitBits, kSortThreads = 1024;
constexpr int64_t kSelectLogits = 4096, kSelectBlocks = 2048;  // of a block, at least; blocks, at most
static_assert(kSelectLogits >= kMostCandidates, "every block but the last has k");

// Of n keys key(0), key(1), …, all different: a number that k of them reach. From the highest digit down the one in which the k-th largest lies, until all that are
// left lie in it.
template <int kOfBlock, class Key>
__device__ inline uint64_t reached_by(int n, int k, Key key) {
  SIMT_SHARED(int, count, kDigits);
  SIMT_SHARED(int, found, 2);  // the digit; how many keys lie above it
  uint64_t known = 0, mask = 0;
  for (int shift = 64 - kDigitBits;; shift = shift > kDigitBits ? shift - kDigitBits : 0) {  // the last digit repeats bits that are known
    for (int i = int(threadIdx.x); i < kDigits; i += kOfBlock) count[i] = 0;
    __syncthreads();
    for (int i = int(threadIdx.x); i < n; i += kOfBlock) {
      const uint64_t x = key(i);
      if ((x & mask) == known) atomicAdd(&count[(x >> shift) % kDigits], 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      const int lane = int(threadIdx.x);
      int above = 0;
      for (int digit = kDigits - 1 - lane;; digit -= 32) {
        int upto = count[digit];
        for (int o = 1; o < 32; o *= 2) {
          const int other = __shfl_up_sync(0xffffffffu, upto, unsigned(o));
          if (lane >= o) upto += other;
        }
        const unsigned there = __ballot_sync(0xffffffffu, above + upto >= k);
        if (there != 0) {
          if (lane == __ffs(int(there)) - 1) found[0] = digit, found[1] = above + upto - count[digit];
          break;
        }
        above += __shfl_sync(0xffffffffu, upto, 31);
      }
    }
    __syncthreads();
    const int digit = found[0], inside = count[digit];
    k -= found[1];
    known |= uint64_t(digit) << shift;
    mask = ~uint64_t(0) << shift;
    __syncthreads();
    if (inside == k) return known;
  }
}

// to[0 … k): the k largest, in any order.
template <int kOfBlock, class Key>
__device__ inline void collect(uint64_t* to, int n, int k, Key key) {
  SIMT_SHARED(int, taken, 1);
  const uint64_t least = k < n ? reached_by<kOfBlock>(n, k, key) : 0;
  if (threadIdx.x == 0) *taken = 0;
  __syncthreads();
  for (int i = int(threadIdx.x); i < n; i += kOfBlock) {
    const uint64_t x = key(i);
    if (x >= least) to[atomicAdd(taken, 1)] = x;
  }
}

// keys: k of each block, fewer of the last where it has fewer.
__global__ void __launch_bounds__(kThreads) select_largest(uint64_t* keys, const float* z, int64_t V, int64_t chunk, int k) {
  const int64_t first = blockIdx.x * chunk, left = V - first;
  const int n = int(left < chunk ? left : chunk);
  collect<kThreads>(keys + blockIdx.x * int64_t(k), n, k < n ? k : n, [&](int i) { return key_of(z[first + i], first + i); });
}

struct Found {
  float logit;
  int32_t id;
};

__global__ void __launch_bounds__(kSortThreads) sort_largest(Found* found, const uint64_t* keys, int n, int k) {
  SIMT_SHARED(uint64_t, list, kMostCandidates);
  collect<kSortThreads>(list, n, k, [&](int i) { return keys[i]; });
  int size = 1;
  while (size < k) size *= 2;
  const int me = int(threadIdx.x);
  if (me >= k && me < size) list[me] = 0;  // below every key of a finite logit
  for (int width = 2; width <= size; width *= 2) {
    for (int step = width / 2; step > 0; step /= 2) {
      __syncthreads();
      if (me >= size / 2) continue;
      const int a = me / step * 2 * step + me % step, b = a + step;
      const uint64_t x = list[a], y = list[b];
      if ((x < y) == ((a & width) == 0)) list[a] = y, list[b] = x;
    }
  }
  __syncthreads();
  if (me < k) found[me] = {logit_of(list[me]), int32_t(~uint32_t(list[me]))};
}

// ---- the penalty

__global__ void __launch_bounds__(kThreads) penalise_some(float* z, const int32_t* ids, int64_t n, double penalty) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  constexpr double kMost = 3.4028234663852886e38;
  float& at = z[ids[i]];
  const double p = at > 0 ? double(at) / penalty : double(at) * penalty;
  at = float(p > kMost ? kMost : p < -kMost ? -kMost : p);
}

// What the two kernels found: the largest key and the sum, added here, in ascending order. Their results lie at the beginning of c.scratch.
Best best_of(const std::vector<Best>& blocks) {
  Best all{0, 0};
  for (const Best& b : blocks) {
    if (b.key > all.key) all.key = b.key;
    all.sum += b.sum;
  }
  return all;
}
std::vector<Best> launch_best(const Context& c, Tensor logits, double temperature) {
  const int64_t V = logits.cols, blocks = divide_up(V, int64_t(kChunk));
  const float* z = static_cast<const float*>(logits.data);
  Best* best = reinterpret_cast<Best*>(c.scratch);
  BG_LAUNCH(c.device, (find_largest), dim3(unsigned(blocks)), kThreads, 0, best, z, V);
  BG_LAUNCH(c.device, (sum_exponentials), dim3(unsigned(blocks)), kThreads, 0, best, z, V, temperature);
  return std::vector<Best>(static_cast<size_t>(blocks));
}

}  // namespace

Likeliest likeliest(const Context& c, Tensor logits) {
  std::vector<Best> blocks = launch_best(c, logits, 1);
  c.device.download(blocks.data(), c.scratch, blocks.size() * sizeof(Best));
  const Best best = best_of(blocks);
  if (best.key == kNotFinite) return {0, 0, false, 0};
  return {int32_t(~uint32_t(best.key)), -log(best.sum), true, double(logit_of(best.key))};
}

double candidates(const Context& c, Candidate* found, Tensor logits, int64_t k, double temperature) {
  const int64_t V = logits.cols, share = divide_up(V, kSelectBlocks), chunk = share > kSelectLogits ? share : kSelectLogits, blocks = divide_up(V, chunk);
  const int64_t last = V - (blocks - 1) * chunk, keys = (blocks - 1) * k + (k < last ? k : last);
  std::vector<Best> best = launch_best(c, logits, temperature);
  const size_t best_bytes = best.size() * sizeof(Best), found_bytes = size_t(k) * sizeof(Found);
  auto* const sorted = reinterpret_cast<Found*>(c.scratch + best_bytes);  // behind them: one download for both
  auto* const selected = reinterpret_cast<uint64_t*>(c.scratch + divide_up(best_bytes + found_bytes, size_t(256)) * 256);
  BG_LAUNCH(c.device, (select_largest), dim3(unsigned(blocks)), kThreads, 0, selected, static_cast<const float*>(logits.data), V, chunk, int(k));
  BG_LAUNCH(c.device, (sort_largest), dim3(1), kSortThreads, 0, sorted, selected, int(keys), int(k));
  std::vector<char> bytes(best_bytes + found_bytes);
  c.device.download(bytes.data(), c.scratch, bytes.size());
  memcpy(best.data(), bytes.data(), best_bytes);
  const Best all = best_of(best);
  if (all.key == kNotFinite) return 0;
  for (int64_t i = 0; i < k; ++i) {
    Found f;
    memcpy(&f, bytes.data() + best_bytes + size_t(i) * sizeof f, sizeof f);
    found[i] = {double(f.logit), f.id};
  }
  return all.sum;
}

void penalise(const Context& c, Tensor logits, const int32_t* ids, int64_t n, double penalty) {
  const int64_t most = int64_t(kIndexBytes / sizeof(int32_t));
  for (int64_t first = 0; first < n; first += most) {
    const int64_t count = n - first < most ? n - first : most;
    c.give(c.index, ids + first, size_t(count) * sizeof(int32_t));
    BG_LAUNCH(c.device, (penalise_some), dim3(unsigned(divide_up(count, int64_t(kThreads)))), kThreads, 0, static_cast<float*>(logits.data),
              reinterpret_cast<const int32_t*>(c.index), count, penalty);
  }
}

}  // namespace bg::BG_CUDA
