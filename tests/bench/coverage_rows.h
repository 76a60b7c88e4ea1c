// Rows like a slide's for the coverage selection, and the product that it is measured by.
#pragma once
#include <vector>

#include "kernels/ops.h"

namespace bg::bench {

// (N, width): `clusters` directions with noise of several strengths, or independent rows (0).
std::vector<float> clustered_rows(int64_t N, int64_t width, int clusters);

// Of one full product v·vᵀ, timed on 512 of its columns.
double full_product_seconds(Ops& ops, Tensor v);

}  // namespace bg::bench
