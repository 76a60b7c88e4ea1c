// The emulated GPU: device memory is host memory, a recorded step a list of calls.
#pragma once
#include <functional>
#include <vector>

#include "kernels/cpu/threads.h"
#include "kernels/cuda/device.h"

namespace bg::emulated {

class EmulatedDevice : public Device {
 public:
  EmulatedDevice(int threads, bool backward) : threads_(threads), backward_(backward) {}
  DeviceInfo info() const override;
  void* allocate(size_t bytes) override;
  void release(void* p) override;
  void* allocate_host(size_t bytes) override;
  void release_host(void* p) override;
  bool is_host(const void* p) override;
  void copy_piece(int piece, void* to, const void* from, size_t bytes) override;
  void piece_read(int) override {}
  void upload(void* to, const void* from, size_t bytes) override;
  void download(void* to, const void* from, size_t bytes) override;
  void fill(void* to, int byte, size_t bytes) override;
  void release_staging() override {}
  void wait() override {}
  void record() override;
  void upload_again(const void* from, size_t bytes) override;
  void play() override;
  void* stream() override { return nullptr; }
  void before_launch(const void*, size_t) override {}
  void after_launch(const char*) override {}

  cpu::Threads& threads() { return threads_; }
  bool backward() const { return backward_; }
  void run(std::function<void()> launch);  // now, or when the recording is played; throws DeviceError

 private:
  struct Upload {
    void* to;
    std::vector<char> bytes;
  };
  cpu::Threads threads_;
  bool backward_;
  bool recording_ = false;
  std::vector<std::function<void()>> kept_;
  std::vector<Upload> uploads_;
  size_t next_upload_ = 0;
};

}  // namespace bg::emulated
