// Rows in and out, by index, from tables, into caches: bytes move, nearly nothing is computed.
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/values.h"

namespace bg::BG_CUDA {
namespace {

constexpr int kThreads = 256;

enum class Move { copy, gather, scatter, scatter_add };

// One block a row, in x.
template <Move M>
__global__ void __launch_bounds__(kThreads) move_rows(Rows y, Rows x, const int64_t* index) {
  const int64_t t = blockIdx.x, from = M == Move::gather ? index[t] : t, to = M == Move::scatter || M == Move::scatter_add ? index[t] : t;
  for (int64_t j = threadIdx.x; j < x.cols; j += kThreads) {
    float& at = y.data[to * y.stride + j];
    const float value = x.data[from * x.stride + j];
    at = M == Move::scatter_add ? at + value : value;
  }
}

// y_t = w_ids[t], one block a row.
template <class Reader>
__global__ void __launch_bounds__(kThreads) embed_rows(Rows y, Reader w, const int32_t* ids) {
  const int64_t t = blockIdx.x, n = ids[t];
  for (int64_t j = threadIdx.x; j < y.cols; j += kThreads) y.data[t * y.stride + j] = w(n, j);
}

// y_t += Σ_{i<4} weight[4t+i]·table_{index[4t+i]}, ascending i
template <class Reader>
__global__ void __launch_bounds__(kThreads) interpolate_rows(Rows y, Reader table, const int32_t* index, const float* weight) {
  const int64_t t = blockIdx.x;
  for (int64_t j = threadIdx.x; j < y.cols; j += kThreads) {
    float sum = y.data[t * y.stride + j];
    for (int i = 0; i < 4; ++i) sum = fmaf(weight[4 * t + i], table(index[4 * t + i], j), sum);
    y.data[t * y.stride + j] = sum;
  }
}

__global__ void __launch_bounds__(kThreads) round_rows_bf16(uint16_t* y, int64_t stride, Rows x) {
  const int64_t t = blockIdx.x;
  for (int64_t j = threadIdx.x; j < x.cols; j += kThreads) y[t * stride + j] = uint16_t(simt::pack_bf16(x.data[t * x.stride + j], 0));
}

// A warp a block of 32 values: d = max|x|/127 as f16, q = x/d to nearest, in ±127.
__global__ void __launch_bounds__(kThreads) round_rows_q8_0(char* y, int64_t row_bytes, Rows x) {
  const int64_t t = blockIdx.x;
  const int lane = int(threadIdx.x % 32);
  for (int64_t b = threadIdx.x / 32; b < x.cols / 32; b += kThreads / 32) store_q8_0(y + t * row_bytes + 34 * b, x.data[t * x.stride + 32 * b + lane], lane);
}

template <Move M>
void move(const Context& c, Tensor y, Tensor x, const int64_t* index) {
  const int64_t rows = M == Move::gather ? y.rows : x.rows, most = int64_t(kIndexBytes / sizeof(int64_t));
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t n = rows - first < most ? rows - first : most;
    if (M != Move::copy) c.give(c.index, index + first, size_t(n) * sizeof(int64_t));
    if (c.replaying) continue;
    const Tensor to = M == Move::gather || M == Move::copy ? y.row_range(first, n) : y, from = M == Move::gather ? x : x.row_range(first, n);
    BG_LAUNCH(c.device, (move_rows<M>), dim3(unsigned(n)), kThreads, 0, rows_of(to), rows_of(from), reinterpret_cast<const int64_t*>(c.index));
  }
}

}  // namespace

void write(const Context& c, Tensor y, const float* x) {
  const size_t row = size_t(y.cols) * sizeof(float);
  if (y.stride == y.cols) return c.give(y.data, x, size_t(y.rows) * row);
  for (int64_t t = 0; t < y.rows; ++t) c.give(y.row_range(t, 1).data, x + t * y.cols, row);
}

void read(const Context& c, float* y, Tensor x) {
  const size_t row = size_t(x.cols) * sizeof(float);
  if (x.stride == x.cols) return c.device.download(y, x.data, size_t(x.rows) * row);
  for (int64_t t = 0; t < x.rows; ++t) c.device.download(y + t * x.cols, x.row_range(t, 1).data, row);
}

// The floats come into the second half of y, and are widened from the front: none is overwritten before it is read.
void read(const Context& c, double* y, Tensor x) {
  const int64_t n = x.rows * x.cols;
  float* half = reinterpret_cast<float*>(y) + n;
  read(c, half, x);
  for (int64_t i = 0; i < n; ++i) {
    float f;
    memcpy(&f, half + i, sizeof f);
    const double value = f;
    memcpy(y + i, &value, sizeof value);
  }
}

void copy(const Context& c, Tensor y, Tensor x) {
  if (x.rows == 0) return;
  const dim3 grid{unsigned(x.rows)};
  if (y.type == Type::f32) return move<Move::copy>(c, y, x, nullptr);
  if (y.type == Type::bf16) {
    BG_LAUNCH(c.device, (round_rows_bf16), grid, kThreads, 0, static_cast<uint16_t*>(y.data), y.stride, rows_of(x));
  } else {
    BG_LAUNCH(c.device, (round_rows_q8_0), grid, kThreads, 0, static_cast<char*>(y.data), int64_t(stored_bytes(y.type, y.stride)), rows_of(x));
  }
}

void gather_rows(const Context& c, Tensor y, Tensor x, const int64_t* index) { move<Move::gather>(c, y, x, index); }
void scatter_rows(const Context& c, Tensor y, Tensor x, const int64_t* index) { move<Move::scatter>(c, y, x, index); }
void scatter_add_rows(const Context& c, Tensor y, Tensor x, const int64_t* index) { move<Move::scatter_add>(c, y, x, index); }

void embed(const Context& c, Tensor y, Weight w, const int32_t* ids) {
  const int64_t most = int64_t(kIndexBytes / sizeof(int32_t));
  for (int64_t first = 0; first < y.rows; first += most) {
    const int64_t n = y.rows - first < most ? y.rows - first : most;
    c.give(c.index, ids + first, size_t(n) * sizeof(int32_t));
    if (c.replaying) continue;
    const Rows to = rows_of(y.row_range(first, n));
    with_reader(w, [&](auto reader) { BG_LAUNCH(c.device, (embed_rows<decltype(reader)>), dim3(unsigned(n)), kThreads, 0, to, reader, reinterpret_cast<const int32_t*>(c.index)); });
  }
}

void add_interpolated(const Context& c, Tensor y, Weight table, const int32_t* index, const float* weight) {
  const int64_t most = int64_t(kIndexBytes / (4 * (sizeof(int32_t) + sizeof(float))));
  for (int64_t first = 0; first < y.rows; first += most) {
    const int64_t n = y.rows - first < most ? y.rows - first : most;
    char* weights = c.index + size_t(4 * n) * sizeof(int32_t);
    c.give(c.index, index + 4 * first, size_t(4 * n) * sizeof(int32_t));
    c.give(weights, weight + 4 * first, size_t(4 * n) * sizeof(float));
    if (c.replaying) continue;
    const Rows to = rows_of(y.row_range(first, n));
    with_reader(table, [&](auto reader) {
      BG_LAUNCH(c.device, (interpolate_rows<decltype(reader)>), dim3(unsigned(n)), kThreads, 0, to, reader, reinterpret_cast<const int32_t*>(c.index),
                reinterpret_cast<const float*>(weights));
    });
  }
}

}  // namespace bg::BG_CUDA
