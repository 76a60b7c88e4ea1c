// The reference table: the plain functions of this folder behind kernels/ops.h, in float or double.
#include <type_traits>

#include "kernels/ref/ref.h"

namespace bg {
namespace {

template <class T>
class RefOps : public Ops {
 public:
  const char* name() const override { return type() == Type::f64 ? "ref64" : "ref"; }
  Type type() const override { return std::is_same_v<T, double> ? Type::f64 : Type::f32; }

  void* allocate(size_t bytes) override { return ref::allocate(bytes); }
  void release(void* p, size_t bytes) override { ref::release(p, bytes); }
  void write(Tensor y, const float* x) override { ref::write<T>(y, x); }
  void read(float* y, Tensor x) override { ref::read<T>(y, x); }
  void read(double* y, Tensor x) override { ref::read<T>(y, x); }
  void copy(Tensor y, Tensor x) override { ref::copy<T>(y, x); }

  void gather_rows(Tensor y, Tensor x, const int64_t* index) override { ref::gather_rows<T>(y, x, index); }
  void scatter_rows(Tensor y, Tensor x, const int64_t* index) override { ref::scatter_rows<T>(y, x, index); }
  void scatter_add_rows(Tensor y, Tensor x, const int64_t* index) override { ref::scatter_add_rows<T>(y, x, index); }
  void embed(Tensor y, Weight w, const int32_t* ids) override { ref::embed<T>(y, w, ids); }
  void add_interpolated(Tensor y, Weight table, const int32_t* index, const float* weight) override { ref::add_interpolated<T>(y, table, index, weight); }

  void linear(Tensor x, const Product* products, int64_t n, Phase) override {
    for (int64_t i = 0; i < n; ++i) ref::linear<T>(x, products[i]);
  }
  void gated(Tensor y, Tensor x, Weight gate, Weight up, Phase) override { ref::gated<T>(y, x, gate, up); }
  void layer_norm(Tensor y, Tensor x, const float* w, const float* b, float eps) override { ref::layer_norm<T>(y, x, w, b, eps); }
  void rms_norm(Tensor y, Tensor x, const float* w, float eps) override { ref::rms_norm<T>(y, x, w, eps); }
  void gelu_tanh(Tensor y, Tensor x) override { ref::gelu_tanh<T>(y, x); }
  void gelu_erf(Tensor y, Tensor x) override { ref::gelu_erf<T>(y, x); }
  void silu_mul(Tensor y, Tensor gate, Tensor up) override { ref::silu_mul<T>(y, gate, up); }
  void add(Tensor y, Tensor x) override { ref::add<T>(y, x); }
  void rotary(Tensor y, int64_t heads, Tensor cos, Tensor sin) override { ref::rotary<T>(y, heads, cos, sin); }

  void attention_frames(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame) override { ref::attention_frames<T>(o, q, k, v, heads, frame); }
  void attention_causal(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past) override {
    ref::attention_causal<T>(o, q, k, v, heads, kv_heads, past);
  }
  void attention_dilated(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n) override {
    ref::attention_dilated<T>(o, q, k, v, heads, pairs, n);
  }

  void products(Tensor y, Tensor a, Tensor b) override { ref::products<T>(y, a, b); }
  void scale(Tensor y, double a) override { ref::scale<T>(y, a); }
  Likeliest likeliest(Tensor logits) override { return ref::likeliest<T>(logits); }
  double candidates(Candidate* found, Tensor logits, int64_t k, double temperature) override { return ref::candidates<T>(found, logits, k, temperature); }
  void penalise(Tensor logits, const int32_t* ids, int64_t n, double penalty) override { ref::penalise<T>(logits, ids, n, penalty); }
  size_t concept_scratch(int64_t columns) const override { return ref::concept_scratch(columns); }
  void concept_scores(Tensor y, Tensor z, int64_t heads, void* scratch) override { ref::concept_scores<T>(y, z, heads, scratch); }

  size_t coverage_scratch(int64_t L, int64_t D, int64_t m, int64_t, size_t) const override { return ref::coverage_scratch<T>(L, D, m); }
  double coverage_select(int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch, size_t, CoverageReport* report) override {
    return ref::coverage_select<T>(index, gain, v, t, k, scratch, report);
  }
};

}  // namespace

const char* type_name(Type t) {
  switch (t) {
    case Type::f32: return "F32";
    case Type::f16: return "F16";
    case Type::bf16: return "BF16";
    case Type::f64: return "F64";
    case Type::q8_0: return "Q8_0";
    case Type::q4_k: return "Q4_K";
    case Type::q6_k: return "Q6_K";
  }
  return "unknown";
}

Ops* make_ref_ops(Type type) {
  if (type == Type::f64) return new RefOps<double>;
  return new RefOps<float>;
}

}  // namespace bg
