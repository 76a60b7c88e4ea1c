// make bench (ARGS="…"): this machine's ceilings, measured on the spot, and the share of them that every hot operation and the whole model reach on shapes
// of the 8B, the 4B and a decoder of 0.6B, with random weights. Not a test: nothing passes or fails here.
//
//   bench                      everything below but "model …"
//   bench model                the whole model: decode, prompt, ViT, slides
//   bench decode Q8_0 …        figures whose names hold one of the words; all: every one
//   bench 6000                 the coverage selection of so many tiles, alone (its peak of memory is printed)
//   --quick                    fewer rounds     --csv FILE   the table as CSV too     --list-ceilings   only these
//   --isa NAME --threads N --precision fast|float32     --layers N   decoders with so many layers
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "loaders/error.h"
#include "tests/bench/parts.h"

using namespace bg;
using namespace bg::bench;

namespace {

int usage(const std::string& wrong) {
  std::fprintf(stderr, "bench: %s\n", wrong.c_str());
  std::fprintf(stderr, "usage: bench [--quick] [--csv FILE] [--isa NAME] [--threads N] [--precision fast|float32] [--layers N] "
                       "[--list-ceilings] [TILES | WORD …]\n");
  return 2;
}

bool isa_of(const char* name, Isa* isa) {
  int count = 0;
  const Isa* built = built_isas(&count);
  const Isa* found = std::find_if(built, built + count, [&](Isa i) { return std::strcmp(isa_name(i), name) == 0; });
  if (found != built + count) *isa = *found;
  return found != built + count;
}

bool is_number(const std::string& s) { return !s.empty() && s.find_first_not_of("0123456789") == std::string::npos; }

int run(int argc, char** argv) {
  Options o;
  o.threads = int(std::max(1u, std::thread::hardware_concurrency()));
  o.isa = best_isa();
  int64_t tiles = 0;
  bool only_ceilings = false;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const bool takes_value = a == "--csv" || a == "--isa" || a == "--threads" || a == "--precision" || a == "--layers";
    if (takes_value && i + 1 == argc) return usage(a + " needs a value");
    if (a == "--quick") o.quick = true;
    else if (a == "--list-ceilings") only_ceilings = true;
    else if (a == "--csv") o.csv = argv[++i];
    else if (a == "--isa" && !isa_of(argv[++i], &o.isa)) return usage(std::string("--isa ") + argv[i] + " is not built here");
    else if (a == "--threads" && (o.threads = std::atoi(argv[++i])) < 1) return usage("--threads must be 1 or more");
    else if (a == "--layers") o.layers = std::max(1, std::atoi(argv[++i]));
    else if (a == "--precision") o.precision = std::strcmp(argv[++i], "float32") == 0 ? Precision::float32 : Precision::fast;
    else if (a[0] == '-' && !takes_value) return usage("unknown option " + a);
    else if (is_number(a)) tiles = std::max(256ll, std::atoll(a.c_str()));
    else if (!takes_value) o.filters.push_back(a);
  }
  const bool models = !o.filters.empty();
  if (std::count(o.filters.begin(), o.filters.end(), "all") > 0) o.filters.clear();

  const std::unique_ptr<Ops> ops(make_cpu_ops(o.threads, o.isa, o.precision));
  if (!ops) return usage(std::string("this machine lacks ") + isa_name(o.isa) + ", or memory");
  std::printf("backend %s, %d threads, precision %s\n", ops->name(), o.threads, o.precision == Precision::fast ? "fast" : "float32");
  if (tiles > 0) {  // nothing else in the peak of memory
    coverage_table(*ops, tiles);
    return 0;
  }
  Report report(o);
  if (only_ceilings) return 0;
  bench_linear(report, *ops);
  bench_attention(report, *ops);
  bench_elements(report, *ops);
  bench_coverage(report, *ops);
  if (models) bench_models(report, *ops);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench: %s\n", e.what());
    return 1;
  }
}
