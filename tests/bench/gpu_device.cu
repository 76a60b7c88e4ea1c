// See gpu_device.h. Every kernel here is a streaming one: blocks of 256 threads, no shared memory.
//   fill     one word of 4 bytes a thread, from a hash of its number
//   copy     eight loads of 16 bytes in flight per thread, kTile bytes a block; read: the same without stores
//   multiply eight independent chains of m16n8k16 per warp, or sixteen of fmaf per thread: registers only
#include "tests/bench/gpu_device.h"

#include "kernels/cuda/table.h"
#include "kernels/panels.h"

namespace bg::BG_CUDA {
namespace {

constexpr int kThreads = 256;

__device__ inline uint32_t hash(uint64_t n) {  // the mixer of splitmix64, high half
  n += 0x9e3779b97f4a7c15ull;
  n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9ull;
  n = (n ^ n >> 27) * 0x94d049bb133111ebull;
  return uint32_t((n ^ n >> 31) >> 32);
}

__device__ inline int sum_of_bytes(uint32_t h) { return int((h & 255) + (h >> 8 & 255) + (h >> 16 & 255) + (h >> 24)); }
__device__ inline float nearly_normal(uint64_t n) { return (float(sum_of_bytes(hash(n))) - 510.0f) * (1 / 147.8f) + 1e-4f * float(hash(~n) >> 16 & 255); }
__device__ inline uint32_t code(uint64_t n) { return uint32_t(sum_of_bytes(hash(n)) / 4); }  // 0 … 255, deviation 37

// f16 in [2^e, 2^(e+1)), e ≥ −14
__device__ inline uint32_t scale_near(int e, uint32_t random) { return uint32_t(e + 15) << 10 | (random & 0x3ff); }
__device__ inline uint32_t two_scales(int e, uint32_t random) { return scale_near(e, random) | scale_near(e, random >> 16) << 16; }

// Word n of panels of type T (kernels/panels.h).
template <Type T>
__device__ inline uint32_t panel_word(uint64_t n) {
  constexpr float kDeviation = 0.015625f;
  if constexpr (T == Type::f32) {
    return simt::bits_of(kDeviation * nearly_normal(n));
  } else if constexpr (T == Type::bf16) {
    return simt::pack_bf16(kDeviation * nearly_normal(2 * n), kDeviation * nearly_normal(2 * n + 1));
  } else if constexpr (T == Type::f16) {
    return uint32_t(simt::float_to_f16(kDeviation * nearly_normal(2 * n))) | uint32_t(simt::float_to_f16(kDeviation * nearly_normal(2 * n + 1))) << 16;
  } else if constexpr (T == Type::q8_0) {
    if (n % 272 >= 256) return two_scales(-12, hash(n));
    return code(4 * n) | code(4 * n + 1) << 8 | code(4 * n + 2) << 16 | code(4 * n + 3) << 24;
  } else if constexpr (T == Type::q4_k) {
    const uint64_t at = n % 576;
    return at < 8 ? two_scales(-14, hash(n)) : at < 16 ? two_scales(-11, hash(n)) : hash(n);  // d, dmin; scales and codes
  } else {
    const uint64_t at = n % 848;
    if (at < 8) return two_scales(-14, hash(n));
    if (at < 16) return 0;
    if (at >= 80) return hash(n);
    uint32_t scales = 0;  // int8, ±16
    for (int i = 0; i < 4; ++i) scales |= uint32_t((int(hash(n) >> 8 * i & 31) - 16) & 255) << 8 * i;
    return scales;
  }
}

template <Type T>
__global__ void __launch_bounds__(kThreads) fill_words(uint32_t* to, uint64_t words) {
  const uint64_t n = uint64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (n < words) to[n] = panel_word<T>(n);
}

__global__ void __launch_bounds__(kThreads) fill_normal(float* to, uint64_t count) {
  const uint64_t n = uint64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (n < count) to[n] = nearly_normal(n);
}

__global__ void __launch_bounds__(kThreads) fill_bf16(uint32_t* to, uint64_t words) {
  const uint64_t n = uint64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (n < words) to[n] = simt::pack_bf16(nearly_normal(2 * n), nearly_normal(2 * n + 1));
}

// Half n of blocks of 34 bytes: the scale, then sixteen pairs of codes.
__global__ void __launch_bounds__(kThreads) fill_q8_0(uint16_t* to, uint64_t halves) {
  const uint64_t n = uint64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (n < halves) to[n] = uint16_t(n % 17 == 0 ? scale_near(-6, hash(n)) : (code(2 * n) ^ 128) | (code(2 * n + 1) ^ 128) << 8);
}

__global__ void __launch_bounds__(kThreads) copy_tiles(uint4* to, const uint4* from) {
  const size_t first = size_t(blockIdx.x) * kThreads * 8 + threadIdx.x;
  uint4 v[8];
  SIMT_UNROLL
  for (int i = 0; i < 8; ++i) v[i] = simt::load_once_16(from + first + i * kThreads);
  SIMT_UNROLL
  for (int i = 0; i < 8; ++i) to[first + i * kThreads] = v[i];
}

__global__ void __launch_bounds__(kThreads) read_tiles(const uint4* from, uint32_t* sink) {
  const size_t first = size_t(blockIdx.x) * kThreads * 8 + threadIdx.x;
  uint4 v[8];
  SIMT_UNROLL
  for (int i = 0; i < 8; ++i) v[i] = simt::load_once_16(from + first + i * kThreads);
  uint32_t sum = 0;
  SIMT_UNROLL
  for (int i = 0; i < 8; ++i) sum ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
  if (sum == 0x5bd1e995u) *sink = sum;  // never, nearly: but the compiler must load
}

__global__ void __launch_bounds__(kThreads) mma_loop(int64_t repeats, float* sink) {
  const uint64_t seed = (uint64_t(blockIdx.x) * kThreads + threadIdx.x) * 64;
  uint32_t a[4], b[8][2];
  float d[8][4] = {};
  SIMT_UNROLL
  for (int i = 0; i < 4; ++i) a[i] = simt::pack_bf16(nearly_normal(seed + 2 * i), nearly_normal(seed + 2 * i + 1));
  SIMT_UNROLL
  for (int i = 0; i < 16; ++i) b[i / 2][i % 2] = simt::pack_bf16(nearly_normal(seed + 8 + 2 * i), nearly_normal(seed + 9 + 2 * i));
  for (int64_t r = 0; r < repeats; ++r) {
    SIMT_UNROLL
    for (int i = 0; i < 8; ++i) simt::mma_bf16(d[i], a, b[i]);
  }
  float sum = 0;
  SIMT_UNROLL
  for (int i = 0; i < 32; ++i) sum += d[i / 4][i % 4];
  if (sum == 1.2345e30f) *sink = sum;
}

__global__ void __launch_bounds__(kThreads) fma_loop(int64_t repeats, float* sink) {
  const uint64_t seed = (uint64_t(blockIdx.x) * kThreads + threadIdx.x) * 32;
  const float a = 0.999f + 1e-6f * nearly_normal(seed), b = 1e-3f * nearly_normal(seed + 1);
  float d[16];
  SIMT_UNROLL
  for (int i = 0; i < 16; ++i) d[i] = nearly_normal(seed + 2 + i);
  for (int64_t r = 0; r < repeats; ++r) {
    SIMT_UNROLL
    for (int i = 0; i < 16; ++i) d[i] = fmaf(d[i], a, b);
  }
  float sum = 0;
  SIMT_UNROLL
  for (int i = 0; i < 16; ++i) sum += d[i];
  if (sum == 1.2345e30f) *sink = sum;
}

class BenchGpu : public bench::Gpu {
 public:
  BenchGpu(const char* name, std::unique_ptr<Device> device, Precision precision)
      : device_(*device), ops_(name, std::move(device), precision, false), sink_(static_cast<float*>(device_.allocate(256))) {
    if (sink_ == nullptr) throw DeviceError("no device memory");
  }
  ~BenchGpu() override { device_.release(sink_); }
  Ops& ops() override { return ops_; }
  Device& device() override { return device_; }

  std::string clocks() override {
#ifdef __CUDACC__
    int driver = 0, core = 0, memory = 0, cache = 0, bus = 0;
    cudaDriverGetVersion(&driver);
    cudaDeviceGetAttribute(&core, cudaDevAttrClockRate, 0);
    cudaDeviceGetAttribute(&memory, cudaDevAttrMemoryClockRate, 0);
    cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, 0);
    cudaDeviceGetAttribute(&bus, cudaDevAttrGlobalMemoryBusWidth, 0);
    return "driver for CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) + ", clocks up to " + std::to_string(core / 1000) + " MHz, memory " +
           std::to_string(memory / 1000) + " MHz on " + std::to_string(bus) + " bits, second cache " + std::to_string(cache >> 20) + " MiB";
#else
    return "no clocks: these times are the emulation's, on this CPU";
#endif
  }

  void fill_panels(void* to, Type type, size_t bytes) override {
    switch (type) {
      case Type::f16: return words<Type::f16>(to, bytes);
      case Type::bf16: return words<Type::bf16>(to, bytes);
      case Type::q8_0: return words<Type::q8_0>(to, bytes);
      case Type::q4_k: return words<Type::q4_k>(to, bytes);
      case Type::q6_k: return words<Type::q6_k>(to, bytes);
      default: return words<Type::f32>(to, bytes);
    }
  }
  void fill_floats(float* to, size_t n) override {
    if (n > 0) BG_LAUNCH(device_, (fill_normal), blocks(n), kThreads, 0, to, uint64_t(n));
  }
  void fill_cache(Tensor t) override {
    const size_t bytes = stored_bytes(t.type, t.rows * t.cols);
    if (t.type == Type::bf16) BG_LAUNCH(device_, (fill_bf16), blocks(bytes / 4), kThreads, 0, static_cast<uint32_t*>(t.data), uint64_t(bytes / 4));
    else BG_LAUNCH(device_, (fill_q8_0), blocks(bytes / 2), kThreads, 0, static_cast<uint16_t*>(t.data), uint64_t(bytes / 2));
  }

  void copy_bytes(void* to, const void* from, size_t bytes) override {
    BG_LAUNCH(device_, (copy_tiles), dim3(unsigned(bytes / kTile)), kThreads, 0, static_cast<uint4*>(to), static_cast<const uint4*>(from));
  }
  void read_bytes(const void* from, size_t bytes) override {
    auto* const sink = reinterpret_cast<uint32_t*>(sink_);
    BG_LAUNCH(device_, (read_tiles), dim3(unsigned(bytes / kTile)), kThreads, 0, static_cast<const uint4*>(from), sink);
  }
  double multiply_bf16(int64_t repeats) override {
    const int grid = 4 * device_.info().processors;
    float* const sink = sink_;
    BG_LAUNCH(device_, (mma_loop), dim3(unsigned(grid)), kThreads, 0, repeats, sink);
    return double(grid) * (kThreads / 32) * double(repeats) * 8 * (2 * 16 * 8 * 16);
  }
  double multiply_f32(int64_t repeats) override {
    const int grid = 8 * device_.info().processors;
    float* const sink = sink_;
    BG_LAUNCH(device_, (fma_loop), dim3(unsigned(grid)), kThreads, 0, repeats, sink);
    return double(grid) * kThreads * double(repeats) * 16 * 2;
  }

 private:
  static dim3 blocks(size_t n) { return dim3(unsigned(divide_up<size_t>(n, kThreads))); }
  template <Type T>
  void words(void* to, size_t bytes) {
    if (bytes > 0) BG_LAUNCH(device_, (fill_words<T>), blocks(bytes / 4), kThreads, 0, static_cast<uint32_t*>(to), uint64_t(bytes / 4));
  }

  Device& device_;  // of ops_
  CudaOps ops_;
  float* sink_;
};

}  // namespace

#ifdef __CUDACC__
std::unique_ptr<bench::Gpu> make_bench_gpu(Precision precision) { return std::make_unique<BenchGpu>("cuda", make_cuda_device(0), precision); }
#else
std::unique_ptr<bench::Gpu> make_bench_gpu(Precision precision) { return std::make_unique<BenchGpu>("emulated", make_emulated_device(2, false), precision); }
#endif

}  // namespace bg::BG_CUDA
