#include "kernels/cuda/cuda.h"

namespace bg::BG_CUDA {

size_t coverage_scratch(int64_t, int64_t, int64_t, int64_t, size_t) { throw DeviceError("not yet"); }
double coverage_select(const Context&, int64_t*, double*, Tensor, Tensor, int64_t, void*, size_t, CoverageReport*) { throw DeviceError("not yet"); }

}  // namespace bg::BG_CUDA
