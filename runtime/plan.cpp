// See plan.h.
#include "runtime/plan.h"

namespace bg {
namespace {

class PlanOps : public Ops {
 public:
  explicit PlanOps(const Ops& real) : real_(real) {}
  const char* name() const override { return "plan"; }
  Type type() const override { return real_.type(); }
  void* allocate(size_t) override { return reinterpret_cast<void*>(uintptr_t(1) << 44); }
  void release(void*, size_t) override {}
  size_t fixed_bytes() const override { return real_.fixed_bytes(); }
  bool on_device() const override { return real_.on_device(); }
  void upload(void*, const void*, size_t) override {}
  void write(Tensor, const float*) override {}
  void read(float*, Tensor) override {}
  void read(double*, Tensor) override {}
  void copy(Tensor, Tensor) override {}
  void gather_rows(Tensor, Tensor, const int64_t*) override {}
  void scatter_rows(Tensor, Tensor, const int64_t*) override {}
  void scatter_add_rows(Tensor, Tensor, const int64_t*) override {}
  void embed(Tensor, Weight, const int32_t*) override {}
  void add_interpolated(Tensor, Weight, const int32_t*, const float*) override {}
  void linear(Tensor, const Product*, int64_t, Phase) override {}
  void gated(Tensor, Tensor, Weight, Weight, Phase) override {}
  void layer_norm(Tensor, Tensor, const float*, const float*, float) override {}
  void rms_norm(Tensor, Tensor, const float*, float) override {}
  void gelu_tanh(Tensor, Tensor) override {}
  void gelu_erf(Tensor, Tensor) override {}
  void silu_mul(Tensor, Tensor, Tensor) override {}
  void add(Tensor, Tensor) override {}
  void rotary(Tensor, int64_t, Tensor, Tensor) override {}
  void rotate_into_cache(Tensor, Tensor, Tensor, Tensor, Tensor, int64_t, int64_t, const float*, const float*, float, Tensor, Tensor, int64_t) override {}
  void attention_frames(Tensor, Tensor, Tensor, Tensor, int64_t, int64_t) override {}
  void attention_causal(Tensor, Tensor, Tensor, Tensor, int64_t, int64_t, int64_t) override {}
  void attention_dilated(Tensor, Tensor, Tensor, Tensor, int64_t, const Dilation*, int64_t) override {}
  void products(Tensor, Tensor, Tensor) override {}
  void scale(Tensor, double) override {}
  Likeliest likeliest(Tensor) override { return {}; }
  double candidates(Candidate*, Tensor, int64_t, double) override { return 1; }
  void penalise(Tensor, const int32_t*, int64_t, double) override {}
  size_t concept_scratch(int64_t columns) const override { return real_.concept_scratch(columns); }
  void concept_scores(Tensor, Tensor, int64_t, void*) override {}
  size_t coverage_scratch(int64_t L, int64_t D, int64_t m, int64_t k, size_t allowed) const override { return real_.coverage_scratch(L, D, m, k, allowed); }
  double coverage_select(int64_t* index, double*, Tensor, Tensor, int64_t k, void*, size_t, CoverageReport*) override {
    for (int64_t i = 0; i < k; ++i) index[i] = i;
    return 0;
  }

 private:
  const Ops& real_;
};

}  // namespace

std::unique_ptr<Ops> make_plan_ops(const Ops& real) { return std::make_unique<PlanOps>(real); }

}  // namespace bg
