// The largest logits of a row and what their shares are of. One thread passes over the row and keeps what may be among the k largest; e^x, where the time goes, is
// shared out in kParts parts of the row.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/half.h"

namespace bg::cpu {
namespace {

constexpr int64_t kParts = 64;

// Logit j as a number that orders as the logit does, and before a later one where they are equal.
uint64_t key_of(float logit, int64_t j) {
  const uint32_t bits = bits_of_float(logit + 0.0f), ordered = bits >> 31 ? ~bits : bits | 0x80000000u;  // −0 becomes 0
  return uint64_t(ordered) << 32 | uint32_t(~uint32_t(j));
}

// The k largest keys so far are among keys[0 … n); what is below `least` is not among them.
struct Largest {
  uint64_t keys[4 * kMostCandidates];
  int64_t n = 0, k;
  uint64_t least = 0;

  explicit Largest(int64_t k_) : k(k_) {}
  void add(uint64_t key) {
    if (key < least) return;
    keys[n++] = key;
    if (n == 4 * kMostCandidates) cut();
  }
  void cut() {
    std::nth_element(keys, keys + k - 1, keys + n, std::greater<>());
    n = k;
    least = keys[k - 1];
  }
};

}  // namespace

double candidates(const Context& c, Candidate* found, Tensor logits, int64_t k, double temperature) {
  const float* z = row(logits, 0);
  const int64_t V = logits.cols;
  Largest largest(k);
  for (int64_t j = 0; j < V; ++j) {
    if (!std::isfinite(z[j])) return 0;
    largest.add(key_of(z[j], j));
  }
  largest.cut();
  std::sort(largest.keys, largest.keys + k, std::greater<>());
  for (int64_t i = 0; i < k; ++i) {
    found[i].id = int32_t(~uint32_t(largest.keys[i]));
    found[i].logit = double(z[found[i].id]);
  }
  const double most = found[0].logit;
  double sums[kParts], sum = 0;
  const int64_t part = divide_up(V, kParts);
  c.threads.run(kParts, [&](int64_t p, int) {
    sums[p] = 0;
    for (int64_t j = p * part; j < V && j < (p + 1) * part; ++j) sums[p] += std::exp((double(z[j]) - most) / temperature);
  });
  for (const double s : sums) sum += s;
  return sum;
}

}  // namespace bg::cpu
