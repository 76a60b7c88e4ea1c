// The tiny checkpoints of tests/golden, converted once per test run, and the cases that the oracle (tests/oracle/model.py) computed for them.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/model.h"

// Path of a converted checkpoint. edits: top-level keys of config.json to change ("selector_use_txt": "true"), as JSON text.
std::string tiny_weights(const std::string& checkpoint, const std::string& type = "f32", const std::map<std::string, std::string>& edits = {});
std::shared_ptr<const bg::Model> tiny_model(const std::string& checkpoint, const std::string& type = "f32", const std::map<std::string, std::string>& edits = {});

// One case.txt: what was asked, in which order.
struct TinyCase {
  std::string checkpoint, system;
  std::vector<std::string> images;  // full paths
  std::vector<std::pair<std::string, std::string>> media;  // ("image", "volume" or "slide", full path) in the order added
  bool no_prescale = false;         // of volumes
  struct Turn {
    std::string role, text;         // "user", "assistant" (given text), "generate" (text: number of tokens)
  };
  std::vector<Turn> turns;
  std::map<std::string, std::string> edits;
  int64_t next_position = 0;
};
TinyCase tiny_case(const std::string& name, const std::string& folder = "tiny-cases");

// A golden of a case as doubles; empty when the file has no such tensor.
class Golden {
 public:
  explicit Golden(const std::string& path);
  ~Golden();
  bool has(const std::string& name) const;
  std::vector<double> values(const std::string& name) const;
  std::vector<int64_t> integers(const std::string& name) const;
  std::vector<std::string> names() const;

 private:
  struct File;
  std::unique_ptr<File> file_;
};

// ‖a − b‖/‖b‖; infinite for different sizes.
double relative_error(const std::vector<double>& a, const std::vector<double>& b);

// The tensors of a trace with data, by stage; a stage that occurs several times is joined in order.
std::map<std::string, std::vector<double>> read_trace_data(const std::string& folder);
