// See memory.h.
#include "tests/bench/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <new>
#include <string>

#include "kernels/panels.h"

namespace bg::bench {
namespace {

constexpr size_t kHuge = size_t(2) << 20;

double status_value(const char* file, const std::string& key) {  // kB lines of /proc
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.rfind(key, 0) == 0) return std::stod(line.substr(key.size())) * 1024;
  return 0;
}

void put(char* to, uint16_t value) { std::memcpy(to, &value, 2); }

// Some MiB of panels: random codes, and scales that keep the values near 2^-6 (f16 patterns; the last bits of their mantissas are random).
std::vector<char> random_run(Type type) {
  constexpr size_t kRun = size_t(4) << 20;
  const size_t group = type == Type::q8_0 ? 1088 : type == Type::q4_k ? 2304 : type == Type::q6_k ? 3392 : 64;
  std::vector<char> run(kRun / group * group);
  std::mt19937_64 random(uint64_t(type) + 1);
  for (size_t i = 0; i + 8 <= run.size(); i += 8) {
    uint64_t bits = random();
    if (type == Type::f32) bits = (bits & 0x807fffff807fffffull) | 0x3c8000003c800000ull;
    if (type == Type::bf16) bits = (bits & 0x807f807f807f807full) | 0x3c803c803c803c80ull;
    if (type == Type::f16) bits = (bits & 0x83ff83ff83ff83ffull) | 0x2400240024002400ull;
    std::memcpy(run.data() + i, &bits, 8);
  }
  for (size_t g = 0; g < run.size(); g += group) {
    char* at = run.data() + g;
    const auto scale = [&](int exponent) { return uint16_t((exponent + 15) << 10 | (random() & 0x3ff)); };
    if (type == Type::q8_0)
      for (int r = 0; r < 32; ++r) put(at + 1024 + 2 * r, scale(-13));
    if (type == Type::q4_k)
      for (int r = 0; r < 32; ++r) put(at + 2 * r, scale(-14));
    if (type == Type::q6_k) {
      for (int r = 0; r < 16; ++r) put(at + 2 * r, scale(-13));
      for (int i = 64; i < 320; ++i) at[i] = char(at[i] & 7);  // s of 0 … 7
    }
  }
  return run;
}

}  // namespace

Memory::Memory(size_t bytes) : mapped_((bytes + kHuge - 1) / kHuge * kHuge + kHuge), bytes_(bytes) {
  mapping_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) throw std::bad_alloc();
  data_ = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(mapping_) + kHuge - 1) / kHuge * kHuge);
#if defined(MADV_HUGEPAGE)
  madvise(data_, mapped_ - kHuge, MADV_HUGEPAGE);
#endif
  for (size_t i = 0; i < bytes; i += 4096) data_[i] = 0;
}

Memory::~Memory() { munmap(mapping_, mapped_); }

size_t available_memory() { return size_t(status_value("/proc/meminfo", "MemAvailable:")); }
double peak_gigabytes() { return status_value("/proc/self/status", "VmHWM:") / 1e9; }

void fill_panels(char* to, Type type, size_t bytes) {
  const std::vector<char> run = random_run(type);
  for (size_t done = 0; done < bytes; done += run.size()) std::memcpy(to + done, run.data(), std::min(run.size(), bytes - done));
}

void fill_cache(Tensor t) {
  const size_t bytes = stored_bytes(t.type, t.rows * t.cols);
  auto* to = static_cast<char*>(t.data);
  if (!is_quantised(t.type)) return fill_panels(to, t.type, bytes);  // no scales: only the order of the numbers is another
  std::mt19937_64 random(1);
  for (size_t i = 0; i + 34 <= bytes; i += 34) {
    put(to + i, uint16_t(2 << 10 | (random() & 0x3ff)));
    for (int j = 0; j < 4; ++j) {
      const uint64_t bits = random();
      std::memcpy(to + i + 2 + 8 * j, &bits, 8);
    }
  }
}

WeightRing::WeightRing(Type type, int64_t rows, int64_t cols, size_t bytes)
    : type_(type), rows_(rows), cols_(cols), count_(std::max<int64_t>(1, int64_t(bytes / weight_bytes(type, rows, cols, Layout::panels)))),
      each_(weight_bytes(type, rows, cols, Layout::panels)), memory_(size_t(count_) * each_) {
  fill_panels(memory_.data(), type, memory_.bytes());
}

Weight WeightRing::at(int64_t i) const { return {memory_.data() + size_t(i) * each_, type_, rows_, cols_, Layout::panels}; }

Activations::Activations(int64_t rows, int64_t cols) : data(size_t(rows * cols)) {
  std::mt19937 random(uint32_t(rows * 7919 + cols));
  for (float& v : data) v = float(int32_t(random())) * 0x1p-32f;
  t = {data.data(), Type::f32, rows, cols, cols};
}

}  // namespace bg::bench
