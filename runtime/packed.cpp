// See packed.h.
#include "runtime/packed.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <map>

#include "kernels/cpu/threads.h"
#include "kernels/panels.h"

namespace bg {
namespace {

constexpr size_t kHugePage = size_t(2) << 20;
constexpr uint64_t kWorthAThread = 16 << 20;  // bytes; less is packed before another thread has started

uint64_t panels_size(const Weight& w) { return weight_bytes(w.type, w.rows, w.cols, Layout::panels); }  // a multiple of 64

// The matrices in rows, each once: a tied embedding is the output matrix too.
std::map<const void*, Weight> matrices_in_rows(Weights w) {
  std::map<const void*, Weight> found;
  for (const Weight* m : multiplied(w))
    if (m->layout == Layout::rows) found[m->data] = *m;
  return found;
}

}  // namespace

uint64_t PackedWeights::available_memory() {
  unsigned long long kilobytes = std::numeric_limits<uint64_t>::max() >> 10;
  if (std::FILE* f = std::fopen("/proc/meminfo", "re")) {
    char line[128];
    while (std::fgets(line, sizeof line, f) != nullptr && std::sscanf(line, "MemAvailable: %llu", &kilobytes) != 1) {
    }
    std::fclose(f);
  }
  return uint64_t(kilobytes) << 10;
}

uint64_t PackedWeights::bytes(const Weights& w) {
  uint64_t sum = 0;
  for (const auto& [data, m] : matrices_in_rows(w)) sum += panels_size(m);
  return sum;
}

std::unique_ptr<PackedWeights> PackedWeights::make(const Weights& rows, int threads, uint64_t available) {
  const uint64_t needed = bytes(rows);
  if (needed > available || needed > std::numeric_limits<size_t>::max() - kHugePage) return nullptr;
  const size_t mapped = size_t(needed) + kHugePage;  // so that it can begin at a huge page
  void* base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  std::unique_ptr<PackedWeights> packed(new PackedWeights(rows, base, mapped));
  packed->pack(needed < kWorthAThread ? 1 : threads);
  return packed;
}

PackedWeights::PackedWeights(const Weights& rows, void* base, size_t mapped) : weights_(rows), base_(base), mapped_(mapped) {}

PackedWeights::~PackedWeights() { munmap(base_, mapped_); }

void PackedWeights::pack(int threads) {
  char* at = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(base_) + kHugePage - 1) / kHugePage * kHugePage);
  madvise(at, mapped_ - size_t(at - static_cast<char*>(base_)), MADV_HUGEPAGE);  // a wish: without it all is the same, only slower

  struct Job {
    Weight rows;
    int64_t first, last;  // panels
    char* to;
  };
  constexpr int64_t kJobPanels = 64;
  std::vector<Job> jobs;
  std::map<const void*, char*> places;
  for (const auto& [data, m] : matrices_in_rows(weights_)) {
    places[data] = at;
    for (int64_t p = 0; p < panels_of(m.rows); p += kJobPanels)
      jobs.push_back({m, p, std::min(p + kJobPanels, panels_of(m.rows)), at + size_t(p) * panel_bytes(m.type, m.cols)});
    at += panels_size(m);
  }
  cpu::Threads pool(threads);
  pool.run(int64_t(jobs.size()), [&](int64_t i, int) { pack_panels(jobs[size_t(i)].to, jobs[size_t(i)].rows, jobs[size_t(i)].first, jobs[size_t(i)].last); });
  for (Weight* m : multiplied(weights_)) {
    if (m->layout == Layout::panels) continue;
    m->data = places.at(m->data);
    m->layout = Layout::panels;
  }
  if (weights_.decoder.output.layout == Layout::panels && places.count(weights_.decoder.embed.data) > 0) weights_.decoder.embed = weights_.decoder.output;
}

}  // namespace bg
