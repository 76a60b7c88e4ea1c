// Quantised weights: the public block layouts Q8_0, Q4_K and Q6_K (little endian, as in GGUF files), and the float that each stored value is.
// In: a block. Out: its floats. Not here: how numbers are quantised (weights_convert/quantise.h), products (the float chains of linear).
// Every product below is exact in float: a f16 (11 bits) times a scale (6 or 8 bits) times a small integer has at most 24 bits. Only Q4_K's subtraction
// rounds. So neither order nor a fused multiply-add can change a value, and all of kernels/ sees the same floats.
// Internal linkage for the reason given in half.h; only C headers.
#pragma once
#include <stdint.h>

#include "kernels/half.h"

namespace bg {

// 32 values: x_i = d·q_i
struct BlockQ8_0 {
  uint16_t d;    // f16
  int8_t q[32];
};

// 256 values in eight sub-blocks b of 32: x = d·s_b·q − dmin·m_b, q 0 … 15, s and m 0 … 63
struct BlockQ4_K {
  uint16_t d, dmin;    // f16
  uint8_t scales[12];  // s_b and m_b, six bits each (q4_k_scale)
  uint8_t q[128];      // byte i of 32-byte chunk c: value i of sub-block 2c in the low half, of 2c + 1 in the high half
};

// 256 values in sixteen sub-blocks of 16: x_e = d·s_{e/16}·(q_e − 32), q 0 … 63
struct BlockQ6_K {
  uint8_t low[128];  // the low four bits of q,
  uint8_t high[64];  // and the high two (q6_k_code)
  int8_t s[16];
  uint16_t d;        // f16
};

static_assert(sizeof(BlockQ8_0) == 34 && alignof(BlockQ8_0) == 2, "Q8_0 as in the file");
static_assert(sizeof(BlockQ4_K) == 144 && alignof(BlockQ4_K) == 2, "Q4_K as in the file");
static_assert(sizeof(BlockQ6_K) == 210 && alignof(BlockQ6_K) == 2, "Q6_K as in the file");

// s_b and m_b. For b < 4: the low six bits of bytes b and b + 4. Else: four bits each from byte b + 4, the two above from bytes b − 4 and b.
static inline void q4_k_scale(const uint8_t* scales, int b, int* s, int* m) {
  if (b < 4) {
    *s = scales[b] & 63;
    *m = scales[b + 4] & 63;
  } else {
    *s = (scales[b + 4] & 15) | ((scales[b - 4] >> 6) << 4);
    *m = (scales[b + 4] >> 4) | ((scales[b] >> 6) << 4);
  }
}

// q_e. Half h of 128 values has 64 bytes of `low` and 32 of `high`; its value 32·k + l takes bits 2k, 2k + 1 of high[l], and for k = 0 … 3 the low half
// of low[l], of low[l + 32], the high half of low[l], of low[l + 32].
static inline int q6_k_code(const BlockQ6_K* b, int e) {
  const int half = e >> 7, k = (e >> 5) & 3, l = e & 31;
  const int low = b->low[64 * half + 32 * (k & 1) + l], high = b->high[32 * half + l];
  return ((k < 2 ? low : low >> 4) & 15) | (((high >> (2 * k)) & 3) << 4);
}

// One value of a block.
static inline float value_q8_0(const BlockQ8_0* b, int i) { return f16_to_float(b->d) * float(b->q[i]); }
static inline float value_q4_k(const BlockQ4_K* b, int i) {
  const int sub = i / 32, byte = b->q[32 * (sub / 2) + i % 32];
  int s, m;
  q4_k_scale(b->scales, sub, &s, &m);
  return f16_to_float(b->d) * float(s) * float(sub % 2 == 0 ? byte & 15 : byte >> 4) - f16_to_float(b->dmin) * float(m);
}
static inline float value_q6_k(const BlockQ6_K* b, int i) { return f16_to_float(b->d) * float(b->s[i / 16]) * float(q6_k_code(b, i) - 32); }

// n values, whole blocks: the same floats, a block at a time.
static inline void floats_of_q8_0(float* y, const BlockQ8_0* b, int64_t n) {
  for (; n > 0; n -= 32, y += 32, ++b) {
    const float d = f16_to_float(b->d);
    for (int i = 0; i < 32; ++i) y[i] = d * float(b->q[i]);
  }
}

static inline void floats_of_q4_k(float* y, const BlockQ4_K* b, int64_t n) {
  for (; n > 0; n -= 256, y += 256, ++b) {
    const float d = f16_to_float(b->d), dmin = f16_to_float(b->dmin);
    for (int c = 0; c < 4; ++c) {
      int s0, m0, s1, m1;
      q4_k_scale(b->scales, 2 * c, &s0, &m0);
      q4_k_scale(b->scales, 2 * c + 1, &s1, &m1);
      const float low = d * float(s0), low_min = dmin * float(m0), high = d * float(s1), high_min = dmin * float(m1);
      const uint8_t* q = b->q + 32 * c;
      for (int i = 0; i < 32; ++i) y[64 * c + i] = low * float(q[i] & 15) - low_min;
      for (int i = 0; i < 32; ++i) y[64 * c + 32 + i] = high * float(q[i] >> 4) - high_min;
    }
  }
}

static inline void floats_of_q6_k(float* y, const BlockQ6_K* b, int64_t n) {
  for (; n > 0; n -= 256, y += 256, ++b) {
    const float d = f16_to_float(b->d);
    for (int half = 0; half < 2; ++half) {
      const uint8_t *low = b->low + 64 * half, *high = b->high + 32 * half;
      float* to = y + 128 * half;
      for (int l = 0; l < 32; ++l) {
        const int8_t* s = b->s + 8 * half + l / 16;
        to[l] = d * float(s[0]) * float(((low[l] & 15) | ((high[l] & 3) << 4)) - 32);
        to[l + 32] = d * float(s[2]) * float(((low[l + 32] & 15) | (((high[l] >> 2) & 3) << 4)) - 32);
        to[l + 64] = d * float(s[4]) * float(((low[l] >> 4) | (((high[l] >> 4) & 3) << 4)) - 32);
        to[l + 96] = d * float(s[6]) * float(((low[l + 32] >> 4) | (((high[l] >> 6) & 3) << 4)) - 32);
      }
    }
  }
}

}  // namespace bg
