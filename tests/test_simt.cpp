// The emulation that CUDA kernels are tested on: what its words mean, and that it catches what it promises to catch (kernels/cuda/simt_host.h).
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/simt.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#endif

namespace simt = bg::emulated::simt;

namespace {

std::unique_ptr<bg::Device> device(bool backward = false, int threads = 1) { return bg::make_emulated_device(threads, backward); }

template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const bg::DeviceError& e) {
    return e.what();
  }
  return "";
}
template <class... P, class... A>
void run(bg::Device& d, void (*kernel)(P...), dim3 grid, unsigned block, size_t shared, A... arguments) {
  BG_LAUNCH(d, (kernel), grid, block, shared, arguments...);
}
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// ---- kernels ----
void warp_words(int* sum, unsigned* votes) {
  const int lane = int(threadIdx.x % 32);
  int v = int(threadIdx.x);
  for (int o = 16; o > 0; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
  if (lane == 0) sum[threadIdx.x / 32] = v;
  const unsigned odd = __ballot_sync(0xffffffffu, lane % 2 == 1);
  if (lane == 5) votes[threadIdx.x / 32] = odd;
  const int from_3 = __shfl_sync(0xffffffffu, lane * 10, 3), next = __shfl_down_sync(0xffffffffu, lane, 1);
  if (lane == 31) sum[threadIdx.x / 32] += 1000 * from_3 + 100000 * next;  // the last lane has no next: its own
}

// y_i = x_{n − 1 − i}, through shared memory.
void reverse(float* y, const float* x, bool with_barrier) {
  SIMT_SHARED(float, shared, 64);
  const int i = int(threadIdx.x), n = int(blockDim.x);
  shared[i] = x[i];
  if (with_barrier) __syncthreads();
  y[i] = shared[n - 1 - i];
}

void some_leave() {
  if (threadIdx.x == 3) return;
  __syncthreads();
}
void two_barriers() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
void lanes_missing(int* out) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}
void different_words(int* out) {
  if (threadIdx.x % 2 == 0)
    out[threadIdx.x] = int(__ballot_sync(0xffffffffu, true));
  else
    out[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}

void copies(float* y, const float* x, bool wait) {
  SIMT_SHARED(float, shared, 4 * 32);
  float* mine = shared + 4 * threadIdx.x;
  simt::copy_async<16>(mine, x + 4 * threadIdx.x, threadIdx.x != 7);
  simt::copy_commit();
  if (wait) simt::copy_wait<0>();
  for (int i = 0; i < 4; ++i) y[4 * threadIdx.x + unsigned(i)] = mine[i];
}
void two_groups(float* y, const float* x) {
  SIMT_SHARED(float, shared, 8);
  simt::copy_async<4>(shared, x);
  simt::copy_commit();
  simt::copy_async<4>(shared + 4, x + 1);
  simt::copy_commit();
  simt::copy_wait<1>();  // the older one is there, the newer is not yet
  y[0] = shared[0];
  y[1] = shared[4];
}
void unaligned(uint4* y, const char* x) { *y = simt::load_once_16(x + 4); }
void never_written(float* y) {
  SIMT_SHARED(float, shared, 32);
  y[threadIdx.x] = shared[threadIdx.x];
}
void count(unsigned long long* sum, int* largest) {
  atomicAdd(sum, static_cast<unsigned long long>(blockIdx.x + 1));
  atomicMax(largest, int(blockIdx.x * blockDim.x + threadIdx.x));
}
void too_much_shared(float* y) {
  SIMT_SHARED(float, shared, 13000);
  y[0] = shared[0];
}
void add_one(int* x) { x[threadIdx.x] += 1; }

// One tile of each tensor-core product, fragments filled as simt_device.h says. a (16, K), b (8, K): column n of B is row n here.
template <class Store>
void fragments_16(const uint16_t* a, const uint16_t* b, int K, Store store) {
  const int lane = int(threadIdx.x), g = lane / 4, p = lane % 4;
  const auto pair = [](const uint16_t* s) { return uint32_t(s[0]) | uint32_t(s[1]) << 16; };
  const uint32_t fa[4] = {pair(a + g * K + 2 * p), pair(a + (g + 8) * K + 2 * p), K == 16 ? pair(a + g * K + 2 * p + 8) : 0, K == 16 ? pair(a + (g + 8) * K + 2 * p + 8) : 0};
  const uint32_t fb[2] = {pair(b + g * K + 2 * p), K == 16 ? pair(b + g * K + 2 * p + 8) : 0};
  store(fa, fb);
}
template <class T>
void put_tile(T* d, const T (&acc)[4]) {
  const int g = int(threadIdx.x) / 4, p = int(threadIdx.x) % 4;
  for (int e = 0; e < 4; ++e) d[(g + 8 * (e / 2)) * 8 + 2 * p + e % 2] = acc[e];
}
void tile_bf16(float* d, const uint16_t* a, const uint16_t* b) {
  float acc[4] = {1, 2, 3, 4};
  fragments_16(a, b, 16, [&](const uint32_t (&fa)[4], const uint32_t (&fb)[2]) { simt::mma_bf16(acc, fa, fb); });
  put_tile(d, acc);
}
void tile_bf16_k8(float* d, const uint16_t* a, const uint16_t* b) {
  float acc[4] = {1, 2, 3, 4};
  fragments_16(a, b, 8, [&](const uint32_t (&fa)[4], const uint32_t (&fb)[2]) { simt::mma_bf16_k8(acc, {fa[0], fa[1]}, fb[0]); });
  put_tile(d, acc);
}
void tile_f16(float* d, const uint16_t* a, const uint16_t* b) {
  float acc[4] = {1, 2, 3, 4};
  fragments_16(a, b, 16, [&](const uint32_t (&fa)[4], const uint32_t (&fb)[2]) { simt::mma_f16(acc, fa, fb); });
  put_tile(d, acc);
}
void tile_s8(int* d, const int8_t* a, const int8_t* b) {
  const int g = int(threadIdx.x) / 4, p = int(threadIdx.x) % 4;
  uint32_t fa[4], fb[2];
  for (int i = 0; i < 4; ++i) memcpy(&fa[i], a + (g + 8 * (i % 2)) * 32 + 4 * p + 16 * (i / 2), 4);
  for (int i = 0; i < 2; ++i) memcpy(&fb[i], b + g * 32 + 4 * p + 16 * i, 4);
  int acc[4] = {1, 2, 3, 4};
  simt::mma_s8(acc, fa, fb);
  put_tile(d, acc);
}
// Four 8 × 8 matrices, one below the other, by both ways.
void matrices(uint32_t* plain, uint32_t* transposed, const uint16_t* x) {
  SIMT_SHARED(uint16_t, shared, 32 * 8);
  const int lane = int(threadIdx.x);
  for (int j = 0; j < 8; ++j) shared[8 * lane + j] = x[8 * lane + j];
  __syncthreads();
  uint32_t r[4];
  simt::ldmatrix_x4(r, shared + 8 * lane);
  for (int m = 0; m < 4; ++m) plain[4 * lane + m] = r[m];
  simt::ldmatrix_x4_trans(r, shared + 8 * lane);
  for (int m = 0; m < 4; ++m) transposed[4 * lane + m] = r[m];
}

}  // namespace

TEST_CASE("simt: shuffles and votes") {
  for (const bool backward : {false, true}) {
    const auto d = device(backward);
    int sum[3] = {};
    unsigned votes[3] = {};
    run(*d, warp_words, dim3(1), 96, 0, sum, votes);
    for (int w = 0; w < 3; ++w) {
      CHECK(sum[w] == 32 * 32 * w + 496 + 1000 * 30 + 100000 * 31);
      CHECK(votes[w] == 0xaaaaaaaau);
    }
  }
}

TEST_CASE("simt: a missing barrier gives other numbers in one of the two orders") {
  std::vector<float> x(64), forward(64), backward(64), right(64);
  for (int i = 0; i < 64; ++i) x[size_t(i)] = float(i), right[size_t(i)] = float(63 - i);
  run(*device(false), reverse, dim3(1), 64, 0, forward.data(), x.data(), true);
  run(*device(true), reverse, dim3(1), 64, 0, backward.data(), x.data(), true);
  CHECK(forward == right);
  CHECK(backward == right);
  run(*device(false), reverse, dim3(1), 64, 0, forward.data(), x.data(), false);
  run(*device(true), reverse, dim3(1), 64, 0, backward.data(), x.data(), false);
  CHECK(forward != right);  // NaN where the other thread had not written yet
  CHECK(std::memcmp(forward.data(), backward.data(), 64 * sizeof(float)) != 0);
}

TEST_CASE("simt: divergent barriers and warp words are errors that name the place") {
  std::string e = error_of([] { BG_LAUNCH(*device(), (some_leave), dim3(2), 64, 0); });
  CHECK(has(e, "some_leave"));
  CHECK(has(e, "has ended"));
  CHECK(has(e, "thread (3, 0, 0)"));
  CHECK(has(error_of([] { run(*device(), two_barriers, dim3(1), 64, 0); }), "test_simt.cpp:"));
  std::vector<int> out(32);
  CHECK(has(error_of([&] { run(*device(), lanes_missing, dim3(1), 32, 0, out.data()); }), "lanes of its warp that do not come"));
  CHECK(has(error_of([&] { run(*device(), different_words, dim3(1), 32, 0, out.data()); }), "different operations"));
  run(*device(), reverse, dim3(1), 32, 0, reinterpret_cast<float*>(out.data()), reinterpret_cast<const float*>(out.data()), true);  // and the next launch works again
}

TEST_CASE("simt: shared memory begins as NaN, asynchronous copies land at their wait") {
  std::vector<float> x(128), y(128), z(32);
  for (int i = 0; i < 128; ++i) x[size_t(i)] = float(i + 1);
  run(*device(), copies, dim3(1), 32, 0, y.data(), x.data(), true);
  for (int i = 0; i < 128; ++i) CHECK(y[size_t(i)] == (i / 4 == 7 ? 0 : x[size_t(i)]));  // an invalid copy is zeros
  run(*device(), copies, dim3(1), 32, 0, y.data(), x.data(), false);
  for (const float v : y) CHECK(std::isnan(v));
  run(*device(), two_groups, dim3(1), 1, 0, y.data(), x.data());
  CHECK(y[0] == 1);
  CHECK(std::isnan(y[1]));
  run(*device(), never_written, dim3(1), 32, 0, z.data());
  for (const float v : z) CHECK(std::isnan(v));
}

TEST_CASE("simt: what no GPU takes is refused") {
  std::vector<float> y(64);
  CHECK(has(error_of([&] { run(*device(), never_written, dim3(1), 1025, 0, y.data()); }), "no GPU takes that"));
  CHECK(has(error_of([&] { run(*device(), never_written, dim3(1, 65536), 32, 0, y.data()); }), "no GPU takes that"));
  CHECK(has(error_of([&] { run(*device(), never_written, dim3(1), 32, 100 << 10, y.data()); }), "no GPU takes that"));
  CHECK(has(error_of([&] { run(*device(), too_much_shared, dim3(1), 1, 0, y.data()); }), "bytes of shared memory"));
  alignas(16) char bytes[32] = {};
  uint4 out;
  CHECK(has(error_of([&] { run(*device(), unaligned, dim3(1), 1, 0, &out, bytes); }), "no multiple of 16"));
}

TEST_CASE("simt: blocks on several cores, integer atomics") {
  for (const int threads : {1, 3}) {
    unsigned long long sum = 0;
    int largest = 0;
    run(*device(false, threads), count, dim3(100), 4, 0, &sum, &largest);
    CHECK(sum == 4 * 5050);
    CHECK(largest == 399);
  }
}

TEST_CASE("simt: tensor-core tiles are the products that PTX's fragment layouts say, cut towards zero") {
  for (const int kind : {0, 1, 2}) {  // bf16, bf16 with K = 8, f16
    const int K = kind == 1 ? 8 : 16;
    std::vector<uint16_t> a(size_t(16 * K)), b(size_t(8 * K));
    uint32_t state = 7;
    const auto value = [&](uint16_t h) { return kind == 2 ? bg::f16_to_float(h) : bg::bf16_to_float(h); };
    for (std::vector<uint16_t>* m : {&a, &b})
      for (uint16_t& h : *m) {
        state = state * 1664525 + 1013904223;
        const float f = float(int(state >> 8) - (1 << 23)) * 0x1p-21f;
        h = kind == 2 ? bg::float_to_f16(f) : bg::float_to_bf16(f);
      }
    float d[128];
    if (kind == 0) run(*device(), tile_bf16, dim3(1), 32, 0, d, a.data(), b.data());
    if (kind == 1) run(*device(), tile_bf16_k8, dim3(1), 32, 0, d, a.data(), b.data());
    if (kind == 2) run(*device(), tile_f16, dim3(1), 32, 0, d, a.data(), b.data());
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        double exact = 1 + 2 * (m / 8) + n % 2;  // what the accumulator held
        for (int k = 0; k < K; ++k) exact += double(value(a[size_t(m * K + k)])) * double(value(b[size_t(n * K + k)]));
        const double got = d[m * 8 + n];
        CHECK(std::fabs(got) <= std::fabs(exact));
        CHECK(std::fabs(got - exact) <= 0x1p-23 * std::fabs(exact));
      }
  }
  int8_t a[16 * 32], b[8 * 32];
  for (int i = 0; i < 16 * 32; ++i) a[i] = int8_t(i * 37 % 256 - 128);
  for (int i = 0; i < 8 * 32; ++i) b[i] = int8_t(i * 91 % 256 - 128);
  int d[128];
  run(*device(), tile_s8, dim3(1), 32, 0, d, a, b);
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n) {
      int exact = 1 + 2 * (m / 8) + n % 2;
      for (int k = 0; k < 32; ++k) exact += a[m * 32 + k] * b[n * 32 + k];
      CHECK(d[m * 8 + n] == exact);
    }
}

TEST_CASE("simt: ldmatrix hands out rows, or columns") {
  std::vector<uint16_t> x(256);
  for (int i = 0; i < 256; ++i) x[size_t(i)] = uint16_t(i);
  std::vector<uint32_t> plain(128), transposed(128);
  run(*device(), matrices, dim3(1), 32, 0, plain.data(), transposed.data(), x.data());
  for (int lane = 0; lane < 32; ++lane)
    for (int m = 0; m < 4; ++m) {
      const int g = lane / 4, p = lane % 4, base = 64 * m;
      CHECK(plain[size_t(4 * lane + m)] == (uint32_t(base + 8 * g + 2 * p) | uint32_t(base + 8 * g + 2 * p + 1) << 16));
      CHECK(transposed[size_t(4 * lane + m)] == (uint32_t(base + 16 * p + g) | uint32_t(base + 16 * p + 8 + g) << 16));
    }
}

TEST_CASE("device: a recorded step runs when it is played, with what the host gave since") {
  const auto d = device();
  auto* there = static_cast<int*>(d->allocate(4 * sizeof(int)));
  int host[4] = {1, 2, 3, 4}, back[4] = {};
  d->record();
  d->upload(there, host, sizeof host);
  run(*d, add_one, dim3(1), 4, 0, there);
  host[0] = 99;  // the recording has its own copy
  d->play();
  d->download(back, there, sizeof back);
  CHECK(back[0] == 2);
  CHECK(back[3] == 5);
  const int next[4] = {10, 20, 30, 40};
  d->upload_again(next, sizeof next);
  d->play();
  d->download(back, there, sizeof back);
  CHECK(back[0] == 11);
  CHECK(back[3] == 41);
  CHECK(has(error_of([&] { d->upload_again(next, 3); }), "not the one that was recorded"));
  d->release(there);
}

TEST_CASE("device: a machine without a GPU says so") {
  std::string why;
  const int count = bg::cuda_devices(&why);
  if (count == 0) CHECK_FALSE(why.empty());
  CHECK(has(error_of([&] { bg::make_cuda_device(count); }), count == 0 ? "" : "this machine has"));
  CHECK_FALSE(error_of([&] { bg::make_cuda_device(count); }).empty());
}

#if defined(__SANITIZE_ADDRESS__)
namespace {
void past_shared(float* y) {
  SIMT_SHARED(float, first, 3);
  SIMT_SHARED(float, second, 3);
  first[threadIdx.x] = second[threadIdx.x] = 1;
  y[0] = first[3];
}
void past_dynamic(float* y) {
  SIMT_DYNAMIC_SHARED(float, shared);
  y[0] = shared[4];
}
void past_global(float* y) { y[4] = 1; }

// The sanitizer ends the process; so a child runs the kernel.
template <class Body>
bool dies(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
}  // namespace

TEST_CASE("simt: the sanitizer sees accesses past shared and global memory") {
  const auto d = device();
  auto* y = static_cast<float*>(d->allocate(4 * sizeof(float)));
  CHECK(dies([&] { run(*d, past_shared, dim3(1), 3, 0, y); }));
  CHECK(dies([&] { run(*d, past_dynamic, dim3(1), 1, 16, y); }));
  CHECK(dies([&] { run(*d, past_global, dim3(1), 1, 0, y); }));
  CHECK_FALSE(dies([&] { run(*d, add_one, dim3(1), 4, 0, reinterpret_cast<int*>(y)); }));
  d->release(y);
}
#endif
