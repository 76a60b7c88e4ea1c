// A part of a model with random weights, in the structs of runtime/weights.h: every matrix in memory of its own, in panels, of the type that
// breastgpt-convert would give it.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "runtime/weights.h"
#include "tests/bench/memory.h"

namespace bg::bench {

enum class Part { decoder, vision, slide };

class RandomModel {
 public:
  RandomModel(const Config& config, Part part, Type asked);  // asked: breastgpt-convert --type. Throws std::bad_alloc
  static size_t bytes(const Config& config, Part part, Type asked);
  size_t bytes() const { return memory_.bytes(); }
  // Those of the part that was asked for, no other.
  DecoderWeights decoder() const;
  VitWeights vision() const;
  SlideWeights slide() const;

 private:
  Weight matrix(const std::string& name) const { return matrices_.at(name + ".weight"); }
  Linear linear(const std::string& name) const { return {matrix(name), small_.data()}; }
  Norm norm(bool bias) const { return {ones_.data(), bias ? small_.data() : nullptr}; }
  VitWeights::Merger merger(const std::string& name) const { return {norm(true), linear(name + ".fc1"), linear(name + ".fc2")}; }

  Config config_;
  Memory memory_;
  std::map<std::string, Weight> matrices_;  // by their names in the weights file
  std::vector<float> ones_, small_;         // every norm's weight; every bias
};

}  // namespace bg::bench
