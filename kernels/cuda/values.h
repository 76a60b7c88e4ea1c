// Stored weights and caches as floats, one value at a time: the equations of kernels/blocks.h and the places of kernels/panels.h, for kernels that read few
// values or must read every layout. What reads many has its own loads (linear.cu, attention.cu). Included by *.cu.
#pragma once
#include "kernels/cuda/cuda.h"
#include "kernels/panels.h"

namespace bg::BG_CUDA {

__device__ inline uint16_t half_at(const unsigned char* p) { return uint16_t(p[0] | p[1] << 8); }  // rows lie at any address

// w(n, j): value j of row n, the float that kernels/blocks.h gives.
template <Type T, Layout L>
struct Reader {
  const unsigned char* data;
  int64_t cols;
  size_t pitch;  // bytes of a row, or of a panel

  __device__ float operator()(int64_t n, int64_t j) const {
    const unsigned char* base = L == Layout::rows ? data + size_t(n) * pitch : data + size_t(n / kPanelRows) * pitch;
    const int r = int(n % kPanelRows);
    if constexpr (T == Type::f32) {
      const unsigned char* p = L == Layout::rows ? base + 4 * j : base + 64 * j + 4 * r;
      return simt::float_of(uint32_t(p[0]) | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24);
    } else if constexpr (T == Type::f16) {
      return simt::f16_to_float(half_at(L == Layout::rows ? base + 2 * j : base + j / 2 * 64 + j % 2 * 32 + 2 * r));
    } else if constexpr (T == Type::bf16) {
      return simt::bf16_low(half_at(L == Layout::rows ? base + 2 * j : base + j / 2 * 64 + 4 * r + 2 * (j % 2)));
    } else if constexpr (T == Type::q8_0) {
      if constexpr (L == Layout::rows) {
        const unsigned char* b = base + j / 32 * 34;
        return simt::f16_to_float(half_at(b)) * float(static_cast<signed char>(b[2 + j % 32]));
      } else {
        const unsigned char* b = base + j / 64 * 1088;
        return simt::f16_to_float(half_at(b + 1024 + j % 64 / 32 * 32 + 2 * r)) * float(int(b[j % 64 / 4 * 64 + 4 * r + j % 4]) - 128);
      }
    } else if constexpr (T == Type::q4_k) {
      const int sub = int(j % 256 / 32), i = int(j % 32);
      const unsigned char* b = base + j / 256 * (L == Layout::rows ? 144 : 2304);
      uint32_t scales[3];  // bytes 0 … 3, 4 … 7, 8 … 11
      for (int k = 0; k < 3; ++k) {
        const unsigned char* p = L == Layout::rows ? b + 4 + 4 * k : b + 64 * (1 + k) + 4 * r;
        scales[k] = uint32_t(p[0]) | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24;
      }
      const auto byte = [&](int k) { return int(scales[k / 4] >> (8 * (k % 4)) & 255); };
      const int s = sub < 4 ? byte(sub) & 63 : (byte(sub + 4) & 15) | (byte(sub - 4) >> 6 << 4);
      const int m = sub < 4 ? byte(sub + 4) & 63 : (byte(sub + 4) >> 4) | (byte(sub) >> 6 << 4);
      const uint16_t d = half_at(L == Layout::rows ? b : b + 2 * r), dmin = half_at(L == Layout::rows ? b + 2 : b + 32 + 2 * r);
      const int code = L == Layout::rows ? b[16 + 32 * (sub / 2) + i] : b[256 + 64 * (8 * (sub / 2) + i / 4) + 4 * r + i % 4];
      return simt::f16_to_float(d) * float(s) * float(sub % 2 == 0 ? code & 15 : code >> 4) - simt::f16_to_float(dmin) * float(m);
    } else {
      const int e = int(j % 256), half = e / 128, k = e / 32 % 4, l = e % 32;
      if constexpr (L == Layout::rows) {
        const unsigned char* b = base + j / 256 * 210;
        const int low = b[64 * half + 32 * (k & 1) + l], high = b[128 + 32 * half + l];
        const int code = ((k < 2 ? low : low >> 4) & 15) | ((high >> (2 * k) & 3) << 4);
        return simt::f16_to_float(half_at(b + 208)) * float(static_cast<signed char>(b[192 + e / 16])) * float(code - 32);
      } else {
        const unsigned char* b = base + j / 256 * 3392;
        const int low = b[320 + 64 * (8 * (e / 64) + l / 4) + 4 * r + l % 4], high = b[2368 + 64 * (8 * half + l / 4) + 4 * r + l % 4];
        const int code = ((e % 64 < 32 ? low : low >> 4) & 15) | ((high >> (2 * k) & 3) << 4);
        return simt::f16_to_float(half_at(b + 2 * r)) * float(static_cast<signed char>(b[64 + 64 * (e / 64) + 4 * r + e / 16 % 4])) * float(code - 32);
      }
    }
  }
};

template <Type T, Layout L>
Reader<T, L> reader_of(const Weight& w) {
  return {static_cast<const unsigned char*>(w.data), w.cols, L == Layout::rows ? stored_bytes(T, w.cols) : panel_bytes(T, w.cols)};
}

// body(Reader<type, layout of w>)
template <class Body>
void with_reader(const Weight& w, const Body& body) {
  const auto in = [&]<Type T>() {
    if (w.layout == Layout::rows) return body(reader_of<T, Layout::rows>(w));
    return body(reader_of<T, Layout::panels>(w));
  };
  switch (w.type) {
    case Type::f16: return in.template operator()<Type::f16>();
    case Type::bf16: return in.template operator()<Type::bf16>();
    case Type::q8_0: return in.template operator()<Type::q8_0>();
    case Type::q4_k: return in.template operator()<Type::q4_k>();
    case Type::q6_k: return in.template operator()<Type::q6_k>();
    default: return in.template operator()<Type::f32>();
  }
}

// A block of a q8_0 cache, by a warp: lane i has value i. to: 34 bytes.
__device__ inline void store_q8_0(char* to, float value, int lane) {
  float most = fabsf(value);
  for (int o = 16; o > 0; o /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, most, o);
    most = most != most || most >= other ? most : other;  // a NaN stays, on all lanes
  }
  const uint16_t h = simt::float_to_f16(most / 127.0f);
  const float d = simt::f16_to_float(h), q = d > 0 ? rintf(value / d) : 0.0f;
  if (lane < 2) to[lane] = char(h >> (8 * lane) & 255);
  to[2 + lane] = char(q > 127 ? 127 : q < -127 ? -127 : q == q ? int(q) : 0);
}

}  // namespace bg::BG_CUDA
