#include "kernels/cuda/cuda.h"

namespace bg::BG_CUDA {

void attention_dilated(const Context&, Tensor, Tensor, Tensor, Tensor, int64_t, const Dilation*, int64_t) { throw DeviceError("not yet"); }

}  // namespace bg::BG_CUDA
