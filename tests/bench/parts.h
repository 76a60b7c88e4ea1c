// The figures, part by part. Each takes those whose names are wanted, and makes no memory for others.
#pragma once
#include "tests/bench/report.h"

namespace bg::bench {

void bench_linear(Report& report, Ops& ops);     // "linear …", "gated …"
void bench_attention(Report& report, Ops& ops);  // "attention …"
void bench_elements(Report& report, Ops& ops);   // "norm …", "rotary …", "activation …"
void bench_coverage(Report& report, Ops& ops);   // "coverage …", "products …"
void bench_models(Report& report, Ops& ops);     // "model …": decode, prompt, ViT, slides and their selection, through the runtime's own code

// 128 of N tiles, rows 769 wide, as slides are selected: seconds, passes over columns, memory. A table of its own.
void coverage_table(Ops& ops, int64_t N);

}  // namespace bg::bench
