// Products of activations and the coverage selection. Its measure is one full L × L product of the same rows.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>

#include "tests/bench/coverage_rows.h"
#include "tests/bench/memory.h"
#include "tests/bench/parts.h"

namespace bg::bench {

std::vector<float> clustered_rows(int64_t N, int64_t width, int clusters) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> centres(size_t(clusters) * size_t(width)), v(static_cast<size_t>(N * width));
  for (float& x : centres) x = normal(random);
  for (int64_t i = 0; i < N; ++i) {
    const size_t c = clusters > 0 ? random() % size_t(clusters) : 0;
    const float noise = clusters > 0 ? 0.3f + 0.7f * float(random() % 1000) / 1000 : 1;
    for (int64_t d = 0; d < width; ++d) v[size_t(i * width + d)] = (clusters > 0 ? centres[c * size_t(width) + size_t(d)] : 0) + noise * normal(random);
  }
  return v;
}

namespace {

struct Selection {  // k of the rows of v; the matrix of similarities is kept where it has at most `allowed` bytes
  Selection(Ops& table, Tensor rows, int64_t k, size_t allowed)
      : ops(table), v(rows), index(static_cast<size_t>(k)), gain(static_cast<size_t>(k)), bytes(ops.coverage_scratch(v.rows, v.cols, 0, k, allowed)),
        scratch(ops.allocate(bytes)) {}
  ~Selection() { ops.release(scratch, bytes); }
  Selection(const Selection&) = delete;
  Selection& operator=(const Selection&) = delete;
  void run() { ops.coverage_select(index.data(), gain.data(), v, {nullptr, Type::f32, 0, v.cols, v.cols}, int64_t(index.size()), scratch, bytes, &report); }
  Ops& ops;
  Tensor v;
  std::vector<int64_t> index;
  std::vector<double> gain;
  size_t bytes;
  void* scratch;
  CoverageReport report;
};

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void select_rows(Report& report, Ops& ops, const std::string& name, int64_t L, int64_t width, int64_t k, int clusters) {
  if (!report.wants(name)) return;
  std::vector<float> data = clustered_rows(L, width, clusters);
  Selection selection(ops, {data.data(), Type::f32, L, width, width}, k, SIZE_MAX);
  Work work;
  work.flop = 2.0 * double(L) * double(L) * double(width);
  work.instructions = ceiling_of(report.options().isa, Precision::float32, Type::f32);
  report.measure(name, work, [&] { selection.run(); });
}

}  // namespace

double full_product_seconds(Ops& ops, Tensor v) {
  const int64_t slice = std::min<int64_t>(512, v.rows);
  std::vector<float> y(static_cast<size_t>(v.rows * slice));
  return seconds_of([&] { ops.products({y.data(), Type::f32, v.rows, slice, slice}, v, v.row_range(0, slice)); }) * double(v.rows) / double(slice);
}

void bench_coverage(Report& report, Ops& ops) {
  report.title("selection (FLOP of one full product L x L x width)");  // half of them is enough: it is symmetric
  const std::string product = "products 1024 x 512, 64 columns (concept scores)";
  if (report.wants(product)) {
    const Activations a(1024, 512), b(64, 512), y(1024, 64);
    Work work;
    work.flop = 2.0 * 1024 * 512 * 64;
    work.instructions = ceiling_of(report.options().isa, Precision::float32, Type::f32);
    report.measure(product, work, [&] { ops.products(y.t, a.t, b.t); });
  }
  select_rows(report, ops, "coverage 64 of 1024, width 4096 (8B picture)", 1024, 4096, 64, 40);
  select_rows(report, ops, "coverage 64 of 1024, width 2560 (4B picture)", 1024, 2560, 64, 40);
  select_rows(report, ops, "coverage 128 of 6000, width 769 (slide)", 6000, 769, 128, 400);
}

void coverage_table(Ops& ops, int64_t N) {
  const int64_t width = 769, kept = 128;
  std::printf("\ncoverage %lld of %lld tiles, width %lld\n", (long long)kept, (long long)N, (long long)width);
  std::printf("%-26s %10s %10s %8s %14s %10s\n", "rows", "seconds", "product s", "ratio", "evaluations/N", "peak GB");
  for (const bool stored : {false, true}) {
    if (stored && N > 30000) continue;
    for (const int clusters : {40, 400, 0}) {
      std::vector<float> data = clustered_rows(N, width, clusters);
      const Tensor v{data.data(), Type::f32, N, width, width};
      const double before = full_product_seconds(ops, v);
      Selection selection(ops, v, kept, stored ? SIZE_MAX : 0);
      const double seconds = seconds_of([&] { selection.run(); });
      const double product = (before + full_product_seconds(ops, v)) / 2;
      const std::string name = (clusters > 0 ? std::to_string(clusters) + " clusters" : std::string("independent")) + (stored ? ", matrix stored" : "");
      const double passes = double(selection.report.evaluations) / double(N);
      std::printf("%-26s %10.2f %10.2f %8.2f %14.1f %10.2f\n", name.c_str(), seconds, product, seconds / product, passes, peak_gigabytes());
      std::fflush(stdout);
    }
  }
}

}  // namespace bg::bench
