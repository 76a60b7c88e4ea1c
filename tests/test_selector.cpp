// The coverage selector against tests/oracle/selector.py, which was written from the specification in numpy (float32 similarities, float64 sums): the same rows kept,
// the same gains to rounding, on random, clustered, duplicated and zero rows, with and without text.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>

#include "runtime/answer.h"
#include "tests/support.h"
#include "tests/tiny.h"

using namespace bg;

namespace {

Tensor upload(Ops& ops, Arena& arena, const std::vector<double>& values, int64_t rows) {
  const Tensor t = arena.tensor(rows, rows > 0 ? int64_t(values.size()) / rows : 0);
  const std::vector<float> floats(values.begin(), values.end());
  if (rows > 0) ops.write(t, floats.data());
  return t;
}

}  // namespace

TEST_CASE("selector: the oracle's choices") {
  struct Case {
    const char* name;
    int64_t rows, text;
  };
  int compared = 0;
  for (const Case& c : {Case{"random", 100, 0}, Case{"random-text", 100, 9}, Case{"clustered", 300, 0}, Case{"clustered-text", 300, 17}, Case{"duplicated", 60, 0}, Case{"duplicated-text", 60, 4},
                        Case{"zero-row", 20, 3}, Case{"two", 2, 1}, Case{"short", 6, 2}, Case{"odd-width", 33, 5}}) {
    const Golden golden(golden_path(std::string("tiny-selector/") + c.name + ".safetensors"));
    for (const char* backend : {"ref", "ref64", "cpu", "cpu/portable", "emulated"}) {
      CAPTURE(c.name);
      CAPTURE(backend);
      const std::unique_ptr<Ops> ops = make_ops(backend, 2, Precision::float32);
      Arena arena(*ops, size_t(64) << 20);
      const Run run{*ops, arena, nullptr, nullptr};
      const Tensor v = upload(*ops, arena, golden.values("v"), c.rows);
      const Tensor text = c.text > 0 ? upload(*ops, arena, golden.values("text"), c.text) : Tensor{};
      for (const std::string& name : golden.names()) {
        if (name.rfind("kept.", 0) != 0) continue;
        CAPTURE(name);
        const std::string k = name.substr(5);
        const Kept kept = select_coverage(run, v, text, std::stoll(k));
        const std::vector<double> gains = golden.values("gain." + k);
        double total = 0;
        for (double gain : gains) total += gain;
        CHECK(std::abs(kept.coverage - total) <= 1e-5 * total);
        CHECK(kept.index == golden.integers(name));
        ++compared;
      }
    }
  }
  CHECK(compared == 150);
}
