// What device.h and ops.h promise of CUDA, in a build without it (CUDA=0).
#include "kernels/cuda/device.h"
#include "kernels/ops.h"

namespace bg {

const char* cuda_build() { return nullptr; }
int cuda_devices(std::string* why_none) {
  *why_none = "this build has no CUDA (CUDA=0)";
  return 0;
}

std::unique_ptr<Device> make_cuda_device(int) { throw DeviceError("this build has no CUDA: build it where nvcc is installed, or use backend cpu"); }
Ops* make_cuda_ops(int, Precision, bool) {
  make_cuda_device(0);
  return nullptr;
}

}  // namespace bg
