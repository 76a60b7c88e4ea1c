// Shared by the volume readers, one file per format; the entry is load_volume in volume.cpp. In: the whole file in memory. Out: Volume.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "loaders/error.h"
#include "loaders/volume.h"

namespace bg {

struct VolumeSource {
  const uint8_t* data;
  size_t size;              // bytes
  const std::string& name;  // starts every message
  const VolumeLimits& limits;

  [[noreturn]] void fail(Status status, const std::string& what) const { throw Error(status, name + ": " + what); }
  // Bytes that are wrong. `what` names the format and the place.
  [[noreturn]] void damaged(const std::string& what) const {
    fail(Status::bad_file, what + "; the file is damaged or cut short, copy or export it again");
  }
};

enum class Number { i8, u8, i16, u16, i32, u32, i64, u64, f16, f32, f64 };

int64_t number_bytes(Number type);

struct Coding {  // how stored numbers become voxels
  Number type = Number::u8;
  bool swapped = false;             // big-endian
  double slope = 1, intercept = 0;  // slope·stored + intercept
};

// n numbers at x → y. In double, then rounded once to float32, as nibabel's get_fdata(dtype=float64).astype(float32).
void to_floats(float* y, const uint8_t* x, int64_t n, const Coding& coding);

// Bytes of the voxels. Sides below 1 are bad_file, more than limits.max_voxels too_large. To be called with the header's numbers, before anything is
// allocated.
int64_t check_volume_size(const VolumeSource& source, const std::string& format, int64_t nx, int64_t ny, int64_t nz, Number type);

Volume read_nifti(const VolumeSource& source);  // plain or gzip
Volume read_npy(const VolumeSource& source);

}  // namespace bg
