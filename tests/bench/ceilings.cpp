// See ceilings.h. Inner loops are assembly, so that no compiler can leave anything out: enough independent chains to hide the latency, operands in
// registers, all zeros (their values do not change the time; only subnormals would).
#include "tests/bench/ceilings.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "tests/bench/memory.h"

namespace bg::bench {
namespace {

using Loop = void (*)(int64_t rounds);

#if defined(__x86_64__)
// `chains` instructions on registers 0 … chains − 1, `rounds` times. ZERO clears register r, STEP is one multiply-add into it.
#define BG_LOOP(name, isa, chains, ZERO, STEP)                                                                                                  \
  __attribute__((target(isa))) void name(int64_t rounds) {                                                                                     \
    asm volatile(".irp r," chains ",15\n\t" ZERO "\n\t.endr\n1:\n\t.irp r," chains "\n\t" STEP "\n\t.endr\n\tdec %0\n\tjnz 1b\n\tvzeroupper"    \
                 : "+r"(rounds)                                                                                                                 \
                 :                                                                                                                              \
                 : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",     \
                   "xmm14", "xmm15" BG_MORE);                                                                                                   \
  }
#define BG_12 "0,1,2,3,4,5,6,7,8,9,10,11"
#define BG_24 BG_12 ",16,17,18,19,20,21,22,23,24,25,26,27"
#define BG_MORE
BG_LOOP(fma_avx2, "avx2,fma", BG_12, "vpxor %%ymm\\r,%%ymm\\r,%%ymm\\r", "vfmadd231ps %%ymm15,%%ymm15,%%ymm\\r")
// AVX2 has no int8 dot product: pairs to int16, pairs of those to int32, and a sum.
BG_LOOP(maddubs_avx2, "avx2", "0,1,2,3,4,5", "vpxor %%ymm\\r,%%ymm\\r,%%ymm\\r",
        "vpmaddubsw %%ymm15,%%ymm15,%%ymm14\n\tvpmaddwd %%ymm15,%%ymm14,%%ymm14\n\tvpaddd %%ymm14,%%ymm\\r,%%ymm\\r")
#undef BG_MORE
#define BG_MORE , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27"
#define BG_ZERO "vpxord %%zmm\\r,%%zmm\\r,%%zmm\\r"
BG_LOOP(fma_avx512, "avx512f", BG_24, BG_ZERO, "vfmadd231ps %%zmm15,%%zmm15,%%zmm\\r")
BG_LOOP(dpbf16ps, "avx512f", BG_24, BG_ZERO, "vdpbf16ps %%zmm15,%%zmm15,%%zmm\\r")
BG_LOOP(dpbusd, "avx512f", BG_24, BG_ZERO, "vpdpbusd %%zmm15,%%zmm15,%%zmm\\r")

// Tiles of 16 rows of 64 bytes: four sums, two operands on either side. A tile has no values before it is configured, and the configuration must be in
// memory when ldtilecfg reads it: it is an input of the statement, not an address that the compiler cannot follow.
struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "as ldtilecfg reads it");
#define BG_TILES(name, STEP)                                                                                                                       \
  void name(int64_t rounds) {                                                                                                                      \
    alignas(64) const TileConfig config;                                                                                                           \
    asm volatile("ldtilecfg %1\n\t.irp r,0,1,2,3,4,5,6,7\n\ttilezero %%tmm\\r\n\t.endr\n1:\n\t" STEP " %%tmm6,%%tmm4,%%tmm0\n\t" STEP               \
                 " %%tmm7,%%tmm4,%%tmm1\n\t" STEP " %%tmm6,%%tmm5,%%tmm2\n\t" STEP " %%tmm7,%%tmm5,%%tmm3\n\tdec %0\n\tjnz 1b\n\ttilerelease"        \
                 : "+r"(rounds)                                                                                                                    \
                 : "m"(config)                                                                                                                     \
                 : "cc");                                                                                                                          \
  }
BG_TILES(amx_bf16, "tdpbf16ps")
BG_TILES(amx_int8, "tdpbusd")

// Reads n bytes, a multiple of 512. Lines 1 KiB ahead are asked for, of the first cache eight at once or of the second one by one: the hardware's own prefetch alone reaches 85 %
// of the better one on one core of some processors.
#define BG_READ(name, isa, XOR, BYTES, REGISTER)                                                                                               \
  __attribute__((target(isa))) void name##_first(const char* p, size_t n) {                                                                    \
    asm volatile("1:\n\t.irp r,0,1,2,3,4,5,6,7\n\tprefetcht0 1024+" BYTES "*\\r(%0)\n\t.endr\n\t.irp r,0,1,2,3,4,5,6,7\n\t"                     \
                 XOR " " BYTES "*\\r(%0),%%" REGISTER "\\r,%%" REGISTER "\\r\n\t.endr" BG_READ_END(BYTES)                                       \
  }                                                                                                                                            \
  __attribute__((target(isa))) void name##_second(const char* p, size_t n) {                                                                   \
    asm volatile("1:\n\t.irp r,0,1,2,3,4,5,6,7\n\tprefetcht1 1024+" BYTES "*\\r(%0)\n\t"                                                      \
                 XOR " " BYTES "*\\r(%0),%%" REGISTER "\\r,%%" REGISTER "\\r\n\t.endr" BG_READ_END(BYTES)                                       \
  }
#define BG_READ_END(BYTES)                                                                                                                     \
  "\n\tadd $8*" BYTES ",%0\n\tsub $8*" BYTES ",%1\n\tjnz 1b\n\tvzeroupper"                                                                    \
      : "+r"(p), "+r"(n)                                                                                                                       \
      :                                                                                                                                        \
      : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
BG_READ(read_avx2, "avx2", "vpxor", "32", "ymm")
BG_READ(read_avx512, "avx512f", "vpxord", "64", "zmm")
#elif defined(__aarch64__)
#define BG_20 "0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23,24,25,26,27"
#define BG_LOOP(name, isa, STEP)                                                                                                                \
  __attribute__((target(isa))) void name(int64_t rounds) {                                                                                     \
    asm volatile(".irp r," BG_20 ",31\n\tmovi v\\r\\().4s, #0\n\t.endr\n1:\n\t.irp r," BG_20 "\n\t" STEP "\n\t.endr\n\tsubs %0, %0, #1\n\tb.ne 1b"  \
                 : "+r"(rounds)                                                                                                                 \
                 :                                                                                                                              \
                 : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25",   \
                   "v26", "v27", "v31");                                                                                                        \
  }
BG_LOOP(fma_neon, "arch=armv8-a", "fmla v\\r\\().4s, v31.4s, v31.4s")
BG_LOOP(sdot, "arch=armv8.2-a+dotprod", "sdot v\\r\\().4s, v31.16b, v31.16b")
BG_LOOP(smmla, "arch=armv8.2-a+i8mm", "smmla v\\r\\().4s, v31.16b, v31.16b")
#endif

// What a compiler makes of plain code for the baseline of the machine: a product and a sum, four lanes, twelve chains.
typedef float Float4 __attribute__((vector_size(16)));
void fma_portable(int64_t rounds) {
  Float4 a[12] = {}, x = {};
  asm volatile("" : "+m"(x));
  const Float4 y = x;
  for (; rounds > 0; --rounds) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) a[i] = a[i] * y + y;
  }
  for (Float4& v : a) asm volatile("" : : "m"(v));
}

void read_portable(const char* p, size_t n) {
  typedef uint64_t Words __attribute__((vector_size(64)));
  Words s[4] = {};
  for (size_t i = 0; i + 256 <= n; i += 256)
    for (size_t j = 0; j < 4; ++j) s[j] ^= *reinterpret_cast<const Words*>(p + i + 64 * j);
  for (Words& v : s) asm volatile("" : : "m"(v));
}

struct Entry {
  Ceiling ceiling;
  const char* name;
  Isa isa;       // the machine has the instruction where this one runs
  Loop loop;     // nullptr: not built for this processor
  double work;   // FLOP of one round of the loop on one thread
};

#if defined(__x86_64__)
#define BG_X86(f) f
#define BG_ARM(f) nullptr
#elif defined(__aarch64__)
#define BG_X86(f) nullptr
#define BG_ARM(f) f
#else
#define BG_X86(f) nullptr
#define BG_ARM(f) nullptr
#endif
constexpr Entry kEntries[] = {
    {Ceiling::read, "read", Isa::portable, nullptr, 0},
    {Ceiling::fma_portable, "float32, baseline", Isa::portable, fma_portable, 12 * 4 * 2},
    {Ceiling::fma_avx2, "float32 FMA, AVX2", Isa::avx2, BG_X86(fma_avx2), 12 * 8 * 2},
    {Ceiling::fma_avx512, "float32 FMA, AVX-512", Isa::avx512, BG_X86(fma_avx512), 24 * 16 * 2},
    {Ceiling::dpbf16ps, "vdpbf16ps", Isa::avx512bf16, BG_X86(dpbf16ps), 24 * 32 * 2},
    {Ceiling::maddubs_avx2, "int8, AVX2", Isa::avx2, BG_X86(maddubs_avx2), 6 * 32 * 2},
    {Ceiling::dpbusd, "vpdpbusd", Isa::avx512, BG_X86(dpbusd), 24 * 64 * 2},
    {Ceiling::amx_bf16, "AMX BF16", Isa::amx, BG_X86(amx_bf16), 4 * 16 * 16 * 32 * 2},
    {Ceiling::amx_int8, "AMX int8", Isa::amx, BG_X86(amx_int8), 4 * 16 * 16 * 64 * 2},
    {Ceiling::fma_neon, "float32 FMA, NEON", Isa::neon, BG_ARM(fma_neon), 20 * 4 * 2},
    {Ceiling::sdot, "sdot", Isa::neon, BG_ARM(sdot), 20 * 16 * 2},
    {Ceiling::smmla, "smmla", Isa::neon_i8mm, BG_ARM(smmla), 20 * 32 * 2},
};
constexpr size_t kEntryCount = sizeof kEntries / sizeof kEntries[0];

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Seconds from the first thread's start to the last one's end; they wait for each other first, so starting them costs nothing.
template <class F>
double on_all_threads(int threads, F f) {
  std::atomic<int> ready{0};
  std::vector<double> start(static_cast<size_t>(threads)), end(static_cast<size_t>(threads));
  const auto body = [&](int i) {
    ++ready;
    while (ready < threads) std::this_thread::yield();
    start[size_t(i)] = now();
    f(i);
    end[size_t(i)] = now();
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(body, i);
  body(0);
  for (std::thread& t : others) t.join();
  return *std::max_element(end.begin(), end.end()) - *std::min_element(start.begin(), start.end());
}

constexpr size_t kReadBytes = size_t(1) << 30;

using Read = void (*)(const char* p, size_t n);

// The fastest way to read that this machine has, on one thread.
Read fastest_read(const char* p) {
  std::vector<Read> ways = {read_portable};
#if defined(__x86_64__)
  if (runs(Isa::avx512))
    ways = {read_avx512_first, read_avx512_second};
  else if (runs(Isa::avx2))
    ways = {read_avx2_first, read_avx2_second};
#endif
  std::vector<double> best(ways.size(), 1e9);
  for (int round = 0; round < 3; ++round)
    for (size_t i = 0; i < ways.size(); ++i) best[i] = std::min(best[i], on_all_threads(1, [&](int) { ways[i](p, kReadBytes / 4); }));
  return ways[size_t(std::min_element(best.begin(), best.end()) - best.begin())];
}

double read_memory(int threads) {
  static const Memory memory(kReadBytes);
  static const Read read = fastest_read(memory.data());
  const size_t share = kReadBytes / size_t(threads) / 512 * 512;
  return double(share) * threads / on_all_threads(threads, [&](int i) { read(memory.data() + size_t(i) * share, share); });
}

}  // namespace

std::vector<Ceiling> ceilings_of_this_machine() {
  std::vector<Ceiling> out;
  for (const Entry& e : kEntries)
    if ((e.loop != nullptr || e.ceiling == Ceiling::read) && runs(e.isa)) out.push_back(e.ceiling);
  return out;
}

const char* ceiling_name(Ceiling c) { return kEntries[size_t(c)].name; }
bool is_bandwidth(Ceiling c) { return c == Ceiling::read; }

const char* ceiling_unit(Ceiling c) {
  switch (c) {
    case Ceiling::read: return "GB/s";
    case Ceiling::maddubs_avx2:
    case Ceiling::dpbusd:
    case Ceiling::amx_int8:
    case Ceiling::sdot:
    case Ceiling::smmla: return "Gop/s";
    default: return "GFLOP/s";
  }
}

double read_ceiling(Ceiling c, int threads) {
  if (c == Ceiling::read) return read_memory(threads);
  static int64_t rounds[kEntryCount] = {};  // of 15 ms, found at the first reading
  const Entry& e = kEntries[size_t(c)];
  int64_t& n = rounds[size_t(c)];
  const auto alone = [&] { return on_all_threads(1, [&](int) { e.loop(n); }); };
  if (n == 0)
    for (n = 1000; std::min({alone(), alone(), alone()}) < 0.01; n *= 2) {}
  return double(n) * e.work * threads / on_all_threads(threads, [&](int) { e.loop(n); });
}

Ceiling ceiling_of(Isa isa, Precision precision, Type weights, Phase phase) {
  const bool exact = precision == Precision::float32 || weights == Type::f32 || weights == Type::f16;
  switch (isa) {
    case Isa::amx: return exact ? Ceiling::fma_avx512 : is_quantised(weights) && phase == Phase::step ? Ceiling::dpbusd : Ceiling::amx_bf16;
    case Isa::avx512bf16: return exact ? Ceiling::fma_avx512 : is_quantised(weights) ? Ceiling::dpbusd : Ceiling::dpbf16ps;
    case Isa::avx512: return !exact && is_quantised(weights) ? Ceiling::dpbusd : Ceiling::fma_avx512;
    case Isa::avx2: return !exact && is_quantised(weights) ? Ceiling::maddubs_avx2 : Ceiling::fma_avx2;
    case Isa::neon: return !exact && is_quantised(weights) ? Ceiling::sdot : Ceiling::fma_neon;
    case Isa::neon_i8mm: return !exact && is_quantised(weights) ? Ceiling::smmla : Ceiling::fma_neon;
    default: return Ceiling::fma_portable;
  }
}

}  // namespace bg::bench
