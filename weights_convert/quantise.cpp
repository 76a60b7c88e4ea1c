// See quantise.h. Four floats at a time, so that any compiler makes vectors of it; sums are in the order of the lanes.
#include "weights_convert/quantise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/blocks.h"
#include "weights_convert/elements.h"

namespace bg {
namespace {

typedef float F4 __attribute__((vector_size(16)));

F4 splat(float a) { return F4{a, a, a, a}; }
float lanes(F4 a) { return (a[0] + a[1]) + (a[2] + a[3]); }

// v to the nearest integer inside [low, high]. Adding 1.5·2^23 leaves no place for a fraction.
F4 code(F4 v, float low, float high) {
  v = v < splat(low) ? splat(low) : v;
  v = v > splat(high) ? splat(high) : v;
  const F4 magic = splat(12582912.0f);
  return (v + magic) - magic;
}

uint16_t f16_bits(float f) {
  uint16_t h = 0;
  convert_elements(&h, Type::f16, &f, Type::f32, 1);
  return h;
}
float to_f16(float f) { return f16_to_float(f16_bits(f)); }
// The smallest f16 that is not below f ≥ 0.
float up_to_f16(float f) {
  const uint16_t h = f16_bits(f);
  return f16_to_float(h) < f ? f16_to_float(uint16_t(h + 1)) : f16_to_float(h);
}

// Codes q from Low to High, x ≈ s·q − m.
template <int N, int Low, int High>
struct Sub {
  F4 x[N / 4];
  float sum = 0, square = 0, low = 0, high = 0;  // Σx, Σx², and the range of the values and 0
  float s = 0, m = 0;                            // the best scale and minimum before they become integers

  struct Sums {
    float q, qq, qx;  // Σq, Σq², Σq·x
  };

  void read(const float* values) {
    std::memcpy(x, values, sizeof x);
    F4 total = {}, squares = {};
    for (const F4& v : x) total += v, squares += v * v;
    sum = lanes(total), square = lanes(squares);
    for (int i = 0; i < N; ++i) low = std::min(low, values[i]), high = std::max(high, values[i]);
  }
  F4 codes(int i, float inverse, float shift) const { return code((x[i] + splat(shift)) * splat(inverse), Low, High); }
  Sums sums(float inverse, float shift) const {
    F4 q1 = {}, q2 = {}, qx = {};
    for (int i = 0; i < N / 4; ++i) {
      const F4 q = codes(i, inverse, shift);
      q1 += q, q2 += q * q, qx += q * x[i];
    }
    return {lanes(q1), lanes(q2), lanes(qx)};
  }
  // Σ(x − (scale·q − minimum))² with the nearest codes
  float error(float scale, float minimum) const {
    const float inverse = scale != 0 ? 1 / scale : 0;
    F4 sum_of_squares = {};
    for (int i = 0; i < N / 4; ++i) {
      const F4 r = x[i] - (codes(i, inverse, minimum) * splat(scale) - splat(minimum));
      sum_of_squares += r * r;
    }
    return lanes(sum_of_squares);
  }
};

// Ranges below this are no range: no step that f16 can hold divides them.
constexpr float kSmallestRange = 0x1p-26f;

int nearest(float ratio, int low, int high) { return int(std::lrint(std::min(std::max(ratio, float(low)), float(high)))); }

// ---- Q8_0 ---------------------------------------------------------------------------------------------------------------------------

void quantise_q8_0(BlockQ8_0* y, const float* x) {
  Sub<32, -127, 127> sub;
  sub.read(x);
  y->d = f16_bits(std::max(sub.high, -sub.low) / 127);
  const float d = f16_to_float(y->d), inverse = d != 0 ? 1 / d : 0;
  for (int i = 0; i < 8; ++i) {
    const F4 q = sub.codes(i, inverse, 0);
    for (int k = 0; k < 4; ++k) y->q[4 * i + k] = int8_t(q[k]);
  }
}

// ---- Q4_K ---------------------------------------------------------------------------------------------------------------------------

using Sub4 = Sub<32, 0, 15>;

struct Choice4 {
  float d = 0, dmin = 0, error = INFINITY;
  int s[8] = {}, m[8] = {};
};

// The least squares for the codes that (1/inverse, shift) gives, kept in `sub` where they are better than `best`:
//   s = (n·Σqx − Σq·Σx)/(n·Σq² − (Σq)²),  m = (s·Σq − Σx)/n,  or s = Σqx/Σq² where m would be negative.
bool improve(Sub4& sub, float inverse, float shift, float& best) {
  const Sub4::Sums q = sub.sums(inverse, shift);
  const float determinant = 32 * q.qq - q.q * q.q;
  if (!(determinant > 0)) return false;
  float s = (32 * q.qx - q.q * sub.sum) / determinant, m = (s * q.q - sub.sum) / 32;
  if (m < 0) m = 0, s = q.qx / q.qq;
  const float error = sub.square - 2 * s * q.qx + 2 * m * sub.sum + s * s * q.qq - 2 * s * m * q.q + 32 * m * m;
  if (!(s > 0 && error < best - 2e-6f * sub.square)) return false;  // less is the rounding of these sums
  best = error, sub.s = s, sub.m = m;
  return true;
}

// Scale and minimum of one sub-block alone: for steps a little narrower and wider than range/15 that start below, at and above the smallest value, the
// least squares; then new codes for the best of them as long as that helps. The starts matter where one value is far from the others, which then share
// a few codes.
void fit(Sub4& sub) {
  const float range = sub.high - sub.low;
  sub.s = 0, sub.m = std::max(0.0f, -sub.sum / 32);
  if (range < kSmallestRange) return;
  float best = sub.error(0, sub.m);
  improve(sub, 15 / range, -sub.low, best);
  for (int k = 0; k <= 11; ++k) {
    const float inverse = (12.0f + 0.5f * float(k)) / range;
    for (const float offset : {-0.3f, 0.0f, 0.3f}) improve(sub, inverse, -sub.low + offset / inverse, best);
  }
  for (int i = 0; i < 6 && sub.s > 0 && improve(sub, 1 / sub.s, sub.m, best); ++i) {
  }
}

// For the given d and dmin: the integers of each sub-block, tried around the free scale, and for each scale the minimum that fits it.
void choose_integers(Choice4& c, const Sub4* subs) {
  c.error = 0;
  for (int b = 0; b < 8; ++b) {
    const Sub4& sub = subs[b];
    const int middle = c.d > 0 ? nearest(sub.s / c.d, 0, 63) : 0;
    const int reach = middle < 12 ? 3 : 1;  // small integers are coarse: their neighbours are far apart, and the best scale goes with the minimum
    float best = INFINITY;
    for (int s = std::max(middle - reach, 0); s <= std::min(middle + reach, 63); ++s) {
      const float scale = c.d * float(s);
      const float m = scale > 0 ? (scale * sub.sums(1 / scale, sub.m).q - sub.sum) / 32 : -sub.sum / 32;
      const int below = c.dmin > 0 ? nearest(std::floor(m / c.dmin), 0, 63) : 0;
      for (int k = std::max(below - reach / 2, 0); k <= std::min(below + 1 + reach / 2, 63); ++k) {
        const float error = sub.error(scale, c.dmin * float(k));
        if (error < best) best = error, c.s[b] = s, c.m[b] = k;
      }
    }
    c.error += best;
  }
}

// The d and dmin that fit the codes of a choice best: least squares of x ≈ d·(s·q) − dmin·m over the block.
void refit(float& d, float& dmin, const Choice4& c, const Sub4* subs) {
  double aa = 0, am = 0, mm = 0, ax = 0, mx = 0;  // a = s·q
  for (int b = 0; b < 8; ++b) {
    const double s = c.s[b], m = c.m[b];
    const float scale = c.d * float(c.s[b]);
    const Sub4::Sums q = subs[b].sums(scale > 0 ? 1 / scale : 0, c.dmin * float(c.m[b]));
    aa += s * s * q.qq, am += s * m * q.q, mm += m * m * 32, ax += s * q.qx, mx += m * subs[b].sum;
  }
  const double determinant = aa * mm - am * am;
  if (determinant > 0) {
    d = to_f16(float((ax * mm - mx * am) / determinant));
    dmin = to_f16(float((ax * am - mx * aa) / determinant));
  } else if (aa > 0) {
    d = to_f16(float(ax / aa));
  }
}

// Codes that cover each sub-block's range: the bound of quantise.h.
Choice4 covering(const Sub4* subs) {
  Choice4 c;
  float most = 0, widest = 0;
  for (int b = 0; b < 8; ++b) most = std::max(most, -subs[b].low), widest = std::max(widest, subs[b].high - subs[b].low);
  c.dmin = up_to_f16(most / 63);
  c.d = up_to_f16((widest + c.dmin) / 945);
  c.error = 0;
  for (int b = 0; b < 8; ++b) {
    c.m[b] = c.dmin > 0 ? nearest(std::ceil(-subs[b].low / c.dmin), 0, 63) : 0;
    c.s[b] = c.d > 0 ? nearest(std::ceil((subs[b].high - subs[b].low + c.dmin) / (15 * c.d)), 0, 63) : 0;
    c.error += subs[b].error(c.d * float(c.s[b]), c.dmin * float(c.m[b]));
  }
  return c;
}

Choice4 search(Sub4* subs) {
  float largest = 0, most = 0;
  for (int b = 0; b < 8; ++b) {
    fit(subs[b]);
    largest = std::max(largest, subs[b].s), most = std::max(most, subs[b].m);
  }
  Choice4 best = covering(subs), c;
  c.d = to_f16(largest / 63), c.dmin = to_f16(most / 63);
  for (int round = 0; round < 3; ++round) {
    choose_integers(c, subs);
    if (c.error < best.error) best = c;
    float d = c.d, dmin = c.dmin;
    refit(d, dmin, c, subs);
    if (!(d > 0) || dmin < 0 || (d == c.d && dmin == c.dmin)) break;
    c.d = d, c.dmin = dmin;
  }
  return best;
}

void quantise_q4_k(BlockQ4_K* y, const float* x) {
  Sub4 subs[8];
  for (int b = 0; b < 8; ++b) subs[b].read(x + 32 * b);
  const Choice4 c = search(subs);
  std::memset(y, 0, sizeof *y);
  y->d = f16_bits(c.d), y->dmin = f16_bits(c.dmin);
  for (int b = 0; b < 8; ++b) {  // the inverse of q4_k_scale
    if (b < 4) {
      y->scales[b] = uint8_t(y->scales[b] | c.s[b]);
      y->scales[b + 4] = uint8_t(y->scales[b + 4] | c.m[b]);
    } else {
      y->scales[b + 4] = uint8_t((c.s[b] & 15) | ((c.m[b] & 15) << 4));
      y->scales[b - 4] = uint8_t(y->scales[b - 4] | ((c.s[b] >> 4) << 6));
      y->scales[b] = uint8_t(y->scales[b] | ((c.m[b] >> 4) << 6));
    }
    const float scale = c.d * float(c.s[b]), inverse = scale > 0 ? 1 / scale : 0;
    for (int i = 0; i < 8; ++i) {
      const F4 q = subs[b].codes(i, inverse, c.dmin * float(c.m[b]));
      for (int k = 0; k < 4; ++k) {
        uint8_t& byte = y->q[32 * (b / 2) + 4 * i + k];
        byte = uint8_t(byte | (int(q[k]) << (b % 2 == 0 ? 0 : 4)));
      }
    }
  }
}

// ---- Q6_K ---------------------------------------------------------------------------------------------------------------------------

using Sub6 = Sub<16, -32, 31>;

struct Choice6 {
  float d = 0, error = INFINITY;
  int s[16] = {};
};

// The scale of one sub-block alone, of either sign: the largest value near −32 for some widths of the steps, then s = Σqx/Σq².
void fit(Sub6& sub) {
  sub.s = 0;
  const float extreme = sub.high > -sub.low ? sub.high : sub.low;
  if (std::fabs(extreme) < kSmallestRange) return;
  float most = 0;  // of (Σqx)²/Σq², by which Σ(x − s·q)² is below Σx²
  const auto improve = [&](float width) {
    const Sub6::Sums q = sub.sums(-width / extreme, 0);
    if (q.qq > 0 && q.qx * q.qx / q.qq > most + 2e-7f * sub.square) most = q.qx * q.qx / q.qq, sub.s = q.qx / q.qq;  // less is rounding
  };
  improve(32);
  for (int k = 0; k <= 20; ++k) improve(29.0f + 0.2f * float(k));
}

void choose_integers(Choice6& c, const Sub6* subs) {
  c.error = 0;
  for (int b = 0; b < 16; ++b) {
    const int middle = nearest(subs[b].s / c.d, -128, 127);
    float best = INFINITY;
    for (int s = std::max(middle - 2, -128); s <= std::min(middle + 2, 127); ++s) {
      const float error = subs[b].error(c.d * float(s), 0);
      if (error < best) best = error, c.s[b] = s;
    }
    c.error += best;
  }
}

float refit(const Choice6& c, const Sub6* subs) {
  double aa = 0, ax = 0;  // a = s·q
  for (int b = 0; b < 16; ++b) {
    const float scale = c.d * float(c.s[b]);
    const Sub6::Sums q = subs[b].sums(scale != 0 ? 1 / scale : 0, 0);
    aa += double(c.s[b]) * c.s[b] * q.qq, ax += double(c.s[b]) * q.qx;
  }
  return aa > 0 ? to_f16(float(ax / aa)) : 0;
}

Choice6 covering(const Sub6* subs) {
  Choice6 c;
  float most = 0;
  for (int b = 0; b < 16; ++b) most = std::max({most, subs[b].high, -subs[b].low});
  c.d = up_to_f16(most / 3937);
  c.error = 0;
  for (int b = 0; b < 16; ++b) {
    c.s[b] = c.d > 0 ? nearest(std::ceil(std::max(subs[b].high, -subs[b].low) / (31 * c.d)), 0, 127) : 0;
    c.error += subs[b].error(c.d * float(c.s[b]), 0);
  }
  return c;
}

Choice6 search(Sub6* subs) {
  float largest = 0;
  for (int b = 0; b < 16; ++b) {
    fit(subs[b]);
    if (std::fabs(subs[b].s) > std::fabs(largest)) largest = subs[b].s;
  }
  Choice6 best = covering(subs), c;
  c.d = to_f16(largest / -128);
  for (int round = 0; round < 3 && c.d != 0; ++round) {
    choose_integers(c, subs);
    if (c.error < best.error) best = c;
    const float d = refit(c, subs);
    if (d == c.d) break;
    c.d = d;
  }
  return best;
}

void quantise_q6_k(BlockQ6_K* y, const float* x) {
  Sub6 subs[16];
  for (int b = 0; b < 16; ++b) subs[b].read(x + 16 * b);
  const Choice6 c = search(subs);
  std::memset(y, 0, sizeof *y);
  y->d = f16_bits(c.d);
  for (int b = 0; b < 16; ++b) {
    y->s[b] = int8_t(c.s[b]);
    const float scale = c.d * float(c.s[b]), inverse = scale != 0 ? 1 / scale : 0;
    for (int i = 0; i < 16; ++i) {  // the inverse of q6_k_code
      const int q = int(subs[b].codes(i / 4, inverse, 0)[i % 4]) + 32, e = 16 * b + i, half = e / 128, k = e / 32 % 4, l = e % 32;
      uint8_t &low = y->low[64 * half + 32 * (k % 2) + l], &high = y->high[32 * half + l];
      low = uint8_t(low | ((q & 15) << (k < 2 ? 0 : 4)));
      high = uint8_t(high | ((q >> 4) << (2 * k)));
    }
  }
}

}  // namespace

void quantise(void* y, Type to, const float* x, int64_t n) {
  const int64_t step = block_values(to);
  for (int64_t i = 0; i < n / step; ++i, x += step) {
    if (to == Type::q8_0) quantise_q8_0(static_cast<BlockQ8_0*>(y) + i, x);
    else if (to == Type::q4_k) quantise_q4_k(static_cast<BlockQ4_K*>(y) + i, x);
    else quantise_q6_k(static_cast<BlockQ6_K*>(y) + i, x);
  }
}

}  // namespace bg
