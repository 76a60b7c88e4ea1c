// The operations on a GPU, one function per entry of kernels/ops.h, kernels and their launches side by side in *.cu. Every .cu is compiled twice: by nvcc
// (namespace bg::cuda) and by the host compiler (bg::emulated), so both live in one program.
//
// Determinism: a sum is split where the shape says so, never by the device. Products: chains over 512 inputs (float32: 256), added in ascending order (linear.h, linear_float.cu).
// Attention: blocks of kSpanKeys keys, each against its own maximum, folded in ascending order (attention.cu). No atomic addition of floats.
// Grids: rows or tiles in x (up to 2^31 − 1), whatever else is small in y and z. Every index that may pass 2^31 is int64_t or size_t.
#pragma once
#include "kernels/cuda/device.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/vendor.h"
#include "kernels/ops.h"

namespace bg::BG_CUDA {

constexpr size_t kIndexBytes = 2 << 20;     // host arrays of indices, on their way
constexpr size_t kScratchBytes = 48 << 20;  // rounded activations, states of spans: of one operation at a time

struct Context {
  Device& device;
  Precision precision;
  char* index;                  // kIndexBytes of device memory
  char* scratch;                // kScratchBytes of device memory, 256-byte aligned
  bool replaying = false;       // a recorded step is about to be played: nothing is launched, only what the host gives is renewed
  const int64_t* step_past = nullptr;  // in a step: on the device, the number of tokens before it; else nullptr
  int64_t step_keys = 0;        // in a step: the most keys that this recording is for
  Vendor* vendor = nullptr;     // large products by the vendor's library, where the caller asked for it
  char* pieces = nullptr;       // kHostPieces of piece_bytes each: through them large products take weights that stay with the host; nullptr: those are read in place
  size_t piece_bytes = 0;       // a multiple of 256

  // Bytes that the host gives to an operation, in order with the kernels.
  void give(void* to, const void* from, size_t bytes) const {
    if (replaying)
      device.upload_again(from, bytes);
    else
      device.upload(to, from, bytes);
  }
};

template <class T>
constexpr T divide_up(T a, T b) { return (a + b - 1) / b; }

// A float activation as kernels take it.
struct Rows {
  float* data;
  int64_t rows, cols, stride;
};
inline Rows rows_of(const Tensor& t) { return {static_cast<float*>(t.data), t.rows, t.cols, t.stride}; }

// rows.cu
void write(const Context& c, Tensor y, const float* x);
void read(const Context& c, float* y, Tensor x);
void read(const Context& c, double* y, Tensor x);
void copy(const Context& c, Tensor y, Tensor x);
void gather_rows(const Context& c, Tensor y, Tensor x, const int64_t* index);
void scatter_rows(const Context& c, Tensor y, Tensor x, const int64_t* index);
void scatter_add_rows(const Context& c, Tensor y, Tensor x, const int64_t* index);
void embed(const Context& c, Tensor y, Weight w, const int32_t* ids);
void add_interpolated(const Context& c, Tensor y, Weight table, const int32_t* index, const float* weight);
// linear.cu
void linear(const Context& c, Tensor x, const Product* products, int64_t n);
void gated(const Context& c, Tensor y, Tensor x, Weight gate, Weight up);
void products(const Context& c, Tensor y, Tensor a, Tensor b);
// linear_cublas.cu. Throws DeviceError where there is no cuBLASLt.
std::unique_ptr<Vendor> make_vendor(Device& device);
// elements.cu
void layer_norm(const Context& c, Tensor y, Tensor x, const float* w, const float* b, float eps);
void rms_norm(const Context& c, Tensor y, Tensor x, const float* w, float eps);
void gelu_tanh(const Context& c, Tensor y, Tensor x);
void gelu_erf(const Context& c, Tensor y, Tensor x);
void silu_mul(const Context& c, Tensor y, Tensor gate, Tensor up);
void add(const Context& c, Tensor y, Tensor x);
void scale(const Context& c, Tensor y, double a);
void rotary(const Context& c, Tensor y, int64_t heads, Tensor cos, Tensor sin);
void rotate_into_cache(const Context& c, Tensor keys, Tensor values, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk,
                       float eps, Tensor cos, Tensor sin, int64_t past);
// attention.cu, dilated.cu
void attention_frames(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame);
void attention_causal(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past);
void attention_dilated(const Context& c, Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n);
// select.cu
size_t concept_scratch(int64_t columns);
void concept_scores(const Context& c, Tensor y, Tensor z, int64_t heads, void* scratch);
// sample.cu
Likeliest likeliest(const Context& c, Tensor logits);
double candidates(const Context& c, Candidate* found, Tensor logits, int64_t k, double temperature);
void penalise(const Context& c, Tensor logits, const int32_t* ids, int64_t n, double penalty);
// coverage.cu
size_t coverage_scratch(int64_t L, int64_t D, int64_t m, int64_t k, size_t allowed);
double coverage_select(const Context& c, int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch, size_t bytes, CoverageReport* report);

}  // namespace bg::BG_CUDA
