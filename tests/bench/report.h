// The method, and the table. Every figure stands between two readings of the ceiling that bounds it; rounds whose readings differ by more than 10 % are
// dropped (shared machines jump), and of the others the one with the median share is printed. The bound: of the time that the bytes take at the measured
// bandwidth and the time that the FLOP take at the measured peak, the longer one. Shares of one run mean something, seconds of two runs do not.
#pragma once
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "tests/bench/ceilings.h"

namespace bg::bench {

struct Options {
  std::vector<std::string> filters;  // a figure is taken when its name holds one of them; none: all
  std::string csv;                   // file, or empty
  bool quick = false;                // fewer rounds
  int threads = 1;
  int64_t layers = 0;                // decoders are cut to so many; 0: all that memory holds
  Isa isa = Isa::best;
  Precision precision = Precision::fast;
};

// What a figure must do at least: memory that no cache can hold, and multiply-adds (2 each).
struct Work {
  double bytes = 0, flop = 0;
  Ceiling instructions = Ceiling::fma_portable;  // what bounds the FLOP
  double count = 0;                              // things done, for a speed beside the share: "tok/s"
  const char* count_unit = "";
};

class Report {
 public:
  explicit Report(const Options& options);  // reads every ceiling once and prints them; throws Error when the CSV file cannot be written
  const Options& options() const { return options_; }
  bool wants(const std::string& name) const;
  bool wants_any(const std::vector<std::string>& names) const;
  void title(const char* text);  // printed before the next figure
  // Runs body and prints the row, where the name is wanted. Returns the seconds of the row printed, 0 when there is none.
  double measure(const std::string& name, const Work& work, const std::function<void()>& body);
  void note(const std::string& text);  // a line of its own

 private:
  double bound(const Work& work, Ceiling c, double reading) const { return is_bandwidth(c) ? work.bytes / reading : work.flop / reading; }
  Ceiling bounding(const Work& work) const;
  Options options_;
  std::map<Ceiling, double> first_;  // readings at the start: they decide which ceiling bounds a figure
  std::string title_;
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::unique_ptr<std::FILE, Close> csv_;
};

}  // namespace bg::bench
