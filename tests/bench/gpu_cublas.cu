// cuBLASLt, opened while running where the machine has it, for one product of bf16 matrices with float sums: what large products are measured by. See gpu_device.h.
#ifdef __CUDACC__
#include <dlfcn.h>

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#define BG_HAS_CUBLAS 1
#else
#define BG_HAS_CUBLAS 0
#endif

#include "tests/bench/gpu_device.h"

namespace bg::cuda {

#if BG_HAS_CUBLAS
namespace {

constexpr size_t kWorkspace = size_t(32) << 20;

#define BG_CUBLAS_FUNCTIONS(X)                                                                                                                         \
  X(cublasLtCreate) X(cublasLtDestroy) X(cublasLtGetVersion) X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy) X(cublasLtMatmulDescSetAttribute) \
  X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy) X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceDestroy)                     \
  X(cublasLtMatmulPreferenceSetAttribute) X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmul)

struct Library {
#define BG_MEMBER(f) decltype(&::f) f = nullptr;
  BG_CUBLAS_FUNCTIONS(BG_MEMBER)
#undef BG_MEMBER
  bool open(std::string* why) {
    const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
    void* library = dlopen(name.c_str(), RTLD_NOW);
    if (library == nullptr) library = dlopen(("/usr/local/cuda/lib64/" + name).c_str(), RTLD_NOW);
    if (library == nullptr) {
      *why = dlerror();
      return false;
    }
    bool all = true;
#define BG_LOAD(f) all &= (this->f = reinterpret_cast<decltype(&::f)>(dlsym(library, #f))) != nullptr;
    BG_CUBLAS_FUNCTIONS(BG_LOAD)
#undef BG_LOAD
    if (!all) *why = name + " lacks a function";
    return all;
  }
};

class Product : public bench::LargeProduct {
 public:
  Product(bench::Gpu& gpu, int64_t n, const Library& library) : gpu_(gpu), n_(n), lt_(library) {
    const size_t matrix = size_t(n) * size_t(n) * 2;
    memory_ = static_cast<char*>(gpu.device().allocate(3 * matrix + kWorkspace));
    if (memory_ == nullptr) throw DeviceError("no memory for it");
    gpu.fill_panels(memory_, Type::bf16, 2 * matrix);
    check(lt_.cublasLtCreate(&handle_));
    check(lt_.cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(lt_.cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    check(lt_.cublasLtMatrixLayoutCreate(&layout_, CUDA_R_16BF, uint64_t(n), uint64_t(n), n));
    cublasLtMatmulPreference_t preference = nullptr;
    check(lt_.cublasLtMatmulPreferenceCreate(&preference));
    check(lt_.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace, sizeof kWorkspace));
    int found = 0;
    const cublasStatus_t status = lt_.cublasLtMatmulAlgoGetHeuristic(handle_, product_, layout_, layout_, layout_, layout_, preference, 1, &best_, &found);
    lt_.cublasLtMatmulPreferenceDestroy(preference);
    check(status);
    if (found == 0) throw DeviceError("it has no way to do this product");
  }
  ~Product() override {
    gpu_.device().wait();
    lt_.cublasLtMatrixLayoutDestroy(layout_);
    lt_.cublasLtMatmulDescDestroy(product_);
    lt_.cublasLtDestroy(handle_);
    gpu_.device().release(memory_);
  }
  double run() override {
    const float one = 1, zero = 0;
    const size_t matrix = size_t(n_) * size_t(n_) * 2;
    char *a = memory_, *b = a + matrix, *c = b + matrix;
    check(lt_.cublasLtMatmul(handle_, product_, &one, a, layout_, b, layout_, &zero, c, layout_, c, layout_, &best_.algo, c + matrix, kWorkspace,
                             static_cast<cudaStream_t>(gpu_.device().stream())));
    return 2.0 * double(n_) * double(n_) * double(n_);
  }

 private:
  static void check(cublasStatus_t status) {
    if (status != CUBLAS_STATUS_SUCCESS) throw DeviceError("cuBLASLt said " + std::to_string(int(status)));
  }
  bench::Gpu& gpu_;
  int64_t n_;
  Library lt_;
  char* memory_ = nullptr;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t layout_ = nullptr;
  cublasLtMatmulHeuristicResult_t best_{};
};

}  // namespace

std::unique_ptr<bench::LargeProduct> open_cublas(bench::Gpu& gpu, int64_t n, std::string* version_or_why) {
  Library library;
  if (!library.open(version_or_why)) return nullptr;
  try {
    auto product = std::make_unique<Product>(gpu, n, library);
    *version_or_why = "cuBLASLt " + std::to_string(library.cublasLtGetVersion());
    return product;
  } catch (const std::exception& e) {
    *version_or_why = e.what();
    return nullptr;
  }
}
#else
std::unique_ptr<bench::LargeProduct> open_cublas(bench::Gpu&, int64_t, std::string* why) {
  *why = "built without cublasLt.h";
  return nullptr;
}
#endif

}  // namespace bg::cuda
#endif
