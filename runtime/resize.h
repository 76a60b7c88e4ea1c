// Memory of resize_bicubic (declared in preprocess.h), for planning.
#pragma once
#include "runtime/preprocess.h"

namespace bg {

// Bytes that resize_bicubic holds at its worst moment, its result included.
size_t resize_bytes(Size in, Size out, int channels);

}  // namespace bg
