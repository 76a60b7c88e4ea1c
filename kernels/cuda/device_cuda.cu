// A CUDA device: see device.h. Compiled where the build has nvcc; on a machine without a driver it says so.
#include <cuda_runtime.h>

#include <cstring>
#include <mutex>
#include <set>
#include <vector>

#include "kernels/cuda/device.h"

namespace bg {
namespace {

constexpr int kOldest = 8;  // compute capability 8.0: bf16 products and asynchronous copies

void check(cudaError_t e, const char* what) {
  if (e != cudaSuccess) throw DeviceError(std::string("the GPU failed at ") + what + ": " + cudaGetErrorString(e));
}

class CudaDevice : public Device {
 public:
  explicit CudaDevice(int index) : index_(index) {
    check(cudaSetDevice(index), "choosing it");
    check(cudaGetDeviceProperties(&properties_, index), "reading its properties");
    if (properties_.major < kOldest)
      throw DeviceError(std::string(properties_.name) + " has compute capability " + std::to_string(properties_.major) + "." + std::to_string(properties_.minor) + "; 8.0 is the oldest supported");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
    for (Slot& s : slots_) check(cudaEventCreateWithFlags(&s.read, cudaEventDisableTiming), "making an event");
    check(cudaEventCreateWithFlags(&played_, cudaEventDisableTiming), "making an event");
    check(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking), "making a stream");
    for (Piece& p : pieces_)
      for (cudaEvent_t* e : {&p.there, &p.read}) check(cudaEventCreateWithFlags(e, cudaEventDisableTiming), "making an event");
  }

  ~CudaDevice() override {  // errors here were reported by what caused them
    cudaSetDevice(index_);
    cudaStreamSynchronize(copies_);
    cudaStreamSynchronize(stream_);
    drop_recording();
    free_slots();
    for (Slot& s : slots_) cudaEventDestroy(s.read);
    cudaFreeHost(step_);
    cudaEventDestroy(played_);
    for (Piece& p : pieces_)
      for (const cudaEvent_t e : {p.there, p.read}) cudaEventDestroy(e);
    cudaStreamDestroy(copies_);
    cudaStreamDestroy(stream_);
  }

  DeviceInfo info() const override {
    DeviceInfo i;
    i.name = properties_.name;
    i.major = properties_.major;
    i.minor = properties_.minor;
    i.processors = properties_.multiProcessorCount;
    size_t free = 0, total = 0;
    cudaSetDevice(index_);
    check(cudaMemGetInfo(&free, &total), "asking for its memory");
    i.memory = total;
    i.free = free;
    return i;
  }

  void* allocate(size_t bytes) override {
    use();
    void* p = nullptr;
    const cudaError_t e = cudaMalloc(&p, bytes > 0 ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // forgotten: the caller is told by nullptr
      return nullptr;
    }
    check(e, "taking memory");
    check(cudaMemsetAsync(p, 0, bytes, stream_), "clearing memory");
    return p;
  }
  void release(void* p) override {
    if (p == nullptr) return;
    cudaSetDevice(index_);
    cudaStreamSynchronize(stream_);
    cudaFree(p);
  }
  void* allocate_host(size_t bytes) override {
    use();
    void* p = nullptr;
    if (cudaHostAlloc(&p, bytes > 0 ? bytes : 1, cudaHostAllocMapped | cudaHostAllocPortable) == cudaSuccess) return p;
    cudaGetLastError();
    return nullptr;
  }
  void release_host(void* p) override {
    if (p == nullptr) return;
    cudaSetDevice(index_);
    cudaStreamSynchronize(stream_);
    cudaFreeHost(p);
  }
  bool is_host(const void* p) override {
    use();
    cudaPointerAttributes a{};
    check(cudaPointerGetAttributes(&a, p), "asking where memory lies");
    return a.type == cudaMemoryTypeHost;
  }

  void copy_piece(int piece, void* to, const void* from, size_t bytes) override {
    use();
    const Piece& p = pieces_[piece];
    check(cudaStreamWaitEvent(copies_, p.read, 0), "waiting for a kernel");  // an event that was never recorded holds nobody up
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, copies_), "copying to it");
    check(cudaEventRecord(p.there, copies_), "recording an event");
    check(cudaStreamWaitEvent(stream_, p.there, 0), "waiting for a copy");
  }
  void piece_read(int piece) override {
    use();
    check(cudaEventRecord(pieces_[piece].read, stream_), "recording an event");
  }

  void upload(void* to, const void* from, size_t bytes) override {
    use();
    if (recording_) {
      const size_t at = places_.empty() ? 0 : (places_.back().at + places_.back().bytes + 15) / 16 * 16;
      if (at + bytes > kStep) throw DeviceError("a step gives the device more than " + std::to_string(kStep) + " bytes");
      places_.push_back({at, bytes});
      std::memcpy(step_ + at, from, bytes);
      check(cudaMemcpyAsync(to, step_ + at, bytes, cudaMemcpyHostToDevice, stream_), "copying to it");
      return;
    }
    for (size_t done = 0; done < bytes;) {
      Slot& s = slots_[slot_];
      if (s.at == nullptr) check(cudaMallocHost(&s.at, kSlot), "taking host memory");
      if (used_ == kSlot) {
        check(cudaEventRecord(s.read, stream_), "recording an event");
        slot_ = (slot_ + 1) % kSlots;
        used_ = 0;
        check(cudaEventSynchronize(slots_[slot_].read), "waiting for a copy");
        continue;
      }
      const size_t n = bytes - done < kSlot - used_ ? bytes - done : kSlot - used_;
      std::memcpy(s.at + used_, static_cast<const char*>(from) + done, n);
      check(cudaMemcpyAsync(static_cast<char*>(to) + done, s.at + used_, n, cudaMemcpyHostToDevice, stream_), "copying to it");
      done += n;
      used_ += (n + 15) / 16 * 16;
      if (used_ > kSlot) used_ = kSlot;
    }
  }
  void download(void* to, const void* from, size_t bytes) override {
    use();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "copying from it");
    wait();
  }
  void release_staging() override {
    wait();
    free_slots();
  }
  void fill(void* to, int byte, size_t bytes) override {
    use();
    check(cudaMemsetAsync(to, byte, bytes, stream_), "filling memory");
  }
  void wait() override {
    use();
    check(cudaStreamSynchronize(stream_), "running a kernel");
  }

  void record() override {
    use();
    drop_recording();
    if (step_ == nullptr) check(cudaMallocHost(&step_, kStep), "taking host memory");
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "beginning a recording");
    recording_ = true;
  }
  void upload_again(const void* from, size_t bytes) override {
    if (next_place_ == 0) check(cudaEventSynchronize(played_), "waiting for the last step");
    if (next_place_ >= places_.size() || places_[next_place_].bytes != bytes) throw DeviceError("a step that is not the one that was recorded");
    std::memcpy(step_ + places_[next_place_++].at, from, bytes);
  }
  void play() override {
    use();
    if (recording_) {
      recording_ = false;
      cudaGraph_t graph = nullptr;
      check(cudaStreamEndCapture(stream_, &graph), "ending a recording");
      const cudaError_t e = cudaGraphInstantiate(&steps_, graph, 0);
      cudaGraphDestroy(graph);
      check(e, "making a graph");
    }
    next_place_ = 0;
    check(cudaGraphLaunch(steps_, stream_), "starting a step");
    check(cudaEventRecord(played_, stream_), "recording an event");
  }

  void* stream() override { return stream_; }
  void before_launch(const void* kernel, size_t shared_bytes) override {
    use();
    if (shared_bytes <= 48 << 10 || !large_.insert(kernel).second) return;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 99 << 10), "asking for shared memory");
  }
  void after_launch(const char* kernel) override { check(cudaGetLastError(), kernel); }

 private:
  static constexpr size_t kSlot = 4 << 20, kStep = 1 << 20;
  static constexpr int kSlots = 4;
  static_assert(kSlots * kSlot + kStep == kStagingBytes, "device.h says how much host memory this is");
  struct Slot {
    char* at = nullptr;
    cudaEvent_t read = nullptr;
  };
  struct Place {
    size_t at, bytes;
  };
  struct Piece {
    cudaEvent_t there = nullptr, read = nullptr;
  };

  void use() const { check(cudaSetDevice(index_), "choosing it"); }
  void free_slots() {
    for (Slot& s : slots_) {
      cudaFreeHost(s.at);
      s.at = nullptr;
    }
    slot_ = 0;
    used_ = 0;
  }
  void drop_recording() {
    if (recording_) {  // an error came before play
      cudaGraph_t graph = nullptr;
      cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      recording_ = false;
    }
    if (steps_ != nullptr) {
      cudaStreamSynchronize(stream_);
      cudaGraphExecDestroy(steps_);
    }
    steps_ = nullptr;
    places_.clear();
    next_place_ = 0;
    cudaGetLastError();
  }

  int index_;
  cudaDeviceProp properties_{};
  cudaStream_t stream_ = nullptr, copies_ = nullptr;
  Piece pieces_[kHostPieces];
  Slot slots_[kSlots];
  int slot_ = 0;
  size_t used_ = 0;
  bool recording_ = false;
  char* step_ = nullptr;
  cudaGraphExec_t steps_ = nullptr;
  cudaEvent_t played_ = nullptr;
  std::vector<Place> places_;
  size_t next_place_ = 0;
  std::set<const void*> large_;
};

}  // namespace

const char* cuda_build() { return BG_CUDA_BUILD; }

int cuda_devices(std::string* why_none) {
  int count = 0;
  const cudaError_t e = cudaGetDeviceCount(&count);
  if (e != cudaSuccess) {
    cudaGetLastError();
    int driver = 0;
    cudaDriverGetVersion(&driver);
    *why_none = driver == 0                          ? "no NVIDIA driver"
                : e == cudaErrorInsufficientDriver ? "the driver is for CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) + ", older than this build's " +
                                                         std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10)
                                                   : cudaGetErrorString(e);
    return 0;
  }
  if (count == 0) *why_none = "no CUDA device";
  return count;
}

std::unique_ptr<Device> make_cuda_device(int index) {
  std::string why;
  const int count = cuda_devices(&why);
  if (index < 0 || index >= count)
    throw DeviceError("CUDA device " + std::to_string(index) + ": " + (count > 0 ? "this machine has " + std::to_string(count) : "this machine has none (" + why + "); use backend cpu"));
  return std::make_unique<CudaDevice>(index);
}

}  // namespace bg
