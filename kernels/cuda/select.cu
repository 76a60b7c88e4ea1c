// The learned selector's scores of visual tokens.
//   concept_scores  32 columns × a 64th of the rows a block of 256; then 32 columns, then a row, a warp. 16 bytes a score, z being written once.
// Not measured yet. Sums in double: of a thread, of the warps, of the blocks, each in ascending order.
#include <math.h>

#include "kernels/cuda/cuda.h"

namespace bg::BG_CUDA {
namespace {

constexpr int kThreads = 256;

constexpr int kParts = 64, kColumns = 32, kLanes = kThreads / kColumns;  // of the rows; columns of a block, and threads of each

// Of each column: 1/Σ e^(z − max); then, of each part of the rows, its maximum and sum.
struct Columns {
  double* inverse;  // (columns)
  double* sum;      // (kParts, columns)
  float* most;      // (kParts, columns)
};
Columns columns_in(void* scratch, int64_t n) {
  double* inverse = static_cast<double*>(scratch);
  return {inverse, inverse + n, reinterpret_cast<float*>(inverse + (1 + kParts) * n)};
}
int64_t rows_of_part(int64_t rows) { return divide_up(rows, int64_t(kParts)); }

// A block's threads: column `c` of it and lane `lane` of that column. f over its lanes, ascending, on lane 0.
template <class T, class F>
__device__ inline T over_lanes(T value, int c, int lane, F f) {
  SIMT_SHARED(T, of_thread, kThreads);
  of_thread[lane * kColumns + c] = value;
  __syncthreads();
  if (lane > 0) return value;
  for (int i = 1; i < kLanes; ++i) value = f(value, of_thread[i * kColumns + c]);
  return value;
}

// Block (32 columns, part of the rows): the maximum, NaN apart.
__global__ void __launch_bounds__(kThreads) column_maxima(Columns to, Rows z, int64_t part_rows) {
  const int c = int(threadIdx.x % kColumns), lane = int(threadIdx.x / kColumns);
  const int64_t column = int64_t(blockIdx.x) * kColumns + c, first = blockIdx.y * part_rows, end = first + part_rows < z.rows ? first + part_rows : z.rows;
  float most = -INFINITY;
  if (column < z.cols)
    for (int64_t l = first + lane; l < end; l += kLanes) most = fmaxf(most, z.data[l * z.stride + column]);
  most = over_lanes(most, c, lane, [](float a, float b) { return fmaxf(a, b); });
  if (lane == 0 && column < z.cols) to.most[blockIdx.y * z.cols + column] = most;
}

// z ← e^(z − max_l z), and of each part of the rows its sum.
__global__ void __launch_bounds__(kThreads) column_sums(Columns to, Rows z, int64_t part_rows) {
  SIMT_SHARED(float, most, kColumns);
  const int c = int(threadIdx.x % kColumns), lane = int(threadIdx.x / kColumns);
  const int64_t column = int64_t(blockIdx.x) * kColumns + c, first = blockIdx.y * part_rows, end = first + part_rows < z.rows ? first + part_rows : z.rows;
  float mine = -INFINITY;
  if (column < z.cols)
    for (int64_t p = lane; p < gridDim.y; p += kLanes) mine = fmaxf(mine, to.most[p * z.cols + column]);
  mine = over_lanes(mine, c, lane, [](float a, float b) { return fmaxf(a, b); });
  if (lane == 0) most[c] = mine;
  __syncthreads();
  double sum = 0;
  if (column < z.cols) {
    for (int64_t l = first + lane; l < end; l += kLanes) {
      float& at = z.data[l * z.stride + column];
      at = expf(at - most[c]);
      sum += double(at);
    }
  }
  sum = over_lanes(sum, c, lane, [](double a, double b) { return a + b; });
  if (lane == 0 && column < z.cols) to.sum[blockIdx.y * z.cols + column] = sum;
}

__global__ void __launch_bounds__(kThreads) invert_sums(Columns to, int64_t columns, int64_t parts) {
  const int64_t column = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= columns) return;
  double sum = 0;
  for (int64_t p = 0; p < parts; ++p) sum += to.sum[p * columns + column];
  to.inverse[column] = 1 / sum;
}

// y_l = ln max(1e-8, 1/H·Σ_h max_c e·inverse), a warp a row. A NaN is never the larger one.
__global__ void __launch_bounds__(kThreads) score_rows(Rows y, Rows z, const double* inverse, int64_t heads) {
  const int64_t l = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32, concepts = z.cols / heads;
  if (l >= z.rows) return;
  double sum = 0;
  for (int64_t h = 0; h < heads; ++h) {
    double best = 0;
    for (int64_t c = h * concepts + threadIdx.x % 32; c < (h + 1) * concepts; c += 32) {
      const double p = double(z.data[l * z.stride + c]) * inverse[c];
      best = p > best ? p : best;
    }
    for (int o = 16; o > 0; o /= 2) {
      const double other = __shfl_xor_sync(0xffffffffu, best, o);
      best = other > best ? other : best;
    }
    sum += best;
  }
  if (threadIdx.x % 32 > 0) return;
  const double mean = sum / double(heads);
  y.data[l * y.stride] = float(log(mean > 1e-8 ? mean : 1e-8));
}

}  // namespace

size_t concept_scratch(int64_t columns) { return size_t(columns) * (sizeof(double) + kParts * (sizeof(double) + sizeof(float))); }

void concept_scores(const Context& c, Tensor y, Tensor z, int64_t heads, void* scratch) {
  const Rows scores = rows_of(z);
  const Columns columns = columns_in(scratch, z.cols);
  const int64_t part_rows = rows_of_part(z.rows), parts = divide_up(z.rows, part_rows);
  const dim3 grid{unsigned(divide_up(z.cols, int64_t(kColumns))), unsigned(parts)};
  BG_LAUNCH(c.device, (column_maxima), grid, kThreads, 0, columns, scores, part_rows);
  BG_LAUNCH(c.device, (column_sums), grid, kThreads, 0, columns, scores, part_rows);
  BG_LAUNCH(c.device, (invert_sums), dim3(unsigned(divide_up(z.cols, int64_t(kThreads)))), kThreads, 0, columns, z.cols, parts);
  BG_LAUNCH(c.device, (score_rows), dim3(unsigned(divide_up(z.rows, int64_t(kThreads / 32)))), kThreads, 0, rows_of(y), scores, columns.inverse, heads);
}

}  // namespace bg::BG_CUDA
