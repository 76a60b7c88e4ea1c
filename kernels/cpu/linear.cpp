// The matrix product, cut into blocks of y. y (T, N), x (T, D), w (N, D).
#include "kernels/cpu/cpu.h"

namespace bg::cpu {
namespace {

WeightKind kind_of(Type t) {
  switch (t) {
    case Type::f16: return kF16;
    case Type::bf16: return kBf16;
    case Type::q8_0: return kQ8_0;
    case Type::q4_k: return kQ4_K;
    case Type::q6_k: return kQ6_K;
    default: return kF32;
  }
}

// Blocks of kLinearRows × kLinearCols, those of the same weight rows next to each other so that they are still in a cache. With few rows of x
// a block is as many weight rows as make about 64 Ki products per row of x: a stream long enough to read at full speed. Quantised weights are turned
// into float in scratch whatever the number of rows.
void product(const Context& c, const LinearArgs& args, int64_t T, int64_t N) {
  const bool direct = T <= kLinearDirect && args.kind <= kBf16;
  int64_t cols = kLinearCols;
  if (direct) {
    cols = 65536 / args.D / 12 * 12;  // whole tiles of 3 and of 4 columns
    if (cols < 12) cols = 12;
  }
  const int64_t row_blocks = direct ? 1 : divide_up(T, kLinearRows);
  const int64_t rows = direct ? T : kLinearRows;
  c.threads.run(row_blocks * divide_up(N, cols), [&](int64_t block, int thread) {
    const int64_t t0 = block % row_blocks * rows, t1 = T - t0 < rows ? T : t0 + rows;
    const int64_t n0 = block / row_blocks * cols, n1 = N - n0 < cols ? N : n0 + cols;
    c.isa.linear_block(args, t0, t1, n0, n1, c.scratch_of(thread));
  });
}

}  // namespace

void linear(const Context& c, Tensor y, Tensor x, Weight w, const float* bias) {
  if (x.rows == 0 || w.rows == 0) return;
  product(c, {row(y, 0), y.stride, row(x, 0), x.stride, w.data, kind_of(w.type), w.cols, bias}, x.rows, w.rows);
}

void products(const Context& c, Tensor y, Tensor a, Tensor b) {
  if (a.rows == 0 || b.rows == 0) return;
  product(c, {row(y, 0), y.stride, row(a, 0), a.stride, b.data, kF32, b.cols, nullptr}, a.rows, b.rows);
}

}  // namespace bg::cpu
