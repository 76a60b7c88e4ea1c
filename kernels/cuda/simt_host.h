// simt.h for the host compiler: every thread of a block is a fiber, a block runs on one core, blocks on several. Included by simt.h only.
// Caught, and reported as a DeviceError: a barrier or a warp operation that not all threads reach, more shared memory or threads than the smallest supported
// GPU has. Caught by AddressSanitizer: every access outside global, static or dynamic shared memory. Made visible: shared memory that was never written (NaN),
// a missing wait (asynchronous copies land no earlier), a missing barrier (threads run one after the other up to the next one, in the device's order).
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "kernels/half.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define SIMT_UNROLL
#define SIMT_UNROLL_BY(n)
#define SIMT_ROLLED
#define SIMT_SHARED(T, name, n)                 \
  static const char name##_id = 0;              \
  T* const name = static_cast<T*>(::bg::emulated::simt::shared_array(&name##_id, sizeof(T) * size_t(n)))
#define SIMT_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::bg::emulated::simt::dynamic_shared())

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace bg::emulated::simt {

struct Fiber {
  dim3 thread;
  int lane = 0;
};
struct Place {
  dim3 block, blocks, threads;
};
extern thread_local Fiber* fiber_;
extern thread_local Place place_;

void* shared_array(const void* id, size_t bytes);
void* dynamic_shared();
void barrier(const char* file, int line);

// All lanes of `mask` deposit `in`; the last of them computes every lane's result.
constexpr size_t kSlot = 64;
using Combine = void (*)(unsigned mask, const unsigned char (*in)[kSlot], unsigned char (*out)[kSlot]);
void meet(unsigned mask, Combine combine, const void* in, size_t in_bytes, void* out, size_t out_bytes);

template <class T>
T get(const unsigned char (*slot)[kSlot], int lane) {
  T t;
  memcpy(&t, slot[lane], sizeof t);
  return t;
}
template <class T>
void put(unsigned char (*slot)[kSlot], int lane, const T& t) {
  static_assert(sizeof(T) <= kSlot && std::is_trivially_copyable_v<T>, "what a lane gives away fits a slot");
  memcpy(slot[lane], &t, sizeof t);
}
template <class T>
struct Given {
  T value;
  int from;  // whose value this lane takes
};
template <class T>
T exchange(unsigned mask, T value, int from) {
  static_assert(sizeof(Given<T>) <= kSlot, "what a lane gives away fits a slot");
  const Given<T> in{value, from & 31};
  T out;
  meet(mask, [](unsigned m, const unsigned char (*i)[kSlot], unsigned char (*o)[kSlot]) {
    for (int lane = 0; lane < 32; ++lane)
      if (m >> lane & 1) put(o, lane, get<Given<T>>(i, get<Given<T>>(i, lane).from).value);
  }, &in, sizeof in, &out, sizeof out);
  return out;
}
unsigned ballot(unsigned mask, bool value);

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_bf16_k8(float (&d)[4], const uint32_t (&a)[2], uint32_t b);
void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void ldmatrix(uint32_t* r, int matrices, bool transposed, const void* row);
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) { ldmatrix(r, 4, false, row); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) { ldmatrix(r, 4, true, row); }
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row) { ldmatrix(r, 2, false, row); }
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) { ldmatrix(r, 2, true, row); }

void copy_later(void* shared, const void* global, int bytes, bool valid);
void copy_commit();
void copies_land(int groups_under_way);
template <int N>
void copy_async(void* shared, const void* global, bool valid = true) {
  static_assert(N == 4 || N == 8 || N == 16, "cp.async copies 4, 8 or 16 bytes");
  copy_later(shared, global, N, valid);
}
template <int N>
void copy_wait() { copies_land(N); }

void check_aligned(const void* p, size_t bytes);
inline uint32_t load_once_4(const void* p) {
  check_aligned(p, 4);
  return *static_cast<const uint32_t*>(p);
}
inline uint2 load_once_8(const void* p) {
  check_aligned(p, 8);
  return *static_cast<const uint2*>(p);
}
inline uint4 load_once_16(const void* p) {
  check_aligned(p, 16);
  return *static_cast<const uint4*>(p);
}

inline uint32_t pack_bf16(float low, float high) { return uint32_t(float_to_bf16(low)) | uint32_t(float_to_bf16(high)) << 16; }
inline float bf16_low(uint32_t pair) { return float_of_bits(pair << 16); }
inline float bf16_high(uint32_t pair) { return float_of_bits(pair & 0xffff0000u); }
inline uint32_t sub_bf16x2(uint32_t a, uint32_t b) { return pack_bf16(bf16_low(a) - bf16_low(b), bf16_high(a) - bf16_high(b)); }
inline float f16_to_float(uint16_t h) { return bg::f16_to_float(h); }
inline uint16_t float_to_f16(float f) { return bg::float_to_f16(f); }
inline int fresh(int v) { return v; }
inline uint32_t bits_of(float f) { return bits_of_float(f); }
inline float float_of(uint32_t bits) { return float_of_bits(bits); }
inline float exp2_fast(float x) { return exp2f(x); }

void launch(void* device, const char* name, dim3 grid, dim3 block, size_t shared, void (*call)(const void*), const void* body, size_t body_bytes);

}  // namespace bg::emulated::simt

#define threadIdx (::bg::emulated::simt::fiber_->thread)
#define blockIdx (::bg::emulated::simt::place_.block)
#define gridDim (::bg::emulated::simt::place_.blocks)
#define blockDim (::bg::emulated::simt::place_.threads)

#define __syncthreads() ::bg::emulated::simt::barrier(__FILE__, __LINE__)
inline void __syncwarp(unsigned mask = 0xffffffffu) { ::bg::emulated::simt::ballot(mask, false); }
template <class T> T __shfl_sync(unsigned mask, T v, int lane) { return ::bg::emulated::simt::exchange(mask, v, lane); }
template <class T> T __shfl_xor_sync(unsigned mask, T v, int x) { return ::bg::emulated::simt::exchange(mask, v, ::bg::emulated::simt::fiber_->lane ^ x); }
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned n) {
  const int lane = ::bg::emulated::simt::fiber_->lane;
  return ::bg::emulated::simt::exchange(mask, v, lane + int(n) < 32 ? lane + int(n) : lane);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned n) {
  const int lane = ::bg::emulated::simt::fiber_->lane;
  return ::bg::emulated::simt::exchange(mask, v, lane >= int(n) ? lane - int(n) : lane);
}
inline unsigned __ballot_sync(unsigned mask, bool v) { return ::bg::emulated::simt::ballot(mask, v); }
inline int __any_sync(unsigned mask, bool v) { return ::bg::emulated::simt::ballot(mask, v) != 0; }
inline int __all_sync(unsigned mask, bool v) { return ::bg::emulated::simt::ballot(mask, v) == mask; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline unsigned __float_as_uint(float f) { return ::bg::bits_of_float(f); }
inline float __uint_as_float(unsigned u) { return ::bg::float_of_bits(u); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

template <class T> T atomicAdd(T* p, T v) {
  static_assert(std::is_integral_v<T>, "an atomic sum of floats depends on the order of threads");
  return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
template <class T> T atomicCAS(T* p, T expected, T desired) {
  __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
template <class T> T atomicMax(T* p, T v) {
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (old < v && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

#define SIMT_UNPAREN(...) __VA_ARGS__
#define BG_LAUNCH(device, kernel, grid, block, shared, ...)                                                                              \
  do {                                                                                                                                   \
    const auto body_ = [=] { SIMT_UNPAREN kernel(__VA_ARGS__); };                                                                        \
    static_assert(std::is_trivially_copyable_v<decltype(body_)>, "arguments of a kernel are plain values");                              \
    ::bg::emulated::simt::launch(&(device), #kernel, grid, block, shared, [](const void* b) { (*static_cast<decltype(body_)*>(b))(); }, &body_, \
                                 sizeof body_);                                                                                          \
  } while (0)
