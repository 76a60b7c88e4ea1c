// See report.h.
#include "tests/bench/report.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "loaders/error.h"

namespace bg::bench {
namespace {

constexpr double kLeastSeconds = 0.03;  // of a round: shorter bodies are repeated
constexpr double kAgree = 0.1;          // the two readings of a round

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double seconds_of(const std::function<void()>& body, int64_t times) {
  const double start = now();
  for (int64_t i = 0; i < times; ++i) body();
  return (now() - start) / double(times);
}

struct Round {
  double share, seconds, reading;
};

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

}  // namespace

Report::Report(const Options& options) : options_(options) {
  if (!options_.csv.empty()) {
    csv_.reset(std::fopen(options_.csv.c_str(), "w"));
    if (!csv_) throw Error(Status::bad_file, options_.csv + ": cannot be written");
    std::fprintf(csv_.get(),
                 "name,seconds,rate,rate_unit,ceiling,ceiling_rate,share,speed,speed_unit,rounds_kept,rounds\n");
  }
  for (const Ceiling c : ceilings_of_this_machine()) {
    double one = 0, all = 0;
    for (int i = 0; i < 3; ++i) {
      all = std::max(all, read_ceiling(c, options_.threads));
      one = std::max(one, read_ceiling(c, 1));
    }
    first_[c] = all;
    const char* unit = ceiling_unit(c);
    std::printf("%-24s %10.1f %-8s %10.1f on one thread\n", ceiling_name(c), all / 1e9, unit, one / 1e9);
    const std::string name = quoted(std::string("ceiling ") + ceiling_name(c));
    if (csv_) std::fprintf(csv_.get(), "%s,,%.2f,%s,,,,%.2f,on one thread,,\n", name.c_str(), all / 1e9, unit, one / 1e9);
  }
  std::fflush(stdout);
}

bool Report::wants(const std::string& name) const {
  const std::vector<std::string>& words = options_.filters;
  return words.empty() || std::any_of(words.begin(), words.end(), [&](const std::string& w) { return name.find(w) != std::string::npos; });
}

bool Report::wants_any(const std::vector<std::string>& names) const {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return wants(name); });
}

void Report::title(const char* text) { title_ = text; }

void Report::note(const std::string& text) {
  std::printf("    %s\n", text.c_str());
  std::fflush(stdout);
}

Ceiling Report::bounding(const Work& work) const {
  const double memory = bound(work, Ceiling::read, first_.at(Ceiling::read)), products = bound(work, work.instructions, first_.at(work.instructions));
  return memory >= products ? Ceiling::read : work.instructions;
}

double Report::measure(const std::string& name, const Work& work, const std::function<void()>& body) {
  if (!wants(name)) return 0;
  if (!title_.empty()) {
    std::printf("\n%-62s %11s %10s %8s %7s  %-22s %s\n", title_.c_str(), "ms", "rate", "", "share", "of", "rounds");
    title_.clear();
  }
  const Ceiling c = bounding(work);
  const double once = seconds_of(body, 1);  // memory is touched, scratch is warm
  const int64_t times = std::max<int64_t>(1, int64_t(std::ceil(kLeastSeconds / once)));
  const int least = options_.quick ? 1 : 3, most = options_.quick ? 3 : 9;
  const double budget = options_.quick ? 0.5 : 2;
  std::vector<Round> good;
  int rounds = 0;
  for (const double start = now(); rounds < most && (int(good.size()) < least || now() - start < budget); ++rounds) {
    const double before = read_ceiling(c, options_.threads);
    const double seconds = seconds_of(body, times);
    const double after = read_ceiling(c, options_.threads), reading = (before + after) / 2;
    if (std::abs(before - after) <= kAgree * std::max(before, after)) good.push_back({bound(work, c, reading) / seconds, seconds, reading});
  }
  std::printf("%-62s ", name.c_str());
  if (good.empty()) {
    std::printf("no quiet round of %d\n", rounds);
    std::fflush(stdout);
    return 0;
  }
  std::sort(good.begin(), good.end(), [](const Round& a, const Round& b) { return a.share < b.share; });
  const Round& r = good[(good.size() - 1) / 2];
  const double rate = (is_bandwidth(c) ? work.bytes : work.flop) / r.seconds / 1e9;
  const char* unit = ceiling_unit(c);
  const std::string of = std::string(ceiling_name(c));
  std::printf("%11.3f %10.1f %-8s %5.1f %%  %-22s %zu/%d", r.seconds * 1e3, rate, unit, r.share * 100, of.c_str(), good.size(), rounds);
  if (work.count > 0) std::printf("  %.2f %s", work.count / r.seconds, work.count_unit);
  std::printf("\n");
  std::fflush(stdout);
  if (csv_) {
    std::fprintf(csv_.get(), "%s,%.6g,%.6g,%s,%s,%.6g,%.4f,", quoted(name).c_str(), r.seconds, rate, unit, quoted(of).c_str(), r.reading / 1e9, r.share);
    if (work.count > 0) std::fprintf(csv_.get(), "%.6g,%s", work.count / r.seconds, work.count_unit);
    else std::fprintf(csv_.get(), ",");
    std::fprintf(csv_.get(), ",%zu,%d\n", good.size(), rounds);
    std::fflush(csv_.get());
  }
  return r.seconds;
}

}  // namespace bg::bench
