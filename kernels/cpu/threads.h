// A fixed pool of threads that shares out numbered blocks of work. Who computes a block never matters to its result.
// Not here: how work is cut into blocks (each operation does that, from shapes alone).
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace bg::cpu {

class Threads {
 public:
  // count ≥ 1 threads, the caller included. If the system refuses some, the pool is smaller: same results, less speed.
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return int(workers_.size()) + 1; }

  // body(block, thread) for block = 0 … blocks−1, thread in [0, count()); returns when all are done. The body must not throw and must not
  // call run. Several callers take turns.
  template <class Body>
  void run(int64_t blocks, const Body& body) {
    share(blocks, [](const void* context, int64_t block, int thread) { (*static_cast<const Body*>(context))(block, thread); }, &body);
  }

 private:
  using Call = void (*)(const void* context, int64_t block, int thread);
  void share(int64_t blocks, Call call, const void* context);
  void work(int thread);
  void compute_blocks(std::unique_lock<std::mutex>& lock, int thread);

  std::mutex turn_;   // held for the length of a job: one job at a time
  std::mutex mutex_;  // guards what follows; blocks are coarse, so taking it once per block costs little
  std::condition_variable start_, finish_;
  Call call_ = nullptr;
  const void* context_ = nullptr;
  int64_t blocks_ = 0, next_ = 0, done_ = 0;
  bool stop_ = false;
  // Hints that threads watch for a moment before they park. Only hints: decisions are taken under the mutex.
  std::atomic<uint64_t> jobs_{0};
  std::atomic<bool> running_{false};
  int spins_ = 0;
  std::vector<std::thread> workers_;
};

}  // namespace bg::cpu
