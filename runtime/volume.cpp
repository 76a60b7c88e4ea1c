// Volume → patch vectors, in this order: preparation → window → 0 … 255 → trilinear → bicubic → frames and grid. See volume.h and MODEL.md §0b.
// Slices are worked on one at a time: beyond the output, only the prepared int16 volume and a few slices are held.
#include "runtime/volume.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "loaders/error.h"
#include "loaders/finite.h"
#include "runtime/patches.h"
#include "runtime/volume_resize.h"

namespace bg {
namespace {

constexpr int64_t frame_pixels = 786432;                      // most pixels of a frame
constexpr int64_t largest_side = int64_t(1) << 20;            // voxels; three of them multiply within 63 bits
constexpr int64_t largest_aspect = 200;

[[noreturn]] void invalid(const std::string& what) { throw Error(Status::invalid_argument, what); }

std::string text(int64_t x, int64_t y, int64_t z) { return std::to_string(x) + "x" + std::to_string(y) + "x" + std::to_string(z); }

// Step 0: n·side/longest, rounded half to even; never below 1.
int64_t prepared_side(int64_t n, int64_t side, int64_t longest) {
  return std::max<int64_t>(1, int64_t(std::nearbyint(double(n * side) / double(longest))));
}

struct Range {
  float low, high;
  bool whole;  // every value is an integer
};

template <class T>
Range range_of(const T* v, size_t n) {
  Range r{float(v[0]), float(v[0]), true};
  for (size_t i = 0; i < n; ++i) {
    const float x = float(v[i]);
    r.low = std::min(r.low, x);
    r.high = std::max(r.high, x);
    r.whole = r.whole && x == std::trunc(x);
  }
  return r;
}

void check_voxels(const Voxels& v) {
  if (v.data == nullptr) invalid("volume: no voxels were given");
  refuse_non_finite(v.data, v.nx, v.ny, v.nz, Status::invalid_argument, "volume");
}

// int16 is the unit of the training data (HU, scanner numbers). Quantities of another scale would be lost without a word.
void check_units(const Range& r) {
  const std::string span = "volume: values " + std::to_string(r.low) + " ... " + std::to_string(r.high);
  const std::string advice = "; the unit is not the training data's (HU, scanner numbers, ADC in 1e-6 mm2/s): "
                             "rescale, check slope and intercept, or use --no-prescale";
  if (!(r.low > -32769.0f && r.high < 32768.0f)) invalid(span + " are outside int16 (-32768 ... 32767)" + advice);
  if (!r.whole && r.low < r.high && r.low >= -1.0f && r.high <= 1.0f) invalid(span + " are fractions, which int16 truncates to 0" + advice);
}

struct Limits {
  float low, high;
};

// Step 1: level ∓ ⌊width/2⌋, as integers are halved.
Limits window_limits(const VolumeOptions& o) {
  constexpr double most = 1e30;
  if (!(std::fabs(o.level) <= most && o.width >= 2 && o.width <= most)) {
    invalid("window level " + std::to_string(o.level) + ", width " + std::to_string(o.width) +
            ": must be finite, below 1e30, the width 2 or more (it is halved as an integer)");
  }
  const double half = std::floor(o.width / 2);
  return {float(o.level - half), float(o.level + half)};
}

// Step 0 on checked voxels.
std::vector<int16_t> prepare(const Voxels& v, const VolumeOptions& o) {
  const int64_t longest = std::max({v.nx, v.ny, v.nz});
  const Size in{v.nx, v.ny}, out{prepared_side(v.nx, o.side, longest), prepared_side(v.ny, o.side, longest)};
  const int64_t between = prepared_side(v.nz, o.side, longest);  // slices after the first average
  const size_t area = size_t(out.width * out.height);
  std::vector<float> slice(area), sum(area);
  std::vector<int16_t> prepared(area * size_t(o.slices));
  int64_t held = -1;  // the slice that `slice` holds: neighbouring spans may share one
  for (int64_t k = 0; k < o.slices; ++k) {
    const Span z = area_span(k, between, o.slices);
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int64_t j = z.first; j < z.end; ++j) {
      if (j != held) area_slice(slice.data(), v.data, in, out, area_span(j, v.nz, between));
      held = j;
      for (size_t i = 0; i < area; ++i) sum[i] += slice[i];
    }
    const float count = float(z.end - z.first);
    for (size_t i = 0; i < area; ++i) prepared[size_t(k) * area + i] = int16_t(std::clamp(sum[i] / count, -32768.0f, 32767.0f));  // toward zero
  }
  return prepared;
}

// The volume that steps 1 … 6 work on: prepared or as given.
struct Source {
  const int16_t* prepared;
  const float* given;
  size_t area;  // voxels of a slice

  Range range(size_t slices) const { return prepared ? range_of(prepared, area * slices) : range_of(given, area * slices); }

  // Steps 1 and 2 of slice z → y: v' = (clip(v) − low)/(high − low + 1e-6)·255, float32.
  void normalise(float* y, int64_t z, const Limits& clip, float low, float high) const {
    const float divisor = (high - low) + 1e-6f;
    const size_t first = size_t(z) * area;
    for (size_t i = 0; i < area; ++i) {
      const float v = prepared ? float(prepared[first + i]) : given[first + i];
      y[i] = (std::clamp(v, clip.low, clip.high) - low) / divisor * 255.0f;
    }
  }
};

// Steps 1 … 5 for one frame at a time.
class Frames {
 public:
  Frames(const Source& source, const VolumeSteps& s, const Limits& clip)
      : source_(source), steps_(s), clip_(clip), rows_(linear_taps(s.prepared[1], s.trilinear[1])), columns_(linear_taps(s.prepared[0], s.trilinear[0])),
        slices_(linear_taps(s.prepared[2], s.trilinear[2])), normal_(source.area), plane_(rows_.size() * columns_.size()), other_(plane_.size()),
        resize_({s.trilinear[0], s.trilinear[1]}, s.frame) {}

  void make(float* y, int64_t frame) {
    const LinearTap& t = slices_[size_t(frame)];
    plane(plane_.data(), t.i0);
    if (t.w1 != 0) {
      plane(other_.data(), t.i1);
      for (size_t i = 0; i < plane_.size(); ++i) plane_[i] = t.w0 * plane_[i] + t.w1 * other_[i];
    }
    resize_.run(y, plane_.data());
  }

 private:
  void plane(float* y, int64_t z) {
    source_.normalise(normal_.data(), z, clip_, float(steps_.low), float(steps_.high));
    linear_slice(y, normal_.data(), steps_.prepared[0], rows_, columns_);
  }

  const Source& source_;
  const VolumeSteps& steps_;
  Limits clip_;
  std::vector<LinearTap> rows_, columns_, slices_;
  std::vector<float> normal_, plane_, other_;
  FrameResize resize_;
};

}  // namespace

VolumeSteps plan_volume(int64_t nx, int64_t ny, int64_t nz, const VolumeOptions& options) {
  const int64_t n[3] = {nx, ny, nz};
  const int64_t longest = std::max({nx, ny, nz});
  if (std::min({nx, ny, nz}) < 1 || longest > largest_side) {
    invalid("volume of " + text(nx, ny, nz) + " voxels: sides must be 1 ... " + std::to_string(largest_side));
  }
  VolumeSteps s;
  for (size_t i = 0; i < 3; ++i) {
    s.source[i] = n[i];
    s.prepared[i] = !options.prescale ? n[i] : i == 2 ? options.slices : prepared_side(n[i], options.side, longest);
  }
  // Step 3. Truncation in double: 383 occurs for some heights, as in the reference.
  const int64_t w = s.prepared[0], h = s.prepared[1], d = s.prepared[2];
  if (std::max(w, h) > largest_aspect * std::min(w, h)) {
    invalid("volume of " + text(nx, ny, nz) + " voxels: one side of a slice is more than 200 times the other; crop it");
  }
  const double side = double(options.side), scale = std::min({side / double(h), side / double(w), 1.0});
  s.trilinear[0] = int64_t(double(w) * scale);
  s.trilinear[1] = int64_t(double(h) * scale);
  s.trilinear[2] = std::max<int64_t>(std::min(d, options.slices) / 3 * 3, 3);
  if (std::max(s.trilinear[0], s.trilinear[1]) > largest_aspect * std::min(s.trilinear[0], s.trilinear[1])) {  // truncation may raise the aspect
    invalid("volume of " + text(nx, ny, nz) + " voxels: one side of a slice is more than 200 times the other; crop it");
  }
  s.frame = smart_resize({s.trilinear[0], s.trilinear[1]}, options.factor, options.factor * options.factor, frame_pixels);
  s.grid = {(s.trilinear[2] + 1) / frame_pair, s.frame.height / patch_side, s.frame.width / patch_side};
  return s;
}

size_t volume_bytes(int64_t nx, int64_t ny, int64_t nz, const VolumeOptions& options) {
  const VolumeSteps s = plan_volume(nx, ny, nz, options);
  const size_t slice = size_t(s.prepared[0] * s.prepared[1]), plane = size_t(s.trilinear[0] * s.trilinear[1]);
  const size_t prepared = options.prescale ? slice * size_t(s.prepared[2]) * sizeof(int16_t) : 0;
  const size_t averages = options.prescale ? 2 * slice * sizeof(float) + size_t(s.prepared[0]) * sizeof(Span) : 0;
  const size_t taps = size_t(s.trilinear[0] + s.trilinear[1] + s.trilinear[2]) * sizeof(LinearTap);
  const size_t frames = (slice + 2 * plane + 2 * size_t(s.frame.width * s.frame.height)) * sizeof(float);
  return prepared + std::max(averages, taps + frames + FrameResize::bytes({s.trilinear[0], s.trilinear[1]}, s.frame));
}

std::vector<int16_t> prepare_volume(const Voxels& voxels, const VolumeOptions& options) {
  plan_volume(voxels.nx, voxels.ny, voxels.nz, options);
  check_voxels(voxels);
  check_units(range_of(voxels.data, size_t(voxels.nx * voxels.ny * voxels.nz)));
  return prepare(voxels, options);
}

struct VolumeFrames::State {
  VolumeSteps steps;
  std::vector<int16_t> prepared;
  Source source;
  std::unique_ptr<Frames> frames;
  std::vector<float> pair;  // (2, height, width): the slices of one frame
};

VolumeFrames::VolumeFrames(const Voxels& voxels, const VolumeOptions& options) : state_(new State) {
  if (options.factor != patch_side * merge_side) {
    invalid("factor " + std::to_string(options.factor) + ": patches are 16 pixels, merged 2 by 2; expected 32");
  }
  VolumeSteps& s = state_->steps = plan_volume(voxels.nx, voxels.ny, voxels.nz, options);
  Limits clip{-HUGE_VALF, HUGE_VALF};
  if (options.has_window) clip = window_limits(options);
  if (options.prescale) state_->prepared = prepare_volume(voxels, options);
  else check_voxels(voxels);
  state_->source = {options.prescale ? state_->prepared.data() : nullptr, voxels.data, size_t(s.prepared[0] * s.prepared[1])};
  const Range range = state_->source.range(size_t(s.prepared[2]));
  s.low = std::clamp(range.low, clip.low, clip.high);
  s.high = std::clamp(range.high, clip.low, clip.high);
  s.constant = s.low == s.high;
  if (s.high - s.low > double(std::numeric_limits<float>::max())) {
    invalid("volume: values " + std::to_string(s.low) + " ... " + std::to_string(s.high) + " span more than float32 holds; give a window");
  }
  state_->frames = std::make_unique<Frames>(state_->source, s, clip);
  state_->pair.resize(size_t(2 * s.frame.width * s.frame.height));
}

VolumeFrames::~VolumeFrames() = default;
const VolumeSteps& VolumeFrames::steps() const { return state_->steps; }

void VolumeFrames::write(float* patches, int64_t first, int64_t count) {
  const VolumeSteps& s = state_->steps;
  std::vector<float>& pair = state_->pair;
  const size_t pixels = pair.size() / 2;
  for (int64_t t = first; t < first + count; ++t) {
    // An odd number of slices repeats the last.
    state_->frames->make(pair.data(), 2 * t);
    if (2 * t + 1 < s.trilinear[2]) state_->frames->make(pair.data() + pixels, 2 * t + 1);
    else std::copy_n(pair.data(), pixels, pair.data() + pixels);
    for (float& v : pair) v = (v - 127.5f) / 127.5f;
    patches = write_frame_pair(patches, s.frame, [&pair, pixels](int64_t, int64_t tau, int64_t i) { return pair[size_t(tau) * pixels + size_t(i)]; });
  }
}

VolumeSteps preprocess_volume(float* patches, const Voxels& voxels, const VolumeOptions& options) {
  VolumeFrames frames(voxels, options);
  frames.write(patches, 0, frames.steps().grid.t);
  return frames.steps();
}

}  // namespace bg
