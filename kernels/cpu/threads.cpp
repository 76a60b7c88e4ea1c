// The pool behind the CPU backend.
#include "kernels/cpu/threads.h"

#include <system_error>

namespace bg::cpu {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kSpins = 3000;  // about 100 µs: a block of the others and the gap between two operations of one token. Waking a parked thread costs as much.

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Threads::Threads(int count) {
  if (count > kMaxThreads) count = kMaxThreads;
  spins_ = count <= int(std::thread::hardware_concurrency()) ? kSpins : 0;  // with fewer cores than threads, waiting takes the core from the one waited for
  workers_.reserve(size_t(count > 1 ? count - 1 : 0));
  for (int thread = 1; thread < count; ++thread) {
    try {
      workers_.emplace_back(&Threads::work, this, thread);
    } catch (const std::system_error&) {
      break;
    }
  }
}

Threads::~Threads() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  jobs_.fetch_add(1);
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Threads::share(int64_t blocks, Call call, const void* context) {
  if (blocks <= 0) return;
  std::lock_guard<std::mutex> turn(turn_);  // also for one block: thread 0's scratch belongs to the caller whose turn it is
  if (blocks == 1 || workers_.empty()) {
    for (int64_t block = 0; block < blocks; ++block) call(context, block, 0);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    call_ = call;
    context_ = context;
    blocks_ = blocks;
    next_ = done_ = 0;
    running_.store(true);
  }
  jobs_.fetch_add(1);
  if (blocks > int64_t(workers_.size())) {
    start_.notify_all();
  } else {
    for (int64_t i = 1; i < blocks; ++i) start_.notify_one();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  compute_blocks(lock, 0);
  if (done_ < blocks_) {
    lock.unlock();
    for (int i = 0; i < spins_ && running_.load(); ++i) pause();
    lock.lock();
    finish_.wait(lock, [&] { return done_ == blocks_; });
  }
  blocks_ = next_ = 0;  // nothing to claim until the next job
}

// Claims blocks until none is left. A worker that comes late finds none, or those of a later job: either is right, since what to call,
// on what, and which block are read together under the lock.
void Threads::compute_blocks(std::unique_lock<std::mutex>& lock, int thread) {
  while (next_ < blocks_) {
    const int64_t block = next_++;
    const Call call = call_;
    const void* context = context_;
    lock.unlock();
    call(context, block, thread);
    lock.lock();
    if (++done_ == blocks_) {
      running_.store(false);
      if (thread != 0) finish_.notify_one();
    }
  }
}

void Threads::work(int thread) {
  uint64_t seen = 0;
  for (;;) {
    for (int i = 0; i < spins_ && jobs_.load() == seen; ++i) pause();
    std::unique_lock<std::mutex> lock(mutex_);
    start_.wait(lock, [&] { return stop_ || next_ < blocks_; });
    if (stop_) return;
    seen = jobs_.load();
    compute_blocks(lock, thread);
  }
}

}  // namespace bg::cpu
