// How the GPU benchmark measures and says so. A figure is a body that is run in rounds, each between two readings of the ceiling that bounds it; median, spread and
// the share of its floor are printed at once. Every figure also goes to the parent process (gpu.cpp), which keeps the table and the CSV file when this one dies.
// The floor: of the bytes at the bandwidth of our copy kernel and the FLOP at the peak of large products, the longer time. A share is floor/measured.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/gpu_device.h"
#include "tests/bench/gpu_sizes.h"

namespace bg::bench {

// What a figure must do at least.
struct Load {
  double bytes = 0;              // read and written, of memory that no cache can hold
  double flop = 0;               // multiply-adds (2 each) of bf16 products, on tensor cores
  double flop32 = 0;             // and of float products
  double count = 0;              // things done, for a speed beside the time: "tok/s"
  const char* unit = "";
  double aim = 0;                // the share that the design asks for; 0: none
  double aim_seconds = 0;        // or the time
  bool headline = false;         // in the table at the end
};

class Figures {
 public:
  // records: file descriptor of the parent's end, −1: none. seconds: after that no figure is begun.
  Figures(Gpu& gpu, const Sizes& sizes, const std::string& section, const std::vector<std::string>& words, double seconds, int records);
  ~Figures();
  // The ceilings, measured now: at the start of a section, with lines where `say`.
  void read_ceilings(bool say);

  bool wants(const std::string& name) const;
  bool wants_any(const std::vector<std::string>& names) const;
  void title(const std::string& text);
  void note(const std::string& text);
  // Seconds of the median round; 0: not wanted, no time left, or failed (then the line says why).
  double measure(const std::string& name, const Load& load, const std::function<void()>& body);
  // A number that is not a time, with the limit that the design asks for (0: none).
  void amount(const std::string& name, double value, const char* unit, double limit);
  // What is to be built before figures can be taken: an error becomes their line.
  void prepare(const std::string& name, const std::function<void()>& body);

 private:
  enum class Bound { copy, bf16, f32 };
  double reading(Bound b);  // bytes/s or FLOP/s, now
  double floor_of(const Load& load, double copy, double bf16, double f32) const;
  void print_title();
  void failed(const std::string& name, const std::string& why);
  void record(char kind, const std::string& line);

  Gpu& gpu_;
  const Sizes& sizes_;
  std::string section_, title_;
  std::vector<std::string> words_;
  double deadline_;
  int records_;
  std::unique_ptr<LargeProduct> cublas_;
  const char* bf16_name_ = "mma loop";
  char* memory_ = nullptr;  // of the copies
  double ceiling_[3] = {};  // by Bound, as read at the start
};

}  // namespace bg::bench
