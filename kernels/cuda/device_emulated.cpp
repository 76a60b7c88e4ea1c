// See device_emulated.h.
#include "kernels/cuda/device_emulated.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace bg {
namespace {

std::atomic<int64_t> launches_until_failure{0};

struct {
  std::mutex lock;
  uint64_t limit = kEmulatedMemory, held = 0, peak = 0;
  std::map<void*, size_t> blocks;
  std::map<const char*, size_t> of_host;
} memory;

std::atomic<uint64_t> piece_bytes{0};

void* take(size_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, 256, bytes > 0 ? bytes : 1) != 0) return nullptr;
  std::memset(p, 0, bytes);
  return p;
}

}  // namespace

void fail_emulated_launch(int64_t n) { launches_until_failure = n; }

uint64_t limit_emulated_memory(uint64_t bytes) {
  const std::lock_guard<std::mutex> lock(memory.lock);
  memory.limit = bytes;
  const uint64_t peak = memory.peak;
  memory.peak = memory.held;
  return peak;
}

uint64_t emulated_piece_bytes() { return piece_bytes.exchange(0); }

std::unique_ptr<Device> make_emulated_device(int threads, bool backward) { return std::make_unique<emulated::EmulatedDevice>(threads, backward); }

namespace emulated {

DeviceInfo EmulatedDevice::info() const {
  DeviceInfo i;
  i.name = "emulated on " + std::to_string(threads_.count()) + " threads";
  i.major = 8;
  const std::lock_guard<std::mutex> lock(memory.lock);
  i.memory = memory.limit;
  i.free = memory.limit - std::min(memory.limit, memory.held);
  i.processors = threads_.count();
  return i;
}

// The size is not rounded up, so that AddressSanitizer sees the first byte behind it.
void* EmulatedDevice::allocate(size_t bytes) {
  const std::lock_guard<std::mutex> lock(memory.lock);
  if (bytes > memory.limit || memory.held > memory.limit - bytes) return nullptr;
  void* p = take(bytes);
  if (p == nullptr) return nullptr;
  memory.blocks[p] = bytes;
  memory.held += bytes;
  memory.peak = std::max(memory.peak, memory.held);
  return p;
}

void EmulatedDevice::release(void* p) {
  if (p == nullptr) return;
  const std::lock_guard<std::mutex> lock(memory.lock);
  memory.held -= memory.blocks.extract(p).mapped();
  std::free(p);
}

void* EmulatedDevice::allocate_host(size_t bytes) {
  void* p = take(bytes);
  const std::lock_guard<std::mutex> lock(memory.lock);
  if (p != nullptr) memory.of_host[static_cast<char*>(p)] = bytes;
  return p;
}

void EmulatedDevice::release_host(void* p) {
  const std::lock_guard<std::mutex> lock(memory.lock);
  memory.of_host.erase(static_cast<char*>(p));
  std::free(p);
}

bool EmulatedDevice::is_host(const void* p) {
  const std::lock_guard<std::mutex> lock(memory.lock);
  const auto behind = memory.of_host.upper_bound(static_cast<const char*>(p));
  if (behind == memory.of_host.begin()) return false;
  const auto at = std::prev(behind);
  return static_cast<const char*>(p) < at->first + at->second;
}

void EmulatedDevice::copy_piece(int, void* to, const void* from, size_t bytes) {
  if (recording_) throw DeviceError("a piece of the host's weights inside a recorded step");
  if (!is_host(from)) throw DeviceError("a piece of weights that are not the host's");
  std::memcpy(to, from, bytes);
  piece_bytes += bytes;
}

void EmulatedDevice::upload(void* to, const void* from, size_t bytes) {
  if (!recording_) {
    std::memcpy(to, from, bytes);
    return;
  }
  const char* first = static_cast<const char*>(from);
  uploads_.push_back({to, std::vector<char>(first, first + bytes)});
  kept_.push_back([this, n = uploads_.size() - 1] { std::memcpy(uploads_[n].to, uploads_[n].bytes.data(), uploads_[n].bytes.size()); });
}

void EmulatedDevice::download(void* to, const void* from, size_t bytes) {
  if (recording_) throw DeviceError("a download inside a recorded step");
  std::memcpy(to, from, bytes);
}

void EmulatedDevice::fill(void* to, int byte, size_t bytes) {
  run([=] { std::memset(to, byte, bytes); });
}

void EmulatedDevice::record() {
  kept_.clear();
  uploads_.clear();
  recording_ = true;
}

void EmulatedDevice::upload_again(const void* from, size_t bytes) {
  if (next_upload_ >= uploads_.size() || uploads_[next_upload_].bytes.size() != bytes) throw DeviceError("a step that is not the one that was recorded");
  std::memcpy(uploads_[next_upload_++].bytes.data(), from, bytes);
}

void EmulatedDevice::play() {
  recording_ = false;
  next_upload_ = 0;
  for (const std::function<void()>& call : kept_) call();
}

void EmulatedDevice::run(std::function<void()> launch) {
  const auto counted = [launch = std::move(launch)] {
    if (launches_until_failure > 0 && --launches_until_failure == 0) throw DeviceError("a launch failed: the test asked for it");
    launch();
  };
  if (recording_)
    kept_.push_back(counted);
  else
    counted();
}

}  // namespace emulated
}  // namespace bg
