// The contract of every operation: equation, shapes, aliasing, accumulation, order of summation, error bound.
// Model code (runtime/) is written once against this table; each backend implements all of it:
//   kernels/ref/  plain loops in float or double: the definition
//   kernels/cpu/  SIMD and threads
//   kernels/cuda/ a GPU, or its emulation on the CPU
// Not here: tensor names, files, the model.
//
// Shape letters, everywhere in the project: T tokens, D width, H heads, K kv heads, d head dim, F ffn, P patches, L visual tokens before
// selection, k kept tokens, m text rows, N outputs of a product (or tiles of a slide), V vocabulary.
//
// Rules for every operation
// - Output argument first. Matrices are row-major. Unless an entry says so, outputs must not overlap inputs.
// - Every output element is computed by one thread in an order fixed by the shapes alone, so that results are the same bits for any number of
//   threads, any tiling and any split of the rows (a row's result never depends on which other rows are in the call).
// - u = 2^-24 for float, 2^-53 for double. A bound c·n·u·Σ|terms| is against exact arithmetic on the given inputs, to first order in u (a sum of n
//   products in any order: n·u·Σ|terms|), where nothing overflows; an intermediate below 2^-120 may count as 0.
// - No operation allocates memory: scratch is passed in, its size asked for before, or belongs to the table (fixed_bytes). ref keeps a row of weights, or of logits, of its own.
// - Several threads may call one table at a time on memory of their own.
#pragma once
#include <cstddef>
#include <cstdint>

namespace bg {

// Element types. The numbers are GGUF's (ggml_type), so a file's tensor type is one of these or refused.
// q8_0, q4_k and q6_k store blocks of neighbouring values of a row (layouts and equations: kernels/blocks.h); only weights may have these types.
enum class Type : uint32_t { f32 = 0, f16 = 1, q8_0 = 8, q4_k = 12, q6_k = 14, f64 = 28, bf16 = 30 };

constexpr int64_t block_values(Type t) { return t == Type::q8_0 ? 32 : t == Type::q4_k || t == Type::q6_k ? 256 : 1; }
constexpr bool is_quantised(Type t) { return block_values(t) > 1; }
// Bytes of one block; of one element where a type has no blocks.
constexpr size_t block_bytes(Type t) {
  return t == Type::f64 ? 8 : t == Type::f32 ? 4 : t == Type::q8_0 ? 34 : t == Type::q4_k ? 144 : t == Type::q6_k ? 210 : 2;
}
constexpr size_t stored_bytes(Type t, int64_t n) { return size_t(n / block_values(t)) * block_bytes(t); }  // n values, whole blocks
constexpr size_t type_size(Type t) { return block_bytes(t); }                                              // of an activation's element
const char* type_name(Type t);  // "F32", "F16", "BF16", "F64", "Q8_0", "Q4_K", "Q6_K"

// Activations: a (rows, cols) view of f32 or f64 elements (the backend's type()), `stride` elements from one row to the next.
// Keys and values of a cache may also be bf16 or q8_0 (then cols, stride and every column range are whole blocks of 32): `copy` rounds them into it.
struct Tensor {
  void* data = nullptr;
  Type type = Type::f32;
  int64_t rows = 0, cols = 0, stride = 0;

  Tensor row_range(int64_t first, int64_t count) const { return {static_cast<char*>(data) + stored_bytes(type, first * stride), type, count, cols, stride}; }
  // Part n of `parts` equal ones, one after the other: the rows of a head in a cache.
  Tensor part(int64_t n, int64_t parts) const { return row_range(n * (rows / parts), rows / parts); }
  Tensor col_range(int64_t first, int64_t count) const { return {static_cast<char*>(data) + stored_bytes(type, first), type, rows, count, stride}; }
  // The same memory as (rows·n, cols/n): heads as rows, for norms over a head. Needs stride == cols.
  Tensor split_rows(int64_t n) const { return {data, type, rows * n, cols / n, cols / n}; }
  // (rows/n, cols·n): n neighbouring rows side by side (the merger's 2×2 blocks). Needs stride == cols.
  Tensor join_rows(int64_t n) const { return {data, type, rows / n, cols * n, cols * n}; }
};

// Weights: (rows, cols) = (outputs, inputs), contiguous, any type but f64, usually memory-mapped; never written.
// cols is a multiple of block_values(type), so a row is whole blocks. What a quantised weight w_nj is: the float that kernels/blocks.h gives.
// rows: one row after the other, as published, at any even address. panels: sixteen rows side by side, the order in which the CPU kernels read them
// (kernels/panels.h), at a multiple of 64. The same values in another place: every operation takes both and gives the same bits.
enum class Layout : uint32_t { rows, panels };
struct Weight {
  const void* data = nullptr;
  Type type = Type::f32;
  int64_t rows = 0, cols = 0;
  Layout layout = Layout::rows;
};

// One product of several that share their x, and what becomes of it.
enum class Then { store, add, gelu_tanh, gelu_erf };  // y = p; y += p; y = gelu(p), with p = x·wᵀ + bias
struct Product {
  Tensor y;                      // (T, N)
  Weight w;                      // (N, D)
  const float* bias = nullptr;   // (N) or none
  Then then = Then::store;
};

// How exactly products and attention are computed.
//   float32  activations and sums in float32, weights as stored
//   fast     the instructions that the machine has for it: activations may be rounded to bf16, or to int8 in blocks for quantised weights (ops.h, linear
//            and attention, has both bounds)
enum class Precision { fast, float32 };

// What a product is part of. A row's bits depend on it, where the fastest way for many rows (prompt, pictures) is not the fastest for one token after
// the other (step): never on how many rows a call has. So a prompt may be cut into any chunks.
enum class Phase { prompt, step };

// One pair of dilated attention: rows are cut into segments, and of a segment a head keeps every dilation-th row.
struct Dilation {
  int64_t segment = 1, dilation = 1;  // rows, both ≥ 1
};
constexpr int64_t kMostDilations = 4;

// What a coverage selection was like.
struct CoverageReport {
  double most = 0;          // Σ_i max_j C_ij: what all columns together would gain, to rounding
  int64_t evaluations = 0;  // gains of columns that were computed; the plain definition computes L + (L−1) + … + (L−k+1)
};

// The likeliest token of a row of logits.
struct Likeliest {
  int32_t id = 0;       // of the largest logit, the lowest on a tie
  double logprob = 0;   // ln softmax(logits)_id
  bool finite = true;   // whether every logit is; else the others mean nothing
  double logit = 0;     // the largest
};

// One of the largest of a row of logits.
struct Candidate {
  double logit = 0;
  int32_t id = 0;
};
constexpr int64_t kMostCandidates = 1024;

class Ops {
 public:
  virtual ~Ops() = default;
  virtual const char* name() const = 0;  // "ref", "ref64", "cpu/avx2", "cpu/portable"
  virtual Type type() const = 0;         // f32 or f64: the type of every Tensor given to this table

  // Memory of the backend's device. Zero-filled, 64-byte aligned. nullptr when there is none left.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* p, size_t bytes) = 0;
  virtual size_t fixed_bytes() const { return 0; }      // scratch that the table took when it was made
  virtual void write(Tensor y, const float* x) = 0;     // y_tj = x[t·cols + j], host to device
  virtual void read(float* y, Tensor x) = 0;            // y[t·cols + j] = x_tj rounded to float, device to host
  virtual void read(double* y, Tensor x) = 0;           // the same, exact
  // Tables whose memory the host cannot read. Weights, norms and biases given to operations must then lie in memory of theirs.
  virtual bool on_device() const { return false; }
  virtual void upload(void* to, const void* from, size_t bytes);  // host to the backend's memory; `from` may change afterwards
  // So many bytes of the device through which products of many rows take weights that stay with the host, rather than read them over the bus again and again (never
  // more than once). The same bits; where the device has not so much, or a piece is too small, they are read where they lie.
  virtual void take_pieces(size_t bytes) { (void)bytes; }
  // Around the operations of one token after the other: each time the same ones on the same tensors, but for what the host gives (ids, write) and `past` of
  // rotate_into_cache and attention_causal, which is this one. A device keeps them as one graph. Nothing may be read in between. forget_steps: other tensors now.
  virtual void begin_step(int64_t past) { (void)past; }
  virtual void end_step() {}
  virtual void forget_steps() {}

  // y = x (T, D). y may be of a cache's type: bf16 nearest, ties to even; q8_0 per block of 32 d = max|x|/127 as f16, q = x/d to nearest, in ±127.
  virtual void copy(Tensor y, Tensor x) = 0;

  // Rows by index. index: T (or x.rows) row numbers, host memory, each inside the other tensor (checked by the caller), without repetition for the two scatters.
  virtual void gather_rows(Tensor y, Tensor x, const int64_t* index) = 0;       // y_t = x_{index[t]}
  virtual void scatter_rows(Tensor y, Tensor x, const int64_t* index) = 0;      // y_{index[t]} = x_t
  virtual void scatter_add_rows(Tensor y, Tensor x, const int64_t* index) = 0;  // y_{index[t]} += x_t
  // y_t = w_{ids[t]}: token embeddings; y (T, D), w (V, D), exact for every type of w.
  virtual void embed(Tensor y, Weight w, const int32_t* ids) = 0;
  // y_t += Σ_{j<4} weight[4t+j] · table_{index[4t+j]}: bilinear interpolation of learned positions, in ascending j. Bound 8·u·Σ|terms|.
  virtual void add_interpolated(Tensor y, Weight table, const int32_t* index, const float* weight) = 0;

  // For each of n products: p_tn = Σ_j x_tj · w_nj + bias_n, then y = p, y += p or y = gelu(p).  y (T, N), x (T, D), w (N, D), bias (N) float or nullptr.
  // Bound of p, Precision::float32: (D + 2)·u·(Σ_j |x_tj·w_nj| + |bias_n|); a quantised w gives the same bits as the F32 matrix of its values.
  // A GPU's order is its own: chains of 256 inputs, added in ascending order; with cuBLASLt (make_cuda_ops) also quantised weights are rounded to bf16 from 256 rows on,
  // 2^−7·(1 + 2^−9)·Σ_j |x_tj·w_nj|.
  // Precision::fast adds what rounding the activations may change:
  //   BF16 weights, where the machine multiplies bf16: x to the nearest bf16 (eight bits), 2^−8·Σ_j |x_tj·w_nj|. With AMX quantised weights in Phase::prompt too, with
  //   their values to the nearest bf16: 2^−7·(1 + 2^−9)·Σ_j |x_tj·w_nj|.
  //   On a GPU BF16 and quantised weights, in both phases: x to the nearest bf16, 2^−8·Σ_j |x_tj·w_nj|; its tensor cores cut what they add, so the sums have
  //   (2·D + 64)·u instead of (D + 2)·u (kernels/cuda/linear.h).
  //   Otherwise, Q8_0: x in blocks of 32 to the nearest multiple of d = max|x|/127, Σ_blocks d/2·(1 + 2^−15)·Σ_j |w_nj|.  Q4_K, Q6_K: the same in blocks of 256.
  //   Q4_K's w counts as its two terms, |d·s·q| + |dmin·m|, here and on a GPU, in both sums.
  // Integer sums are exact and the few float steps per block are in one order: Phase::step with quantised weights is the same bits on every instruction set
  // that has FMA, and so is Phase::prompt on all but AMX.
  virtual void linear(Tensor x, const Product* products, int64_t n, Phase phase = Phase::prompt) = 0;
  void linear(Tensor y, Tensor x, Weight w, const float* bias) {
    const Product p{y, w, bias, Then::store};
    linear(x, &p, 1);
  }
  // y = silu(x·gateᵀ)·(x·upᵀ): linear twice, then silu_mul.  y (T, F), x (T, D), gate and up (F, D) of one type and layout. Bounds of linear and silu_mul together.
  virtual void gated(Tensor y, Tensor x, Weight gate, Weight up, Phase phase = Phase::prompt) = 0;
  // y_td = (x_td − mean_t)/√(var_t + eps) · w_d + b_d, var the mean square deviation; sums in double for float, or in pairs of floats (to 2^−40). y may be x. w, b (D).
  // Bound 8·u·(|normalised·w| + |b| + |w|·max_d|x_td|/√(var_t + eps)).
  virtual void layer_norm(Tensor y, Tensor x, const float* w, const float* b, float eps) = 0;
  // y_td = x_td/√(mean_d(x_td²) + eps) · w_d; the sum in double for float, or in pairs of floats. y may be x. Bound 8·u·|y_td|.
  virtual void rms_norm(Tensor y, Tensor x, const float* w, float eps) = 0;
  // Element by element; y may be x (silu_mul: y may be gate or up).
  virtual void gelu_tanh(Tensor y, Tensor x) = 0;               // x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))      bound 16·u·(|x| + |y|)
  virtual void gelu_erf(Tensor y, Tensor x) = 0;                // x/2·(1 + erf(x/√2))                            bound 16·u·(|x| + |y|)
  virtual void silu_mul(Tensor y, Tensor gate, Tensor up) = 0;  // gate/(1 + e^−gate) · up                        bound 16·u·|y|
  virtual void add(Tensor y, Tensor x) = 0;                     // y += x, exact rounding

  // Half-split rotation in place, per row t and head h: (a, b) = the halves of y_th (d = cols/heads numbers);
  // a' = a·cos_t − b·sin_t, b' = b·cos_t + a·sin_t.  cos, sin (T, d/2). Bound 3·u·(|a·cos| + |b·sin|).
  virtual void rotary(Tensor y, int64_t heads, Tensor cos, Tensor sin) = 0;

  // A cache: keys and values (K·context, d), head after head, so that each is read like a matrix; head n is part(n, K), row s of it the token s.
  // What becomes of the products of T new tokens: per head q = rotary(rms_norm(q, wq)), k = rotary(rms_norm(k, wk)), in place; then rows past … past + T − 1 of
  // each head of the cache = k, v, as copy writes them. q (T, H·d), k, v (T, K·d), strides free, wq, wk (d).
  virtual void rotate_into_cache(Tensor keys, Tensor values, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk, float eps,
                                 Tensor cos, Tensor sin, int64_t past);

  // Full attention inside consecutive blocks of `frame` rows (T a multiple of it), per head, scale 1/√d:
  // o_t = Σ_s softmax_s(q_t·k_s/√d)·v_s, s over t's frame.  o, q, k, v (T, H·d), strides free.
  // Bound (with p the exact weights, A = max_s Σ_j|q_j·k_j|/√d): u·(2·(d + 4)·A + 2·T_frame + 16)·Σ_s p_s·|v_s|. d ≤ 256.
  // (A score is off by (d + 2)·u·A, minus the maximum by 2·u·A more, once in p and once in Σ p; T_frame roundings in either sum: rescaling at a block's start
  // or a span's end costs a few, but Σ p of a block begins anew; 16: e^x, division.)
  // Precision::fast may round q, k, v and the unnormalised p to bf16, e = 2^−8: adds (4·e·A + 2.25·e)·Σ_s p_s·|v_s|, in every attention below (q and k:
  // 2·e·A in a score, once in p and once in Σ p; p and v: e each; e^x to 2^−13, twice: e/8; e/8 for second order in all but A). Inputs must be finite then.
  // A GPU's tensor cores cut what they add: there every term in u counts twice. A row whose scores are all −∞ gives 0.
  virtual void attention_frames(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame) = 0;
  // Causal grouped-query attention over a cache (rotate_into_cache): row t of q sees rows 0 … past + t of kv head h div (H/K), h its query head; what lies
  // behind row past + T − 1 of a head is not read. o, q (T, H·d); k, v (K·context, d), context ≥ past + T, of type(), or of a cache's type (the values stored are
  // what counts). Same equation, scale and bound, T_frame = past + t + 1. Same bits however a prompt is cut into calls.
  virtual void attention_causal(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past) = 0;

  // Dilated attention (LongNet, arXiv 2307.02486; MODEL.md §2): o_t = Σ_p w_p·o_tp with w = softmax_p(s_tp), per head, over n ≤ kMostDilations pairs
  // p = (g, r). T is padded with zero rows to a multiple of g and cut into segments of g rows, a segment is padded with zero rows to a multiple of r.
  // Head h belongs to group j = h div ⌈H/r⌉, which keeps rows j, j + r, j + 2r, … of every segment. For a kept row t, over the kept rows i of its segment,
  //   z_i = q_t·k_i/√d,  o_tp = Σ_i e^(z_i)·v_i / Σ_i e^(z_i),  s_tp = ln Σ_i e^(z_i);  zero rows are keys too: z = 0, v = 0.
  // A row that the group does not keep has o_tp = 0, s_tp = −1e8. An s_tp of exactly 0 is replaced by −1e8 (the reference's mark of a missing row).
  // o, q, k, v (T, H·d), strides free; pairs in host memory. d ≤ 256. Segments stand alone: T may be cut at a common multiple of all g.
  // Bound, with A = max_i Σ_j|q_j·k_ij|/√d and S = keys (the largest of the pairs), p the exact weights inside a pair, where no s lies within its error of 0:
  //   u·(4·(d + 6)·A + 7·S + 12·n + 40)·Σ_p w_p·Σ_i p_i·|v_i|.
  // (o_tp: as attention_frames. s_tp: scores (d + 2)·A, minus the maximum 2·A, e^x and sum S + 4, ln and its addition A + 2·ln S, all below (d + 5)·A + 2·S + 6;
  // s − max s: 2·A + ln S, once in w and once in Σ w; 12 for each pair and 40: e^x, the running sums, divisions.)
  // Precision::fast: s_tp may be off by 2·e·A + e/16, once in w and once in Σ w: adds (8·e·A + 2.5·e) instead.
  virtual void attention_dilated(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n) = 0;

  // y_tn = Σ_j a_tj·b_nj: two activations, y = a·bᵀ.  y (T, N), a (T, D), b (N, D) with stride == cols. Bound (D + 2)·u·Σ_j |a_tj·b_nj|.
  virtual void products(Tensor y, Tensor a, Tensor b) = 0;
  virtual void scale(Tensor y, double a) = 0;  // y *= a, a rounded to type(). Bound 2·u·|y|
  virtual Likeliest likeliest(Tensor logits) = 0;  // (1, V); e^x and their sum in double: logprob within (V + 8)·2^-53·(1 + max − min)
  // found[0 … k): the k largest of logits (1, V), falling, the lowest id first on a tie (−0 is 0); k ≤ min(V, kMostCandidates). Returns what their shares are of:
  // Σ_i e^((x_i − max)/temperature) over the whole row, in double, in an order that V fixes: relatively within (V + 8 + 2·(max − min)/temperature)·2^-53.
  // 0: a logit is not finite, and found means nothing.
  virtual double candidates(Candidate* found, Tensor logits, int64_t k, double temperature) = 0;
  // Of (1, V), for n ids, each once: x_id /= penalty where it is above 0, else x_id *= penalty; in double, at most the largest finite number, rounded once to type().
  virtual void penalise(Tensor logits, const int32_t* ids, int64_t n, double penalty) = 0;

  // ConceptSelector's scores (MODEL.md §3b): y_l = ln max(1e-8, 1/H·Σ_h max_c p_{l,h,c}), p = softmax over the rows l of column (h, c) of z.
  // y (L, 1), z (L, H·C) with column h·C + c, overwritten. Sums in double, in an order that the shapes fix. A column that holds a NaN counts as p = 0.
  // scratch: concept_scratch(H·C) bytes of the backend's memory, 64-byte aligned. Bound u·(4·max|z| + 8 + |y|)
  // (minus the maximum 2·u·max|z| and e^x 3·u, once in p and once in its sum; ln turns relative into absolute).
  virtual size_t concept_scratch(int64_t columns) const = 0;
  virtual void concept_scores(Tensor y, Tensor z, int64_t heads, void* scratch) = 0;

  // CoverageTokenSelector (MODEL.md §3a): the k greedy choices for rows v (L, D) and text rows t (m, D; rows == 0: without text), L > k.
  //   V, T = rows/max(norm, 1e-12);  Q = softmax_cols(V·Vᵀ/0.2)/L;  P = softmax_cols(T·Vᵀ/0.02)/m;  C = [P ; Q/2] with text, Q without.
  //   k times: gain_j = Σ_i max(0, C_ij − best_i) over columns not yet taken, largest first, lowest index on a tie; best_i = max(best_i, C_ij).
  // Norms: squares summed in double. Similarities and exponentials in type(), then integers (kernels/ref/coverage.cpp): every entry of C is rounded once to
  // a multiple of 2^−s (s = 62 for L ≥ 2048), so sums and differences of gains are exact and no order of evaluation can matter. A NaN similarity counts as
  // exponential 0. out: index[k] ascending, gain[i] what index[i] gained when it was taken; returns Σ gain in the order taken.
  // scratch: `bytes` = coverage_scratch(...) of the backend's memory, 64-byte aligned. With the (m+L)×L matrix inside where that is at most `allowed`,
  // else without, where a backend can do without (ref cannot): the same bits in both cases.
  virtual size_t coverage_scratch(int64_t L, int64_t D, int64_t m, int64_t k, size_t allowed) const = 0;
  virtual double coverage_select(int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch, size_t bytes, CoverageReport* report) = 0;
};

// Backends. The caller owns the table. threads ≥ 1.
enum class Isa { best, portable, avx2, avx512, avx512bf16, amx, neon, neon_i8mm };
Ops* make_ref_ops(Type type);                                  // f32 or f64, one thread
Ops* make_cpu_ops(int threads, Isa isa, Precision precision);  // nullptr when this machine lacks the instruction set, or memory for scratch
// The GPU `index`: throws DeviceError (kernels/cuda/device.h) where there is none, or the build has no CUDA. Emulated: the same kernels on the CPU, slowly.
// vendor: products of many rows by cuBLASLt (kernels/cuda/vendor.h), with bits that may differ from one GPU and library to the next; DeviceError without it.
Ops* make_cuda_ops(int index, Precision precision, bool vendor = false);
Ops* make_emulated_ops(int threads, Precision precision, bool backward = false);
Isa best_isa();                                                // what Isa::best means on this machine
bool runs(Isa isa);                                            // whether this machine has it
const char* isa_name(Isa isa);                                 // "avx2"
// Every instruction set that this library was built for, *count of them, the plainest first.
const Isa* built_isas(int* count);

}  // namespace bg
