// The CPU table: the operations of this folder behind kernels/ops.h, for the instruction set chosen when it is made.
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/cpu/coverage.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

namespace bg {
namespace {

using cpu::IsaTable;

constexpr IsaTable kPortable = {"cpu/portable",           cpu::portable::linear_block, cpu::portable::attend,
                                cpu::portable::gelu_tanh, cpu::portable::silu_mul,     cpu::portable::exp_negative,
                                &cpu::portable::coverage};
#if defined(__x86_64__)
constexpr IsaTable kAvx2 = {"cpu/avx2", cpu::avx2::linear_block, cpu::avx2::attend, cpu::avx2::gelu_tanh, cpu::avx2::silu_mul, cpu::avx2::exp_negative,
                            &cpu::avx2::coverage};
#endif

bool runs(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;  // clang 14 does not know the name "f16c"
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
  }
#endif
  return isa == Isa::portable;
}

const IsaTable& table_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return kAvx2;
#endif
  return (void)isa, kPortable;
}

class CpuOps : public Ops {
 public:
  CpuOps(int threads, const IsaTable& isa)
      : threads_(threads), scratch_bytes_(cpu::kLinearScratch * size_t(threads_.count())), scratch_(static_cast<char*>(ref::allocate(scratch_bytes_))),
        c_{isa, threads_, scratch_} {}
  ~CpuOps() override { ref::release(scratch_, scratch_bytes_); }
  bool complete() const { return scratch_ != nullptr; }

  const char* name() const override { return c_.isa.name; }
  Type type() const override { return Type::f32; }

  void* allocate(size_t bytes) override { return ref::allocate(bytes); }
  void release(void* p, size_t bytes) override { ref::release(p, bytes); }
  void write(Tensor y, const float* x) override { cpu::write(c_, y, x); }
  void read(float* y, Tensor x) override { cpu::read(c_, y, x); }
  void read(double* y, Tensor x) override { cpu::read(c_, y, x); }
  void copy(Tensor y, Tensor x) override { cpu::copy(c_, y, x); }

  void gather_rows(Tensor y, Tensor x, const int64_t* index) override { cpu::gather_rows(c_, y, x, index); }
  void scatter_rows(Tensor y, Tensor x, const int64_t* index) override { cpu::scatter_rows(c_, y, x, index); }
  void scatter_add_rows(Tensor y, Tensor x, const int64_t* index) override { cpu::scatter_add_rows(c_, y, x, index); }
  void embed(Tensor y, Weight w, const int32_t* ids) override { cpu::embed(c_, y, w, ids); }
  void add_interpolated(Tensor y, Weight table, const int32_t* index, const float* weight) override { cpu::add_interpolated(c_, y, table, index, weight); }

  void linear(Tensor y, Tensor x, Weight w, const float* bias) override { cpu::linear(c_, y, x, w, bias); }
  void layer_norm(Tensor y, Tensor x, const float* w, const float* b, float eps) override { cpu::layer_norm(c_, y, x, w, b, eps); }
  void rms_norm(Tensor y, Tensor x, const float* w, float eps) override { cpu::rms_norm(c_, y, x, w, eps); }
  void gelu_tanh(Tensor y, Tensor x) override { cpu::gelu_tanh(c_, y, x); }
  void gelu_erf(Tensor y, Tensor x) override { cpu::gelu_erf(c_, y, x); }
  void silu_mul(Tensor y, Tensor gate, Tensor up) override { cpu::silu_mul(c_, y, gate, up); }
  void add(Tensor y, Tensor x) override { cpu::add(c_, y, x); }
  void rotary(Tensor y, int64_t heads, Tensor cos, Tensor sin) override { cpu::rotary(c_, y, heads, cos, sin); }

  void attention_frames(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame) override { cpu::attention_frames(c_, o, q, k, v, heads, frame); }
  void attention_causal(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past) override {
    cpu::attention_causal(c_, o, q, k, v, heads, kv_heads, past);
  }
  void attention_dilated(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n) override {
    cpu::attention_dilated(c_, o, q, k, v, heads, pairs, n);
  }

  void products(Tensor y, Tensor a, Tensor b) override { cpu::products(c_, y, a, b); }
  void scale(Tensor y, double a) override { cpu::scale(c_, y, a); }
  size_t concept_scratch(int64_t columns) const override { return cpu::concept_scratch(columns); }
  void concept_scores(Tensor y, Tensor z, int64_t heads, void* scratch) override { cpu::concept_scores(c_, y, z, heads, scratch); }

  size_t coverage_scratch(int64_t L, int64_t D, int64_t m, int64_t k, size_t allowed) const override { return cpu::coverage_scratch(c_, L, D, m, k, allowed); }
  double coverage_select(int64_t* index, double* gain, Tensor v, Tensor t, int64_t k, void* scratch, size_t bytes, CoverageReport* report) override {
    return cpu::coverage_select(c_, index, gain, v, t, k, scratch, bytes, report);
  }

 private:
  cpu::Threads threads_;
  size_t scratch_bytes_;
  char* scratch_;
  cpu::Context c_;
};

}  // namespace

Isa best_isa() { return runs(Isa::avx2) ? Isa::avx2 : Isa::portable; }

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::best: return "best";
    case Isa::portable: return "portable";
    case Isa::avx2: return "avx2";
  }
  return "unknown";
}

Ops* make_cpu_ops(int threads, Isa isa) {
  const Isa chosen = isa == Isa::best ? best_isa() : isa;
  if (!runs(chosen)) return nullptr;
  auto* ops = new CpuOps(threads, table_of(chosen));
  if (ops->complete()) return ops;
  delete ops;
  return nullptr;
}

}  // namespace bg
