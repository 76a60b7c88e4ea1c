// load_volume: tells the format from the first bytes, hands the file to its reader, checks that every voxel is a number. Stored numbers → float32.
#include "loaders/volume.h"

#include <bit>
#include <cstring>
#include <type_traits>

#include "kernels/half.h"
#include "loaders/finite.h"
#include "loaders/mapped_file.h"
#include "loaders/volume_source.h"

namespace bg {
namespace {

struct Half {
  uint16_t bits;
  explicit operator double() const { return double(f16_to_float(bits)); }
};

template <class T>
T load(const uint8_t* x, bool swapped) {
  uint8_t bytes[sizeof(T)];
  for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = x[swapped ? sizeof(T) - 1 - i : i];
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// A double outside float32 becomes an infinity, which load_volume refuses; the plain conversion would be undefined.
float rounded(double v) {
  constexpr double beyond = 0x1.ffffffp127;  // halfway between the largest float and 2^128
  return v >= beyond ? HUGE_VALF : v <= -beyond ? -HUGE_VALF : float(v);
}

template <class T>
void convert(float* y, const uint8_t* x, int64_t n, const Coding& c) {
  for (int64_t i = 0; i < n; ++i) {
    const double v = double(load<T>(x + i * int64_t(sizeof(T)), c.swapped)) * c.slope;
    y[i] = rounded(c.intercept == 0 ? v : v + c.intercept);  // adding 0 would turn −0 into 0
  }
}

bool has(const VolumeSource& s, size_t at, const void* bytes, size_t n) { return s.size >= at + n && std::memcmp(s.data + at, bytes, n) == 0; }

Volume decode_volume(const VolumeSource& s) {
  if (s.size == 0) s.fail(Status::bad_file, "is empty; expected a volume (.nii, .nii.gz or .npy)");
  if (has(s, 0, "\x93NUMPY", 6)) return read_npy(s);
  if (has(s, 128, "DICM", 4)) s.fail(Status::unsupported, "is a DICOM file, not a volume; convert the series to NIfTI (dcm2niix)");
  if (has(s, 0, "NRRD", 4)) s.fail(Status::unsupported, "NRRD is not read; convert to NIfTI");
  if (has(s, 0, "PK\x03\x04", 4)) s.fail(Status::unsupported, "is a zip archive (or .npz), not a volume; save one array as .npy");
  return read_nifti(s);
}

}  // namespace

int64_t number_bytes(Number type) {
  switch (type) {
    case Number::i8: case Number::u8: return 1;
    case Number::i16: case Number::u16: case Number::f16: return 2;
    case Number::i32: case Number::u32: case Number::f32: return 4;
    case Number::i64: case Number::u64: case Number::f64: return 8;
  }
  throw Error(Status::internal, "number_bytes: unknown type");
}

void to_floats(float* y, const uint8_t* x, int64_t n, const Coding& coding) {
  switch (coding.type) {
    case Number::i8: return convert<int8_t>(y, x, n, coding);
    case Number::u8: return convert<uint8_t>(y, x, n, coding);
    case Number::i16: return convert<int16_t>(y, x, n, coding);
    case Number::u16: return convert<uint16_t>(y, x, n, coding);
    case Number::i32: return convert<int32_t>(y, x, n, coding);
    case Number::u32: return convert<uint32_t>(y, x, n, coding);
    case Number::i64: return convert<int64_t>(y, x, n, coding);
    case Number::u64: return convert<uint64_t>(y, x, n, coding);
    case Number::f16: return convert<Half>(y, x, n, coding);
    case Number::f32: return convert<float>(y, x, n, coding);
    case Number::f64: return convert<double>(y, x, n, coding);
  }
}

int64_t check_volume_size(const VolumeSource& source, const std::string& format, int64_t nx, int64_t ny, int64_t nz, Number type) {
  const std::string size = std::to_string(nx) + "x" + std::to_string(ny) + "x" + std::to_string(nz);
  if (nx == 0 || ny == 0 || nz == 0) source.fail(Status::bad_file, format + ": the volume is empty (" + size + " voxels); export it again");
  if (nx < 0 || ny < 0 || nz < 0) source.damaged(format + ": the header says " + size + " voxels, every side must be at least 1");
  // Division instead of a product: the sides come from the file.
  const int64_t limit = source.limits.max_voxels;
  if (nx > limit || ny > limit / nx || nz > limit / nx / ny) {
    source.fail(Status::too_large, format + ": " + size + " voxels are above the limit of " + std::to_string(limit) + " voxels; crop or reduce the volume");
  }
  int64_t bytes;
  if (__builtin_mul_overflow(nx * ny * nz, number_bytes(type), &bytes)) source.fail(Status::too_large, format + ": " + size + " voxels: bytes overflow");
  return bytes;
}

Volume load_volume(const std::string& path, const VolumeLimits& limits) {
  const MappedFile file(path);
  Volume volume = decode_volume({file.data(), file.size(), path, limits});
  refuse_non_finite(volume.voxels.data(), volume.nx, volume.ny, volume.nz, Status::bad_file, path + ": " + volume.format);
  return volume;
}

}  // namespace bg
