// The one check for numbers that are none, used for volumes from files and from callers. In: voxels (nz, ny, nx). Not here: any repair.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>

#include "loaders/error.h"

namespace bg {

// Throws Error{status} with the count and the position of the first NaN or infinity; `where` starts the message.
inline void refuse_non_finite(const float* v, int64_t nx, int64_t ny, int64_t nz, Status status, const std::string& where) {
  const int64_t n = nx * ny * nz;
  int64_t count = 0, first = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (std::isfinite(v[i])) continue;
    if (count++ == 0) first = i;
  }
  if (count == 0) return;
  throw Error(status, where + ": " + std::to_string(count) + " of " + std::to_string(n) + " voxels are not finite numbers in float32, the first at x " +
                          std::to_string(first % nx) + ", y " + std::to_string(first / nx % ny) + ", z " + std::to_string(first / nx / ny) +
                          "; replace them with the background value");
}

}  // namespace bg
