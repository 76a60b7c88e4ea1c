// A part of a model with random weights, in the structs of runtime/weights.h: every matrix in memory of its own, in panels, of the type that
// breastgpt-convert would give it.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/weights.h"
#include "tests/bench/memory.h"

namespace bg::bench {

enum class Part { decoder, vision, slide };

class RandomModel {
 public:
  RandomModel(const Config& config, Part part, Type asked);  // asked: breastgpt-convert --type. Throws std::bad_alloc
  // In memory of the caller's, a device's perhaps: bytes() for the matrices, which fill writes one by one, and kVector floats, every norm's weight and every bias.
  using Fill = std::function<void(void* to, Type type, size_t bytes)>;
  RandomModel(const Config& config, Part part, Type asked, char* matrices, const float* ones, const float* small, const Fill& fill);
  static constexpr size_t kVector = size_t(1) << 18;
  static size_t bytes(const Config& config, Part part, Type asked);
  size_t bytes() const { return bytes_; }
  // Those of the part that was asked for, no other.
  DecoderWeights decoder() const;
  VitWeights vision() const;
  SlideWeights slide() const;

 private:
  Weight matrix(const std::string& name) const { return matrices_.at(name + ".weight"); }
  Linear linear(const std::string& name) const { return {matrix(name), small_}; }
  Norm norm(bool bias) const { return {ones_, bias ? small_ : nullptr}; }
  VitWeights::Merger merger(const std::string& name) const { return {norm(true), linear(name + ".fc1"), linear(name + ".fc2")}; }

  void lay_out(Part part, Type asked, char* at, const Fill& fill);
  Config config_;
  size_t bytes_;
  std::unique_ptr<Memory> memory_;  // of the first constructor
  std::vector<float> own_;
  const float *ones_, *small_;
  std::map<std::string, Weight> matrices_;  // by their names in the weights file
};

}  // namespace bg::bench
