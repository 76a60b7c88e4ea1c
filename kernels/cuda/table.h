// The table of a GPU: the operations of this folder behind kernels/ops.h, and recorded steps. Included by ops_cuda.cpp and ops_emulated.cpp, which say whose
// kernels are meant.
#pragma once
#include <memory>

#include "kernels/cuda/cuda.h"

namespace bg::BG_CUDA {

constexpr int64_t kStepBucket = 1024;  // a recording serves this many more tokens: its grids are made for the last of them

class CudaOps : public Ops {
 public:
  CudaOps(const char* name, std::unique_ptr<Device> device, Precision precision, bool vendor)
      : name_(name), device_(std::move(device)), vendor_(vendor ? make_vendor(*device_) : nullptr), fixed_(static_cast<char*>(device_->allocate(kFixed))),
        c_{*device_, precision, fixed_, fixed_ + kIndexBytes} {
    c_.vendor = vendor_.get();
    if (fixed_ == nullptr) throw DeviceError("no device memory for " + std::to_string(kFixed) + " bytes of scratch; free some, or use another device");
  }
  ~CudaOps() override {
    device_->release(c_.pieces);
    device_->release(fixed_);
  }

  size_t fixed_bytes() const override { return kFixed + (vendor_ ? kVendorBytes : 0); }
  const char* name() const override { return name_; }
  Type type() const override { return Type::f32; }

  void* allocate(size_t bytes) override { return device_->allocate(bytes); }
  void release(void* p, size_t) override { device_->release(p); }
  bool on_device() const override { return true; }
  void upload(void* to, const void* from, size_t bytes) override { device_->upload(to, from, bytes); }

  void take_pieces(size_t bytes) override {
    if (c_.pieces != nullptr) return;
    c_.piece_bytes = bytes / (kHostPieces * 256) * 256;
    c_.pieces = static_cast<char*>(device_->allocate(kHostPieces * c_.piece_bytes));
    for (int i = 0; i < kHostPieces; ++i) device_->piece_read(i);  // no copy before the memory is clear
  }

  // One recording, for tokens up to the end of a bucket of kStepBucket.
  void begin_step(int64_t past) override {
    const int64_t keys = divide_up(past + 1, kStepBucket) * kStepBucket;
    c_.replaying = recorded_keys_ == keys;
    if (!c_.replaying) device_->record();
    recorded_keys_ = 0;  // until end_step: an error on the way leaves nothing behind
    c_.step_keys = keys;
    c_.step_past = reinterpret_cast<const int64_t*>(fixed_ + kIndexBytes + kScratchBytes);
    c_.give(fixed_ + kIndexBytes + kScratchBytes, &past, sizeof past);
  }
  void end_step() override {
    const int64_t keys = c_.step_keys;
    c_.replaying = false;
    c_.step_past = nullptr;
    c_.step_keys = 0;
    device_->play();
    recorded_keys_ = keys;
  }
  void forget_steps() override { recorded_keys_ = 0; }

  void write(Tensor y, const float* x) override { BG_CUDA::write(c_, y, x); }
  void read(float* y, Tensor x) override { BG_CUDA::read(c_, y, x); }
  void read(double* y, Tensor x) override { BG_CUDA::read(c_, y, x); }
  void embed(Tensor y, Weight w, const int32_t* ids) override { BG_CUDA::embed(c_, y, w, ids); }
  void gather_rows(Tensor y, Tensor x, const int64_t* index) override { BG_CUDA::gather_rows(c_, y, x, index); }
  void scatter_rows(Tensor y, Tensor x, const int64_t* index) override { BG_CUDA::scatter_rows(c_, y, x, index); }
  void scatter_add_rows(Tensor y, Tensor x, const int64_t* index) override { BG_CUDA::scatter_add_rows(c_, y, x, index); }
  void add_interpolated(Tensor y, Weight table, const int32_t* index, const float* weight) override { BG_CUDA::add_interpolated(c_, y, table, index, weight); }

  // What the host gives nothing to: in a step that is played again there is nothing to do.
  void copy(Tensor y, Tensor x) override { if (!c_.replaying) BG_CUDA::copy(c_, y, x); }
  void linear(Tensor x, const Product* products, int64_t n, Phase) override { if (!c_.replaying) BG_CUDA::linear(c_, x, products, n); }
  void gated(Tensor y, Tensor x, Weight gate, Weight up, Phase) override { if (!c_.replaying) BG_CUDA::gated(c_, y, x, gate, up); }
  void layer_norm(Tensor y, Tensor x, const float* w, const float* b, float eps) override { if (!c_.replaying) BG_CUDA::layer_norm(c_, y, x, w, b, eps); }
  void rms_norm(Tensor y, Tensor x, const float* w, float eps) override { if (!c_.replaying) BG_CUDA::rms_norm(c_, y, x, w, eps); }
  void gelu_tanh(Tensor y, Tensor x) override { if (!c_.replaying) BG_CUDA::gelu_tanh(c_, y, x); }
  void gelu_erf(Tensor y, Tensor x) override { if (!c_.replaying) BG_CUDA::gelu_erf(c_, y, x); }
  void silu_mul(Tensor y, Tensor gate, Tensor up) override { if (!c_.replaying) BG_CUDA::silu_mul(c_, y, gate, up); }
  void add(Tensor y, Tensor x) override { if (!c_.replaying) BG_CUDA::add(c_, y, x); }
  void scale(Tensor y, double a) override { if (!c_.replaying) BG_CUDA::scale(c_, y, a); }
  void rotary(Tensor y, int64_t heads, Tensor cos, Tensor sin) override { if (!c_.replaying) BG_CUDA::rotary(c_, y, heads, cos, sin); }
  void rotate_into_cache(Tensor keys, Tensor values, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk, float eps,
                         Tensor cos, Tensor sin, int64_t past) override {
    if (!c_.replaying) BG_CUDA::rotate_into_cache(c_, keys, values, q, k, v, heads, kv_heads, wq, wk, eps, cos, sin, past);
  }
  void attention_frames(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame) override {
    if (!c_.replaying) BG_CUDA::attention_frames(c_, o, q, k, v, heads, frame);
  }
  void attention_causal(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past) override {
    if (!c_.replaying) BG_CUDA::attention_causal(c_, o, q, k, v, heads, kv_heads, past);
  }
  void attention_dilated(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n) override {
    if (!c_.replaying) BG_CUDA::attention_dilated(c_, o, q, k, v, heads, pairs, n);
  }
  void products(Tensor y, Tensor a, Tensor b) override { if (!c_.replaying) BG_CUDA::products(c_, y, a, b); }
  size_t concept_scratch(int64_t columns) const override { return BG_CUDA::concept_scratch(columns); }
  void concept_scores(Tensor y, Tensor z, int64_t heads, void* scratch) override { BG_CUDA::concept_scores(c_, y, z, heads, scratch); }
  Likeliest likeliest(Tensor logits) override { return BG_CUDA::likeliest(c_, logits); }
  double candidates(Candidate* found, Tensor logits, int64_t k, double temperature) override { return BG_CUDA::candidates(c_, found, logits, k, temperature); }
  void penalise(Tensor logits, const int32_t* ids, int64_t n, double penalty) override { BG_CUDA::penalise(c_, logits, ids, n, penalty); }
  size_t coverage_scratch(int64_t L, int64_t D, int64_t m, int64_t k, size_t allowed) const override { return BG_CUDA::coverage_scratch(L, D, m, k, allowed); }
  double coverage_select(int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch, size_t bytes, CoverageReport* report) override {
    return BG_CUDA::coverage_select(c_, index, gain, v, t, k, scratch, bytes, report);
  }

 private:
  static constexpr size_t kFixed = kIndexBytes + kScratchBytes + 256;  // and the step's `past`
  const char* name_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Vendor> vendor_;
  char* fixed_;
  Context c_;
  int64_t recorded_keys_ = 0;  // of the recording that may be played again; 0: none
};

}  // namespace bg::BG_CUDA
