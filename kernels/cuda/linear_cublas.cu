// The mode `vendor` (vendor.h): weights in panels become a row-major bf16 matrix, cuBLASLt multiplies it with the rounded rows of x, and a kernel of ours does the rest.
// In: x (T, D), T ≥ kVendorRows; BF16 weights, or quantised ones to the nearest bf16. Out: y, with what Then or `gated` says done to it.
// Error: what rounding x changes, 2^−8·Σ|terms|, with quantised weights 2^−7·(1 + 2^−9)·Σ|terms|; sums of products on tensor cores, (2·D + 64)·u·Σ|terms|.
//
// Outputs are cut into pieces whose matrix fits the room for weights, rows into pieces whose x fits c.scratch and whose sums fit theirs: by the shapes alone.
//   unpack_panels  256 threads: 16 rows of a panel × 16 × 32 inputs; w once, 2 bytes a value out: 0.3 ms for a layer of the 8B in BF16 at 3 TB/s (772 MB)
//   round_rows     256 threads of eight values; 6 bytes a value
//   finish_rows    a block 1024 outputs of a row; 8 … 12 bytes an output
// cuBLASLt, loaded with the first table that wants it (a machine without it runs everything else): for each (N, K) one algorithm, chosen once for 1024 rows, that sums in
// one pass (no split of K, no reduction), and used for every number of rows.
// Not measured yet, and never run: no machine with a GPU was there. What cuBLASLt does is as its documentation says.
#include "kernels/cuda/linear.h"
#include "kernels/cuda/pieces.h"

#ifdef __CUDACC__
#include <cublasLt.h>
#include <dlfcn.h>

#include <map>
#endif

namespace bg::BG_CUDA {
namespace {

constexpr int kThreads = 256;

// to (16 · panels, K): rows of w from panel `first` on, zeros from D to K.
template <Type T>
__global__ void __launch_bounds__(kThreads) unpack_panels(uint16_t* to, const unsigned char* w, int64_t first, int64_t D, int64_t K, int64_t parts) {
  const int r = int(threadIdx.x % 16);
  const int64_t panel = blockIdx.x / parts, j = (blockIdx.x % parts * 16 + threadIdx.x / 16) * 32;
  if (j >= K) return;
  Piece<T, 32> piece;
  piece.load(w + size_t(first + panel) * panel_bytes(T, D), r, j, D);
  float v[32];
  piece.values(v, j);
  uint4* const line = reinterpret_cast<uint4*>(to + (panel * kPanelRows + r) * K + j);
  SIMT_UNROLL
  for (int i = 0; i < 4; ++i)
    line[i] = make_uint4(simt::pack_bf16(v[8 * i], v[8 * i + 1]), simt::pack_bf16(v[8 * i + 2], v[8 * i + 3]), simt::pack_bf16(v[8 * i + 4], v[8 * i + 5]), simt::pack_bf16(v[8 * i + 6], v[8 * i + 7]));
}

// to (x.rows, K) = x, zeros from x.cols to K.
__global__ void __launch_bounds__(kThreads) round_rows(uint16_t* to, Rows x, int64_t K) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * 8, t = i / K, j = i % K;
  if (t >= x.rows) return;
  float v[8];
  SIMT_UNROLL
  for (int k = 0; k < 8; ++k) v[k] = j + k < x.cols ? x.data[t * x.stride + j + k] : 0.0f;
  *reinterpret_cast<uint4*>(to + i) = make_uint4(simt::pack_bf16(v[0], v[1]), simt::pack_bf16(v[2], v[3]), simt::pack_bf16(v[4], v[5]), simt::pack_bf16(v[6], v[7]));
}

constexpr int kFinishWidth = 1024;

// What becomes of the sums of rows t0 … and outputs n0 … n0 + count: p (rows, pitch), and up's for `gated`.
__global__ void __launch_bounds__(kThreads) finish_rows(Output out, const float* p, const float* up, int64_t pitch, int64_t t0, int64_t n0, int64_t count, int64_t parts) {
  const int64_t row = blockIdx.x / parts, first = blockIdx.x % parts * kFinishWidth;
  for (int64_t n = first + threadIdx.x; n < count && n < first + kFinishWidth; n += kThreads) {
    if (up != nullptr)
      finish_gated(out, t0 + row, n0 + n, p[row * pitch + n], up[row * pitch + n]);
    else
      finish(out, t0 + row, n0 + n, p[row * pitch + n]);
  }
}

void unpack(const Context& c, uint16_t* to, Type type, const unsigned char* w, int64_t first, int64_t panels, int64_t D, int64_t K) {
  const int64_t parts = divide_up(K, int64_t(512));
  const dim3 grid{unsigned(panels * parts)};
  switch (type) {
    case Type::bf16: BG_LAUNCH(c.device, (unpack_panels<Type::bf16>), grid, kThreads, 0, to, w, first, D, K, parts); break;
    case Type::q8_0: BG_LAUNCH(c.device, (unpack_panels<Type::q8_0>), grid, kThreads, 0, to, w, first, D, K, parts); break;
    case Type::q4_k: BG_LAUNCH(c.device, (unpack_panels<Type::q4_k>), grid, kThreads, 0, to, w, first, D, K, parts); break;
    default: BG_LAUNCH(c.device, (unpack_panels<Type::q6_k>), grid, kThreads, 0, to, w, first, D, K, parts); break;
  }
}

// Where things lie, and how much of them at a time.
struct Plan {
  int64_t K, panels, rows;
  Plan(const Vendor& vendor, int64_t D, int64_t N, int matrices) : K(divide_up(D, int64_t(32)) * 32) {
    const int64_t all = panels_of(N), most = int64_t(vendor.weights_bytes / (size_t(K) * 2 * kPanelRows)) / matrices;
    panels = all < most ? all : most;
    const int64_t by_sums = panels > 0 ? int64_t(vendor.sums_bytes / (size_t(panels) * kPanelRows * 4)) / matrices : 0, by_x = int64_t(kScratchBytes / (size_t(K) * 2));
    rows = by_sums < by_x ? by_sums : by_x;
    if (rows > 128) rows = rows / 128 * 128;  // whole tiles of the library's
  }
};

void multiply(const Context& c, const Rows& x, Type type, const Target& target, bool gated) {
  const int matrices = gated ? 2 : 1;
  const Plan plan(*c.vendor, x.cols, target.rows, matrices);
  if (plan.panels == 0 || plan.rows == 0) throw DeviceError("cuBLAS: a matrix of " + std::to_string(x.cols) + " inputs does not fit what is set aside for it");
  char* const memory = c.vendor->memory();
  auto* const w = reinterpret_cast<uint16_t*>(memory);
  auto* const sums = reinterpret_cast<float*>(memory + c.vendor->weights_bytes);
  auto* const rounded = reinterpret_cast<uint16_t*>(c.scratch);
  for (int64_t panel = 0; panel < panels_of(target.rows); panel += plan.panels) {
    const int64_t left = panels_of(target.rows) - panel, panels = left < plan.panels ? left : plan.panels, N = panels * kPanelRows, n0 = panel * kPanelRows;
    unpack(c, w, type, target.w, panel, panels, x.cols, plan.K);
    if (gated) unpack(c, w + N * plan.K, type, target.up, panel, panels, x.cols, plan.K);
    for (int64_t t = 0; t < x.rows; t += plan.rows) {
      const Rows piece{x.data + t * x.stride, x.rows - t < plan.rows ? x.rows - t : plan.rows, x.cols, x.stride};
      if (panel == 0 || plan.rows < x.rows) BG_LAUNCH(c.device, (round_rows), dim3(unsigned(divide_up(piece.rows * plan.K, int64_t(8 * kThreads)))), kThreads, 0, rounded, piece, plan.K);
      c.vendor->multiply(sums, rounded, w, piece.rows, N * matrices, plan.K, memory + c.vendor->weights_bytes + c.vendor->sums_bytes);
      const int64_t count = target.rows - n0 < N ? target.rows - n0 : N, parts = divide_up(count, int64_t(kFinishWidth)), pitch = N * matrices;
      const float *const first = sums, *const second = gated ? sums + N : nullptr;
      BG_LAUNCH(c.device, (finish_rows), dim3(unsigned(piece.rows * parts)), kThreads, 0, target.out, first, second, pitch, t, n0, count, parts);
    }
  }
}

#ifdef __CUDACC__

#define BG_TEXT(x) #x
#define BG_NUMBER(x) BG_TEXT(x)
constexpr const char* kLibrary = "libcublasLt.so." BG_NUMBER(CUBLAS_VER_MAJOR);

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw DeviceError(std::string("cuBLASLt failed at ") + what + ": status " + std::to_string(int(status)) + "; run without the vendor's products");
}

struct Library {
  Library() : handle(dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL)) {
    if (handle == nullptr) throw DeviceError(std::string("cuBLAS: ") + dlerror() + "; install CUDA's libcublas, or run without the vendor's products");
    find(create, "cublasLtCreate");
    find(destroy, "cublasLtDestroy");
    find(matmul, "cublasLtMatmul");
    find(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(algo_value, "cublasLtMatmulAlgoConfigGetAttribute");
    find(describe, "cublasLtMatmulDescCreate");
    find(forget, "cublasLtMatmulDescDestroy");
    find(set, "cublasLtMatmulDescSetAttribute");
    find(layout, "cublasLtMatrixLayoutCreate");
    find(forget_layout, "cublasLtMatrixLayoutDestroy");
    find(prefer, "cublasLtMatmulPreferenceCreate");
    find(forget_preference, "cublasLtMatmulPreferenceDestroy");
    find(set_preference, "cublasLtMatmulPreferenceSetAttribute");
  }
  ~Library() {
    if (handle != nullptr) dlclose(handle);
  }
  Library(const Library&) = delete;

  void* handle;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) algo_value;
  decltype(&cublasLtMatmulDescCreate) describe;
  decltype(&cublasLtMatmulDescDestroy) forget;
  decltype(&cublasLtMatmulDescSetAttribute) set;
  decltype(&cublasLtMatrixLayoutCreate) layout;
  decltype(&cublasLtMatrixLayoutDestroy) forget_layout;
  decltype(&cublasLtMatmulPreferenceCreate) prefer;
  decltype(&cublasLtMatmulPreferenceDestroy) forget_preference;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference;

 private:
  template <class F>
  void find(F& f, const char* name) {
    f = reinterpret_cast<F>(dlsym(handle, name));
    if (f == nullptr) throw DeviceError(std::string("cuBLAS: ") + kLibrary + " has no " + name);
  }
};

constexpr int64_t kChosenFor = 1024;  // rows

class Cublas : public Vendor {
 public:
  explicit Cublas(Device& device) : Vendor(device) {
    check(lib_.create(&handle_), "starting");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(lib_.describe(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
    check(lib_.set(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed), "describing a product");
  }
  ~Cublas() override {
    if (product_ != nullptr) lib_.forget(product_);
    if (handle_ != nullptr) lib_.destroy(handle_);
  }

  // Column-major, as the library sees it: yᵀ (N, M) = (wᵀ (K, N))ᵀ · xᵀ (K, M).
  void multiply(float* y, const uint16_t* x, const uint16_t* w, int64_t M, int64_t N, int64_t K, void* workspace) override {
    const Layouts layouts(lib_, M, N, K);
    const auto found = chosen_.find({N, K});
    const cublasLtMatmulAlgo_t& algo = found != chosen_.end() ? found->second : chosen_.emplace(std::pair(N, K), choose(N, K)).first->second;
    const float one = 1, zero = 0;
    check(lib_.matmul(handle_, product_, &one, w, layouts.w, x, layouts.x, &zero, y, layouts.y, y, layouts.y, &algo, workspace, kVendorWorkspace,
                      static_cast<cudaStream_t>(device_.stream())),
          "a product");
  }

 private:
  struct Layouts {
    const Library& lib;
    cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
    Layouts(const Library& l, int64_t M, int64_t N, int64_t K) : lib(l) {
      check(lib.layout(&w, CUDA_R_16BF, uint64_t(K), uint64_t(N), K), "describing a matrix");
      check(lib.layout(&x, CUDA_R_16BF, uint64_t(K), uint64_t(M), K), "describing a matrix");
      check(lib.layout(&y, CUDA_R_32F, uint64_t(N), uint64_t(M), N), "describing a matrix");
    }
    ~Layouts() {
      for (const cublasLtMatrixLayout_t l : {w, x, y})
        if (l != nullptr) lib.forget_layout(l);
    }
    Layouts(const Layouts&) = delete;
  };

  uint32_t value(const cublasLtMatmulAlgo_t& algo, cublasLtMatmulAlgoConfigAttributes_t what) const {
    uint32_t v = 0;
    size_t written = 0;
    check(lib_.algo_value(&algo, what, &v, sizeof v, &written), "reading an algorithm");
    return v;
  }

  // The fastest by the library's own estimate that sums an output in one pass.
  cublasLtMatmulAlgo_t choose(int64_t N, int64_t K) const {
    const Layouts layouts(lib_, kChosenFor, N, K);
    cublasLtMatmulPreference_t preference = nullptr;
    check(lib_.prefer(&preference), "choosing an algorithm");
    const size_t workspace = kVendorWorkspace;
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE;
    cublasLtMatmulHeuristicResult_t results[16];
    int count = 0;
    lib_.set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    lib_.set_preference(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes);
    const cublasStatus_t status = lib_.heuristic(handle_, product_, layouts.w, layouts.x, layouts.y, layouts.y, preference, 16, results, &count);
    lib_.forget_preference(preference);
    check(status, "choosing an algorithm");
    for (int i = 0; i < count; ++i) {
      const cublasLtMatmulAlgo_t& algo = results[i].algo;
      if (results[i].state == CUBLAS_STATUS_SUCCESS && value(algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) <= 1 &&
          value(algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) == CUBLASLT_REDUCTION_SCHEME_NONE)
        return algo;
    }
    throw DeviceError("cuBLASLt has no algorithm without split sums for a matrix (" + std::to_string(N) + ", " + std::to_string(K) + "); run without the vendor's products");
  }

  Library lib_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  std::map<std::pair<int64_t, int64_t>, cublasLtMatmulAlgo_t> chosen_;  // by N, K
};

#endif

}  // namespace

void linear_vendor(const Context& c, const Rows& x, Type type, const Targets& targets) {
  for (int i = 0; i < targets.n; ++i) multiply(c, x, type, targets.at[i], targets.gated);
}

std::unique_ptr<Vendor> make_vendor(Device& device) {
#ifdef __CUDACC__
  return std::make_unique<Cublas>(device);
#else
  (void)device;
  throw DeviceError("cuBLAS: an emulated GPU has none; run without the vendor's products");
#endif
}

}  // namespace bg::BG_CUDA
