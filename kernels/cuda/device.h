// One GPU as a session sees it: memory, one stream of work in order, one recorded step. Two of them: CUDA (device_cuda.cpp, where the build has nvcc) and the
// emulation on the CPU (device_emulated.cpp), with the same words.
// Errors: what the device refuses is thrown as DeviceError; allocation returns nullptr. After a DeviceError from a kernel nothing on the device can be trusted.
// Not here: kernels, tensors.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

namespace bg {

// A GPU failed, or a kernel did (runtime: Status::device; the session is over, the process goes on).
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct DeviceInfo {
  std::string name;                 // "NVIDIA H100 80GB HBM3", "emulated on 2 threads"
  int major = 0, minor = 0;         // compute capability
  uint64_t memory = 0, free = 0;    // bytes
  int processors = 0;
};

// Host memory that a device may hold besides: pieces of an upload under way, what a recorded step is given.
constexpr size_t kStagingBytes = 17 << 20;

// Device memory through which large products take weights that stay with the host: one piece is multiplied while the next is copied.
constexpr int kHostPieces = 2;
constexpr size_t kMostPieceBytes = kHostPieces * (16 << 20);

class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceInfo info() const = 0;

  virtual void* allocate(size_t bytes) = 0;       // device memory, zero-filled, 256-byte aligned; nullptr when there is none left
  virtual void release(void* p) = 0;
  virtual void* allocate_host(size_t bytes) = 0;  // host memory that kernels can read over the bus, and upload reads fast; nullptr when there is none left
  virtual void release_host(void* p) = 0;
  virtual bool is_host(const void* p) = 0;        // whether it lies in such memory, of any device of its kind

  // In order with the kernels. upload: `from` may be changed as soon as it returns. download: waits until the bytes are there.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  virtual void download(void* to, const void* from, size_t bytes) = 0;
  // Memory of allocate_host into the device's, beside the kernels: after those launched before the last piece_read(piece), before those launched from now on.
  virtual void copy_piece(int piece, void* to, const void* from, size_t bytes) = 0;
  virtual void piece_read(int piece) = 0;         // the kernels that read it have been launched
  virtual void release_staging() = 0;             // the host memory through which uploads go (kStagingBytes at most); the next upload takes it again
  virtual void fill(void* to, int byte, size_t bytes) = 0;
  virtual void wait() = 0;                        // until everything has run

  // Between record and play, launches and uploads are not run but kept. play runs what was kept, with the bytes that upload_again was given meanwhile: the
  // n-th upload of the recording is replaced by the n-th call since the last play. A new recording replaces the old one.
  virtual void record() = 0;
  virtual void upload_again(const void* from, size_t bytes) = 0;
  virtual void play() = 0;

  virtual void* stream() = 0;
  virtual void before_launch(const void* kernel, size_t shared_bytes) = 0;  // BG_LAUNCH only
  virtual void after_launch(const char* kernel) = 0;
};

const char* cuda_build();                                    // "CUDA 13.0, code for sm_80 sm_90, PTX 90": of this build; nullptr: none
int cuda_devices(std::string* why_none);                     // GPUs that this build and this machine can use; 0: why_none says why
std::unique_ptr<Device> make_cuda_device(int index);         // throws DeviceError
// backward: a block's threads run in descending order up to their next barrier. A kernel without races gives the same bits.
std::unique_ptr<Device> make_emulated_device(int threads, bool backward);
// For tests, of all emulated devices together. The n-th launch from now on fails, as a broken kernel would (0: none does).
void fail_emulated_launch(int64_t n);
// They have so much memory from now on; returns the most bytes that they held since the last call.
uint64_t limit_emulated_memory(uint64_t bytes);
uint64_t emulated_piece_bytes();  // copied by copy_piece since the last call
constexpr uint64_t kEmulatedMemory = uint64_t(1) << 40;  // until then

}  // namespace bg
