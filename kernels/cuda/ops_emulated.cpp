// The table of the emulated GPU.
#include "kernels/cuda/table.h"

namespace bg {

Ops* make_emulated_ops(int threads, Precision precision, bool backward) { return new emulated::CudaOps("emulated", make_emulated_device(threads, backward), precision, false); }

}  // namespace bg
