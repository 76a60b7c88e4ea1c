// A fixed pool of threads that shares out numbered blocks of work. Who computes a block never matters to its result.
// Not here: how work is cut into blocks (each operation does that, from shapes alone).
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
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
  // call run. Several callers take turns. Thread t of T begins with blocks ⌊t·blocks/T⌋ … ⌊(t+1)·blocks/T⌋−1 in ascending order and then helps the others: blocks that follow
  // one another in memory are read as one stream, and the same part of the next operation finds what this thread wrote in this thread's caches.
  template <class Body>
  void run(int64_t blocks, const Body& body) {
    share(blocks, [](const void* context, int64_t block, int thread) { (*static_cast<const Body*>(context))(block, thread); }, &body);
  }

 private:
  using Call = void (*)(const void* context, int64_t block, int thread);
  void share(int64_t blocks, Call call, const void* context);
  void work(int thread);
  int64_t first_of(int thread, int64_t blocks) const { return blocks * thread / count(); }
  void take_blocks(uint32_t job, int thread);

  // What nobody has taken yet of a thread's blocks: the job's number (24 bits; 0: closed) and its next block (40 bits). In a cache line of its own, with the one that is fetched along.
  struct alignas(128) Share {
    std::atomic<uint64_t> next{0};
  };

  std::mutex turn_;  // held for the length of a job: one job at a time
  std::unique_ptr<Share[]> shares_;
  std::atomic<Call> call_{nullptr};  // of the job that is open
  std::atomic<const void*> context_{nullptr};
  std::atomic<int64_t> blocks_{0};
  alignas(128) std::atomic<uint32_t> job_{0};  // the last one that was opened, 1 … 2^24−1
  alignas(128) std::atomic<int64_t> left_{0};  // blocks not computed yet
  std::atomic<uint32_t> finished_{0};          // the last job of which none is left
  int spins_ = 0;
  std::vector<std::thread> workers_;
};

}  // namespace bg::cpu
