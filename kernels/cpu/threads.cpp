// The pool behind the CPU backend.
#include "kernels/cpu/threads.h"

#include <system_error>

namespace bg::cpu {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kSpins = 3000;  // about 100 µs: a block of the others and the gap between two operations of one token. Waking a parked thread costs as much.
constexpr int kBlockBits = 40;
constexpr uint32_t kLastJob = (1u << 24) - 1, kStop = 1u << 24;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Until `value` is no longer `old`: watching it for a moment, then parked.
void wait(const std::atomic<uint32_t>& value, uint32_t old, int spins) {
  for (int i = 0; i < spins && value.load() == old; ++i) pause();
  value.wait(old);
}

}  // namespace

Threads::Threads(int count) {
  if (count > kMaxThreads) count = kMaxThreads;
  if (count < 1) count = 1;
  spins_ = count <= int(std::thread::hardware_concurrency()) ? kSpins : 0;  // with fewer cores than threads, waiting takes the core from the one waited for
  shares_ = std::make_unique<Share[]>(size_t(count));
  workers_.reserve(size_t(count - 1));
  for (int thread = 1; thread < count; ++thread) {
    try {
      workers_.emplace_back(&Threads::work, this, thread);
    } catch (const std::system_error&) {
      break;
    }
  }
}

Threads::~Threads() {
  job_.store(kStop);
  job_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Threads::share(int64_t blocks, Call call, const void* context) {
  if (blocks <= 0) return;
  std::lock_guard<std::mutex> turn(turn_);  // also for one block: thread 0's scratch belongs to the caller whose turn it is
  if (blocks == 1 || workers_.empty()) {
    for (int64_t block = 0; block < blocks; ++block) call(context, block, 0);
    return;
  }
  const uint32_t job = job_.load() % kLastJob + 1, before = finished_.load();
  call_.store(call, std::memory_order_release);
  context_.store(context, std::memory_order_release);
  blocks_.store(blocks, std::memory_order_release);
  left_.store(blocks, std::memory_order_relaxed);
  for (int t = 0; t < count(); ++t) shares_[size_t(t)].next.store(uint64_t(job) << kBlockBits | uint64_t(first_of(t, blocks)), std::memory_order_release);
  job_.store(job);
  job_.notify_all();
  take_blocks(job, 0);
  wait(finished_, before, spins_);
  for (int t = 0; t < count(); ++t) shares_[size_t(t)].next.store(0, std::memory_order_release);
}

// A thread that comes late finds the shares closed or of another job. What it read of a job is right if it then can take a block of it: the shares are closed before the next job is
// written down, and the block is taken only if its share is still as it was. (Numbers come again after 2^24 − 1 jobs: a thread would have to sleep between two of these lines for just as many.)
void Threads::take_blocks(uint32_t job, int thread) {
  int64_t computed = 0;
  const int threads = count();
  for (int i = 0; i < threads; ++i) {
    const int owner = (thread + i) % threads;
    std::atomic<uint64_t>& next = shares_[size_t(owner)].next;
    uint64_t at = next.load(std::memory_order_acquire);
    while (at >> kBlockBits == job) {
      const int64_t block = int64_t(at & ((uint64_t(1) << kBlockBits) - 1));
      const Call call = call_.load(std::memory_order_acquire);
      const void* context = context_.load(std::memory_order_acquire);
      if (block >= first_of(owner + 1, blocks_.load(std::memory_order_acquire))) break;
      if (!next.compare_exchange_weak(at, at + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      call(context, block, thread);
      ++computed;
      at = next.load(std::memory_order_acquire);
    }
  }
  if (computed > 0 && left_.fetch_sub(computed) == computed) {
    finished_.store(job);
    finished_.notify_one();
  }
}

void Threads::work(int thread) {
  for (uint32_t seen = 0; seen != kStop;) {
    wait(job_, seen, spins_);
    seen = job_.load();
    if (seen != kStop) take_blocks(seen, thread);
  }
}

}  // namespace bg::cpu
