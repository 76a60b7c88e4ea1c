// Host memory for both CPU backends (contract: Ops::allocate).
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "kernels/ref/ref.h"

namespace bg::ref {
namespace {
constexpr size_t kMapped = size_t(1) << 20;  // from here on straight from the system: zero pages, taken when first touched
constexpr size_t kAlign = 64;
}  // namespace

void* allocate(size_t bytes) {
  if (bytes >= kMapped) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return nullptr;
#ifdef MADV_HUGEPAGE
    madvise(p, bytes, MADV_HUGEPAGE);  // where the system has none to give, small pages
#endif
    return p;
  }
  const size_t rounded = bytes == 0 ? kAlign : (bytes + kAlign - 1) / kAlign * kAlign;
  void* p = std::aligned_alloc(kAlign, rounded);
  if (p != nullptr) std::memset(p, 0, rounded);
  return p;
}

void release(void* p, size_t bytes) {
  if (p == nullptr) return;
  if (bytes >= kMapped) {
    munmap(p, bytes);
  } else {
    std::free(p);
  }
}

}  // namespace bg::ref
