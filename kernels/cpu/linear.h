// The matrix product of a block of rows with a group of panels, once per instruction set. Lanes are sixteen outputs, the inputs follow one another: every
// output is one chain in ascending order of the inputs, so no tile, chunk, thread or number of rows can change a bit.
// Not here: which groups, threads (linear.cpp); what a panel is (kernels/panels.h).
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

namespace bg::cpu {

// What the rows of x become before they are multiplied; once for all products that share them.
enum Packing {
  kPackNone,  // float32 where it lies
  kPackBf16,  // bf16, zeros up to a multiple of 32 inputs; sixteen rows side by side: 32 inputs of each (64 bytes), then the next 32 (a tile of AMX). A row alone: one
              // number behind the other, except for AMX
  kPackQ8,    // int8 with a scale for each 32 inputs (Q8_0)
  kPackQ8K    // int8 with a scale for each 256 inputs, and sums (Q4_K, Q6_K)
};

constexpr int64_t kRowBlock = 512;      // rows of x that are packed and multiplied at a time
constexpr int64_t kGroupPanels = 32;    // panels of one call, at most
constexpr int64_t kWidestTile = 4;      // panels of the widest tile: calls begin at multiples of it
constexpr int64_t kSumsStride = kGroupPanels * 16 + 16;  // floats from one row of sums to the next, off the powers of two

struct Rows {             // of x, packed
  const void* data;
  size_t stride;          // bytes from one row to the next
  int64_t count;          // ≤ kRowBlock
  int64_t D;              // inputs of a row
};

struct Unpacked {         // rows of x that are packed by one call: of one block of sixteen
  const float* data;      // of row `first`
  int64_t stride;         // floats from one row to the next
  int64_t first, count;
  const float* row(int64_t i) const { return data + i * stride; }
};

// Whether a row alone asks for its weights far ahead (ops.cpp; linear_parts.h, Near and Far).
bool asks_far_ahead();

struct LinearIsa {
  Packing (*packing)(Type weights, Precision precision, Phase phase);
  size_t (*packed_stride)(Packing p, int64_t D);                                        // bytes of one packed row; 0 for kPackNone
  void (*pack)(Packing p, void* to, const Unpacked& x, int64_t D);                      // `to`: where row 0 goes
  void (*pack_one)(Packing p, void* to, const float* x, int64_t D);                     // the only row
  // sums (rows, 16·count) = x·wᵀ for `count` ≤ kGroupPanels panels from panel `first` on; rows of sums lie kSumsStride floats apart.
  // scratch: kLinearScratch bytes, 64-byte aligned.
  void (*group)(float* sums, const Rows& x, Packing p, const Weight& w, int64_t first, int64_t count, char* scratch);
};

constexpr size_t kSumsBytes = size_t(kRowBlock) * kSumsStride * sizeof(float);
constexpr size_t kLinearScratch = 512 << 10;
constexpr size_t kThreadScratch = kSumsBytes + kLinearScratch;  // of one thread, sums first; attention on tiles sets the size: a span of packed keys of kHeadDimMax

}  // namespace bg::cpu
