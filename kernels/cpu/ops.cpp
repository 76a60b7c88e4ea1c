// The CPU table: the operations of this folder behind kernels/ops.h, for the instruction set chosen when it is made.
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "kernels/cpu/coverage.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

namespace bg {
namespace {

using cpu::IsaTable;

#define BG_TABLE(isa) \
  constexpr IsaTable k_##isa = {"cpu/" #isa, &cpu::isa::linear, &cpu::isa::attention, &cpu::isa::element, &cpu::isa::norm, &cpu::isa::rotary, &cpu::isa::coverage};
BG_EACH_ISA(BG_TABLE)
#undef BG_TABLE

constexpr Isa kBuilt[] = {
#define BG_NAME(isa) Isa::isa,
    BG_EACH_ISA(BG_NAME)
#undef BG_NAME
};

const IsaTable& table_of(Isa isa) {
  switch (isa) {
#define BG_CASE(isa) case Isa::isa: return k_##isa;
    BG_EACH_ISA(BG_CASE)
#undef BG_CASE
    default: return k_portable;
  }
}

#if defined(__x86_64__)
bool has_leaf7_1(unsigned bit) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> bit & 1) != 0;
}

bool has_avx2() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;  // clang 14 does not know the name "f16c"
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
}

bool has_avx512() {
#ifdef BG_AVX512_EMULATED  // make avx512
  return has_avx2();
#endif
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

bool has_avx512bf16() {
#ifdef BG_AVX512_EMULATED  // make avx512
  return has_avx512();
#endif
  return has_avx512() && has_leaf7_1(5);
}

// The tiles' registers are given to a process only when it asks; threads that it starts later have them too.
bool has_amx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!has_avx512bf16() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx >> 22 & 1) == 0 || (edx >> 24 & 1) == 0 || (edx >> 25 & 1) == 0) return false;  // AMX-BF16, AMX-TILE, AMX-INT8
#if defined(__linux__)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool given = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return given;
#else
  return false;
#endif
}

bool is_amd() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(0, &eax, &ebx, &ecx, &edx) != 0 && ebx == signature_AMD_ebx;
}

// vdpbf16ps is twice as fast as float multiply-adds on AMD's cores and half as fast on Intel's (measured: PERFORMANCE.md).
bool bf16_is_fast() { return is_amd(); }
#elif defined(__aarch64__)
bool has_neon() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
bool has_neon_i8mm() { return has_neon() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }
#endif

}  // namespace

// AMD's Zen 5 is family 26; base and extended family add up to that.
bool cpu::asks_far_ahead() {
#if defined(__x86_64__)
  static const bool far = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return is_amd() && __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 8 & 15) + (eax >> 20 & 255) >= 26;
  }();
  return far;
#else
  return false;
#endif
}

namespace {

class CpuOps : public Ops {
 public:
  CpuOps(int threads, const IsaTable& isa, Precision precision)
      : threads_(threads), scratch_bytes_(cpu::kPackedBytes + cpu::kThreadScratch * size_t(threads_.count())), scratch_(static_cast<char*>(ref::allocate(scratch_bytes_))),
        c_{isa, precision, threads_, scratch_ + cpu::kPackedBytes, scratch_, packed_turn_} {}
  ~CpuOps() override { ref::release(scratch_, scratch_bytes_); }
  bool complete() const { return scratch_ != nullptr; }
  size_t fixed_bytes() const override { return scratch_bytes_; }

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

  void linear(Tensor x, const Product* products, int64_t n, Phase phase) override { cpu::linear(c_, x, products, n, phase); }
  void gated(Tensor y, Tensor x, Weight gate, Weight up, Phase phase) override { cpu::gated(c_, y, x, gate, up, phase); }
  void layer_norm(Tensor y, Tensor x, const float* w, const float* b, float eps) override { cpu::layer_norm(c_, y, x, w, b, eps); }
  void rms_norm(Tensor y, Tensor x, const float* w, float eps) override { cpu::rms_norm(c_, y, x, w, eps); }
  void gelu_tanh(Tensor y, Tensor x) override { cpu::gelu_tanh(c_, y, x); }
  void gelu_erf(Tensor y, Tensor x) override { cpu::gelu_erf(c_, y, x); }
  void silu_mul(Tensor y, Tensor gate, Tensor up) override { cpu::silu_mul(c_, y, gate, up); }
  void add(Tensor y, Tensor x) override { cpu::add(c_, y, x); }
  void rotary(Tensor y, int64_t heads, Tensor cos, Tensor sin) override { cpu::rotary(c_, y, heads, cos, sin); }
  void rotate_into_cache(Tensor keys, Tensor values, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, const float* wq, const float* wk, float eps,
                         Tensor cos, Tensor sin, int64_t past) override {
    cpu::rotate_into_cache(c_, keys, values, q, k, v, heads, kv_heads, wq, wk, eps, cos, sin, past);
  }

  void attention_frames(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t frame) override { cpu::attention_frames(c_, o, q, k, v, heads, frame); }
  void attention_causal(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, int64_t kv_heads, int64_t past) override {
    cpu::attention_causal(c_, o, q, k, v, heads, kv_heads, past);
  }
  void attention_dilated(Tensor o, Tensor q, Tensor k, Tensor v, int64_t heads, const Dilation* pairs, int64_t n) override {
    cpu::attention_dilated(c_, o, q, k, v, heads, pairs, n);
  }

  void products(Tensor y, Tensor a, Tensor b) override { cpu::products(c_, y, a, b); }
  void scale(Tensor y, double a) override { cpu::scale(c_, y, a); }
  Likeliest likeliest(Tensor logits) override { return ref::likeliest<float>(logits); }
  double candidates(Candidate* found, Tensor logits, int64_t k, double temperature) override { return cpu::candidates(c_, found, logits, k, temperature); }
  void penalise(Tensor logits, const int32_t* ids, int64_t n, double penalty) override { ref::penalise<float>(logits, ids, n, penalty); }
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
  std::mutex packed_turn_;
  cpu::Context c_;
};

}  // namespace

bool runs(Isa isa) {
  switch (isa) {
    case Isa::best:
    case Isa::portable: return true;
#if defined(__x86_64__)
    case Isa::avx2: return has_avx2();
    case Isa::avx512: return has_avx512();
    case Isa::avx512bf16: return has_avx512bf16();
    case Isa::amx: return has_amx();
#elif defined(__aarch64__)
    case Isa::neon: return has_neon();
    case Isa::neon_i8mm: return has_neon_i8mm();
#endif
    default: return false;
  }
}

Isa best_isa() {
#if defined(__x86_64__)
  if (runs(Isa::amx)) return Isa::amx;
  if (runs(Isa::avx512bf16) && bf16_is_fast()) return Isa::avx512bf16;
  for (const Isa isa : {Isa::avx512, Isa::avx2})
    if (runs(isa)) return isa;
#elif defined(__aarch64__)
  for (const Isa isa : {Isa::neon_i8mm, Isa::neon})
    if (runs(isa)) return isa;
#endif
  return Isa::portable;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::best: return "best";
    case Isa::portable: return "portable";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512bf16: return "avx512bf16";
    case Isa::amx: return "amx";
    case Isa::neon: return "neon";
    case Isa::neon_i8mm: return "neon_i8mm";
  }
  return "unknown";
}

const Isa* built_isas(int* count) {
  *count = int(sizeof kBuilt / sizeof kBuilt[0]);
  return kBuilt;
}

Ops* make_cpu_ops(int threads, Isa isa, Precision precision) {
  const Isa chosen = isa == Isa::best ? best_isa() : isa;
  if (!runs(chosen)) return nullptr;
  auto* ops = new CpuOps(threads, table_of(chosen), precision);
  if (ops->complete()) return ops;
  delete ops;
  return nullptr;
}

}  // namespace bg
