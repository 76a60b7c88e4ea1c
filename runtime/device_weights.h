// The weights in the memory of a GPU, once for all sessions of a model on it: matrices in panels, as the kernels read them (kernels/panels.h), norms and biases.
// What does not fit stays in host memory that the GPU reads over the bus (products of many rows once, in pieces: kernels/cuda/host_pieces.h): what an answer needs least often first (weights.h, all_of), so with too little memory
// pictures slow down before tokens do.
// Errors: DeviceError; Error{too_large} where neither memory suffices.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/device.h"
#include "runtime/run.h"
#include "runtime/weights.h"

namespace bg {

int gpu_number(const std::string& backend);  // of "cuda", "cuda:1"; −1 for other backends; throws Error{invalid_argument} for "cuda:x"
std::unique_ptr<Device> make_device(const std::string& backend, int threads);  // of a GPU or "emulated"
uint64_t free_device_memory(const std::string& backend);                       // bytes

class DeviceWeights {
 public:
  struct Bytes {
    uint64_t device = 0, host = 0;
  };
  // Where the weights go when the device gives them at most `allowed` bytes.
  static Bytes plan(const Weights& w, const Config& config, uint64_t allowed);

  DeviceWeights(const Weights& from, const Config& config, std::unique_ptr<Device> device, uint64_t allowed, const Callbacks& callbacks);
  ~DeviceWeights();
  DeviceWeights(const DeviceWeights&) = delete;
  DeviceWeights& operator=(const DeviceWeights&) = delete;

  const Weights& weights() const { return weights_; }  // every pointer is the device's
  Bytes bytes() const { return bytes_; }

 private:
  void upload(void* to, const Weight& w, std::vector<char>& panels);
  void give_back();
  std::unique_ptr<Device> device_;
  Weights weights_;
  Bytes bytes_;
  char *on_device_ = nullptr, *on_host_ = nullptr;
};

}  // namespace bg
