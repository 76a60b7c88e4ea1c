// See gpu_report.h.
#include "tests/bench/gpu_report.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

namespace bg::bench {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class... T>
std::string text(const char* format, T... values) {
  char line[512];
  std::snprintf(line, sizeof line, format, values...);
  return line;
}

double middle(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[(v.size() - 1) / 2];
}

constexpr int kName = 58;

}  // namespace

Figures::Figures(Gpu& gpu, const Sizes& sizes, const std::string& section, const std::vector<std::string>& words, double seconds, int records)
    : gpu_(gpu), sizes_(sizes), section_(section), words_(words), deadline_(now() + seconds), records_(records) {
  memory_ = static_cast<char*>(gpu_.device().allocate(2 * sizes_.copied));
  if (memory_ == nullptr) throw DeviceError("no device memory to copy");
  gpu_.fill_panels(memory_, Type::bf16, sizes_.copied);
  std::string version = "no CUDA";
  if (sizes_.square > 0 && cuda::open_cublas != nullptr) cublas_ = cuda::open_cublas(gpu_, sizes_.square, &version);
  if (cublas_) bf16_name_ = "cuBLASLt";
  title_ = version;
}

Figures::~Figures() {
  cublas_.reset();
  gpu_.device().release(memory_);
}

double Figures::reading(Bound b) {
  const auto run = [&] {
    if (b == Bound::copy) return gpu_.copy_bytes(memory_ + sizes_.copied, memory_, sizes_.copied), 2 * double(sizes_.copied);
    if (b == Bound::f32) return gpu_.multiply_f32(sizes_.repeats);
    return cublas_ ? cublas_->run() : gpu_.multiply_bf16(sizes_.repeats);
  };
  gpu_.device().wait();
  const double start = now();
  const double work = run();
  gpu_.device().wait();
  return work / (now() - start);
}

void Figures::read_ceilings(bool say) {
  const auto best = [&](const std::function<double()>& read) {
    double most = 0;
    for (int i = 0; i < 5; ++i) most = std::max(most, read());
    return most;
  };
  for (const Bound b : {Bound::copy, Bound::bf16, Bound::f32}) ceiling_[int(b)] = best([&] { return reading(b); });
  if (!say) {
    title_.clear();
    return;
  }
  const double read_only = best([&] {
    gpu_.device().wait();
    const double start = now();
    gpu_.read_bytes(memory_, 2 * sizes_.copied);
    gpu_.device().wait();
    return 2 * double(sizes_.copied) / (now() - start);
  });
  const double loop = best([&] {
    gpu_.device().wait();
    const double start = now(), flop = gpu_.multiply_bf16(sizes_.repeats);
    gpu_.device().wait();
    return flop / (now() - start);
  });
  const auto line = [&](const std::string& name, double value, const char* unit) {
    std::printf("%-*s %10.1f %s\n", kName, name.c_str(), value, unit);
    record('C', text("\"%s\",\"ceiling: %s\",,,,%.6g,%s,,,,,,,,,,", section_.c_str(), name.c_str(), value, unit));
    record('T', text("%-*s %10.1f %s", kName, name.c_str(), value, unit));
  };
  line("copy, our kernel (reads and writes)", ceiling_[int(Bound::copy)] / 1e9, "GB/s");
  line("read only, our kernel", read_only / 1e9, "GB/s");
  line("bf16 products on registers, mma.sync loop", loop / 1e12, "TFLOP/s");
  line("float multiply-adds on registers", ceiling_[int(Bound::f32)] / 1e12, "TFLOP/s");
  if (cublas_)
    line(title_ + ", bf16 " + std::to_string(sizes_.square) + "^3, random numbers", ceiling_[int(Bound::bf16)] / 1e12, "TFLOP/s");
  else
    std::printf("%-*s not measured: %s; shares of products are of the mma.sync loop\n", kName, "cuBLASLt", title_.c_str());
  title_.clear();
  std::fflush(stdout);
}

bool Figures::wants(const std::string& name) const {
  return words_.empty() || std::any_of(words_.begin(), words_.end(), [&](const std::string& w) { return name.find(w) != std::string::npos || section_ == w; });
}
bool Figures::wants_any(const std::vector<std::string>& names) const {
  return std::any_of(names.begin(), names.end(), [&](const std::string& n) { return wants(n); });
}

void Figures::title(const std::string& words) { title_ = words; }

void Figures::print_title() {
  if (title_.empty()) return;
  std::printf("\n%-*s %10s %13s %9s %8s %16s  %s\n", kName, title_.c_str(), "ms", "spread", "floor ms", "share", "of", "rate");
  title_.clear();
}

void Figures::note(const std::string& words) {
  print_title();
  std::printf("    %s\n", words.c_str());
  std::fflush(stdout);
}

void Figures::record(char kind, const std::string& line) {
  if (records_ < 0) return;
  const std::string all = std::string(1, kind) + line + "\n";
  for (size_t done = 0; done < all.size();) {
    const ssize_t n = ::write(records_, all.data() + done, all.size() - done);
    if (n <= 0) return;  // the parent is gone: what is printed stays
    done += size_t(n);
  }
}

void Figures::failed(const std::string& name, const std::string& message) {
  std::string why = message;  // one line, whole in a field of the CSV file
  std::replace_if(why.begin(), why.end(), [](char c) { return c == '\n' || c == '"'; }, ' ');
  print_title();
  std::printf("%-*s FAILED: %s\n", kName, name.c_str(), why.c_str());
  std::fflush(stdout);
  record('F', text("%-*s FAILED: %s", kName, name.c_str(), why.c_str()));
  record('C', text("\"%s\",\"%s\",,,,,,,,,,,,,,,\"%s\"", section_.c_str(), name.c_str(), why.c_str()));
  try {  // nothing of a step that was begun may stay behind
    gpu_.ops().forget_steps();
    gpu_.ops().begin_step(0);
    gpu_.ops().end_step();
    gpu_.ops().forget_steps();
    gpu_.device().wait();
  } catch (const std::exception&) {  // the device itself is lost: the figures that follow will say so
  }
}

void Figures::prepare(const std::string& name, const std::function<void()>& body) {
  if (now() > deadline_) {
    print_title();
    std::printf("%-*s not measured: the time of this section is over\n", kName, name.c_str());
    record('S', name);
    return;
  }
  try {
    body();
  } catch (const std::exception& e) {
    failed(name, e.what());
  }
}

double Figures::floor_of(const Load& load, double copy, double bf16, double f32) const {
  return std::max(load.bytes / copy, load.flop / bf16 + load.flop32 / f32);
}

double Figures::measure(const std::string& name, const Load& load, const std::function<void()>& body) {
  if (!wants(name)) return 0;
  double seconds = 0;
  prepare(name, [&] {
    const double* const c = ceiling_;
    const bool memory = load.bytes / c[0] >= load.flop / c[1] + load.flop32 / c[2];
    const Bound bound = memory ? Bound::copy : load.flop / c[1] >= load.flop32 / c[2] ? Bound::bf16 : Bound::f32;
    const auto run = [&](int64_t times) {
      const double start = now();
      for (int64_t i = 0; i < times; ++i) body();
      gpu_.device().wait();
      return (now() - start) / double(times);
    };
    run(1);  // kernels are loaded, graphs are made
    const int64_t times = sizes_.round_seconds > 0 ? std::max<int64_t>(1, int64_t(std::ceil(sizes_.round_seconds / run(1)))) : 1;
    std::vector<double> rounds, shares;
    const double start = now();
    while (int(rounds.size()) < sizes_.most_rounds && (int(rounds.size()) < sizes_.least_rounds || now() - start < sizes_.figure_seconds) &&
           (rounds.empty() || now() < deadline_)) {
      const double before = reading(bound);
      rounds.push_back(run(times));
      double r[3] = {c[0], c[1], c[2]};
      r[int(bound)] = (before + reading(bound)) / 2;
      shares.push_back(floor_of(load, r[0], r[1], r[2]) / rounds.back());
    }
    seconds = middle(rounds);
    const double share = middle(shares), least = *std::min_element(rounds.begin(), rounds.end()), most = *std::max_element(rounds.begin(), rounds.end());
    const double flop = load.flop + load.flop32, rate = memory ? load.bytes / seconds / 1e9 : flop / seconds / 1e12;
    const char *unit = memory ? "GB/s" : "TFLOP/s", *of = memory ? "copy" : bound == Bound::bf16 ? bf16_name_ : "float loop";
    const double floor_ms = share * seconds * 1e3;
    print_title();
    std::string line = text("%-*s %10.3f %6.3f…%-6.3f %9.3f %6.1f %% %16s  %.1f %s", kName, name.c_str(), seconds * 1e3, least * 1e3, most * 1e3, floor_ms, share * 100, of, rate, unit);
    if (load.count > 0) line += text("  %.2f %s", load.count / seconds, load.unit);
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
    record('C', text("\"%s\",\"%s\",%.6g,%.6g,%.6g,%.6g,%s,%.4f,%s,%.6g,%.6g,%.6g,%.6g,%g,%.6g,%s,", section_.c_str(), name.c_str(), seconds * 1e3, least * 1e3, most * 1e3, rate,
                    unit, share, of, floor_ms, load.bytes, load.flop, load.flop32, load.aim, load.count > 0 ? load.count / seconds : 0, load.unit));
    if (!load.headline) return;
    std::string row = text("%-*s %10.3f ms %6.1f %% of %-9s", kName, name.c_str(), seconds * 1e3, share * 100, of);
    if (load.aim > 0 && sizes_.real) row += text("  aim %.0f %%: %s", load.aim * 100, share >= load.aim ? "met" : "missed");
    if (load.aim_seconds > 0 && sizes_.real) row += text("  aim %.0f ms: %s", load.aim_seconds * 1e3, seconds <= load.aim_seconds ? "met" : "missed");
    if (load.count > 0) row += text("  %.1f %s", load.count / seconds, load.unit);
    record('T', row);
  });
  return seconds;
}

void Figures::amount(const std::string& name, double value, const char* unit, double limit) {
  print_title();
  std::string line = text("%-*s %10.3f %s", kName, name.c_str(), value, unit);
  if (limit > 0 && sizes_.real) line += text("  aim %.2f: %s", limit, value <= limit ? "met" : "missed");
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
  record('T', line);
  record('C', text("\"%s\",\"%s\",,,,%.6g,%s,,,,,,,%g,,,", section_.c_str(), name.c_str(), value, unit, limit));
}

}  // namespace bg::bench
