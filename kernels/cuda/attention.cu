#include "kernels/cuda/cuda.h"

namespace bg::BG_CUDA {

void attention_frames(const Context&, Tensor, Tensor, Tensor, Tensor, int64_t, int64_t) { throw DeviceError("not yet"); }
void attention_causal(const Context&, Tensor, Tensor, Tensor, Tensor, int64_t, int64_t, int64_t) { throw DeviceError("not yet"); }

}  // namespace bg::BG_CUDA
