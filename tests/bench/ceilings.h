// What this machine can do at most, measured on the spot: reading memory, and the multiply-adds of every instruction type that the kernels use.
// In: which, and how many threads. Out: bytes/s or FLOP/s (a multiply-add counts 2, in integers too).
// Not here: what work a figure does (report.h).
#pragma once
#include <vector>

#include "kernels/ops.h"

namespace bg::bench {

enum class Ceiling { read, fma_portable, fma_avx2, fma_avx512, dpbf16ps, maddubs_avx2, dpbusd, amx_bf16, amx_int8, fma_neon, sdot, smmla };

std::vector<Ceiling> ceilings_of_this_machine();
const char* ceiling_name(Ceiling c);  // "read", "AMX BF16"
const char* ceiling_unit(Ceiling c);  // "GB/s", "GFLOP/s", of integers "Gop/s"
bool is_bandwidth(Ceiling c);

// One reading, some 15 ms (read: one pass over 1 GiB in huge pages, 30 ms and more).
double read_ceiling(Ceiling c, int threads);

// The instructions with which products of such weights are bounded on an instruction set. f32: float32 multiply-adds, whatever the precision.
Ceiling ceiling_of(Isa isa, Precision precision, Type weights, Phase phase = Phase::prompt);

}  // namespace bg::bench
