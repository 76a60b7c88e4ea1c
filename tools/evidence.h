// --draw, --draw-mask, --evidence: the pictures that `ask` writes after the last answer.
#pragma once
#include <string>
#include <vector>

#include "tools/session.h"

namespace tool {

class Pictures {
 public:
  // Checks the options against the media before anything is computed: throws Failure{kUsage}.
  Pictures(const Options& options, const std::vector<MediumFile>& media);
  void write(bg_session* session) const;

 private:
  void draw(bg_session* session) const;
  void evidence(const bg_session* session) const;

  const std::vector<MediumFile>& media_;
  std::string draw_, mask_, evidence_;
  ImagePtr thumbnail_;
};

}  // namespace tool
