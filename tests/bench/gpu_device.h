// A GPU for the benchmark: the table as a session makes it, the device below it, memory on it that is filled there, and the kernels that measure what the device
// can do at most. Two of them, as of everything in kernels/cuda: CUDA, and the emulation on the CPU.
#pragma once
#include <memory>
#include <string>

#include "kernels/cuda/device.h"
#include "kernels/ops.h"

namespace bg::bench {

class Gpu {
 public:
  virtual ~Gpu() = default;
  virtual Ops& ops() = 0;
  virtual Device& device() = 0;  // the table's own: its wait() is the table's
  virtual std::string clocks() = 0;

  // Random numbers made on the device, nearly normal. Panels of a type hold values of deviation 2^−6; bytes: whole panels. Floats: deviation 1.
  virtual void fill_panels(void* to, Type type, size_t bytes) = 0;
  virtual void fill_floats(float* to, size_t n) = 0;
  virtual void fill_cache(Tensor t) = 0;  // bf16 or q8_0, contiguous, deviation 1

  // The ceilings. Each starts work and does not wait for it.
  virtual void copy_bytes(void* to, const void* from, size_t bytes) = 0;  // bytes: a multiple of kTile; reads and writes as many
  virtual void read_bytes(const void* from, size_t bytes) = 0;
  virtual double multiply_bf16(int64_t repeats) = 0;                      // mma.sync on registers, random values; returns its FLOP
  virtual double multiply_f32(int64_t repeats) = 0;                       // fused multiply-adds on registers
  static constexpr size_t kTile = 256 * 16 * 8;                           // bytes of one block
};

// A product of two bf16 matrices n × n, as cuBLASLt does it: the peak that large products are measured by.
class LargeProduct {
 public:
  virtual ~LargeProduct() = default;
  virtual double run() = 0;  // starts one; returns its FLOP
};

}  // namespace bg::bench

namespace bg::emulated {
std::unique_ptr<bench::Gpu> make_bench_gpu(Precision precision);
}
namespace bg::cuda {  // absent (nullptr) in a build without CUDA
__attribute__((weak)) std::unique_ptr<bench::Gpu> make_bench_gpu(Precision precision);                                          // throws DeviceError
__attribute__((weak)) std::unique_ptr<bench::LargeProduct> open_cublas(bench::Gpu& gpu, int64_t n, std::string* version_or_why);  // nullptr: why
}
