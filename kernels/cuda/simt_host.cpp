// Fibers, warps and blocks behind simt_host.h.
#include "kernels/cuda/simt_host.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/cuda/device_emulated.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

// void switch(void** old_sp, void* new_sp): callee-saved registers to the old stack, those of the new one back.
extern "C" void bg_simt_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.globl bg_simt_switch
.hidden bg_simt_switch
.type bg_simt_switch, @function
bg_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size bg_simt_switch, .-bg_simt_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl bg_simt_switch
.hidden bg_simt_switch
.type bg_simt_switch, %function
bg_simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size bg_simt_switch, .-bg_simt_switch
)");
#else
#error "simt_host.cpp: no context switch for this processor; build with EMULATED=0"
#endif

namespace bg::emulated::simt {

thread_local Fiber* fiber_ = nullptr;
thread_local Place place_;

namespace {

constexpr size_t kStack = 256 << 10;
constexpr size_t kSharedLimit = 99 << 10;  // of the smallest GPU supported (8.6, 8.9, 12.0)
constexpr size_t kStaticLimit = 48 << 10;  // what a kernel may declare without asking
constexpr size_t kEdge = 128;              // between two arrays in shared memory
constexpr size_t kSharedRoom = kSharedLimit + 64 * kEdge;
constexpr int kMostThreads = 1024;

enum class Waits { no, warp, block, done };

struct Copy {
  void* to;
  const void* from;
  int bytes;
  bool valid;
};

struct FiberState : Fiber {
  void* sp = nullptr;
  char* stack = nullptr;
  Waits waits = Waits::no;
  int warp = 0;
  uint64_t meeting = 0;     // which meeting of its warp it waits for
  const char* file = nullptr;  // of the barrier it waits at
  int line = 0;
  std::vector<std::vector<Copy>> groups;  // committed asynchronous copies, oldest first
  std::vector<Copy> open;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif
#if defined(__SANITIZE_THREAD__)
  void* tsan = nullptr;
#endif
};

struct Warp {
  unsigned arrived = 0, mask = 0;
  Combine combine = nullptr;
  uint64_t meeting = 0;  // how many are over
  // In turns: a lane that is one meeting ahead must not overwrite what others still read.
  alignas(64) unsigned char in[2][32][kSlot], out[2][32][kSlot];
};

// What one core needs to run a block; kept from one block to the next.
struct Core {
  std::vector<FiberState> fibers;
  std::vector<Warp> warps;
  void* scheduler_sp = nullptr;
  unsigned char* shared = nullptr;
  size_t shared_used = 0;
  struct Array {
    const void* id;
    void* at;
  };
  std::vector<Array> arrays;
  void* dynamic = nullptr;
  size_t static_bytes = 0, dynamic_bytes = 0;
  void (*call)(const void*) = nullptr;
  const void* body = nullptr;
  int threads = 0;
  std::string error;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  const void* scheduler_bottom = nullptr;
  size_t scheduler_size = 0;
#endif
#if defined(__SANITIZE_THREAD__)
  void* tsan = nullptr;
#endif

  ~Core() {
    for (FiberState& f : fibers) {
      munmap(f.stack, kStack);
#if defined(__SANITIZE_THREAD__)
      __tsan_destroy_fiber(f.tsan);
#endif
    }
    if (shared != nullptr) ASAN_UNPOISON_MEMORY_REGION(shared, kSharedRoom);
    std::free(shared);
  }
};
thread_local Core core;

FiberState* running() { return static_cast<FiberState*>(fiber_); }

void to_scheduler(FiberState* f) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(f->waits == Waits::done ? nullptr : &f->fake_stack, core.scheduler_bottom, core.scheduler_size);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(core.tsan, 0);
#endif
  bg_simt_switch(&f->sp, core.scheduler_sp);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(f->fake_stack, &core.scheduler_bottom, &core.scheduler_size);
#endif
}

void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &core.scheduler_bottom, &core.scheduler_size);
#endif
  core.call(core.body);
  copies_land(0);
  running()->waits = Waits::done;
  to_scheduler(running());
  std::abort();  // a finished fiber is never run again
}

void resume(FiberState* f) {
  fiber_ = f;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&core.fake_stack, f->stack, kStack);
#endif
#if defined(__SANITIZE_THREAD__)
  core.tsan = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(f->tsan, 0);
#endif
  bg_simt_switch(&core.scheduler_sp, f->sp);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(core.fake_stack, nullptr, nullptr);
#endif
}

void fail(const std::string& what) {
  if (core.error.empty()) core.error = what;
}

// Gives up the running thread: the block is abandoned.
void stop() {
  FiberState* f = running();
  f->waits = Waits::done;
  to_scheduler(f);
  std::abort();
}

void prepare(FiberState& f) {
  if (f.stack == nullptr) {
    void* p = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      std::fputs("no memory for the stacks of emulated threads\n", stderr);
      std::abort();
    }
    f.stack = static_cast<char*>(p);
    mprotect(f.stack, 4096, PROT_NONE);
#if defined(__SANITIZE_THREAD__)
    f.tsan = __tsan_create_fiber(0);
#endif
  }
  ASAN_UNPOISON_MEMORY_REGION(f.stack + 4096, kStack - 4096);  // of a thread that was given up
  void** top = reinterpret_cast<void**>(f.stack + kStack - 64);
#if defined(__x86_64__)
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&enter);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
#else
  for (int i = 0; i < 20; ++i) *--top = nullptr;
  top[11] = reinterpret_cast<void*>(&enter);
#endif
  f.sp = top;
  f.waits = Waits::no;
  f.meeting = 0;
  f.groups.clear();
  f.open.clear();
}

void* carve(size_t bytes) {
  if (core.shared_used + bytes + kEdge > kSharedRoom) return nullptr;
  unsigned char* at = core.shared + core.shared_used;
  core.shared_used += (bytes + kEdge - 1) / kEdge * kEdge + kEdge;
  ASAN_UNPOISON_MEMORY_REGION(at, bytes);
  memset(at, 0xff, bytes);  // NaN, in every format
  return at;
}

std::string index_of(const FiberState& f) {
  return "thread (" + std::to_string(f.thread.x) + ", " + std::to_string(f.thread.y) + ", " + std::to_string(f.thread.z) + ")";
}

// No thread can go on: all are done, or all wait at one barrier, or something is wrong. True when they can go on.
bool pass_barrier() {
  const FiberState *waiting = nullptr, *done = nullptr;
  for (int i = 0; i < core.threads; ++i) {
    const FiberState& f = core.fibers[size_t(i)];
    if (f.waits == Waits::done) {
      done = &f;
    } else if (f.waits == Waits::warp) {
      fail(index_of(f) + " waits for lanes of its warp that do not come");
      return false;
    } else if (waiting != nullptr && (f.line != waiting->line || strcmp(f.file, waiting->file) != 0)) {
      fail(index_of(f) + " waits at the barrier in " + f.file + ":" + std::to_string(f.line) + ", " + index_of(*waiting) + " at that in " + waiting->file + ":" +
           std::to_string(waiting->line));
      return false;
    } else {
      waiting = &f;
    }
  }
  if (waiting == nullptr) return false;
  if (done != nullptr) {
    fail(index_of(*waiting) + " waits at the barrier in " + waiting->file + ":" + std::to_string(waiting->line) + ", " + index_of(*done) + " has ended");
    return false;
  }
  for (int i = 0; i < core.threads; ++i) core.fibers[size_t(i)].waits = Waits::no;
  return true;
}

void run_block(bool backward) {
  const int warps = (core.threads + 31) / 32;
  do {
    for (int w = 0; w < warps; ++w) {
      const int warp = backward ? warps - 1 - w : w, first = 32 * warp, count = core.threads - first < 32 ? core.threads - first : 32;
      for (bool moved = true; moved && core.error.empty();) {
        moved = false;
        for (int i = 0; i < count && core.error.empty(); ++i) {
          FiberState& f = core.fibers[size_t(first + (backward ? count - 1 - i : i))];
          if (f.waits == Waits::warp && core.warps[size_t(warp)].meeting > f.meeting) f.waits = Waits::no;
          if (f.waits != Waits::no) continue;
          resume(&f);
          moved = true;
        }
      }
    }
  } while (core.error.empty() && pass_barrier());
}

struct Launch {
  const char* name;
  dim3 grid, block;
  size_t shared;
  void (*call)(const void*);
  const void* body;
  bool backward;
};

void run_one(const Launch& l, int64_t number, std::string* error) {
  const int threads = int(l.block.x * l.block.y * l.block.z);
  if (core.shared == nullptr) {
    core.shared = static_cast<unsigned char*>(std::aligned_alloc(128, kSharedRoom));
    if (core.shared == nullptr) std::abort();
    core.fibers.reserve(kMostThreads);
  }
  while (int(core.fibers.size()) < threads) core.fibers.emplace_back();
  core.warps.resize(kMostThreads / 32);
  core.threads = threads;
  core.call = l.call;
  core.body = l.body;
  core.error.clear();
  core.arrays.clear();
  core.static_bytes = 0;
  core.dynamic_bytes = l.shared;
  core.shared_used = 0;
  ASAN_POISON_MEMORY_REGION(core.shared, kSharedRoom);
  core.dynamic = carve(l.shared);
  place_.blocks = l.grid;
  place_.threads = l.block;
  place_.block = dim3(unsigned(number % l.grid.x), unsigned(number / l.grid.x % l.grid.y), unsigned(number / l.grid.x / l.grid.y));
  for (int w = 0; w < (threads + 31) / 32; ++w) core.warps[size_t(w)].arrived = 0, core.warps[size_t(w)].meeting = 0;
  for (int i = 0; i < threads; ++i) {
    FiberState& f = core.fibers[size_t(i)];
    f.thread = dim3(unsigned(i) % l.block.x, unsigned(i) / l.block.x % l.block.y, unsigned(i) / (l.block.x * l.block.y));
    f.lane = i % 32;
    f.warp = i / 32;
    prepare(f);
  }
  run_block(l.backward);
  ASAN_UNPOISON_MEMORY_REGION(core.shared, kSharedRoom);
  if (!core.error.empty())
    *error = std::string(l.name) + ", block (" + std::to_string(place_.block.x) + ", " + std::to_string(place_.block.y) + ", " + std::to_string(place_.block.z) +
             "): " + core.error;
}

}  // namespace

void* shared_array(const void* id, size_t bytes) {
  for (const Core::Array& a : core.arrays)
    if (a.id == id) return a.at;
  core.static_bytes += bytes;
  void* at = core.static_bytes <= kStaticLimit && core.static_bytes + core.dynamic_bytes <= kSharedLimit ? carve(bytes) : nullptr;
  if (at == nullptr) {
    fail("declares more than " + std::to_string(kStaticLimit) + " bytes of shared memory, or more than " + std::to_string(kSharedLimit) + " together with what its launch asks for");
    stop();
  }
  core.arrays.push_back({id, at});
  return at;
}

void* dynamic_shared() { return core.dynamic; }

void barrier(const char* file, int line) {
  FiberState* f = running();
  f->waits = Waits::block;
  f->file = file;
  f->line = line;
  to_scheduler(f);
}

void meet(unsigned mask, Combine combine, const void* in, size_t in_bytes, void* out, size_t out_bytes) {
  FiberState* f = running();
  Warp& w = core.warps[size_t(f->warp)];
  const unsigned me = 1u << f->lane;
  const size_t turn = w.meeting % 2;
  if (w.arrived == 0) w.mask = mask, w.combine = combine;
  if ((mask & me) == 0 || mask != w.mask || combine != w.combine) {
    fail(index_of(*f) + ": the lanes of a warp meet in different operations, or with different masks");
    stop();
  }
  memcpy(w.in[turn][f->lane], in, in_bytes);
  w.arrived |= me;
  f->meeting = w.meeting;
  if (w.arrived == w.mask) {
    combine(mask, w.in[turn], w.out[turn]);
    w.arrived = 0;
    ++w.meeting;
  } else {
    f->waits = Waits::warp;
    to_scheduler(f);
  }
  memcpy(out, w.out[turn][f->lane], out_bytes);
}

unsigned ballot(unsigned mask, bool value) {
  const unsigned char in = value;
  unsigned out;
  meet(mask, [](unsigned m, const unsigned char (*i)[kSlot], unsigned char (*o)[kSlot]) {
    unsigned bits = 0;
    for (int lane = 0; lane < 32; ++lane)
      if ((m >> lane & 1) != 0 && i[lane][0] != 0) bits |= 1u << lane;
    for (int lane = 0; lane < 32; ++lane) put(o, lane, bits);
  }, &in, sizeof in, &out, sizeof out);
  return out;
}

namespace {

// Towards zero, as the tensor cores round.
float cut(double x) {
  const float f = float(x);
  return fabs(double(f)) > fabs(x) && isfinite(f) ? nextafterf(f, 0.0f) : f;
}

struct Fragments {
  float d[4];
  uint32_t a[4], b[2];
};

// The K = 16 product, K = 8 being one with zeros: a2 = a3 = b1 = 0.
template <float (*Value)(uint16_t)>
void product(unsigned, const unsigned char (*in)[kSlot], unsigned char (*out)[kSlot]) {
  float a[16][16], b[8][16];
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments f = get<Fragments>(in, lane);
    const int g = lane / 4, p = lane % 4;
    for (int i = 0; i < 4; ++i)
      for (int half = 0; half < 2; ++half) a[g + 8 * (i % 2)][2 * p + 8 * (i / 2) + half] = Value(uint16_t(f.a[i] >> (16 * half)));
    for (int i = 0; i < 2; ++i)
      for (int half = 0; half < 2; ++half) b[g][2 * p + 8 * i + half] = Value(uint16_t(f.b[i] >> (16 * half)));
  }
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments f = get<Fragments>(in, lane);
    float d[4];
    for (int e = 0; e < 4; ++e) {
      const float *row = a[lane / 4 + 8 * (e / 2)], *column = b[2 * (lane % 4) + e % 2];
      double sum = f.d[e];
      for (int k = 0; k < 16; ++k) sum += double(row[k]) * double(column[k]);
      d[e] = cut(sum);
    }
    memcpy(out[lane], d, sizeof d);
  }
}

void product_s8(unsigned, const unsigned char (*in)[kSlot], unsigned char (*out)[kSlot]) {
  int8_t a[16][32], b[8][32];
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments f = get<Fragments>(in, lane);
    const int g = lane / 4, p = lane % 4;
    for (int i = 0; i < 4; ++i) memcpy(&a[g + 8 * (i % 2)][4 * p + 16 * (i / 2)], &f.a[i], 4);
    for (int i = 0; i < 2; ++i) memcpy(&b[g][4 * p + 16 * i], &f.b[i], 4);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments f = get<Fragments>(in, lane);
    int32_t d[4];
    memcpy(d, f.d, sizeof d);
    for (int e = 0; e < 4; ++e)
      for (int k = 0; k < 32; ++k) d[e] += int(a[lane / 4 + 8 * (e / 2)][k]) * int(b[2 * (lane % 4) + e % 2][k]);
    memcpy(out[lane], d, sizeof d);
  }
}

struct Rows {
  const void* row;
  int matrices;
  bool transposed;
};

void load_matrices(unsigned, const unsigned char (*in)[kSlot], unsigned char (*out)[kSlot]) {
  const Rows first = get<Rows>(in, 0);
  uint32_t r[32][4] = {};
  for (int m = 0; m < first.matrices; ++m) {
    uint16_t e[8][8];
    for (int i = 0; i < 8; ++i) {
      const auto* row = static_cast<const uint16_t*>(get<Rows>(in, 8 * m + i).row);
      for (int j = 0; j < 8; ++j) e[i][j] = row[j];  // element by element, so that the sanitizer looks at each
    }
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, p = lane % 4;
      r[lane][m] = first.transposed ? uint32_t(e[2 * p][g]) | uint32_t(e[2 * p + 1][g]) << 16 : uint32_t(e[g][2 * p]) | uint32_t(e[g][2 * p + 1]) << 16;
    }
  }
  for (int lane = 0; lane < 32; ++lane) memcpy(out[lane], r[lane], sizeof r[lane]);
}

}  // namespace

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const Fragments f{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  meet(0xffffffffu, product<bf16_to_float>, &f, sizeof f, d, sizeof d);
}
void mma_bf16_k8(float (&d)[4], const uint32_t (&a)[2], uint32_t b) {
  const Fragments f{{d[0], d[1], d[2], d[3]}, {a[0], a[1], 0, 0}, {b, 0}};
  meet(0xffffffffu, product<bf16_to_float>, &f, sizeof f, d, sizeof d);
}
void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const Fragments f{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  meet(0xffffffffu, product<bg::f16_to_float>, &f, sizeof f, d, sizeof d);
}
void mma_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  Fragments f{{}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  memcpy(f.d, d, sizeof d);
  meet(0xffffffffu, product_s8, &f, sizeof f, d, sizeof d);
}

void ldmatrix(uint32_t* r, int matrices, bool transposed, const void* row) {
  if (fiber_->lane < 8 * matrices) check_aligned(row, 16);
  const Rows in{row, matrices, transposed};
  meet(0xffffffffu, load_matrices, &in, sizeof in, r, size_t(matrices) * 4);
}

void check_aligned(const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes == 0) return;
  fail(index_of(*running()) + " uses an address that is no multiple of " + std::to_string(bytes));
  stop();
}

void copy_later(void* shared, const void* global, int bytes, bool valid) {
  check_aligned(shared, size_t(bytes));
  if (valid) check_aligned(global, size_t(bytes));
  running()->open.push_back({shared, global, bytes, valid});
}
void copy_commit() {
  FiberState* f = running();
  f->groups.push_back(std::move(f->open));
  f->open.clear();
}
void copies_land(int groups_under_way) {
  FiberState* f = running();
  while (int(f->groups.size()) > groups_under_way) {
    for (const Copy& c : f->groups.front()) {
      auto* to = static_cast<unsigned char*>(c.to);
      for (int i = 0; i < c.bytes; ++i) to[i] = c.valid ? static_cast<const unsigned char*>(c.from)[i] : 0;
    }
    f->groups.erase(f->groups.begin());
  }
}

void launch(void* device, const char* name, dim3 grid, dim3 block, size_t shared, void (*call)(const void*), const void* body, size_t body_bytes) {
  auto* d = static_cast<EmulatedDevice*>(static_cast<Device*>(device));
  std::vector<uint64_t> copy(body_bytes / 8 + 1);
  memcpy(copy.data(), body, body_bytes);
  d->run([name, grid, block, shared, call, copy, d] {
    const uint64_t threads = uint64_t(block.x) * block.y * block.z, blocks = uint64_t(grid.x) * grid.y * grid.z;
    if (blocks == 0 || threads == 0 || threads > kMostThreads || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || shared > kSharedLimit)
      throw DeviceError(std::string(name) + ": a launch of " + std::to_string(blocks) + " blocks of " + std::to_string(threads) + " threads with " + std::to_string(shared) +
                        " bytes of shared memory: no GPU takes that");
    const Launch l{name, grid, block, shared, call, copy.data(), d->backward()};
    std::mutex mutex;
    std::string error;
    std::atomic<bool> failed{false};
    d->threads().run(int64_t(blocks), [&](int64_t number, int) {
      if (failed) return;
      std::string mine;
      run_one(l, number, &mine);
      if (mine.empty()) return;
      failed = true;
      const std::lock_guard<std::mutex> lock(mutex);
      if (error.empty()) error = mine;
    });
    if (failed) throw DeviceError(error);
  });
}

}  // namespace bg::emulated::simt
