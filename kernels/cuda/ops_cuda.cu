// The table of a CUDA device.
#include "kernels/cuda/table.h"

#ifdef __CUDACC__
namespace bg {

Ops* make_cuda_ops(int index, Precision precision, bool vendor) { return new cuda::CudaOps("cuda", make_cuda_device(index), precision, vendor); }

}  // namespace bg
#endif
