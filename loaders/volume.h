// Volumes (CT, MRI): NIfTI-1/-2 and .npy → voxels. Array (z, y, x) as the file stores it with slope and intercept applied; no reorientation.
// In: a path. Out: float32 voxels, spacing and orientation where the header gives them. Not here: windowing, resizing (runtime/volume.h).
// A file beside the named one is never read.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace bg {

struct VolumeLimits {
  int64_t max_voxels = int64_t(1) << 31;
};

struct Volume {
  int64_t nx = 0, ny = 0, nz = 0;     // voxels
  std::vector<float> voxels;          // (nz, ny, nx), slope·stored + intercept
  bool has_affine = false;            // .npy has none
  double affine[3][4] = {};           // voxel (i, j, k) → millimetres RAS+ (sform, else qform, else spacing alone); NIfTI only
  double spacing[3] = {0, 0, 0};      // millimetres along x, y, z; 0 when unknown
  std::string format;                 // "NIfTI-1", "NIfTI-2", "NPY"
};

// .nii, .nii.gz, .npy by content. Refuses, with numbers: empty, not three-dimensional (trailing axes of 1 are fine), above the limit, non-finite values (count and
// position of the first), complex or RGB types, header/image pairs (.hdr/.img). Constant volumes are allowed. Throws Error.
Volume load_volume(const std::string& path, const VolumeLimits& limits = {});

// A uint8 mask on the grid of `like` (its header's geometry), gzip-compressed NIfTI-1; mask (nz, ny, nx). Written to a temporary name, then renamed.
void save_mask(const std::string& path, const std::vector<uint8_t>& mask, const Volume& like);

}  // namespace bg
