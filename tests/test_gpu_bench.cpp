// The GPU benchmark (tests/bench/gpu.cpp) as a user runs it, on the emulated GPU with tiny shapes: every section to its end, and what it says without a GPU.
#include <doctest/doctest.h>

#include <sstream>

#include "kernels/cuda/device.h"
#include "tests/cli.h"

namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace

TEST_CASE("gpu-bench: every section runs, its lines come at once, a table and a CSV file hold them") {
  TempDir folder;
  const CliResult r = program("gpu-bench", {"--emulated", "--csv", folder.file("figures.csv")});
  CHECK_MESSAGE(r.code == 0, r.out);
  for (const char* name : {"model decode 8B BF16", "model slide 19 tiles to first token, 8B BF16", "memory of the device, 19 tiles", "step 8B gate, up", "model prompt of 9 8B Q4_K mix", "model picture", "ViT",
                           "attention dilated", "coverage 5 of 37", "recomputed", "product 8B", "norm RMS", "figures in"})
    CHECK_MESSAGE(contains(r.out, name), name);
  CHECK_FALSE(contains(r.out, "FAILED"));
  CHECK_FALSE(contains(r.out, "not finite"));

  const std::string table = r.out.substr(r.out.rfind("\ntable"));
  CHECK(contains(table, "model decode 8B Q4_K mix"));
  CHECK(contains(table, " 0 failed"));
  CHECK_FALSE(contains(table, "step 8B"));  // figures that are no headline
  const std::vector<std::string> csv = lines_of(read_file(folder.file("figures.csv")));
  REQUIRE(csv.size() > 100);
  for (const std::string& line : csv) {
    int commas = 0;
    bool quoted = false;
    for (const char c : line) {
      quoted ^= c == '"';
      commas += c == ',' && !quoted;
    }
    CHECK_MESSAGE(commas == 16, line);
  }
}

TEST_CASE("gpu-bench: sections and figures by name; the time that is left; wrong options") {
  const CliResult one = program("gpu-bench", {"--emulated", "norm RMS"});
  CHECK(one.code == 0);
  CHECK(contains(one.out, "norm RMS"));
  CHECK_FALSE(contains(one.out, "norm layer"));
  const CliResult section = program("gpu-bench", {"--emulated", "rows"});
  CHECK(contains(section.out, "norm layer"));
  CHECK_FALSE(contains(section.out, "model decode"));
  const CliResult late = program("gpu-bench", {"--emulated", "--seconds", "0"});
  CHECK(late.code == 1);
  CHECK(contains(late.out, "section decode was not begun: the time is over"));
  CHECK(program("gpu-bench", {"--sing"}).code == 2);
  CHECK(contains(program("gpu-bench", {"--csv"}).err, "--csv needs a value"));
  CHECK(contains(program("gpu-bench", {"--csv", "/no/such/folder/x.csv"}).err, "cannot be written"));
}

TEST_CASE("gpu-bench: without a GPU one line says so") {
  std::string why;
  if (bg::cuda_devices(&why) > 0) return;
  const CliResult r = program("gpu-bench", {});
  CHECK(r.code == 1);
  CHECK(lines_of(r.out).size() == 1);
  CHECK(contains(r.out, "no GPU that can be used here"));
}
