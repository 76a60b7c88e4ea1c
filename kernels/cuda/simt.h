// One kernel source, two meanings. Under nvcc it is CUDA. Under the host compiler a block's threads are fibers of one core (simt_host.h), so that every kernel
// is tested, under the address sanitizer too, where there is no GPU. Kernels (*.cu) are written in the words of CUDA and in those defined here:
//   BG_LAUNCH(device, (kernel<…>), grid, block, shared_bytes, arguments…)   instead of <<<>>>
//   SIMT_SHARED(T, name, n), SIMT_DYNAMIC_SHARED(T, name)                  instead of __shared__ and extern __shared__: T* name, 128-byte aligned
//   SIMT_UNROLL, SIMT_UNROLL_BY(n)                                         in front of a loop
//   simt::…   tensor-core products, ldmatrix, asynchronous copies, loads with a hint, number formats: one function per instruction
// and in __syncthreads, __syncwarp, __shfl_sync, __shfl_xor_sync, __shfl_down_sync, __ballot_sync, __any_sync, __all_sync, atomicAdd, atomicMax, atomicCAS on
// integers, fmaf, expf and the like. There is no atomic addition of floats: its order is nobody's.
// Both compilers keep a·b + c apart (-fmad=false, -ffp-contract=off): a fused multiply-add is written fmaf.
// What the emulation cannot show: speed, registers, how the device's e^x rounds, races that no order of threads it tries brings to light.
#pragma once
#ifdef __CUDACC__
#define BG_CUDA cuda
#include "kernels/cuda/simt_device.h"
#else
#define BG_CUDA emulated
#include "kernels/cuda/simt_host.h"
#endif
