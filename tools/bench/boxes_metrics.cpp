#include "tools/bench/boxes_metrics.h"

#include <algorithm>
#include <limits>

namespace tool {
namespace {

constexpr size_t kMostPaired = 200;

// Hungarian method with potentials, O(n²m), n ≤ m: for each row its column in the assignment of least total cost.
std::vector<size_t> assign(const std::vector<std::vector<double>>& cost) {
  const size_t n = cost.size(), m = cost[0].size(), none = 0;
  std::vector<double> u(n + 1, 0), v(m + 1, 0);
  std::vector<size_t> row_of(m + 1, none), way(m + 1, 0);  // rows and columns from 1, 0: none
  for (size_t i = 1; i <= n; ++i) {
    row_of[0] = i;
    size_t column = 0;
    std::vector<double> least(m + 1, std::numeric_limits<double>::infinity());
    std::vector<bool> used(m + 1, false);
    do {
      used[column] = true;
      const size_t row = row_of[column];
      double delta = std::numeric_limits<double>::infinity();
      size_t next = 0;
      for (size_t j = 1; j <= m; ++j) {
        if (used[j]) continue;
        const double reduced = cost[row - 1][j - 1] - u[row] - v[j];
        if (reduced < least[j]) least[j] = reduced, way[j] = column;
        if (least[j] < delta) delta = least[j], next = j;
      }
      for (size_t j = 0; j <= m; ++j) {
        if (used[j]) u[row_of[j]] += delta, v[j] -= delta;
        else least[j] -= delta;
      }
      column = next;
    } while (row_of[column] != none);
    for (; column != 0; column = way[column]) row_of[column] = row_of[way[column]];
  }
  std::vector<size_t> column_of(n);
  for (size_t j = 1; j <= m; ++j)
    if (row_of[j] != none) column_of[row_of[j] - 1] = j - 1;
  return column_of;
}

}  // namespace

double box_iou(const RecordBox& a, const RecordBox& b) {
  if (a.dimensions != b.dimensions || (a.medium >= 0 && b.medium >= 0 && a.medium != b.medium)) return 0;
  double both = 1, one = 1, other = 1;
  for (int i = 0; i < a.dimensions; ++i) {
    both *= std::max(0.0, std::min(a.high[i], b.high[i]) - std::max(a.low[i], b.low[i]));
    one *= a.high[i] - a.low[i];
    other *= b.high[i] - b.low[i];
  }
  return both > 0 ? both / (one + other - both) : 0;
}

std::vector<double> paired_iou(const std::vector<RecordBox>& reference, const std::vector<RecordBox>& predicted) {
  std::vector<double> result(reference.size(), 0);
  const size_t r = std::min(reference.size(), kMostPaired), p = std::min(predicted.size(), kMostPaired);
  if (r == 0 || p == 0) return result;
  const bool turned = r > p;
  const size_t n = std::min(r, p), m = std::max(r, p);
  std::vector<std::vector<double>> cost(n, std::vector<double>(m));
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < m; ++j) cost[i][j] = -box_iou(reference[turned ? j : i], predicted[turned ? i : j]);
  const std::vector<size_t> column = assign(cost);
  for (size_t i = 0; i < n; ++i) result[turned ? column[i] : i] = -cost[i][column[i]];
  for (double& x : result) x += 0.0;  // no −0
  return result;
}

RecordBox median_box(const std::vector<RecordBox>& boxes) {
  RecordBox middle = boxes.front();
  middle.medium = -1;
  const auto median = [&](auto coordinate) {
    std::vector<double> v;
    for (const RecordBox& b : boxes) v.push_back(coordinate(b));
    std::sort(v.begin(), v.end());
    return (v[(v.size() - 1) / 2] + v[v.size() / 2]) / 2;
  };
  for (int i = 0; i < middle.dimensions; ++i) {
    middle.low[i] = median([i](const RecordBox& b) { return b.low[i]; });
    middle.high[i] = median([i](const RecordBox& b) { return b.high[i]; });
  }
  return middle;
}

}  // namespace tool
