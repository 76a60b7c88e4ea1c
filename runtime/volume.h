// Volume → patch vectors: the whole path of MODEL.md §0b (spec/inputs.md "Volumes"): preparation, window, normalisation, trilinear, bicubic, frames, grid.
// In: voxels (z, y, x). Out: (P, 3·2·16·16) float32 patch vectors and the grid. Standard library only. Not here: file formats, the ViT.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/preprocess.h"

namespace bg {

struct Voxels {  // borrowed, (nz, ny, nx) float32
  int64_t nx = 0, ny = 0, nz = 0;
  const float* data = nullptr;
};

struct VolumeOptions {
  bool prescale = true;      // step 0: longest side → side, z → slices, int16
  int64_t side = 384;        // voxels; also the most that the model is given (volume_side)
  int64_t slices = 48;       // the same along z (volume_slices)
  bool has_window = false;   // step 1
  double level = 0, width = 0;
  int64_t factor = 32;       // patch 16 × merge 2
};

struct VolumeSteps {                    // what was done; every resize can be mapped back from these
  int64_t source[3] = {0, 0, 0};        // x, y, z voxels
  int64_t prepared[3] = {0, 0, 0};      // after step 0
  int64_t trilinear[3] = {0, 0, 0};     // W', H', D' of step 4
  Size frame;                           // of step 5, pixels
  Grid grid;                            // patches: D'/2 (rounded up), height/16, width/16
  double low = 0, high = 0;             // values that became 0 and 255 (step 2)
  bool constant = false;                // all voxels equal: allowed, to be warned about
};

VolumeSteps plan_volume(int64_t nx, int64_t ny, int64_t nz, const VolumeOptions& options);      // sizes only; throws Error for nonsense
// Step 0 alone: (slices, prepared y, prepared x) int16, both area averages in the order of torch's F.interpolate(mode="area") on one CPU thread.
std::vector<int16_t> prepare_volume(const Voxels& voxels, const VolumeOptions& options);
size_t volume_bytes(int64_t nx, int64_t ny, int64_t nz, const VolumeOptions& options);          // upper bound held at once beyond the output

// The whole path, some frames at a time: while a device encodes some, the next are made.
class VolumeFrames {
 public:
  VolumeFrames(const Voxels& voxels, const VolumeOptions& options);  // step 0; the voxels must live as long
  ~VolumeFrames();
  const VolumeSteps& steps() const;
  // Frames [first, first + count) of the grid (each two slices) → (count·h·w, 3·2·16·16).
  void write(float* patches, int64_t first, int64_t count);

 private:
  struct State;
  std::unique_ptr<State> state_;
};
VolumeSteps preprocess_volume(float* patches, const Voxels& voxels, const VolumeOptions& options);  // all of them

}  // namespace bg
