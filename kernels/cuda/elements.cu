// Norms, activations, sums, rotation: float rows in, float rows out, and the rows of a cache.
//   norms     a warp a row up to kWarpCols columns (heads, ViT, LongNet; 4 rows a block), else a block of 256; 64 bytes of shared memory.
//             8 bytes a value to and from memory: up to 4096 columns a row stays in registers. 12 to 24 FLOP a value.
//   elements  256 threads, 1024 values a block; 8 or 12 bytes a value. What lies without gaps is one long row.
//   rotation  256 threads, four pairs each; rotate_into_cache: a warp a head, 4 a block, 16·d bytes of shared memory.
// All are bound by memory: at 3 TB/s 2.7 ms for 10^9 values read and written. Not measured yet.
// Sums of norms are pairs of floats (Sum), not doubles: a GeForce adds one double where it adds 64 floats. The bits depend on the width only: value j goes to
// chain j mod 4 of thread (j div 4) mod threads, whether it is read alone or with its neighbours (16-byte loads, where everything is aligned).
#include "kernels/cuda/activations.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/values.h"

namespace bg::BG_CUDA {
namespace {

constexpr int kThreads = 256, kWarps = 4;  // of a block; of a block whose warps have a row each
constexpr int64_t kWarpCols = 1280;        // up to so many columns a row is a warp's

bool aligned(const Rows& x) { return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride % 4 == 0; }
bool aligned(const float* x) { return reinterpret_cast<uintptr_t>(x) % 16 == 0; }

// The first n of four values; V: p is 16-byte aligned.
template <bool V>
__device__ inline void load_four(float (&v)[4], const float* p, int64_t n) {
  if (V && n >= 4) {
    const float4 all = *reinterpret_cast<const float4*>(p);
    v[0] = all.x, v[1] = all.y, v[2] = all.z, v[3] = all.w;
  } else {
    SIMT_UNROLL for (int k = 0; k < 4; ++k) v[k] = k < n ? p[k] : 0.0f;
  }
}
template <bool V>
__device__ inline void store_four(float* p, const float (&v)[4], int64_t n) {
  if (V && n >= 4) {
    *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
  } else {
    SIMT_UNROLL for (int k = 0; k < 4; ++k)
      if (k < n) p[k] = v[k];
  }
}

// A sum of floats and, apart, the sum of what its additions rounded away: off by u, and by (n·u)²·Σ|terms| for chains of n.
struct Sum {
  float high, low;
  __device__ float value() const { return high + low; }
};
// rest: what the term itself rounded away.
__device__ inline Sum plus(Sum s, float x, float rest) {
  const float sum = s.high + x, of_x = sum - s.high;
  return {sum, s.low + (((s.high - (sum - of_x)) + (x - of_x)) + rest)};
}
__device__ inline Sum plus_square(Sum s, float x) {
  const float square = x * x;
  return plus(s, square, fmaf(x, x, -square));
}

// Of the threads of a row, the same bits on all of them: W = 32 in a warp, else in the block.
template <int W>
__device__ inline Sum sum_of_threads(Sum s) {
  for (int o = 16; o > 0; o /= 2) s = plus(s, __shfl_xor_sync(0xffffffffu, s.high, o), __shfl_xor_sync(0xffffffffu, s.low, o));
  if constexpr (W > 32) {
    SIMT_SHARED(Sum, of_warp, W / 32);
    __syncthreads();  // an earlier sum has been read
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = s;
    __syncthreads();
    s = of_warp[0];
    for (int i = 1; i < W / 32; ++i) s = plus(s, of_warp[i].high, of_warp[i].low);
  }
  return s;
}

// A row as thread i of its W sees it: the fours i, i + W, … of its values. N of them are in registers; a longer row is read anew for each use.
template <bool V, int W, int N>
struct Part {
  static constexpr int64_t kSpan = 4 * W * N;
  const float* x;
  int64_t cols;
  int i;
  float v[N][4];

  __device__ Part(const float* x_, int64_t cols_, int i_) : x(x_), cols(cols_), i(i_) {
    if (cols <= kSpan) read(v, x, 0);
  }
  __device__ int64_t place(int64_t first, int m) const { return first + 4 * (i + W * m); }
  __device__ void read(float (&to)[N][4], const float* from, int64_t first) const {
    SIMT_UNROLL for (int m = 0; m < N; ++m) load_four<V>(to[m], from + place(first, m), cols - place(first, m));
  }
  // Σ_j of the row, the same bits on all its threads, each of four chains being sum = add(sum, x_j)
  template <class Add>
  __device__ float sum(Add add) {
    Sum s[4] = {};
    for (int64_t first = 0; first < cols; first += kSpan) {
      if (cols > kSpan) read(v, x, first);
      SIMT_UNROLL for (int m = 0; m < N; ++m) {
        const int64_t n = cols - place(first, m);
        SIMT_UNROLL for (int k = 0; k < 4; ++k)
          if (k < n) s[k] = add(s[k], v[m][k]);
      }
    }
    SIMT_UNROLL for (int k = 1; k < 4; ++k) s[0] = plus(s[0], s[k].high, s[k].low);
    return sum_of_threads<W>(s[0]).value();
  }
  // y_j = f(x_j, w_j, b_j); y may be x
  template <class F>
  __device__ void write(float* y, const float* w, const float* b, F f) {
    for (int64_t first = 0; first < cols; first += kSpan) {
      float by_w[N][4], by_b[N][4];
      if (cols > kSpan) read(v, x, first);
      read(by_w, w, first);
      read(by_b, b, first);
      SIMT_UNROLL for (int m = 0; m < N; ++m) {
        float o[4];
        SIMT_UNROLL for (int k = 0; k < 4; ++k) o[k] = f(v[m][k], by_w[m][k], by_b[m][k]);
        store_four<V>(y + place(first, m), o, cols - place(first, m));
      }
    }
  }
};

// 1/√(Σ/D + eps): 3.5u beyond the sum's error
__device__ inline float inverse_deviation(float squares, int64_t cols, float eps) { return 1.0f / sqrtf(squares / float(cols) + eps); }

template <class Part>
__device__ inline float inverse_rms(Part& row, float eps) {
  return inverse_deviation(row.sum([](Sum s, float v) { return plus_square(s, v); }), row.cols, eps);
}

template <int W>
constexpr int threads_of_block() { return W == 32 ? 32 * kWarps : W; }

template <bool V, int W, int N>
__global__ void __launch_bounds__(threads_of_block<W>()) rms_norm_rows(Rows y, Rows x, const float* w, float eps) {
  const int64_t t = int64_t(blockIdx.x) * (threads_of_block<W>() / W) + threadIdx.x / W;
  if (t >= x.rows) return;
  Part<V, W, N> row(x.data + t * x.stride, x.cols, int(threadIdx.x % W));
  const float inverse = inverse_rms(row, eps);
  row.write(y.data + t * y.stride, w, w, [inverse](float v, float by, float) { return v * inverse * by; });
}

// The squares are of x − mean with the mean rounded to float, which is what the result subtracts too.
template <bool V, int W, int N>
__global__ void __launch_bounds__(threads_of_block<W>()) layer_norm_rows(Rows y, Rows x, const float* w, const float* b, float eps) {
  const int64_t t = int64_t(blockIdx.x) * (threads_of_block<W>() / W) + threadIdx.x / W;
  if (t >= x.rows) return;
  Part<V, W, N> row(x.data + t * x.stride, x.cols, int(threadIdx.x % W));
  const float mean = row.sum([](Sum s, float v) { return plus(s, v, 0.0f); }) / float(x.cols);
  const float inverse = inverse_deviation(row.sum([mean](Sum s, float v) { return plus_square(s, v - mean); }), x.cols, eps);
  row.write(y.data + t * y.stride, w, b, [mean, inverse](float v, float by, float offset) { return fmaf((v - mean) * inverse, by, offset); });
}

// y = f(a, b), value by value; `blocks` a row. V: everything aligned, whole fours in a row.
template <bool V, class F>
__global__ void __launch_bounds__(kThreads) each_value(Rows y, Rows a, Rows b, unsigned blocks, F f) {
  const int64_t t = blockIdx.x / blocks, first = int64_t(blockIdx.x % blocks) * (4 * kThreads);
  const float *from_a = a.data + t * a.stride, *from_b = b.data + t * b.stride;
  float* to = y.data + t * y.stride;
  if constexpr (V) {
    const int64_t j = first + 4 * threadIdx.x;
    if (j >= y.cols) return;
    float v[4], o[4];
    load_four<true>(v, from_a + j, 4);
    load_four<true>(o, from_b + j, 4);
    SIMT_UNROLL for (int k = 0; k < 4; ++k) v[k] = f(v[k], o[k]);
    store_four<true>(to + j, v, 4);
  } else {
    for (int64_t j = first + threadIdx.x; j < y.cols && j < first + 4 * kThreads; j += kThreads) to[j] = f(from_a[j], from_b[j]);
  }
}

struct GeluTanh {
  __device__ float operator()(float x, float) const { return gelu_tanh(x); }
};
struct GeluErf {
  __device__ float operator()(float x, float) const { return gelu_erf(x); }
};
struct SiluMul {
  __device__ float operator()(float gate, float up) const { return silu(gate) * up; }
};
struct Add {
  __device__ float operator()(float y, float x) const { return y + x; }
};
struct Scale {
  float a;
  __device__ float operator()(float y, float) const { return y * a; }
};

template <class F>
void each(const Context& c, Rows y, Rows a, Rows b, F f) {
  if (y.rows == 0 || y.cols == 0) return;
  if (y.stride == y.cols && a.stride == y.cols && b.stride == y.cols) {
    const int64_t n = y.rows * y.cols;
    y = {y.data, 1, n, 0}, a = {a.data, 1, n, 0}, b = {b.data, 1, n, 0};
  }
  const int64_t blocks = divide_up(y.cols, int64_t(4 * kThreads));
  const dim3 grid{unsigned(y.rows * blocks)};
  if (aligned(y) && aligned(a) && aligned(b) && y.cols % 4 == 0) {
    BG_LAUNCH(c.device, (each_value<true, F>), grid, kThreads, 0, y, a, b, unsigned(blocks), f);
  } else {
    BG_LAUNCH(c.device, (each_value<false, F>), grid, kThreads, 0, y, a, b, unsigned(blocks), f);
  }
}

// (a, b) ← (a·cos − b·sin, b·cos + a·sin)
__device__ inline void rotate(float& a, float& b, float cos, float sin) {
  const float turned = fmaf(a, cos, -(b * sin));
  b = fmaf(b, cos, a * sin);
  a = turned;
}

// Pairs (i, i + half) of each head; `blocks` a row. V: four neighbouring pairs at once.
template <bool V>
__global__ void __launch_bounds__(kThreads) rotate_rows(Rows y, int half, Rows cos, Rows sin, unsigned blocks) {
  constexpr int N = V ? 4 : 1;
  const int64_t t = blockIdx.x / blocks, pair = (int64_t(blockIdx.x % blocks) * kThreads + threadIdx.x) * N;
  if (pair >= y.cols / 2) return;
  const int64_t head = pair / half, i = pair - head * half;
  float *to_a = y.data + t * y.stride + 2 * half * head + i, *to_b = to_a + half;
  float a[4], b[4], c[4], s[4];
  load_four<V>(a, to_a, N);
  load_four<V>(b, to_b, N);
  load_four<V>(c, cos.data + t * cos.stride + i, N);
  load_four<V>(s, sin.data + t * sin.stride + i, N);
  SIMT_UNROLL for (int k = 0; k < N; ++k) rotate(a[k], b[k], c[k], s[k]);
  store_four<V>(to_a, a, N);
  store_four<V>(to_b, b, N);
}

struct CacheRows {
  char* data;
  Type type;
  int64_t row_bytes, head_bytes;  // from one to the next
};
CacheRows cache_rows(const Tensor& t, int64_t kv_heads) {
  return {static_cast<char*>(t.data), t.type, int64_t(stored_bytes(t.type, t.stride)), int64_t(stored_bytes(t.type, t.rows / kv_heads * t.stride))};
}

// Row `row` of head h, d values, as `copy` writes them; by a warp.
__device__ inline void store_head(const CacheRows& cache, int64_t row, int64_t h, const float* from, int64_t d, int lane) {
  char* to = cache.data + h * cache.head_bytes + row * cache.row_bytes;
  if (cache.type == Type::q8_0) {
    for (int64_t b = 0; b < d / 32; ++b) store_q8_0(to + 34 * b, from[32 * b + lane], lane);
  } else if (cache.type == Type::bf16) {
    for (int64_t j = lane; j < d; j += 32) reinterpret_cast<uint16_t*>(to)[j] = uint16_t(simt::pack_bf16(from[j], 0));
  } else {
    for (int64_t j = lane; j < d; j += 32) reinterpret_cast<float*>(to)[j] = from[j];
  }
}

struct Heads {
  Rows rows;
  int64_t heads;
  const float* w;
};

// A head ← rotary(rms_norm(head)), in place and in `shared`; by a warp. The sum is rms_norm_rows', so are the bits.
template <bool V>
__device__ inline void norm_and_rotate(float* shared, float* head, const float* w, int64_t d, float eps, const float* cos, const float* sin, int lane) {
  Part<V, 32, 2> row(head, d, lane);
  const float inverse = inverse_rms(row, eps);
  for (int64_t j = lane; j < d; j += 32) shared[j] = head[j] * inverse * w[j];
  __syncwarp();
  for (int64_t i = lane; i < d / 2; i += 32) rotate(shared[i], shared[i + d / 2], cos[i], sin[i]);
  __syncwarp();
  for (int64_t j = lane; j < d; j += 32) head[j] = shared[j];
}

// Of each new token: the heads of q, then those of k, then those of v, a warp each. past: of the step, where it lies on the device.
template <bool V>
__global__ void __launch_bounds__(32 * kWarps) rotate_into_rows(CacheRows keys, CacheRows values, Heads q, Heads k, Rows v, float eps, Rows cos, Rows sin, int64_t past,
                                                                const int64_t* step_past) {
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32);
  const int64_t d = k.rows.cols / k.heads, each = q.heads + 2 * k.heads, unit = int64_t(blockIdx.x) * kWarps + warp, t = unit / each, h = unit - t * each;
  if (t >= v.rows) return;
  const int64_t row = (step_past != nullptr ? *step_past : past) + t;
  SIMT_DYNAMIC_SHARED(float, heads);
  float* mine = heads + warp * d;
  const float *c = cos.data + t * cos.stride, *s = sin.data + t * sin.stride;
  if (h < q.heads) {
    norm_and_rotate<V>(mine, q.rows.data + t * q.rows.stride + h * d, q.w, d, eps, c, s, lane);
  } else if (h < q.heads + k.heads) {
    const int64_t head = h - q.heads;
    norm_and_rotate<V>(mine, k.rows.data + t * k.rows.stride + head * d, k.w, d, eps, c, s, lane);
    store_head(keys, row, head, mine, d, lane);
  } else {
    const int64_t head = h - q.heads - k.heads;
    store_head(values, row, head, v.data + t * v.stride + head * d, d, lane);
  }
}

// launch<aligned, threads a row, fours of a thread>(grid, block)
template <class Launch>
void norm(const Rows& y, const Rows& x, bool vectors, const Launch& launch) {
  if (x.rows == 0) return;
  const bool of_warp = x.cols <= kWarpCols;
  const dim3 grid{unsigned(of_warp ? divide_up(x.rows, int64_t(kWarps)) : x.rows)};
  if (!vectors || !aligned(y) || !aligned(x)) return of_warp ? launch.template operator()<false, 32, 4>(grid, 32 * kWarps) : launch.template operator()<false, kThreads, 4>(grid, kThreads);
  if (x.cols <= 128) return launch.template operator()<true, 32, 1>(grid, 32 * kWarps);
  if (of_warp) return launch.template operator()<true, 32, int(kWarpCols / 128)>(grid, 32 * kWarps);
  launch.template operator()<true, kThreads, 4>(grid, kThreads);
}

}  // namespace

void layer_norm(const Context& c, Tensor y, Tensor x, const float* w, const float* b, float eps) {
  const Rows to = rows_of(y), from = rows_of(x);
  norm(to, from, aligned(w) && aligned(b), [&]<bool V, int W, int N>(dim3 grid, int block) { BG_LAUNCH(c.device, (layer_norm_rows<V, W, N>), grid, block, 0, to, from, w, b, eps); });
}

void rms_norm(const Context& c, Tensor y, Tensor x, const float* w, float eps) {
  const Rows to = rows_of(y), from = rows_of(x);
  norm(to, from, aligned(w), [&]<bool V, int W, int N>(dim3 grid, int block) { BG_LAUNCH(c.device, (rms_norm_rows<V, W, N>), grid, block, 0, to, from, w, eps); });
}

void gelu_tanh(const Context& c, Tensor y, Tensor x) { each(c, rows_of(y), rows_of(x), rows_of(x), GeluTanh{}); }
void gelu_erf(const Context& c, Tensor y, Tensor x) { each(c, rows_of(y), rows_of(x), rows_of(x), GeluErf{}); }
void silu_mul(const Context& c, Tensor y, Tensor gate, Tensor up) { each(c, rows_of(y), rows_of(gate), rows_of(up), SiluMul{}); }
void add(const Context& c, Tensor y, Tensor x) { each(c, rows_of(y), rows_of(y), rows_of(x), Add{}); }
void scale(const Context& c, Tensor y, double a) { each(c, rows_of(y), rows_of(y), rows_of(y), Scale{float(a)}); }

void rotary(const Context& c, Tensor y, int64_t heads, Tensor cos, Tensor sin) {
  if (y.rows == 0) return;
  const Rows to = rows_of(y), by_cos = rows_of(cos), by_sin = rows_of(sin);
  const int half = int(y.cols / heads / 2);
  const bool vectors = half % 4 == 0 && aligned(to) && aligned(by_cos) && aligned(by_sin);
  const unsigned blocks = unsigned(divide_up(y.cols / 2, int64_t(kThreads * (vectors ? 4 : 1))));
  const dim3 grid{unsigned(y.rows) * blocks};
  if (vectors) {
    BG_LAUNCH(c.device, (rotate_rows<true>), grid, kThreads, 0, to, half, by_cos, by_sin, blocks);
  } else {
    BG_LAUNCH(c.device, (rotate_rows<false>), grid, kThreads, 0, to, half, by_cos, by_sin, blocks);
  }
}

// One launch; the bits of Ops::rotate_into_cache by the kernels above (a head is a warp's there too: attention has d ≤ 256).
void rotate_into_cache(const Context& c, Tensor keys, Tensor values, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk,
                       float eps, Tensor cos, Tensor sin, int64_t past) {
  if (q.rows == 0) return;
  const int64_t d = q.cols / heads;
  const Heads from_q{rows_of(q), heads, wq}, from_k{rows_of(k), kv_heads, wk};
  const dim3 grid{unsigned(divide_up(q.rows * (heads + 2 * kv_heads), int64_t(kWarps)))};
  const size_t shared = size_t(kWarps * d) * sizeof(float);
  if (aligned(from_q.rows) && aligned(from_k.rows) && d % 4 == 0) {
    BG_LAUNCH(c.device, (rotate_into_rows<true>), grid, 32 * kWarps, shared, cache_rows(keys, kv_heads), cache_rows(values, kv_heads), from_q, from_k, rows_of(v), eps, rows_of(cos),
              rows_of(sin), past, c.step_past);
  } else {
    BG_LAUNCH(c.device, (rotate_into_rows<false>), grid, 32 * kWarps, shared, cache_rows(keys, kv_heads), cache_rows(values, kv_heads), from_q, from_k, rows_of(v), eps, rows_of(cos),
              rows_of(sin), past, c.step_past);
  }
}

}  // namespace bg::BG_CUDA
