// make gpu-bench (ARGS="…"): what a GPU does with our kernels, in less than ten minutes: its ceilings, the whole model, every hot operation, and the same work in
// PyTorch where that is installed. Not a test: nothing passes or fails here but the command itself (1: no GPU, or a figure could not be taken).
//
//   gpu-bench                       every section, in order of value; each has a budget of time
//   gpu-bench decode "ViT" …        sections of these names, and figures whose names hold one of the words
//   --csv FILE   every figure as a line     --seconds N   all sections together (570)     --emulated   tiny shapes on the emulated GPU: nothing but a test of this program
//
// Each section runs in a process of its own: one that fails, hangs or breaks the device loses no other. Lines appear when they are known; a table comes last.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tests/bench/gpu_parts.h"

using namespace bg;
using namespace bg::bench;

namespace {

struct Section {
  const char* name;
  double seconds;  // after that no figure is begun
  void (*run)(const Bench& b);
};
// The first says what machine this is.
const Section kSections[] = {{"machine", 20, [](const Bench&) {}}, {"decode", 90, bench_decode},      {"slides", 90, bench_slides},      {"step", 50, bench_weights},      {"prompts", 70, bench_prompts},
                             {"pictures", 60, bench_pictures},    {"attention", 30, bench_attention}, {"selection", 40, bench_selection}, {"products", 40, bench_products}, {"rows", 15, bench_rows}};
constexpr double kGrace = 30;     // for the figure that is running when a section's time ends
constexpr double kPeers = 75;     // seconds for PyTorch
constexpr int kNoGpu = 3;         // exit code of the first section

struct Options {
  std::vector<std::string> words;
  std::string csv;
  double seconds = 570;
  bool emulated = false;
};

volatile sig_atomic_t interrupted = 0;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int usage(const std::string& wrong) {
  std::fprintf(stderr, "gpu-bench: %s\nusage: gpu-bench [--csv FILE] [--seconds N] [--emulated] [SECTION | WORD …]\nsections:", wrong.c_str());
  for (const Section& s : kSections) std::fprintf(stderr, " %s", s.name);
  std::fprintf(stderr, " peers\n");
  return 2;
}

// In the section's own process.
int run_section(const Section& s, const Options& o, double seconds, int records) {
  try {
    std::string why = "this build has no CUDA; build it where nvcc is installed";
    if (!o.emulated && (cuda::make_bench_gpu == nullptr || cuda_devices(&why) == 0)) {
      std::printf("gpu-bench: no GPU that can be used here (%s). Nothing was measured. --emulated runs it on the CPU, with tiny shapes.\n", why.c_str());
      return kNoGpu;
    }
    const std::unique_ptr<Gpu> gpu = o.emulated ? emulated::make_bench_gpu(Precision::fast) : cuda::make_bench_gpu(Precision::fast);
    const Sizes sizes = o.emulated ? tiny_sizes() : real_sizes();
    const bool first = &s == kSections;
    if (first) {
      const DeviceInfo i = gpu->device().info();
      std::printf("%s, compute capability %d.%d, %d processors, %.1f of %.1f GB free, %s\n", i.name.c_str(), i.major, i.minor, i.processors, double(i.free) / 1e9, double(i.memory) / 1e9,
                  gpu->clocks().c_str());
      std::fflush(stdout);
    }
    Figures figures(*gpu, sizes, s.name, o.words, seconds, records);
    figures.read_ceilings(first);
    s.run({*gpu, sizes, figures});
    return 0;
  } catch (const std::exception& e) {
    std::printf("section %s FAILED: %s\n", s.name, e.what());
    return 1;
  }
}

// What the sections' processes report: 'T' lines of the table, 'C' lines of the CSV file, 'F' failures, 'S' figures that no time was left for.
struct Table {
  std::FILE* csv = nullptr;
  std::vector<std::string> rows, failures;
  int figures = 0, skipped = 0;
  void take(const std::string& line) {
    if (line.empty()) return;
    const std::string text = line.substr(1);
    if (line[0] == 'T') rows.push_back(text);
    if (line[0] == 'F') failures.push_back(text);
    if (line[0] == 'S') ++skipped;
    if (line[0] != 'C') return;
    ++figures;
    if (csv != nullptr) {
      std::fprintf(csv, "%s\n", text.c_str());
      std::fflush(csv);
    }
  }
};

// Forks, reads the records until the process ends or its time is over. Returns its exit code, −1 when it was ended.
int watch(const Section& s, const Options& o, double seconds, Table& table) {
  int ends[2];
  if (pipe(ends) != 0) return -1;
  std::fflush(nullptr);
  const double start = now();
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    const int code = run_section(s, o, seconds, ends[1]);
    std::fflush(nullptr);
    _exit(code);
  }
  close(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  std::string pending;
  bool killed = false;
  while (child > 0) {
    char bytes[4096];
    const ssize_t n = read(ends[0], bytes, sizeof bytes);
    if (n == 0) break;
    if (n < 0) {
      if (!killed && (interrupted || now() - start > seconds + kGrace)) {
        kill(child, SIGKILL);
        killed = true;
      }
      usleep(20000);
      continue;
    }
    pending.append(bytes, size_t(n));
    for (size_t end; (end = pending.find('\n')) != std::string::npos; pending.erase(0, end + 1)) table.take(pending.substr(0, end));
  }
  close(ends[0]);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return -1;
  if (killed && !interrupted) std::printf("section %s was ended: %.0f s were over\n", s.name, seconds + kGrace);
  if (WIFSIGNALED(status) && !killed) std::printf("section %s ended by signal %d\n", s.name, WTERMSIG(status));
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The same work in PyTorch and transformers: tests/oracle/peers.py says what is installed.
void run_peers(const Options& o, double seconds) {
  std::printf("\nthe same work in PyTorch\n");
  std::fflush(stdout);
  char command[256];
  std::snprintf(command, sizeof command, "timeout %d python3 tests/oracle/peers.py --device %s --seconds %d%s 2>&1", int(seconds + kGrace), o.emulated ? "cpu" : "cuda", int(seconds), o.emulated ? " --tiny" : "");
  if (std::system("command -v python3 >/dev/null") != 0) std::printf("not installed: there is no python3\n");
  else if (std::system(command) != 0) std::printf("PyTorch: nothing more was measured\n");
}

int run(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if ((a == "--csv" || a == "--seconds") && i + 1 == argc) return usage(a + " needs a value");
    if (a == "--csv") o.csv = argv[++i];
    else if (a == "--seconds") o.seconds = std::atof(argv[++i]);
    else if (a == "--emulated") o.emulated = true;
    else if (a[0] == '-') return usage("unknown option " + a);
    else o.words.push_back(a);
  }
  Table table;
  if (!o.csv.empty() && (table.csv = std::fopen(o.csv.c_str(), "w")) == nullptr) return usage(o.csv + " cannot be written");
  if (table.csv != nullptr) std::fprintf(table.csv, "section,name,ms,ms_least,ms_most,rate,unit,share,of,floor_ms,bytes,flop,float_flop,aim,speed,speed_unit,error\n");
  struct sigaction stop {};
  stop.sa_handler = [](int) { interrupted = 1; };
  sigaction(SIGINT, &stop, nullptr);
  sigaction(SIGTERM, &stop, nullptr);

  const double start = now();
  for (const Section& s : kSections) {
    const double left = o.seconds - (now() - start);
    if (interrupted || left <= 0) {
      table.failures.push_back(std::string("section ") + s.name + " was not begun: the time is over");
      continue;
    }
    const int code = watch(s, o, std::min(s.seconds, left), table);
    if (code == kNoGpu) return 1;
    if (code != 0) table.failures.push_back(std::string("section ") + s.name + (code < 0 ? " was ended early" : " failed"));
  }
  const double left = o.seconds - (now() - start);
  const bool peers = (o.words.empty() && !o.emulated) || std::find(o.words.begin(), o.words.end(), "peers") != o.words.end();
  if (peers && !interrupted && left > 10) run_peers(o, std::min(kPeers, left));

  std::printf("\ntable%s\n", o.emulated ? " (emulated: no figure means anything)" : "");
  for (const std::string& row : table.rows) std::printf("%s\n", row.c_str());
  for (const std::string& row : table.failures) std::printf("%s\n", row.c_str());
  std::printf("%d figures in %.0f s, %zu failed, %d not measured for lack of time\n", table.figures, now() - start, table.failures.size(), table.skipped);
  if (table.csv != nullptr) std::fclose(table.csv);
  return table.failures.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv); }
