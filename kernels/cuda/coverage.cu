// CoverageTokenSelector (MODEL.md §3a) on a GPU. v (L, D), t (m, D) → k indices and gains. Equations: kernels/ref/coverage.cpp; tiles: coverage_tiles.h.
//
// Gains are sums of integers, so a gain is carried on by what changed: where best_i rises from old to now, gain_j += Σ_i max(0, C_ij − now_i) − max(0, C_ij − old_i).
// Stored rows of C (all of them where E fits into memory, else the text rows) carry on all gains after every choice. The visual rows, where they are not stored,
// do so lazily: a gain that is not up to date in them is an upper bound, for best only rises. When the largest (the lowest column on a tie) is up to date, it is
// the column of the plain definition, with the same gain; else the up to kBatch largest of the others are evaluated, E being computed again in the rows that changed.
//
// Launches, nothing on the way but the choice itself being decided on the device:
//   unit rows; E of the text; Z from a pass over all pairs (storing E, or not); scales; the first gains
//   stored: k times  choose, raise, carry_on
//   else    choose, raise; one pass over all pairs, for the first choice lowers every gain; then rounds of  choose, (text: raise, carry_on), raise, list, evaluate
//           A round takes a column or evaluates a batch. As many rounds as columns are missing are launched at once (at least kRounds), then the host looks.
// Bytes, FLOP. Stored: L²·D and 4·L² written, 4·L² read for the first gains, then 4·L for each row whose best rose (some 5·L of them in all): 24·L². Else: three passes
// of L²·D, and 2·D for each pair of a stale column and a row listed for it (in a simulation 1.4 to 2.3·L² pairs; 3.5·L² where rows are alike at random).
// Memory beside E of the stored rows: 4·(m + L)·D, less than 100·(m + L), and 8·k·L where the visual rows are not stored. Not measured yet.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/coverage_tiles.h"
#include "kernels/ref/ref.h"

namespace bg::BG_CUDA {
namespace {

constexpr int kThreads = 256;
constexpr int kMostChoosing = 1024;    // threads of the block that chooses
constexpr int kBuckets = 1024;         // of distances from the largest bound
constexpr int64_t kStoredRows = 64;    // of one block of stored_gains
constexpr int64_t kRounds = 16;        // at least so many between two looks of the host: one costs as much as a few launches
constexpr int64_t kWideFrom = 1536;    // columns from which tiles are 128 wide: 78 blocks

// unit_i = x_i/max(‖x_i‖, 1e-12), squares summed in double; zeros up to the stride. A warp a row.
__global__ void __launch_bounds__(kThreads) unit_rows(float* unit, int64_t stride, Rows x) {
  const int64_t i = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int lane = int(threadIdx.x % 32);
  if (i >= x.rows) return;
  const float* from = x.data + i * x.stride;
  double squares = 0;
  for (int64_t d = lane; d < x.cols; d += 32) squares += double(from[d]) * double(from[d]);
  for (const int o : {8, 16, 1, 2, 4}) squares += __shfl_xor_sync(0xffffffffu, squares, o);  // the tree of kernels/cpu/norm.isa.cpp
  const float norm = fmaxf(float(sqrt(squares)), 1e-12f);
  for (int64_t d = lane; d < stride; d += 32) unit[i * stride + d] = d < x.cols ? from[d] / norm : 0.0f;
}

// A text row's similarities → E = e^((s − max s)·50), NaN → 0, and its Z. One block a row.
__global__ void __launch_bounds__(kThreads) text_exponentials(Selection s) {
  SIMT_SHARED(float, most, kThreads);
  const int t = int(threadIdx.x);
  float* e = s.e + int64_t(blockIdx.x) * s.L;
  float top = -2;
  for (int64_t j = t; j < s.L; j += kThreads) top = e[j] > top ? e[j] : top;
  most[t] = top;
  __syncthreads();
  for (int n = kThreads / 2; n > 0; n /= 2) {
    if (t < n && most[t + n] > most[t]) most[t] = most[t + n];
    __syncthreads();
  }
  top = most[0];
  int64_t sum = 0;
  for (int64_t j = t; j < s.L; j += kThreads) {
    e[j] = exponential((e[j] - top) * 50.0f);
    sum += units(e[j], s.sum_scale);
  }
  add(s.z + blockIdx.x, sum);
}

// scale_i from Z_i. The largest entry of a row is its own (text: 1): most.
__global__ void __launch_bounds__(kThreads) row_scales(Selection s) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  int64_t most = 0;
  if (i < s.m + s.L) {
    const bool text = i < s.m;
    s.scale[i] = s.z[i] > 0 ? (text ? s.text_scale : s.visual_scale) / (double(s.z[i]) / s.sum_scale) : 0;
    most = units(text ? 1.0f : s.own[i - s.m], s.scale[i]) << (text ? s.text_shift : 0);
  }
  for (int o = 16; o > 0; o /= 2) most += __shfl_xor_sync(0xffffffffu, most, o);
  if (threadIdx.x % 32 == 0) add(&s.state->most, most);
}

// gain_j += Σ_i C_ij over kStoredRows stored rows: block (x: columns, y: rows).
__global__ void __launch_bounds__(kThreads) stored_gains(Selection s) {
  const int64_t j = int64_t(blockIdx.x) * kThreads + threadIdx.x, first = blockIdx.y * kStoredRows, end = first + kStoredRows < s.stored ? first + kStoredRows : s.stored;
  if (j >= s.L) return;
  int64_t sum = 0;
  for (int64_t i = first; i < end; i += 4) {
    float e[4];
    SIMT_UNROLL for (int n = 0; n < 4; ++n) e[n] = i + n < end ? s.e[(i + n) * s.L + j] : 0.0f;
    SIMT_UNROLL for (int n = 0; n < 4; ++n)
      if (i + n < end) sum += units(e[n], s.scale[i + n]) << (i + n < s.m ? s.text_shift : 0);
  }
  add(s.gain + j, sum);
}

// A place in a list for each thread of the block that wants one. Their order is nobody's, and nothing depends on it.
__device__ inline int append(int32_t* count, bool want) {
  const unsigned vote = __ballot_sync(0xffffffffu, want);
  const int lane = int(threadIdx.x % 32);
  int first = 0;
  if (lane == 0 && vote != 0) first = atomicAdd(count, __popc(vote));
  return __shfl_sync(0xffffffffu, first, 0) + __popc(vote & ((1u << lane) - 1));
}

// best_i = max(best_i, C_i,column) of the stored rows, and a list of those that rose.
__global__ void __launch_bounds__(kThreads) raise_stored(Selection s) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, column = s.state->column;
  if (column < 0) return;
  Change x{i, 0, 0, 0};
  if (i < s.stored) {
    x.scale = s.scale[i];
    x.old = s.best_stored[i];
    x.now = units(s.e[i * s.L + column], x.scale) << (i < s.m ? s.text_shift : 0);
  }
  const bool rose = x.now > x.old;
  const int at = append(&s.state->changed, rose);
  if (!rose) return;
  s.change[at] = x;
  s.best_stored[i] = x.now;
}

// gain_j += Σ_i max(0, C_ij − now_i) − max(0, C_ij − old_i) over the list: block (x: columns, y: every gridDim.y-th of the list).
__global__ void __launch_bounds__(kThreads) carry_on(Selection s) {
  if (s.state->column < 0) return;
  const int64_t j = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int count = s.state->changed, step = int(gridDim.y);
  if (j >= s.L) return;
  int64_t sum = 0;
  for (int first = int(blockIdx.y); first < count; first += 4 * step) {
    float e[4];
    SIMT_UNROLL for (int n = 0; n < 4; ++n) e[n] = first + n * step < count ? s.e[s.change[first + n * step].row * s.L + j] : 0.0f;
    SIMT_UNROLL for (int n = 0; n < 4; ++n) {
      if (first + n * step >= count) continue;
      const Change x = s.change[first + n * step];
      const int64_t c = units(e[n], x.scale) << (x.row < s.m ? s.text_shift : 0);
      sum += (c > x.now ? c - x.now : 0) - (c > x.old ? c - x.old : 0);
    }
  }
  if (sum != 0) add(s.gain + j, sum);
}

// best after this choice, in the visual rows that are not stored. A thread a row; 64 bytes of it at a time, each sector of memory whole.
__global__ void __launch_bounds__(kThreads) raise_computed(Selection s) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, column = s.state->column, picked = s.state->picked;
  if (column < 0 || i >= s.L) return;
  const float4 *a = reinterpret_cast<const float4*>(s.visual(i)), *b = reinterpret_cast<const float4*>(s.visual(column));
  float sum = 0;
  for (int64_t d = 0; d < s.stride / 4; d += kDepth / 4) {
    float4 x[kDepth / 4];
    SIMT_UNROLL for (int n = 0; n < kDepth / 4; ++n) x[n] = a[d + n];
    SIMT_UNROLL for (int n = 0; n < kDepth / 4; ++n) {
      const float4 y = b[d + n];
      sum = fmaf(x[n].w, y.w, fmaf(x[n].z, y.z, fmaf(x[n].y, y.y, fmaf(x[n].x, y.x, sum))));
    }
  }
  const int64_t c = units(visual_exponential(sum), s.scale[s.m + i]), old = s.best[(picked - 1) * s.L + i];
  s.best[picked * s.L + i] = c > old ? c : old;
}

// Per tile of the batch, the visual rows whose best rose since its oldest column was evaluated.
template <int Tile>
__global__ void __launch_bounds__(kThreads) list_rows(Selection s) {
  const State& state = *s.state;
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  for (int q = 0; q * Tile < state.batch; ++q) {
    const bool rose = i < s.L && s.best_after(state.evaluated[q * Tile])[i] != s.best_after(state.picked)[i];
    const int at = append(&s.state->listed[q], rose);
    if (rose) s.list[q * s.L + at] = int32_t(i);
  }
}

struct Best {
  int64_t gain, column;
};
__device__ inline bool before(const Best& a, const Best& b) { return a.gain > b.gain || (a.gain == b.gain && a.column < b.column); }

// body(column and gain, evaluated) for the columns not taken, by the threads of the only block.
template <class Body>
__device__ __forceinline__ void for_columns(const Selection& s, const Body& body) {
  const int64_t step = blockDim.x;
  for (int64_t first = threadIdx.x; first < s.L; first += 4 * step) {
    Best x[4];
    int32_t evaluated[4];
    SIMT_UNROLL for (int n = 0; n < 4; ++n) {
      const int64_t j = first + n * step;
      x[n] = {j < s.L ? s.gain[j] : 0, j};
      evaluated[n] = j < s.L ? s.evaluated[j] : -1;
    }
    SIMT_UNROLL for (int n = 0; n < 4; ++n)
      if (evaluated[n] >= 0) body(x[n], evaluated[n]);
  }
}

// All gains are exact when none is taken, and after the first choice too (Pass::lost).
__device__ inline int32_t up_to_date_at(int32_t evaluated) { return evaluated > 1 ? evaluated : 1; }

// How far a bound lies below the largest one: 16 buckets for each power of two, the first for those that equal it.
__device__ inline int bucket(int64_t distance) {
  if (distance == 0) return 0;
  const uint32_t high = uint32_t(uint64_t(distance) >> 32), low = uint32_t(distance);
  const int bits = high != 0 ? 63 - __clz(int(high)) : 31 - __clz(int(low));
  return 1 + 16 * bits + int((bits >= 4 ? distance >> (bits - 4) : distance << (4 - bits)) & 15);
}

// The batch: of the stale columns before `fresh`, the up to kBatch largest (whole buckets; of more than kBatch equal ones the lowest), ordered by when they were
// evaluated. top: the first of the stale ones.
__device__ inline void find_batch(const Selection& s, int64_t picked, const Best& top, const Best& fresh) {
  SIMT_SHARED(int32_t, in_bucket, kBuckets);
  SIMT_SHARED(int32_t, column, kBatch);
  SIMT_SHARED(int32_t, evaluated, kBatch);
  SIMT_SHARED(int32_t, shared, 2 + kMostChoosing / 32);  // the first bucket that does not fit; columns found; those of each warp
  const int t = int(threadIdx.x), threads = int(blockDim.x), lane = t % 32;
  const auto wanted = [&](const Best& x, int32_t when) { return up_to_date_at(when) != picked && before(x, fresh); };
  for (int b = t; b < kBuckets; b += threads) in_bucket[b] = 0;
  if (t == 0) shared[1] = 0;
  __syncthreads();
  for_columns(s, [&](const Best& x, int32_t when) {
    if (wanted(x, when)) atomicAdd(&in_bucket[bucket(top.gain - x.gain)], 1);
  });
  __syncthreads();
  if (t < 32) {
    int total = 0, cut = kBuckets;
    for (int b = 0; b < kBuckets && cut == kBuckets; b += 32) {
      int sum = in_bucket[b + lane];
      for (int o = 1; o < 32; o *= 2) {
        const int below = __shfl_up_sync(0xffffffffu, sum, unsigned(o));
        if (lane >= o) sum += below;
      }
      const unsigned over = __ballot_sync(0xffffffffu, total + sum > kBatch);
      if (over != 0) cut = b + __ffs(int(over)) - 1;
      total += __shfl_sync(0xffffffffu, sum, 31);
    }
    if (lane == 0) shared[0] = cut;
  }
  __syncthreads();
  const int cut = shared[0];
  int found = 0;
  if (cut > 0) {
    for_columns(s, [&](const Best& x, int32_t when) {
      if (!wanted(x, when) || bucket(top.gain - x.gain) >= cut) return;
      const int at = atomicAdd(&shared[1], 1);
      column[at] = int32_t(x.column);
      evaluated[at] = up_to_date_at(when);
    });
    __syncthreads();
    found = shared[1];
  } else {
    for (int64_t first = 0; first < s.L && found < kBatch; first += threads) {
      const int64_t j = first + t;
      const int32_t when = j < s.L ? s.evaluated[j] : -1;
      const bool equal = when >= 0 && s.gain[j] == top.gain && wanted({s.gain[j], j}, when);
      const unsigned vote = __ballot_sync(0xffffffffu, equal);
      if (lane == 0) shared[2 + t / 32] = __popc(vote);
      __syncthreads();
      int at = found + __popc(vote & ((1u << lane) - 1));
      for (int w = 0; w < threads / 32; ++w) {
        if (w < t / 32) at += shared[2 + w];
        found += shared[2 + w];
      }
      if (equal && at < kBatch) {
        column[at] = int32_t(j);
        evaluated[at] = up_to_date_at(when);
      }
      __syncthreads();
    }
    found = found < kBatch ? found : kBatch;
  }
  for (int n = t; n < found; n += threads) {
    int rank = 0;
    for (int i = 0; i < found; ++i) rank += evaluated[i] < evaluated[n] || (evaluated[i] == evaluated[n] && column[i] < column[n]);
    s.state->candidate[rank] = column[n];
    s.state->evaluated[rank] = evaluated[n];
  }
  if (t == 0) {
    s.state->batch = found;
    s.state->evaluations += found;
  }
}

// Takes the first column where its gain is exact, else makes the next batch. One block, a power of two threads. Lazy: gains may be bounds.
template <bool Lazy>
__global__ void __launch_bounds__(kMostChoosing, 1) choose(Selection s) {
  SIMT_SHARED(Best, fresh, kMostChoosing);
  SIMT_SHARED(Best, stale, Lazy ? kMostChoosing : 1);
  State& state = *s.state;
  const int t = int(threadIdx.x), threads = int(blockDim.x);
  const int64_t picked = state.picked;
  if (picked == s.k) return;
  for (int n = t; Lazy && n < state.batch; n += threads) s.evaluated[state.candidate[n]] = int32_t(picked);
  __syncthreads();
  const Best none{-1, s.L};
  Best a = none, b = none;
  for_columns(s, [&](const Best& x, int32_t when) {
    const bool exact = !Lazy || picked <= 1 || up_to_date_at(when) == picked;
    if (exact && before(x, a)) a = x;
    if (!exact && before(x, b)) b = x;
  });
  fresh[t] = a;
  if (Lazy) stale[t] = b;
  __syncthreads();
  for (int n = threads / 2; n > 0; n /= 2) {
    if (t < n && before(fresh[t + n], fresh[t])) fresh[t] = fresh[t + n];
    if (Lazy && t < n && before(stale[t + n], stale[t])) stale[t] = stale[t + n];
    __syncthreads();
  }
  const Best most = fresh[0], bound = Lazy ? stale[0] : none;
  const bool take = before(most, bound);
  if (t == 0) {
    state.changed = state.batch = 0;
    for (int q = 0; q < kBatch / 64; ++q) state.listed[q] = 0;
    state.column = take && picked + 1 < s.k ? most.column : -1;
    if (take) {
      s.index[picked] = most.column;
      s.taken[picked] = most.gain;
      s.evaluated[most.column] = -1;
      state.picked = picked + 1;
    }
  }
  if constexpr (Lazy) {
    if (take) return;
    __syncthreads();
    find_batch(s, picked, bound, most);
  }
}

// Sizes and places. Between z and zeros_end all is 0 at first.
struct Layout {
  Selection s;
  size_t bytes = 0, zeros_end = 0;
  Layout(void* scratch, int64_t L, int64_t D, int64_t m, int64_t k, bool whole);

 private:
  template <class T>
  void take(T*& part, int64_t n) {
    part = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(part) + bytes);
    bytes = divide_up(bytes + size_t(n) * sizeof(T), size_t(64)) * 64;
  }
};

Layout::Layout(void* scratch, int64_t L, int64_t D, int64_t m, int64_t k, bool whole) {
  const ref::CoverageUnits units = ref::coverage_units(L, m);
  const int64_t all = m + L, computed = whole ? 0 : L;
  s = {};
  s.L = L;
  s.m = m;
  s.k = k;
  s.stored = whole ? all : m;
  s.stride = divide_up(D, int64_t(kDepth)) * kDepth;
  s.sum_scale = std::ldexp(1.0, ref::coverage_sum_bits(L));
  s.text_scale = units.text_scale;
  s.visual_scale = units.visual_scale;
  s.text_shift = units.text_shift;
  char* const base = static_cast<char*>(scratch);
  const auto at_base = [&](auto*&... part) { ((part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(base)), ...); };
  at_base(s.e, s.unit, s.own, s.scale, s.z, s.gain, s.evaluated, s.state, s.index, s.taken, s.best_stored, s.best, s.change, s.list);
  take(s.e, s.stored * L);
  take(s.unit, all * s.stride);
  take(s.own, L);
  take(s.scale, all);
  take(s.index, k);
  take(s.taken, k);
  take(s.change, s.stored);
  take(s.list, kBatch / 64 * computed);
  take(s.z, all);
  take(s.gain, L);
  take(s.evaluated, L);
  take(s.state, 1);
  take(s.best_stored, s.stored);
  zeros_end = bytes + size_t(computed) * sizeof *s.best;
  take(s.best, k * computed);
}

bool stores_all(int64_t L, int64_t D, int64_t m, int64_t k, size_t allowed) {
  return Layout(nullptr, L, D, m, k, true).bytes <= std::max(allowed, Layout(nullptr, L, D, m, k, false).bytes);
}

unsigned blocks(int64_t n, int64_t each = kThreads) { return unsigned(divide_up(n, each)); }

void launch_raise_and_carry(const Context& c, const Selection& s) {
  if (s.stored > 0) {
    BG_LAUNCH(c.device, (raise_stored), blocks(s.stored), kThreads, 0, s);
    BG_LAUNCH(c.device, (carry_on), dim3(blocks(s.L), unsigned(std::clamp<int64_t>(s.stored / 64, 1, 64))), kThreads, 0, s);
  }
  if (s.stored == s.m) BG_LAUNCH(c.device, (raise_computed), blocks(s.L), kThreads, 0, s);
}

template <bool Lazy>
void launch_choose(const Context& c, const Selection& s) {
  unsigned threads = 32;
  while (threads < kMostChoosing && threads * 4 < s.L) threads *= 2;
  BG_LAUNCH(c.device, (choose<Lazy>), 1, threads, 0, s);
}

template <int Tile>
void select(const Context& c, const Selection& s, Tensor v, Tensor t) {
  const int64_t tiles = divide_up(s.L, int64_t(Tile)), pairs = tiles * (tiles + 1) / 2;
  const bool whole = s.stored > s.m;
  if (s.m > 0) {
    BG_LAUNCH(c.device, (unit_rows), blocks(s.m, kThreads / 32), kThreads, 0, s.unit, s.stride, rows_of(t));
  }
  BG_LAUNCH(c.device, (unit_rows), blocks(s.L, kThreads / 32), kThreads, 0, s.unit + s.m * s.stride, s.stride, rows_of(v));
  if (s.m > 0) {
    BG_LAUNCH(c.device, (text_similarities<Tile>), unsigned(tiles * divide_up(s.m, int64_t(Tile))), kTileThreads, 0, s, tiles);
    BG_LAUNCH(c.device, (text_exponentials), unsigned(s.m), kThreads, 0, s);
  }
  if (whole) {
    BG_LAUNCH(c.device, (pass_over_pairs<Tile, Pass::store>), unsigned(pairs), kTileThreads, 0, s, tiles);
  } else {
    BG_LAUNCH(c.device, (pass_over_pairs<Tile, Pass::z>), unsigned(pairs), kTileThreads, 0, s, tiles);
  }
  BG_LAUNCH(c.device, (row_scales), blocks(s.m + s.L), kThreads, 0, s);
  if (s.stored > 0) {
    BG_LAUNCH(c.device, (stored_gains), dim3(blocks(s.L), blocks(s.stored, kStoredRows)), kThreads, 0, s);
  }
  if (whole) {
    for (int64_t step = 0; step < s.k; ++step) {
      launch_choose<false>(c, s);
      if (step + 1 < s.k) launch_raise_and_carry(c, s);
    }
    return;
  }
  BG_LAUNCH(c.device, (pass_over_pairs<Tile, Pass::first>), unsigned(pairs), kTileThreads, 0, s, tiles);
  launch_choose<true>(c, s);
  if (s.k == 1) return;
  launch_raise_and_carry(c, s);
  BG_LAUNCH(c.device, (pass_over_pairs<Tile, Pass::lost>), unsigned(pairs), kTileThreads, 0, s, tiles);
  for (int64_t picked = 1; picked < s.k;) {
    for (int64_t rounds = std::max(kRounds, s.k - picked); rounds > 0; --rounds) {
      launch_choose<true>(c, s);
      launch_raise_and_carry(c, s);
      BG_LAUNCH(c.device, (list_rows<Tile>), blocks(s.L), kThreads, 0, s);
      BG_LAUNCH(c.device, (evaluate_batch<Tile>), unsigned(kBatch / Tile * tiles), kTileThreads, 0, s);
    }
    c.device.download(&picked, &s.state->picked, sizeof picked);
  }
}

}  // namespace

size_t coverage_scratch(int64_t L, int64_t D, int64_t m, int64_t k, size_t allowed) { return Layout(nullptr, L, D, m, k, stores_all(L, D, m, k, allowed)).bytes; }

double coverage_select(const Context& c, int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch, size_t bytes, CoverageReport* report) {
  const int64_t L = v.rows, m = t.rows;
  const Layout layout(scratch, L, v.cols, m, k, stores_all(L, v.cols, m, k, bytes));
  const Selection& s = layout.s;
  c.device.fill(s.z, 0, layout.zeros_end - size_t(reinterpret_cast<char*>(s.z) - static_cast<char*>(scratch)));
  L > kWideFrom ? select<128>(c, s, v, t) : select<64>(c, s, v, t);

  State state;
  c.device.download(&state, s.state, sizeof state);
  c.device.download(index, s.index, size_t(k) * sizeof *index);
  static_assert(sizeof *gain == sizeof *s.taken);
  c.device.download(gain, s.taken, size_t(k) * sizeof *gain);
  const int bits = ref::coverage_units(L, m).bits;
  for (int64_t i = 0; i < k; ++i) {  // integers become doubles in place
    int64_t units;
    memcpy(&units, gain + i, sizeof units);
    gain[i] = std::ldexp(double(units), -bits);
  }
  report->most = std::ldexp(double(state.most), -bits);
  report->evaluations = s.stored > m ? k * L - k * (k - 1) / 2 : L + (k > 1 ? L - 1 : 0) + state.evaluations;
  return ref::in_index_order(index, gain, k);
}

}  // namespace bg::BG_CUDA
