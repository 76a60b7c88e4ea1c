// make bench: this machine's ceilings, measured on the spot, and the share of them that each hot operation reaches on shapes of the 4B and 8B models
// with random weights. A figure is the median of several runs; the ceiling that bounds it is measured right before and after, and rounds in which the
// two readings differ by more than 10 % are dropped (shared machines jump). Not a test: nothing passes or fails here.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/ops.h"

using namespace bg;

namespace {

const int kThreads = int(std::max(1u, std::thread::hardware_concurrency()));

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class F>
void on_all_threads(F f) {
  std::vector<std::thread> threads;
  for (int i = 1; i < kThreads; ++i) threads.emplace_back(f, i);
  f(0);
  for (std::thread& t : threads) t.join();
}

// Peak of 8-lane float multiply-adds: 12 independent chains in registers. FLOP/s of all threads.
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void fma_chains(int64_t n, float* out) {
  __m256 a[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) a[i] = _mm256_set1_ps(float(i));
  for (int64_t r = 0; r < n; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) a[i] = _mm256_fmadd_ps(a[i], x, y);
  }
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) _mm256_storeu_ps(out + 8 * i, a[i]);
}
double peak_flops() {
  const int64_t n = 3'000'000;
  std::vector<std::vector<float>> out(size_t(kThreads), std::vector<float>(96));
  const double start = now();
  on_all_threads([&](int i) { fma_chains(n, out[size_t(i)].data()); });
  return double(n) * 12 * 8 * 2 * kThreads / (now() - start);
}
bool have_fma() { return best_isa() == Isa::avx2; }
#else
double peak_flops() { return 0; }
bool have_fma() { return false; }
#endif

std::vector<uint64_t> big;  // 1 GiB in the full run

uint64_t read_words(const uint64_t* p, size_t n) {
  uint64_t s[8] = {};
  for (size_t i = 0; i + 8 <= n; i += 8)
    for (size_t j = 0; j < 8; ++j) s[j] ^= p[i + j];
  return s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) uint64_t read_vectors(const uint64_t* p, size_t n) {
  __m256i s[8] = {};
  for (size_t i = 0; i + 32 <= n; i += 32) {
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; ++j) s[j] = _mm256_xor_si256(s[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i + 4 * j)));
  }
  for (size_t j = 1; j < 8; ++j) s[0] = _mm256_xor_si256(s[0], s[j]);
  return uint64_t(_mm256_extract_epi64(s[0], 0));
}
#endif

// Reading a GiB once, all threads. Bytes/s.
double read_bandwidth() {
  std::vector<uint64_t> sums(size_t(kThreads) * 8);
  const size_t share = big.size() / size_t(kThreads);
  const double start = now();
  on_all_threads([&](int t) {
    const uint64_t* p = big.data() + size_t(t) * share;
#if defined(__x86_64__)
    sums[size_t(t) * 8] = best_isa() == Isa::avx2 ? read_vectors(p, share) : read_words(p, share);
#else
    sums[size_t(t) * 8] = read_words(p, share);
#endif
  });
  const double bytes = double(share) * 8 * kThreads / (now() - start);
  volatile uint64_t sink = sums[0];
  (void)sink;
  return bytes;
}

struct Figure {
  double value = 0, share = 0;  // FLOP/s or bytes/s; of the ceiling
  int rounds = 0;
};

Figure measure(double work, double (*ceiling)(), const std::function<void()>& body) {
  std::vector<std::pair<double, double>> good;
  body();
  for (int round = 0; round < 9; ++round) {
    const double before = ceiling();
    const double start = now();
    body();
    const double value = work / (now() - start);
    const double after = ceiling();
    if (std::abs(before - after) <= 0.1 * std::max(before, after)) good.push_back({value / ((before + after) / 2), value});
  }
  if (good.empty()) return {};
  std::sort(good.begin(), good.end());
  return {good[good.size() / 2].second, good[good.size() / 2].first, int(good.size())};
}

void row(const char* name, const Figure& f, const char* unit) {
  if (f.rounds == 0)
    std::printf("%-58s  no quiet round\n", name);
  else
    std::printf("%-58s %9.1f %s %6.1f %%  %d rounds\n", name, f.value / 1e9, unit, f.share * 100, f.rounds);
  std::fflush(stdout);
}

struct Rows {  // owned random activations
  std::vector<float> data;
  Tensor t;
  Rows(int64_t rows, int64_t cols) : data(size_t(rows * cols)) {
    std::mt19937 random(uint32_t(rows * 7919 + cols));
    for (float& v : data) v = float(int32_t(random())) * 0x1p-32f;
    t = {data.data(), Type::f32, rows, cols, cols};
  }
};

// Rows of a slide's coverage selection: `clusters` directions with noise, or independent (0).
std::vector<float> slide_rows(int64_t N, int64_t width, int clusters) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> centres(size_t(clusters) * size_t(width)), v(static_cast<size_t>(N * width));
  for (float& x : centres) x = normal(random);
  for (int64_t i = 0; i < N; ++i) {
    const size_t c = clusters > 0 ? random() % size_t(clusters) : 0;
    const float noise = clusters > 0 ? 0.3f + 0.7f * float(random() % 1000) / 1000 : 1;
    for (int64_t d = 0; d < width; ++d) v[size_t(i * width + d)] = (clusters > 0 ? centres[c * size_t(width) + size_t(d)] : 0) + noise * normal(random);
  }
  return v;
}

double peak_gigabytes() {  // VmHWM: the most that this process has held so far
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::stod(line.substr(6)) * 1024 / 1e9;
  return 0;
}

// 128 of N tiles, rows 769 wide, as slides are selected (runtime/slide_select.h). The measure is one full N × N product of the same rows, by
// our own linear, timed on 512 of its columns right before and after.
void bench_slide(Ops& ops, int64_t N) {
  const int64_t width = 769, kept = 128, slice = std::min<int64_t>(512, N);
  std::printf("\ncoverage %lld of %lld tiles, width %lld\n%-26s %10s %10s %8s %14s %10s\n", (long long)kept, (long long)N, (long long)width, "rows", "seconds", "product s", "ratio", "evaluations/N", "peak GB");
  for (const bool stored : {false, true}) {
    if (stored && N > 30000) continue;
    for (const int clusters : {40, 400, 0}) {
      std::vector<float> data = slide_rows(N, width, clusters);
      const Tensor v{data.data(), Type::f32, N, width, width};
      const auto product = [&] {
        std::vector<float> y(static_cast<size_t>(N * slice));
        const double start = now();
        ops.linear({y.data(), Type::f32, N, slice, slice}, v, {data.data(), Type::f32, slice, width}, nullptr);
        return (now() - start) * double(N) / double(slice);
      };
      const double before = product();
      const size_t bytes = ops.coverage_scratch(N, width, 0, kept, stored ? SIZE_MAX : 0);
      void* scratch = ops.allocate(bytes);
      std::vector<int64_t> index(static_cast<size_t>(kept));
      std::vector<double> gain(static_cast<size_t>(kept));
      const double start = now();
      CoverageReport report;
      ops.coverage_select(index.data(), gain.data(), v, {nullptr, Type::f32, 0, width, width}, kept, scratch, bytes, &report);
      const double seconds = now() - start;
      ops.release(scratch, bytes);
      const double one = (before + product()) / 2;
      std::printf("%-26s %10.2f %10.2f %8.2f %14.1f %10.2f\n",
                  ((clusters > 0 ? std::to_string(clusters) + " clusters" : std::string("independent")) + (stored ? ", matrix stored" : "")).c_str(), seconds, one, seconds / one, double(report.evaluations) / double(N),
                  peak_gigabytes());
      std::fflush(stdout);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) {  // only slides, of so many tiles: nothing else in the peak of memory
    const std::unique_ptr<Ops> ops(make_cpu_ops(kThreads, Isa::best, bg::Precision::float32));
    bench_slide(*ops, std::max(256ll, std::atoll(argv[1])));
    return 0;
  }
  big.resize(size_t(128) << 20);
  std::mt19937_64 random(1);
  // Small BF16 numbers everywhere: sign, exponent near 2^-6, random mantissa.
  for (uint64_t& v : big) v = (random() & 0x807F807F807F807Full) | 0x3C803C803C803C80ull;
  const std::unique_ptr<Ops> ops(make_cpu_ops(kThreads, Isa::best, bg::Precision::float32));
  std::printf("backend %s, %d threads\nceilings: read %.1f GB/s", ops->name(), kThreads, read_bandwidth() / 1e9);
  if (have_fma()) std::printf(", float32 FMA (AVX2) %.1f GFLOP/s", peak_flops() / 1e9);
  std::printf("\n\n%-58s %9s %s %8s\n", "operation", "", "", "share of ceiling");

  // Decode: one row against 1 GiB of BF16 weights, several matrices in turn.
  for (const auto& [name, D, N] : {std::tuple{"linear 1x4096 . 12288x4096, BF16 weights (8B, decode)", int64_t(4096), int64_t(12288)},
                                   std::tuple{"linear 1x2560 . 9728x2560, BF16 weights (4B, decode)", int64_t(2560), int64_t(9728)}}) {
    const Rows x(1, D), y(1, N);
    const int64_t matrices = int64_t(big.size()) * 4 / (D * N);
    row(name, measure(double(matrices * D * N * 2), read_bandwidth, [&] {
          for (int64_t m = 0; m < matrices; ++m) ops->linear(y.t, x.t, {reinterpret_cast<const uint16_t*>(big.data()) + m * D * N, Type::bf16, N, D}, nullptr);
        }),
        "GB/s  ");
  }
  if (!have_fma()) return 0;
  // Products of many rows, attention and selection: bound by multiply-adds.
  for (const auto& [name, T, D, N] : {std::tuple{"linear 512x4096 . 4096x4096, BF16 weights (8B, prompt)", int64_t(512), int64_t(4096), int64_t(4096)},
                                      std::tuple{"linear 512x2560 . 9728x2560, BF16 weights (4B, prompt)", int64_t(512), int64_t(2560), int64_t(9728)},
                                      std::tuple{"linear 1024x1152 . 4304x1152, BF16 weights (8B, ViT)", int64_t(1024), int64_t(1152), int64_t(4304)}}) {
    const Rows x(T, D), y(T, N);
    row(name, measure(2.0 * double(T * D * N), peak_flops, [&] { ops->linear(y.t, x.t, {big.data(), Type::bf16, N, D}, nullptr); }), "GFLOP/s");
  }
  {
    const int64_t P = 1024, H = 16, d = 72;
    const Rows q(P, H * d), k(P, H * d), v(P, H * d), o(P, H * d);
    row("attention 1024 patches, 16 heads of 72 (8B, ViT)", measure(4.0 * double(P * P * H * d), peak_flops, [&] { ops->attention_frames(o.t, q.t, k.t, v.t, H, P); }), "GFLOP/s");
  }
  {
    const int64_t T = 512, H = 32, K = 8, d = 128;
    const Rows q(T, H * d), k(T, K * d), v(T, K * d), o(T, H * d);
    row("attention causal 512, 32 heads of 128, 8 kv (8B, prompt)", measure(4.0 * double(T * (T + 1) / 2 * H * d), peak_flops, [&] { ops->attention_causal(o.t, q.t, k.t, v.t, H, K, 0); }), "GFLOP/s");
  }
  {
    const int64_t L = 1024, D = 4096, kept = 64;
    const Rows v(L, D);
    const size_t bytes = ops->coverage_scratch(L, D, 0, kept, SIZE_MAX);
    void* scratch = ops->allocate(bytes);
    std::vector<int64_t> index(static_cast<size_t>(kept));
    std::vector<double> gain(static_cast<size_t>(kept));
    CoverageReport report;
    row("coverage 64 of 1024, width 4096 (8B; one similarity product)",
        measure(2.0 * double(L * L * D), peak_flops, [&] { ops->coverage_select(index.data(), gain.data(), v.t, {nullptr, Type::f32, 0, D, D}, kept, scratch, bytes, &report); }), "GFLOP/s");
    ops->release(scratch, bytes);
  }
  bench_slide(*ops, 20000);
  return 0;
}
