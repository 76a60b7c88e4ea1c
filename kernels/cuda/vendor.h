// Large dense products by the vendor's library, where the caller asked for it: faster on some GPUs (the newest tensor cores need instructions of one generation
// alone), not ours, and with other bits. Context::vendor; used by linear_cublas.cu for calls of at least kVendorRows rows. Not here: our own kernels, the default.
#pragma once
#include <memory>

#include "kernels/cuda/device.h"

namespace bg {

constexpr int64_t kVendorRows = 256;
constexpr size_t kVendorWeights = 96 << 20, kVendorSums = 64 << 20, kVendorWorkspace = 32 << 20;
constexpr size_t kVendorBytes = kVendorWeights + kVendorSums + kVendorWorkspace;  // of device memory, taken with the first product

class Vendor {
 public:
  explicit Vendor(Device& device, size_t weights = kVendorWeights, size_t sums = kVendorSums) : weights_bytes(weights), sums_bytes(sums), device_(device) {}
  virtual ~Vendor() { device_.release(memory_); }
  // y (M, N) = x (M, K)·wᵀ, w (N, K). x, w bf16, y and its sums float; row-major, no gaps; all at multiples of 256 bytes, K of 32 and N of 16.
  // A row of y has the same bits for every M. workspace: kVendorWorkspace bytes.
  virtual void multiply(float* y, const uint16_t* x, const uint16_t* w, int64_t M, int64_t N, int64_t K, void* workspace) = 0;

  // Room for a piece of the weights, then for its sums, then the workspace.
  const size_t weights_bytes, sums_bytes;
  char* memory() {
    const size_t bytes = weights_bytes + sums_bytes + kVendorWorkspace;
    if (memory_ == nullptr) memory_ = static_cast<char*>(device_.allocate(bytes));
    if (memory_ == nullptr) throw DeviceError("no device memory for " + std::to_string(bytes) + " bytes for the vendor's products; free some, or do without them");
    return memory_;
  }

 protected:
  Device& device_;

 private:
  char* memory_ = nullptr;
};

}  // namespace bg
